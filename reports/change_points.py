"""Where histories of latencies changed for good, told from noise by the histories themselves.

Three steps, on logarithms so that twice as slow is as far from equal as twice as fast:

1. A value alone far from its neighbours is an outlier and moves nothing (Hampel's filter).
2. Every history gets its largest t statistic over all splits of a nested set of intervals (seeded
   binary segmentation, Kovacs et al. 2020); its variance is drawn towards that of all histories.
3. What the largest is worth is read from the same statistic of shuffled residuals of all histories
   together, widened for their correlation from run to run and for how few they are. Of all
   histories those are kept that Benjamini and Hochberg's procedure keeps; in them the search goes
   on to both sides of each change.

Noise that is independent, heavy-tailed or correlated by half from run to run marks anything at all
in at most one set of histories in twenty: 18 of 960 simulated sets of 1 to 40 histories of 12 to 30
runs. Noise that settles in a mode eight sigmas slower in one run of seven looks like a change when
it lasts, and marked something in 47 of 320 sets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

RATE = 0.05
"""Share of sets of unchanged histories in which anything is marked."""
LEAST_RUNS = 3
"""Runs on each side of a change: a younger one cannot be told from an outlier."""
LEAST_CHANGE = 0.02
"""Smaller changes are not marked, however certain they are."""
OUTLIER_SIGMAS = 4.0
PRIOR_DF = 4
"""Runs that the common variance counts as beside a history's own."""
ENOUGH_HISTORIES = 5
"""Fewer have no common variance worth the name when a factor's interval is made."""
NOISE_FLOOR = 1e-3
"""Noise below this, as a fraction, is not believed."""
_ROUGH = 6.0
"""A statistic that is certainly a change, before noise is known well."""
_DRAWS, _DRAWS_EACH = 4000, 50
_TAIL = 1e-3
_MAD_TO_SIGMA = 1.4826
_MOST_CORRELATED = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """`index` is the first value after it; `ratio` what values are multiplied with, with its 95%
    interval; `p_value` how often unchanged histories have one as clear."""

    index: int
    ratio: float
    lo: float
    hi: float
    p_value: float


def find(
    histories: Sequence[Sequence[float]], *, rate: float = RATE, seed: int = 0
) -> list[list[Change]]:
    """The changes of each history, in order.

    Args:
        histories: Positive values in order of time; may differ in length.

    Raises:
        ValueError: a value that is not positive.
    """
    if any(v <= 0 for values in histories for v in values):
        raise ValueError("histories need positive values")
    usable = [i for i, values in enumerate(histories) if len(values) >= 2 * LEAST_RUNS]
    if not usable:
        return [[] for _ in histories]
    search = _Search([np.log(np.asarray(histories[i], float)) for i in usable], seed)
    found: list[list[Change]] = [[] for _ in histories]
    for i, changes in zip(usable, search.changes(rate), strict=True):
        found[i] = [c for c in changes if abs(math.log(c.ratio)) >= math.log1p(LEAST_CHANGE)]
    return found


def outliers(values: Sequence[float]) -> list[bool]:
    """Which values are alone far from their neighbours."""
    logs = np.log(np.asarray(values, float))[None]
    return [bool(is_far) for is_far in (_settled(logs, NOISE_FLOOR) != logs)[0]]


