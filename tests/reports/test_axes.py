"""Ticks and limits of logarithmic axes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import units
from reports import axes

POSITIVE = st.floats(min_value=1e-4, max_value=1e7)


def test_limits_surround_the_values_and_noise_stays_small():
    low, high = axes.limits([1.0, 100.0])
    assert low < 1.0
    assert high > 100.0
    low, high = axes.limits([10.0, 10.1])
    assert high / low >= axes.MIN_FACTOR
    assert math.sqrt(low * high) == pytest.approx(math.sqrt(10.0 * 10.1))


def test_limits_without_values_are_still_limits():
    assert axes.limits([]) == (1.0, 10.0)
    assert axes.limits([0.0, -1.0]) == (1.0, 10.0)


def test_stretching_gives_the_share_to_one_end():
    low, high = axes.stretch(1.0, 10.0, 0.5, at_top=True)
    assert (low, high) == pytest.approx((1.0, 100.0))
    low, high = axes.stretch(1.0, 10.0, 0.5, at_top=False)
    assert (low, high) == pytest.approx((0.1, 10.0))


@given(POSITIVE, st.floats(min_value=axes.MIN_FACTOR, max_value=1e6))
def test_every_value_axis_has_a_few_ticks_inside_its_limits(low, factor):
    high = low * factor
    for ticks in (axes.decimal_ticks(low, high), axes.binary_ticks(low, high)):
        assert 2 <= len(ticks) <= 8
        assert ticks == sorted(set(ticks))
        assert all(low * 0.999 <= t <= high * 1.001 for t in ticks)


def test_a_short_axis_still_has_ticks_to_read_values_from():
    assert axes.decimal_ticks(0.37, 1.27) == pytest.approx([0.4, 0.5, 0.6, 0.8, 1.0, 1.2])


def test_lengths_are_their_own_ticks():
    assert axes.length_ticks([4096, 1024, 4096]) == [1024, 4096]
    assert axes.length_ticks([2048]) == [2048]
    assert axes.length_ticks([]) == []
    assert axes.length_labels([512, 1024, 65536]) == ["512", "1k", "64k"]


def test_crowded_lengths_are_thinned_but_keep_the_largest():
    ticks = axes.length_ticks([1024 + 64 * i for i in range(100)])
    assert len(ticks) <= axes.MAX_LENGTH_TICKS + 1
    assert ticks[-1] == 1024 + 64 * 99


def test_tick_labels_carry_no_idle_zeros():
    assert axes.labels([0.1, 1.5, 20.0], units.significant) == ["0.1", "1.5", "20"]
    assert axes.labels([1024.0, 512.0], units.memory) == ["1 GiB", "512 MiB"]
    assert axes.labels([0.5, 10.0], units.ratio) == ["0.5x", "10x"]
    assert axes.labels([200000.0, 1e6], units.rate) == ["200k", "1M"]
