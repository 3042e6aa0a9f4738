"""Shifts of the last runs are named, ends like any other are not."""

import numpy as np
import pytest

from reports import change_points, late_shifts


def _histories(seed, *, number=10, runs=14, late=0, factor=1.0):
    """Noise of 1%; the last `late` runs of the first history are multiplied with `factor`."""
    rng = np.random.default_rng(seed)
    sigma = 0.01 * np.exp(rng.normal(0, 0.4, (number, 1)))
    values = np.exp(sigma * rng.normal(size=(number, runs)))
    if late:
        values[0, -late:] *= factor
    return values.tolist()


def _found(values, seed=0):
    return late_shifts.find(values, change_points.find(values, seed=seed), seed=seed)


@pytest.mark.parametrize("late", [1, 2])
def test_a_shift_is_found_and_says_how_large_it_is(late):
    covering = 0
    for seed in range(10):
        first, *others = _found(_histories(seed, late=late, factor=1.3), seed)
        assert first.index == 14 - late
        covering += first.lo < 1.3 < first.hi
        assert first.p_value < 0.01
        assert others == [None] * 9
    assert covering >= 8


def test_a_speed_up_is_below_one():
    assert _found(_histories(3, late=2, factor=0.7))[0].ratio == pytest.approx(0.7, rel=0.03)


def test_unchanged_histories_end_like_themselves():
    """One set in twenty may have a shift; of 30 sets more than 5 have with 2%."""
    assert sum(any(_found(_histories(100 + seed), seed)) for seed in range(30)) <= 5


def test_outliers_of_the_past_excuse_one_at_the_end():
    """A case that is slow every now and then is slow in the last run for no reason of its own."""
    values = _histories(5, number=1, runs=24)
    for run in (3, 8, 13, 18, 23):
        values[0][run] *= 1.3
    assert _found(values) == [None]


def test_a_shift_after_a_change_is_held_against_the_new_level():
    values = _histories(6, runs=20)
    for run in range(8, 20):
        values[0][run] *= 1.5
    values[0][19] *= 1.4
    assert [c.index for c in change_points.find(values)[0]] == [8]
    shift = _found(values)[0]
    assert shift.index == 19
    assert shift.ratio == pytest.approx(1.4, rel=0.04)


def test_short_histories_and_young_levels_have_no_shift():
    assert _found([[1.0, 1.0, 2.0], []]) == [None, None]
    values = _histories(7, runs=14)
    for run in range(8, 14):
        values[0][run] *= 2.0
    values[0][13] *= 1.5
    assert [c.index for c in change_points.find(values)[0]] == [8]
    assert _found(values)[0] is None


def test_a_shift_that_does_not_matter_is_not_named():
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 5e-4, (5, 16)))
    values[0, -1] *= 1.015
    values[1, -1] *= 1.05
    small, large, *_ = _found(values.tolist())
    assert small is None
    assert large.index == 15
