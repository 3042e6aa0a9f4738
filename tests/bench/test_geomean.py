"""The mean of all ratios: how sure it is where rounds resemble their neighbours."""

import numpy as np
import pytest

from bench.geomean import STRONGEST, Compared, geomean, lasting
from bench.resample import Side, compare_sides

NUM_CASES = 6


def run_of(rng, number, *, num_rounds, correlation, own=0.01):
    """The sides of one run, whose cases have a drift in common."""
    drift = [rng.normal()]
    for _ in range(num_rounds - 1):
        fresh = np.sqrt(1.0 - correlation**2) * rng.normal()
        drift.append(correlation * drift[-1] + fresh)
    return [
        Side(
            rounds=[np.full(3, np.exp(0.03 * d + rng.normal(0.0, own))) for d in drift],
            rounds_seed=(number, num_rounds),
        )
        for _ in range(NUM_CASES)
    ]


def compared(seed, *, num_rounds, correlation):
    rng = np.random.default_rng(seed)
    runs = [
        run_of(rng, 2 * seed + n, num_rounds=num_rounds, correlation=correlation) for n in (0, 1)
    ]
    return [
        Compared(
            ratio=compare_sides(*pair, confidence=0.95, num_draws=300, rng=rng), sides=tuple(pair)
        )
        for pair in zip(*runs, strict=True)
    ]


@pytest.mark.parametrize("correlation", [0.0, 0.4])
@pytest.mark.parametrize("num_rounds", [5, 10])
def test_the_interval_of_identical_code_seldom_excludes_1(num_rounds, correlation):
    num_pairs, excluded = 150, 0
    for seed in range(num_pairs):
        cases = compared(seed, num_rounds=num_rounds, correlation=correlation)
        mean = geomean(cases, 0.95)
        excluded += not mean.lo <= 1.0 <= mean.hi
    assert excluded / num_pairs <= 0.12


def test_rounds_that_resemble_their_neighbours_widen_the_interval():
    widths = {
        correlation: np.mean(
            [lasting(compared(s, num_rounds=20, correlation=correlation)) for s in range(20)]
        )
        for correlation in (0.0, 0.4)
    }
    assert 1.0 <= widths[0.0] < 1.25
    assert widths[0.4] == pytest.approx(np.sqrt(1.4 / 0.6), rel=0.15)
    most = np.sqrt((1.0 + STRONGEST) / (1.0 - STRONGEST))
    assert lasting(compared(1, num_rounds=30, correlation=0.99)) == pytest.approx(most)


@pytest.mark.parametrize("num_rounds", [1, 2])
def test_too_few_rounds_tell_nothing_of_what_lasts(num_rounds):
    assert lasting(compared(3, num_rounds=num_rounds, correlation=0.9)) == 1.0


def test_rounds_without_any_noise_are_known_exactly():
    exact = Side(rounds=[np.full(3, 2.0)] * 4)
    ratio = compare_sides(exact, exact, confidence=0.95, num_draws=50, rng=np.random.default_rng(1))
    mean = geomean([Compared(ratio=ratio, sides=(exact, exact))], 0.95)
    assert (mean.ratio, mean.lo, mean.hi) == pytest.approx((1.0, 1.0, 1.0))


def test_nothing_has_no_mean():
    assert geomean([], 0.95) is None
