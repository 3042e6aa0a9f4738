"""Pure statistics over samples: no distribution is assumed, no sample is ever removed."""

import statistics
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

OUTLIER_Z = 3.5
"""Label threshold of the modified z-score (Iglewicz and Hoaglin, 1993)."""

_MAD_TO_SIGMA = 1.482602218505602
_MEAN_DEVIATION_TO_SIGMA = 1.2533141373155001


def median(xs: Sequence[float]) -> float:
    """Middle value; the mean of the middle two when their number is even.

    Raises:
        ValueError: no value given.
    """
    return statistics.median(xs)


def quantile(xs: Sequence[float], q: float) -> float:
    """Value below which a fraction `q` lies, linear between order statistics (Hyndman-Fan type 7).

    Raises:
        ValueError: no value given, or `q` outside [0, 1].
    """
    if not xs or not 0.0 <= q <= 1.0:
        raise ValueError(f"quantile {q} of {len(xs)} values: expected q in [0, 1] and a value")
    ordered = sorted(xs)
    place = q * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median_interval(xs: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval that covers the true median with at least `confidence`, whatever the distribution.

    The ends are order statistics: how many of n values lie below the median is Binomial(n, 1/2).
    Fewer values than that needs (six at 0.95) give their minimum and maximum, which cover less.

    Raises:
        ValueError: no value given, or `confidence` outside (0, 1).
    """
    if not xs or not 0.0 < confidence < 1.0:
        raise ValueError(
            f"interval at {confidence} of {len(xs)} values: "
            "expected confidence in (0, 1) and a value"
        )
    ordered = sorted(xs)
    skipped = _values_outside_each_end(len(ordered), confidence)
    return ordered[skipped], ordered[-1 - skipped]


def relative_half_width(xs: Sequence[float], confidence: float = 0.95) -> float:
    """Farther end of the interval of the median, as a fraction of the median; 0 if that is 0."""
    middle = median(xs)
    low, high = median_interval(xs, confidence)
    return max(high - middle, middle - low) / middle if middle else 0.0


def outlier_labels(xs: Sequence[float], threshold: float = OUTLIER_Z) -> list[bool]:
    """True where the modified z-score |x - median| / (1.4826 MAD) exceeds `threshold`.

    Where more than half of the values are equal MAD is 0, and the mean absolute deviation, scaled
    to a normal sigma as well, takes its place.
    """
    if not xs:
        return []
    middle = median(xs)
    deviations = [abs(x - middle) for x in xs]
    sigma = _MAD_TO_SIGMA * median(deviations)
    if sigma == 0.0:
        sigma = _MEAN_DEVIATION_TO_SIGMA * statistics.fmean(deviations)
    return [d > threshold * sigma for d in deviations]


def clock_step(xs: Sequence[float]) -> float | None:
    """Smallest difference between distinct values, where values repeat as a coarse clock's do.

    None where at least half of the values are distinct: then the clock does not limit them.
    A single value that always returns is itself the bound on the step.
    """
    distinct = sorted(set(xs))
    if 2 * len(distinct) >= len(xs):
        return None
    if len(distinct) == 1:
        return distinct[0]
    return min(b - a for a, b in pairwise(distinct))


@lru_cache(maxsize=1024)
def _values_outside_each_end(n: int, confidence: float) -> int:
    """How many order statistics the interval leaves out at each end."""
    # whole numbers, because 0.5 ** n underflows: limit is 2 ** n * (1 - confidence) / 2
    limit = int((1.0 - confidence) / 2.0 * 2**64) * 2**n >> 64
    rank, below, ways = 0, 0, 1
    while below + ways <= limit:
        below += ways
        ways = ways * (n - rank) // (rank + 1)
        rank += 1
    # the rank-th smallest value is an end if P(Binomial(n, 1/2) < rank) is within the limit
    return max(rank - 1, 0)