class _Search:
    """All histories of one page: what is noise in one is learnt from the others."""

    def __init__(self, logs: Sequence[Array], seed: int) -> None:
        rng = np.random.default_rng(seed)
        typical = max(float(np.median([_noise(y[None])[0] for y in logs])), NOISE_FLOOR)
        self.settled = [_settled(y[None], typical)[0] for y in logs]
        self.residuals = [self._rough_residual(y, typical) for y in self.settled]
        self.variance = max(
            float(np.median([np.mean(r**2) for r in self.residuals])), NOISE_FLOOR**2
        )
        self.correlation = correlation(self.residuals)
        num_free = sum(len(r) - 1 for r in self.residuals)
        widening = stats.t.isf(_TAIL, num_free) / stats.norm.isf(_TAIL) * self._correlated
        self.null = {
            n: np.sort(widening * self._strongest(self._shuffled(n, rng, typical))[0])
            for n in {len(y) for y in self.settled}
        }

    @property
    def _correlated(self) -> float:
        """By how much the error of a mean exceeds that of independent values."""
        return math.sqrt((1 + self.correlation) / (1 - self.correlation))

    def changes(self, rate: float) -> list[list[Change]]:
        tops = np.array([self._strongest(y[None])[0][0] for y in self.settled])
        p_values = np.array(
            [self._p_value(t, len(y)) for t, y in zip(tops, self.settled, strict=True)]
        )
        kept = benjamini_hochberg(p_values, rate)
        worst = p_values[kept].max() if kept.any() else 0.0
        return [
            self._described(y, self._cuts(y, worst, len(y))) if keep else []
            for y, keep in zip(self.settled, kept, strict=True)
        ]

    def _cuts(self, y: Array, worst: float, num_runs: int) -> list[tuple[int, float]]:
        """Changes and their p-values; parts are held against the null of the whole."""
        if len(y) < 2 * LEAST_RUNS:
            return []
        strength, places = self._strongest(y[None])
        p_value, at = self._p_value(strength[0], num_runs), int(places[0])
        if p_value > worst:
            return []
        right = self._cuts(y[at:], worst, num_runs)
        return [
            *self._cuts(y[:at], worst, num_runs),
            (at, p_value),
            *((at + place, p) for place, p in right),
        ]

    def _described(self, y: Array, cuts: Sequence[tuple[int, float]]) -> list[Change]:
        ends = [0, *(at for at, _ in cuts), len(y)]
        parts = [y[a:b] for a, b in pairwise(ends)]
        squares, num_free = sum(float(np.sum((p - p.mean()) ** 2)) for p in parts), len(y)
        num_free -= len(parts)
        prior = PRIOR_DF if len(self.settled) >= ENOUGH_HISTORIES else 0
        variance = (prior * self.variance + squares) / (prior + num_free)
        sigma = max(math.sqrt(variance), NOISE_FLOOR) * self._correlated
        reach = float(stats.t.isf(0.025, prior + num_free)) * sigma
        found = []
        for (at, p_value), before, after in zip(cuts, parts[:-1], parts[1:], strict=True):
            shift = float(after.mean() - before.mean())
            half = reach * math.sqrt(1 / len(before) + 1 / len(after))
            lo, ratio, hi = (math.exp(shift + side * half) for side in (-1, 0, 1))
            found.append(Change(index=at, ratio=ratio, lo=lo, hi=hi, p_value=p_value))
        return found

    def _p_value(self, strength: float, num_runs: int) -> float:
        return p_value_of(strength, self.null[num_runs])

    def _rough_residual(self, y: Array, typical: float) -> Array:
        """What is left of a history without its certain changes, scaled for what they took."""
        variance = max(float(_noise(y[None])[0]), typical) ** 2
        cuts = [0, *_rough_cuts(y, variance), len(y)]
        parts = [y[a:b] - y[a:b].mean() for a, b in pairwise(cuts)]
        lost = len(y) / max(len(y) - len(parts), 1)
        return np.concatenate(parts) * math.sqrt(lost)

    def _shuffled(self, length: int, rng: np.random.Generator, typical: float) -> Array:
        """Unchanged histories of one length, made of the residuals of all."""
        num_draws = max(_DRAWS, _DRAWS_EACH * len(self.residuals))
        drawn = np.empty((num_draws, length))
        source = rng.integers(len(self.residuals), size=num_draws)
        for index, residual in enumerate(self.residuals):
            at = np.flatnonzero(source == index)
            if len(residual) >= length:
                copies = np.tile(residual, (len(at), 1))
                drawn[at] = rng.permuted(copies, axis=1)[:, :length]
            else:
                drawn[at] = rng.choice(residual, size=(len(at), length))
        return _settled(drawn, typical)

    def _strongest(self, series: Array) -> tuple[Array, NDArray[np.int64]]:
        return _strongest(series, self.variance)


