"""What a ratio means: the whole interval decides, against the largest of three limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.resample import Ratio
from bench.verdict import MUST_SEE, Limits, detectable, judge, judge_memory


def ratio(middle, lo, hi):
    return Ratio(middle, lo, hi, p_value=0.0, noise_floor=0.0, log_draws=np.zeros(1))


def judged(middle, lo, hi, *, bound=0.05, q_value=0.0, must_see=9.0):
    found = ratio(middle, lo, hi)
    return judge(
        found,
        bound=bound,
        q_value=q_value,
        confidence=0.95,
        detectable=detectable(found, bound, 0.95),
        must_see=must_see,
    )


def verdict(*found, **options):
    return judged(*found, **options).verdict


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


@pytest.mark.parametrize("bound", [0.05, 30.0])
def test_what_noise_hides_is_not_the_same_however_wide_the_bound(bound):
    found = judged(2.565, 0.9, 7.3, bound=bound, must_see=0.2)
    assert found.verdict == "ambiguous"
    assert found.reason == "too noisy to tell: a slow-down of 20% could have stayed hidden"
    assert verdict(1.0, 0.99, 1.01, bound=0.05, must_see=0.2) == "same"


def test_a_difference_beyond_the_noise_counts_however_large_the_noise():
    assert verdict(9.0, 5.0, 16.0, bound=1.0, must_see=0.2) == "slower"
    assert verdict(1 / 9, 1 / 16, 1 / 5, bound=1.0, must_see=0.2) == "faster"


def test_what_has_to_be_visible_depends_on_the_device_and_on_what_is_tolerated():
    limits = Limits(max_slowdown=0.02, floor_ms=0.0)
    assert [limits.visible(device, 1.0) for device in ("cuda", "cpu")] == [0.1, 0.2]
    assert limits.visible(None, 1.0) == max(MUST_SEE.values())
    assert Limits(max_slowdown=0.15).visible("cuda", 1.0) == pytest.approx(0.3)
    assert Limits(must_see=0.07).visible("cuda", 1.0) == 0.07
    assert Limits(must_see=0.07, max_slowdown=0.15).visible("cuda", 1.0) == pytest.approx(0.3)
    assert Limits(must_see=0.07, floor_ms=0.002).visible("cuda", 0.01) == pytest.approx(0.4)


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
        ({"must_see": -0.2}, "must_see -0.2 is not a tolerance"),
        ({"confidence": 1.0}, "confidence 1 is outside"),
    ],
)
def test_limits_that_limit_nothing_are_refused(changes, wrong):
    with pytest.raises(UsageError, match=wrong):
        Limits(**changes)
