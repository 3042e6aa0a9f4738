"""Pure: the ratio of two sets of rounds with an interval that knows rounds differ from each other.

A side is what was measured in several processes: rounds of samples. Hierarchical bootstrap: rounds
are drawn with replacement, then the samples inside them. The median of a drawn round is itself
drawn, exactly and at once, because the median of n samples taken with replacement is the order
statistic whose rank is ceil(n * U) with U ~ Beta. Everything is computed on logarithms, so that
twice as slow is as far from equal as twice as fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from bench.rounds import Floats, trimmed_mean

Integers = NDArray[np.int64]
Rounds = Sequence[Floats]

FEWEST_ROUNDS = 3
"""Fewer rounds say nothing about how much rounds differ; then `ASSUMED_SPREAD` stands in."""
ASSUMED_SPREAD = 0.10
"""Standard deviation between rounds where too few were measured, as a fraction: with one round on
each side, anything within 1.7x may be noise. Rounds of a machine that is left alone differ by 0.6%
(an H200) or 5% (a shared CPU); modes 13% and neighbours 26% apart are on record."""
_DF_ASSUMED = 30
_POOL = 2048
_FLOOR_QUANTILE = 0.95


class Ratio(NamedTuple):
    """Candidate over baseline: above 1 is slower.

    Args:
        ratio, lo, hi: The estimate and its interval.
        p_value: Two-sided, of the hypothesis that the ratio is 1.
        noise_floor: What two sets of rounds of the same code differ by, as a fraction: the 95%
            quantile of A/A comparisons made of the rounds of both sides.
        log_draws: Bootstrap draws of the logarithm of the ratio.
    """

    ratio: float
    lo: float
    hi: float
    p_value: float
    noise_floor: float
    log_draws: Floats


@dataclass(frozen=True, kw_only=True)
class Side:
    """The rounds of one case in one run.

    Args:
        rounds: Samples in ms, one array for each process that measured.
        anchors: Of the same length: samples of the contender that each round is relative to.
        least_spread: Standard deviation between rounds that is taken for certain, because most
            cases of the run have it: a few rounds that happen to agree prove nothing.
        rounds_seed, anchors_seed: Sides of one seed draw the same rounds, and the same resamples
            of their anchors: so much of chance they have in common. None draws by itself.
    """

    rounds: Rounds
    anchors: Rounds | None = None
    least_spread: float = 0.0
    rounds_seed: tuple[int, ...] | None = None
    anchors_seed: tuple[int, ...] | None = None

    @cached_property
    def log_medians(self) -> Floats:
        """One value for each round: the logarithm of its median, over its anchor's."""
        own = self._own_log_medians
        return own if self.anchors is None else own - _log_medians(self.anchors)

    @cached_property
    def centre(self) -> float:
        """The trimmed mean of `log_medians`."""
        return float(trimmed_mean(self.log_medians))

    @property
    def centre_ms(self) -> float:
        """The latency by all rounds, whatever they are relative to."""
        return float(np.exp(trimmed_mean(self._own_log_medians)))

    def draw(self, num_draws: int, rng: np.random.Generator) -> Floats:
        """Centres of `num_draws` bootstrap sets of rounds, each of as many rounds."""
        num_rounds = len(self.rounds)
        shape = (num_draws, num_rounds)
        in_common = _generator(self.rounds_seed, rng)
        chosen = _POOL * in_common.integers(num_rounds, size=shape)
        logs = _pools(self.rounds).take(chosen + rng.integers(_POOL, size=shape))
        if self.anchors is not None:
            of_anchor = _generator(self.anchors_seed, rng)
            logs -= _pools(self.anchors).take(chosen + of_anchor.integers(_POOL, size=shape))
        if num_rounds < FEWEST_ROUNDS:
            logs += in_common.normal(0.0, ASSUMED_SPREAD, shape)
            return trimmed_mean(logs)
        return self.centre + (trimmed_mean(logs) - self.centre) * self.rescale

    @cached_property
    def _own_log_medians(self) -> Floats:
        """Of the rounds, whatever they are relative to."""
        return _log_medians(self.rounds)

    @cached_property
    def spread(self) -> float:
        """Standard deviation between rounds; 0 where there are too few to know."""
        logs = self.log_medians
        return float(np.std(logs, ddof=1)) if len(logs) >= FEWEST_ROUNDS else 0.0

    @property
    def rescale(self) -> float:
        """By how much to widen deviations that are drawn from the rounds.

        Drawing from n values loses one degree of freedom of their spread; and no case is taken to
        be steadier than `least_spread`.
        """
        num_rounds = len(self.rounds)
        lost = float((num_rounds / (num_rounds - 1)) ** 0.5)
        return lost * max(1.0, self.least_spread / self.spread) if self.spread else lost

    @property
    def degrees_of_freedom(self) -> int:
        num_rounds = len(self.rounds)
        return num_rounds - 1 if num_rounds >= FEWEST_ROUNDS else _DF_ASSUMED


