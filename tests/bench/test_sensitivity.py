"""How small a slow-down would have been found: as small as tried ones are."""

import numpy as np
import pandas as pd
import pytest

from bench.compare import compare
from bench.sensitivity import MOST_ROUNDS, advice, rounds_wanted, sensitivity
from bench.verdict import Limits
from tests.comparing import case_of, rows_of

CASE = case_of(3)
LIMITS = Limits(num_draws=400)


def compared(seed, *, slowdown=0.0, between=0.02, cases=(CASE,)):
    before = rows_of(cases, run="main", rounds=12, between=between, seed=2 * seed)
    after = rows_of(
        cases, run="now", rounds=9, between=between, latency_ms=1.0 + slowdown, seed=2 * seed + 1
    )
    return compare(before, after, LIMITS, seed=seed).cases


def test_a_slow_down_of_the_stated_size_is_found_about_95_times_in_100():
    stated = float(np.median([compared(seed)[0].detectable for seed in range(40)]))
    found = {
        share: sum(
            compared(100 + seed, slowdown=share * stated)[0].verdict == "slower"
            for seed in range(60)
        )
        for share in (0.5, 1.0)
    }
    assert found[1.0] >= 51
    assert found[0.5] <= 30


def test_quiet_cases_find_little_more_than_what_is_tolerated():
    (case,) = compared(3, between=1e-5)
    assert LIMITS.max_slowdown < case.detectable < 1.5 * LIMITS.max_slowdown


def test_the_noisiest_case_is_named():
    noise = {case_of(2): 0.001, case_of(3): 0.002, case_of(5): 0.05}
    before, after = (
        pd.concat(
            rows_of([case], run=run, between=between, seed=case.heads + len(run))
            for case, between in noise.items()
        )
        for run in ("main", "change")
    )
    found = sensitivity(compare(before, after, LIMITS).cases)
    assert found.worst_path == case_of(5).case_path
    assert found.median < 0.1 < found.worst


def test_without_a_compared_case_there_is_nothing_to_say():
    before = rows_of([CASE], timer="events")
    (case,) = compare(before, rows_of([CASE], run="new", timer="graph"), LIMITS).cases
    assert case.detectable is None
    assert sensitivity([case]) is None


def test_as_many_rounds_as_are_said_to_be_wanted_are_about_enough():
    """Of noise for which 9 rounds are far too few."""
    wanted = rounds_wanted([compared(seed, between=0.2)[0] for seed in range(9)])
    assert 30 <= wanted <= MOST_ROUNDS
    before, after = (
        rows_of([CASE], run=run, rounds=wanted, between=0.2, seed=seed)
        for run, seed in (("main", 3), ("now", 4))
    )
    (case,) = compare(before, after, LIMITS).cases
    assert 0.5 * case.must_see < case.detectable < 1.5 * case.must_see


def test_noise_that_no_bearable_number_of_rounds_overcomes_asks_for_none():
    assert rounds_wanted(compared(1, between=1.5)) is None


def test_rounds_too_few_to_know_their_noise_do_not_tell_how_many_are_wanted():
    one = [rows_of([CASE], run=run, rounds=1, seed=1) for run in ("main", "now")]
    assert rounds_wanted(compare(*one, LIMITS).cases) is None


@pytest.mark.parametrize(
    ("num_rounds", "device", "told"),
    [
        (20, "cpu", None),
        (19, "cpu", "19 rounds: with 20, a slow-down of 10% is found"),
        (10, "cuda", None),
        (5, "cuda", "5 rounds: with 10, a slow-down of 5% is found in 95 of 100 gates on a GPU"),
    ],
)
def test_a_baseline_with_few_rounds_is_told_how_many_find_what(num_rounds, device, told):
    found = advice(num_rounds, device)
    assert found is None if told is None else told in found