def _rough_cuts(y: Array, variance: float) -> list[int]:
    if len(y) < 2 * LEAST_RUNS:
        return []
    strength, places = _strongest(y[None], variance)
    if strength[0] <= _ROUGH:
        return []
    at = int(places[0])
    right = [at + place for place in _rough_cuts(y[at:], variance)]
    return [*_rough_cuts(y[:at], variance), at, *right]


def _strongest(series: Array, variance: float) -> tuple[Array, NDArray[np.int64]]:
    """The largest t statistic of each row over all intervals and splits, and where it splits.

    Args:
        series: [number, runs].
        variance: Common to all; each split's own is drawn towards it.
    """
    number, length = series.shape
    zero = np.zeros((number, 1))
    sums = np.concatenate([zero, np.cumsum(series, axis=1)], axis=1)
    squares = np.concatenate([zero, np.cumsum(series**2, axis=1)], axis=1)
    best, where = np.zeros(number), np.zeros(number, np.int64)
    rows = np.arange(number)
    for begin, end in _intervals(length):
        at = np.arange(begin + LEAST_RUNS, end - LEAST_RUNS + 1)
        before, after = at - begin, end - at
        left, right = sums[:, at] - sums[:, [begin]], sums[:, [end]] - sums[:, at]
        total = squares[:, [end]] - squares[:, [begin]]
        misfit = np.maximum(total - left**2 / before - right**2 / after, 0.0)
        own = (PRIOR_DF * variance + misfit) / (PRIOR_DF + end - begin - 2)
        shift = np.abs(right / after - left / before)
        strength = shift * np.sqrt(before * after / (end - begin)) / np.sqrt(own)
        top = strength.argmax(axis=1)
        is_better = strength[rows, top] > best
        best[is_better] = strength[rows, top][is_better]
        where[is_better] = at[top][is_better]
    return best, where


@lru_cache(maxsize=256)
def _intervals(length: int) -> tuple[tuple[int, int], ...]:
    """Seeded intervals: lengths shrink by the root of two, each overlaps its neighbour by half."""
    found = {(0, length)}
    size = float(length)
    while round(size) >= 2 * LEAST_RUNS:
        whole = round(size)
        starts = range(0, length - whole + 1, max(1, whole // 2))
        found |= {(a, a + whole) for a in (*starts, length - whole)}
        size /= math.sqrt(2)
    return tuple(sorted(found))


def _settled(series: Array, typical: float) -> Array:
    """Rows with values that are alone far from their neighbours put to the median of these."""
    length = series.shape[1]
    middle = np.empty_like(series)
    for i in range(length):
        reach = min(2, i, length - 1 - i)
        near = (
            slice(i - reach, i + reach + 1) if reach else slice(0, 3) if i == 0 else slice(-3, None)
        )
        middle[:, i] = np.median(series[:, near], axis=1)
    limit = OUTLIER_SIGMAS * np.maximum(_noise(series), typical)[:, None]
    return np.where(np.abs(series - middle) > limit, middle, series)


def _noise(series: Array) -> Array:
    """Sigma of each row from successive differences, which changes hardly touch."""
    differences = np.abs(np.diff(series, axis=1))
    return _MAD_TO_SIGMA * np.median(differences, axis=1) / math.sqrt(2)


def correlation(residuals: Sequence[Array]) -> float:
    """Typical correlation from run to run; what estimating the mean takes off is given back."""
    found = []
    for r in residuals:
        total = float(np.sum(r**2))
        found.append(float(np.sum(r[1:] * r[:-1])) / total + 1 / len(r) if total else 0.0)
    return min(max(float(np.median(found)), 0.0), _MOST_CORRELATED)


def p_value_of(strength: float, null: Array) -> float:
    """Share of the sorted statistics of unchanged histories that are as large, never 0."""
    return float(1 + len(null) - np.searchsorted(null, strength)) / (1 + len(null))


def benjamini_hochberg(p_values: Array, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected with a false discovery rate of at most `rate`."""
    order = np.argsort(p_values)
    limits = rate * np.arange(1, len(p_values) + 1) / len(p_values)
    passing = np.flatnonzero(p_values[order] <= limits)
    kept = np.zeros(len(p_values), bool)
    if len(passing):
        kept[order[: passing[-1] + 1]] = True
    return kept
