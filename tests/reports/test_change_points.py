"""Changes that are known are found, and noise is left alone."""

import math

import numpy as np
import pytest

from bench.recorded_noise import recorded
from reports import change_points


def _noise(rng, kind, number, runs):
    """Logarithms; a sigma of 1% that differs from history to history."""
    sigma = 0.01 * np.exp(rng.normal(0, 0.5, (number, 1)))
    if kind == "heavy":
        return sigma * rng.standard_t(3, (number, runs)) / math.sqrt(3)
    drawn = rng.normal(size=(number, runs))
    if kind == "drifting":
        for i in range(1, runs):
            drawn[:, i] = 0.5 * drawn[:, i - 1] + math.sqrt(0.75) * drawn[:, i]
    return sigma * drawn


def _made(seed, *, kind="normal", number=5, runs=16, at=None, factor=1.0, changed=1):
    """Histories of which the first `changed` are multiplied with `factor` from `at` on."""
    rng = np.random.default_rng(seed)
    values = np.exp(_noise(rng, kind, number, runs)) * rng.lognormal(0, 2, (number, 1))
    if at is not None:
        values[:changed, at:] *= factor
    return values.tolist()


@pytest.mark.parametrize("kind", ["normal", "heavy", "drifting"])
def test_unchanged_histories_are_left_alone(kind):
    """At most one set in twenty may have a mark; of 30 sets more than 5 have with 2%."""
    marked = sum(
        any(change_points.find(_made(100 + seed, kind=kind), seed=seed)) for seed in range(30)
    )
    assert marked <= 5


def _recorded_runs(noise, seed, *, number=8, runs=14):
    """Histories as a machine would make them: one visit to each case in each run."""
    model, rng = recorded(noise), np.random.default_rng(seed)
    cases = model.cases(rng, number)
    values = np.empty((number, runs))
    for run in range(runs):
        for visit in model.visits(rng, cases, 1):
            values[int(visit.case), run] = np.median(visit.samples_ms)
    return values


@pytest.mark.parametrize(("noise", "factor"), [("h200", 1.05), ("cpu", 1.4)])
def test_a_change_is_found_in_noise_that_was_recorded(noise, factor):
    marked = 0
    for seed in range(6):
        values = _recorded_runs(noise, seed)
        marked += any(change_points.find(values.tolist(), seed=seed))
        values[0, 8:] *= factor
        found = change_points.find(values.tolist(), seed=seed)[0]
        assert min(abs(c.index - 8) for c in found) <= 1
    assert marked <= 1


def test_a_clear_change_is_found_where_it_is():
    found = [change_points.find(_made(s, at=9, factor=1.2), seed=s) for s in range(20)]
    at_place = [c for f in found for c in f[0] if c.index == 9]
    assert len(at_place) >= 19
    covering = sum(c.lo <= 1.2 <= c.hi for c in at_place)
    assert covering >= 17
    assert all(c.p_value < 0.01 for c in at_place)
    assert sum(len(f) for sets in found for f in sets[1:]) <= 3


@pytest.mark.parametrize("at", [3, 13])
def test_three_runs_on_a_side_are_enough(at):
    found = [change_points.find(_made(s, at=at, factor=1.3), seed=s)[0] for s in range(5)]
    assert all([c.index for c in f] == [at] for f in found)


def test_two_runs_are_not():
    for seed in range(5):
        changes = change_points.find(_made(seed, at=14, factor=1.3), seed=seed)[0]
        assert 14 not in [c.index for c in changes]


def test_a_speed_up_is_a_change_below_one():
    (change,) = change_points.find(_made(3, at=8, factor=0.5), seed=1)[0]
    assert change.index == 8
    assert change.lo < 0.5 < change.hi < 0.55


def test_up_and_down_again_are_two_changes():
    values = _made(4, runs=24)
    for i in range(8, 15):
        values[0][i] *= 1.25
    first, second = change_points.find(values, seed=1)[0]
    assert (first.index, second.index) == (8, 15)
    assert first.ratio == pytest.approx(1.25, rel=0.04)
    assert second.ratio == pytest.approx(1 / 1.25, rel=0.04)


def test_an_outlier_moves_nothing_and_is_named():
    values = _made(5)[0]
    values[6] *= 1.5
    values[-1] *= 1.5
    assert change_points.find([values, *_made(6)[1:]], seed=1)[0] == []
    assert [i for i, is_far in enumerate(change_points.outliers(values)) if is_far] == [6, 15]


def test_a_step_has_no_outlier():
    assert not any(change_points.outliers([1.0, 1.01, 0.99, 1.0, 2.0, 2.01, 1.99, 2.0]))


def test_a_change_that_does_not_matter_is_not_marked():
    rng = np.random.default_rng(7)
    values = np.exp(rng.normal(0, 1e-3, (3, 20)))
    values[0, 10:] *= 1.015
    values[1, 10:] *= 1.04
    small, large, none = change_points.find(values.tolist(), seed=1)
    assert small == none == []
    assert [c.index for c in large] == [10]


def test_one_changed_history_is_found_among_many():
    values = _made(8, number=40, runs=20, at=12, factor=1.15)
    found = change_points.find(values, seed=1)
    assert [c.index for c in found[0]] == [12]
    assert sum(map(len, found[1:])) == 0


def test_histories_of_different_lengths_are_searched_together():
    values = [*_made(9, runs=20, at=10, factor=1.3), *_made(10, runs=9), [1.0, 2.0], []]
    found = change_points.find(values, seed=1)
    assert [c.index for c in found[0]] == [10]
    assert found[-2:] == [[], []]
    assert len(found) == len(values)


def test_values_without_noise_are_no_trouble():
    changed, constant = change_points.find([[1.0] * 6 + [2.0] * 6, [3.0] * 12], seed=1)
    assert [(c.index, round(c.ratio, 6)) for c in changed] == [(6, 2.0)]
    assert constant == []


def test_the_same_histories_give_the_same_changes():
    values = _made(11, at=8, factor=1.1)
    assert change_points.find(values) == change_points.find(values)


def test_values_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="positive"):
        change_points.find([[1.0, 0.0, 2.0]])
