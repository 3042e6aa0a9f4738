"""Intervals against the binomial law, quantiles against numpy, labels against hand-made samples."""

import random

import numpy as np
import pytest
from scipy.stats import binom

from bench import stats


def test_median_of_even_count_is_the_mean_of_the_middle_two():
    assert stats.median([9.0, 1.0, 4.0, 2.0]) == 3.0


def test_median_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="median"):
        stats.median([])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("q", [0.0, 0.05, 0.31, 0.5, 0.95, 1.0])
def test_quantile_agrees_with_numpy(n, q):
    draw = random.Random(n)
    xs = [draw.gauss(3.0, 2.0) for _ in range(n)]
    assert stats.quantile(xs, q) == pytest.approx(float(np.quantile(xs, q)), rel=1e-12)


@pytest.mark.parametrize(("xs", "q"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.5)])
def test_quantile_refuses_what_has_no_quantile(xs, q):
    with pytest.raises(ValueError, match="quantile"):
        stats.quantile(xs, q)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [6, 7, 10, 11, 25, 70, 500, 3001])
def test_interval_is_the_narrowest_pair_of_order_statistics_that_covers(n, confidence):
    """The values 0..n-1 are their own ranks, so the coverage follows from the binomial law."""
    low, high = stats.median_interval(list(range(n)), confidence)
    assert low + high == n - 1
    if low > 0:
        assert 1 - 2 * binom.cdf(low, n, 0.5) >= confidence
    assert 1 - 2 * binom.cdf(low + 1, n, 0.5) < confidence


def test_interval_of_ten_is_second_to_ninth():
    """The textbook value: ranks 2 and 9 cover the median of ten with 97.9%."""
    assert stats.median_interval([5, 3, 9, 1, 7, 2, 8, 4, 6, 10]) == (2, 9)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_interval_of_too_few_values_is_their_range(n):
    assert stats.median_interval([float(i) for i in range(n)]) == (0.0, n - 1.0)


def test_interval_covers_the_true_median_of_a_skewed_law_as_often_as_promised():
    draw = random.Random(7)
    covered = 0
    for _ in range(800):
        low, high = stats.median_interval([draw.expovariate(1.0) for _ in range(31)])
        covered += low <= np.log(2.0) <= high
    assert 0.93 <= covered / 800 <= 0.99


@pytest.mark.parametrize(("xs", "confidence"), [([], 0.95), ([1.0], 0.0), ([1.0], 1.0)])
def test_interval_refuses_what_has_no_interval(xs, confidence):
    with pytest.raises(ValueError, match="interval"):
        stats.median_interval(xs, confidence)


def test_relative_half_width_takes_the_farther_end():
    xs = [9.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 13.0, 14.0]
    assert stats.relative_half_width(xs) == pytest.approx(0.3)


def test_relative_half_width_of_a_zero_median_is_zero():
    assert stats.relative_half_width([0.0, 0.0, 0.0]) == 0.0


def test_outliers_are_labelled_where_they_stand():
    xs = [1.00, 1.02, 5.0, 0.99, 1.01, 0.98, 0.2]
    assert stats.outlier_labels(xs) == [False, False, True, False, False, False, True]


def test_outlier_threshold_is_in_robust_standard_deviations():
    # MAD is 1, so sigma is 1.4826 and the threshold lies 5.189 away from the median 0
    xs = [-1.0, 1.0, -1.0, 1.0, 0.0, 5.1, -5.1, 5.3, -5.3]
    assert stats.outlier_labels(xs) == [False] * 7 + [True, True]


def test_a_lone_outlier_among_equal_values_is_labelled():
    assert stats.outlier_labels([2.0] * 30 + [2.5]) == [False] * 30 + [True]


def test_where_most_values_are_equal_ordinary_others_are_no_outliers():
    assert not any(stats.outlier_labels([2.0] * 6 + [2.1, 1.9, 2.1, 1.9]))


def test_equal_values_have_no_outlier():
    assert stats.outlier_labels([2.0, 2.0, 2.0]) == [False, False, False]
    assert stats.outlier_labels([]) == []


def test_clock_step_is_the_gap_between_values_that_repeat():
    assert stats.clock_step([4.0, 4.5, 4.0, 4.5, 5.5, 4.0, 4.5]) == pytest.approx(0.5)


def test_clock_step_of_values_that_do_not_repeat_is_unknown():
    assert stats.clock_step([4.0, 4.1, 4.3, 4.2, 4.1]) is None


def test_clock_step_of_one_value_that_always_returns_is_that_value():
    assert stats.clock_step([4.0] * 10) == 4.0
    assert stats.clock_step([4.0]) is None