def compare_sides(
    baseline: Side,
    candidate: Side,
    *,
    confidence: float,
    num_draws: int,
    rng: np.random.Generator,
) -> Ratio:
    """The ratio of two sides.

    The percentile interval is widened to that of Student's t with Welch's degrees of freedom:
    with few rounds the bootstrap alone is too narrow (Hesterberg 2015, section 3.4).

    Raises:
        ValueError: a side without rounds, a round without samples, or a sample that is not
            positive and finite.
    """
    for side in (baseline, candidate):
        _check(side)
    log_ratio = candidate.centre - baseline.centre
    draws = [side.draw(num_draws, rng) for side in (baseline, candidate)]
    log_draws = draws[1] - draws[0]
    variances = [float(np.var(drawn)) for drawn in draws]
    freedom = welch_freedom(variances, [baseline.degrees_of_freedom, candidate.degrees_of_freedom])
    tail = (1.0 - confidence) / 2.0
    # what scipy.stats calls, without its long look at the arguments
    widening = special.stdtrit(freedom, tail) / special.ndtri(tail)
    low, high = widening * (np.quantile(log_draws, [tail, 1.0 - tail]) - log_ratio)
    error = sum(variances) ** 0.5
    return Ratio(
        ratio=float(np.exp(log_ratio)),
        lo=float(np.exp(log_ratio + min(low, 0.0))),
        hi=float(np.exp(log_ratio + max(high, 0.0))),
        p_value=_p_value(log_ratio, error, freedom),
        noise_floor=_noise_floor(baseline, candidate, num_draws, rng),
        log_draws=log_ratio + widening * (log_draws - log_ratio),
    )


def _generator(seed: tuple[int, ...] | None, otherwise: np.random.Generator) -> np.random.Generator:
    return otherwise if seed is None else np.random.default_rng(seed)


def _noise_floor(
    baseline: Side, candidate: Side, num_draws: int, rng: np.random.Generator
) -> float:
    """How far apart two sets of rounds are that are drawn from the spread of both sides."""
    deviations = np.concatenate([_deviations(side, rng) for side in (baseline, candidate)])
    centres = [
        trimmed_mean(deviations[rng.integers(len(deviations), size=(num_draws, len(side.rounds)))])
        for side in (baseline, candidate)
    ]
    return float(np.expm1(np.quantile(np.abs(centres[1] - centres[0]), _FLOOR_QUANTILE)))


def _deviations(side: Side, rng: np.random.Generator) -> Floats:
    """What the rounds differ by from their centre, or what is assumed where they are too few."""
    num_rounds = len(side.rounds)
    if num_rounds < FEWEST_ROUNDS:
        return rng.normal(0.0, ASSUMED_SPREAD, 512)
    return (side.log_medians - side.centre) * side.rescale


def _pools(rounds: Rounds) -> Floats:
    """Logarithms of the medians of resamples of each round: ``[rounds, _POOL]``."""
    pools = np.empty((len(rounds), _POOL))
    for pool, samples in zip(pools, rounds, strict=True):
        ranks, ordered = _middle_ranks(len(samples)), np.sort(samples)
        if len(samples) % 2:
            np.log(ordered).take(ranks[0], out=pool, mode="clip")
        else:
            np.log(ordered.take(ranks).mean(axis=0), out=pool)
    return pools


@lru_cache(maxsize=1024)
def _middle_ranks(n: int) -> Integers:
    """Ranks from 0 of the middle samples of n drawn with replacement: ``[2, _POOL]`` draws.

    Both are the same where n is odd. Drawn once for each n, evenly, for a bootstrap asks often.
    """
    even = (np.arange(_POOL) + 0.5) / _POOL
    middle = (n + 1) // 2
    u = stats.beta.ppf(even, middle, n - middle + 1)
    v = np.random.default_rng(n).permutation(even)
    above = 1.0 - (1.0 - u) * v ** (1.0 / max(n - middle, 1))
    both = np.stack([u, above if n % 2 == 0 else u])
    ranks: Integers = np.clip(np.ceil(n * both).astype(np.int64) - 1, 0, n - 1)
    return ranks


def _log_medians(rounds: Rounds) -> Floats:
    if len({len(samples) for samples in rounds}) == 1:
        medians: Floats = np.log(np.median(np.stack(rounds), axis=1))
        return medians
    return np.log([np.median(samples) for samples in rounds])


def welch_freedom(variances: Sequence[float], freedom: Sequence[int]) -> float:
    """Welch and Satterthwaite's degrees of freedom of a sum of variances."""
    spread = sum(v * v / f for v, f in zip(variances, freedom, strict=True))
    return sum(variances) ** 2 / spread if spread > 0 else float(sum(freedom))


def _p_value(log_ratio: float, error: float, freedom: float) -> float:
    if error == 0.0:
        return float(log_ratio == 0.0)
    return float(2.0 * special.stdtr(freedom, -abs(log_ratio) / error))


def _check(side: Side) -> None:
    groups: list[Any] = [side.rounds, *([] if side.anchors is None else [side.anchors])]
    for rounds in groups:
        if len(rounds) != len(side.rounds) or not len(rounds):
            raise ValueError("a side has no rounds, or not as many as its anchor")
        for samples in rounds:
            if not len(samples) or not bool(np.all(np.isfinite(samples) & (samples > 0))):
                raise ValueError("a round has no samples, or one that is not positive and finite")
