"""What a ratio means: the whole interval decides, against the largest of three limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.resample import Ratio
from bench.verdict import Limits, judge, judge_memory


def ratio(middle, lo, hi):
    return Ratio(middle, lo, hi, p_value=0.0, noise_floor=0.0, log_draws=np.zeros(1))


def verdict(middle, lo, hi, *, bound=0.05, q_value=0.0):
    return judge(ratio(middle, lo, hi), bound=bound, q_value=q_value, confidence=0.95).verdict


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((1.20, 1.10, 1.30), "slower"),
        ((1.20, 1.04, 1.30), "ambiguous"),
        ((1.03, 1.01, 1.04), "same"),
        ((1.03, 1.01, 1.06), "ambiguous"),
        ((1.00, 0.90, 1.10), "ambiguous"),
        ((0.80, 0.75, 0.90), "faster"),
        ((0.80, 0.75, 0.96), "ambiguous"),
        ((0.97, 0.96, 1.00), "same"),
    ],
)
def test_the_whole_interval_has_to_lie_on_one_side_of_the_bound(found, expected):
    assert verdict(*found) == expected


def test_what_may_be_chance_among_many_cases_is_ambiguous():
    assert verdict(1.2, 1.1, 1.3, q_value=0.051) == "ambiguous"
    assert verdict(1.2, 1.1, 1.3, q_value=0.049) == "slower"
    assert verdict(0.8, 0.75, 0.9, q_value=0.051) == "ambiguous"
    assert verdict(1.0, 0.99, 1.01, q_value=1.0) == "same"


@given(st.floats(0.2, 5.0), st.floats(1.0, 1.5), st.floats(1.0, 1.5), st.floats(0.0, 0.5))
def test_twice_as_slow_is_judged_as_twice_as_fast(middle, below, above, bound):
    there = verdict(middle, middle / below, middle * above, bound=bound)
    back = verdict(1 / middle, 1 / (middle * above), below / middle, bound=bound)
    swapped = {"slower": "faster", "faster": "slower"}
    assert {there, swapped.get(there, there)} & {back}
    if there in swapped:
        assert back == swapped[there]


def test_the_bound_is_the_largest_of_three():
    limits = Limits(max_slowdown=0.03, floor_ms=0.002)
    assert limits.bound(0.01, 1.0) == 0.03
    assert limits.bound(0.08, 1.0) == 0.08
    assert limits.bound(0.01, 0.01) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (100.0, 104.9, "same"),
        (100.0, 105.1, "more"),
        (100.0, 94.8, "less"),
        (4.0, 4.9, "same"),
        (4.0, 5.1, "more"),
        (None, 5.1, "unknown"),
        (4.0, None, "unknown"),
    ],
)
def test_memory_has_a_share_and_a_floor(before, after, expected):
    assert judge_memory(before, after, Limits(max_memory=0.05, floor_mib=1.0)).verdict == expected


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"max_slowdown": -0.1}, "max_slowdown -0.1 is not a tolerance"),
        ({"max_memory": float("nan")}, "max_memory nan is not a tolerance"),
        ({"floor_ms": float("inf")}, "floor_ms inf is not a tolerance"),
        ({"metric": "speed"}, "metric 'speed' is unknown"),
        ({"confidence": 1.0}, "confidence 1 is outside"),
    ],
)
def test_limits_that_limit_nothing_are_refused(changes, wrong):
    with pytest.raises(UsageError, match=wrong):
        Limits(**changes)
