"""The ratio and its interval: against scipy, plain resampling, and the coverage it claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.resample import (
    ASSUMED_SPREAD,
    FEWEST_ROUNDS,
    Side,
    compare_sides,
    welch_freedom,
)
from bench.rounds import trimmed_mean

TIMES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7)


def sides(rounds):
    return Side(rounds=[np.asarray(samples, dtype=float) for samples in rounds])


def ratio_of(before, after, *, seed=0, confidence=0.95, num_draws=1000):
    rng = np.random.default_rng(seed)
    return compare_sides(before, after, confidence=confidence, num_draws=num_draws, rng=rng)


def noisy_rounds(rng, *, num_rounds, between, within=0.01, num_samples=25, scale=1.0):
    return sides(
        scale * np.exp(rng.normal(0.0, between) + rng.normal(0.0, within, num_samples))
        for _ in range(num_rounds)
    )


@pytest.mark.parametrize("samples", [[3.0], [1.0, 4.0], [1.0, 2.0, 7.0], [2.0, 3.0, 5.0, 9.0]])
def test_medians_of_resamples_are_drawn_as_if_each_had_been_resampled(samples):
    rng = np.random.default_rng(5)
    num_draws = 40_000
    # one round only moves by the spread that is assumed of rounds, so enough of it are needed
    side = Side(rounds=[np.array(samples)] * FEWEST_ROUNDS)
    drawn = side.draw(num_draws, rng)
    resampled = rng.choice(samples, size=(num_draws, FEWEST_ROUNDS, len(samples)))
    logs = np.log(np.median(resampled, axis=-1))
    centre = np.log(np.median(samples))
    expected = trimmed_mean(centre + (logs - centre) * np.sqrt(FEWEST_ROUNDS / (FEWEST_ROUNDS - 1)))
    # of discrete values: how many lie below a point that is none of them
    for point in np.linspace(expected.min(), expected.max(), 23)[1:-1] + 1e-4:
        assert np.mean(drawn < point) == pytest.approx(np.mean(expected < point), abs=0.012)
    assert drawn.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert drawn.std() == pytest.approx(expected.std(), rel=0.03, abs=1e-12)


def test_the_spread_within_rounds_agrees_with_scipys_bootstrap():
    rng = np.random.default_rng(7)
    samples = np.exp(rng.normal(0.0, 0.2, 41))
    num_rounds = 3
    drawn = Side(rounds=[samples] * num_rounds).draw(8_000, rng)
    found = stats.bootstrap(
        (samples,), lambda x, axis: np.log(np.median(x, axis=axis)), rng=rng, n_resamples=8_000
    )
    of_one_round = np.std(found.bootstrap_distribution)
    # of three rounds trimming leaves nearly a mean
    expected = of_one_round / np.sqrt(num_rounds) * np.sqrt(num_rounds / (num_rounds - 1))
    assert drawn.std() == pytest.approx(expected, rel=0.05)


@given(
    st.lists(st.floats(0, 9), min_size=3, max_size=8),
    st.lists(st.floats(20, 90), min_size=3, max_size=8),
)
def test_degrees_of_freedom_are_those_of_scipys_welch_test(a, b):
    a[0], b[0] = a[0] + 10, b[0] + 100
    variances = [np.var(x, ddof=1) / len(x) for x in (a, b)]
    found = welch_freedom(variances, [len(a) - 1, len(b) - 1])
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)


def test_the_p_value_is_near_that_of_welchs_test_on_the_medians_of_rounds():
    rng = np.random.default_rng(3)
    before = noisy_rounds(rng, num_rounds=40, between=0.02, within=1e-6)
    after = noisy_rounds(rng, num_rounds=30, between=0.03, within=1e-6, scale=1.01)
    expected = stats.ttest_ind(before.log_medians, after.log_medians, equal_var=False).pvalue
    found = ratio_of(before, after, num_draws=20_000)
    assert np.log(found.p_value) == pytest.approx(np.log(expected), rel=0.25)


@settings(max_examples=40)
@given(st.lists(TIMES, min_size=1, max_size=5), st.lists(TIMES, min_size=1, max_size=5))
def test_the_ratio_lies_in_its_interval_and_turns_round_with_the_sides(before, after):
    found = ratio_of(sides(before), sides(after), num_draws=200)
    back = ratio_of(sides(after), sides(before), num_draws=200)
    assert 0 < found.lo <= found.ratio <= found.hi
    assert found.ratio * back.ratio == pytest.approx(1.0)
    assert 0.0 <= found.p_value <= 1.0
    assert found.noise_floor >= 0.0


@settings(max_examples=40)
@given(
    st.lists(TIMES, min_size=1, max_size=5),
    st.lists(TIMES, min_size=1, max_size=5),
    st.floats(0.01, 100.0),
)
def test_a_scaled_side_scales_the_ratio_and_its_interval(before, after, factor):
    found = ratio_of(sides(before), sides(after), num_draws=200)
    scaled = ratio_of(
        sides(before), sides([factor * t for t in samples] for samples in after), num_draws=200
    )
    assert scaled.ratio == pytest.approx(factor * found.ratio)
    assert scaled.noise_floor == pytest.approx(found.noise_floor, rel=1e-6, abs=1e-9)
    assert scaled.hi / scaled.lo == pytest.approx(found.hi / found.lo, rel=1e-6)


def test_equal_seeds_give_equal_results_and_others_do_not():
    rng = np.random.default_rng(1)
    pair = [noisy_rounds(rng, num_rounds=4, between=0.02) for _ in range(2)]
    assert ratio_of(*pair, seed=3)[:5] == ratio_of(*pair, seed=3)[:5]
    assert ratio_of(*pair, seed=3).lo != ratio_of(*pair, seed=4).lo


@pytest.mark.parametrize(("num_rounds", "between"), [(3, 0.02), (5, 0.02), (5, 0.0), (9, 0.05)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(num_rounds, between):
    rng = np.random.default_rng(11)
    num_pairs = 400
    covered = 0
    for _ in range(num_pairs):
        before = noisy_rounds(rng, num_rounds=num_rounds, between=between)
        after = noisy_rounds(rng, num_rounds=num_rounds, between=between, scale=1.07)
        found = ratio_of(before, after, num_draws=400)
        covered += found.lo <= 1.07 <= found.hi
    # within the error of counting 400 pairs
    assert covered / num_pairs > 0.92


def test_the_noise_floor_is_what_pairs_of_the_same_code_differ_by():
    rng = np.random.default_rng(13)
    between, num_rounds = 0.03, 6
    centres = trimmed_mean(rng.normal(0.0, between, (4000, 2, num_rounds)))
    real = np.quantile(np.abs(np.expm1(centres[:, 1] - centres[:, 0])), 0.95)
    floors = [
        ratio_of(*(noisy_rounds(rng, num_rounds=num_rounds, between=between) for _ in range(2)))
        for _ in range(60)
    ]
    assert np.mean([found.noise_floor for found in floors]) == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("num_rounds", [1, 2])
def test_too_few_rounds_are_assumed_to_differ(num_rounds):
    exact = sides([[2.0, 2.0, 2.0]] * num_rounds)
    found = ratio_of(exact, exact, num_draws=4000)
    assert found.ratio == 1.0
    expected = 1.96 * ASSUMED_SPREAD * np.sqrt(2 / num_rounds)
    assert np.log(found.hi) == pytest.approx(expected, rel=0.15)
    assert found.noise_floor == pytest.approx(np.expm1(expected), rel=0.15)


def test_rounds_without_any_spread_are_known_exactly():
    before, after = sides([[2.0, 2.0]] * 3), sides([[3.0]] * 4)
    found = ratio_of(before, after)
    assert found[:5] == pytest.approx((1.5, 1.5, 1.5, 0.0, 0.0))
    assert ratio_of(before, before).p_value == 1.0


def test_rounds_are_relative_to_the_anchor_of_the_same_round():
    rng = np.random.default_rng(17)
    # the machine is 30% slower in some rounds, and case and anchor alike
    drift = np.exp(0.3 * rng.integers(0, 2, 8))

    def side(scale):
        samples = [np.exp(rng.normal(0, 0.01, 21)) * d for d in drift]
        anchors = [np.exp(rng.normal(0, 0.01, 21)) * d * 2.0 for d in drift]
        return Side(rounds=[scale * s for s in samples], anchors=anchors)

    found = ratio_of(side(1.0), side(1.1))
    assert found.ratio == pytest.approx(1.1, rel=0.01)
    assert found.hi / found.lo < 1.03
    alone = ratio_of(Side(rounds=side(1.0).rounds), Side(rounds=side(1.1).rounds))
    assert alone.hi / alone.lo > 1.2


def test_an_anchor_is_resampled_by_itself():
    rng = np.random.default_rng(19)
    samples = [np.exp(rng.normal(0.0, 0.1, 31))] * 4
    alone = Side(rounds=samples).draw(8000, rng).std()
    both = Side(rounds=samples, anchors=samples).draw(8000, rng).std()
    assert both == pytest.approx(np.sqrt(2.0) * alone, rel=0.05)


@pytest.mark.parametrize("num_rounds", [2, 6])
def test_sides_of_one_seed_draw_the_same_rounds_and_the_same_of_their_anchor(num_rounds):
    rng = np.random.default_rng(23)
    exact = [np.full(31, level) for level in np.exp(rng.normal(0.0, 0.1, num_rounds))]
    loud = [np.exp(rng.normal(0.0, 0.3, 31)) for _ in range(num_rounds)]

    def correlation(rounds, **seeds):
        sides = (Side(rounds=rounds, anchors=loud, **seeds) for _ in range(2))
        drawn = [side.draw(3000, rng) for side in sides]
        return np.corrcoef(drawn)[0, 1]

    assert abs(correlation(exact)) < 0.1
    assert correlation(exact, rounds_seed=(1,), anchors_seed=(2,)) == pytest.approx(1.0)
    assert correlation(loud, rounds_seed=(1,), anchors_seed=(2,)) < 0.97


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0, 0.0]], [[1.0, -2.0]], [[np.nan]], [[np.inf]]])
def test_what_is_no_time_is_refused(rounds):
    with pytest.raises(ValueError, match=r"a side has no rounds|a round has no samples"):
        ratio_of(sides([[1.0]]), sides(rounds))


def test_an_anchor_has_as_many_rounds():
    side = Side(rounds=[np.ones(3)] * 2, anchors=[np.ones(3)])
    with pytest.raises(ValueError, match="not as many as its anchor"):
        ratio_of(side, side)
