"""The centre of several rounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.rounds import centre_ms, trimmed_mean


@given(st.lists(st.floats(-50, 50), min_size=10, max_size=10))
def test_the_centre_of_ten_rounds_is_scipys_trimmed_mean(values):
    assert trimmed_mean(np.array(values)) == pytest.approx(stats.trim_mean(values, 0.1), abs=1e-9)


def test_the_centre_counts_fractions_of_rounds():
    assert trimmed_mean(np.array([1000.0, 4.0, 2.0, 8.0, 0.0])) == pytest.approx(
        (0 + 1000) / 8 + (2 + 4 + 8) / 4
    )
    assert trimmed_mean(np.array([3.0])) == 3.0
    assert trimmed_mean(np.array([3.0, 5.0])) == 4.0


def test_the_latency_of_rounds_is_as_far_from_twice_as_from_half():
    assert centre_ms([1.0, 4.0]) == pytest.approx(2.0)
    assert centre_ms([3.0]) == pytest.approx(3.0)
