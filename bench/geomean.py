"""Pure: the mean of the ratios of all cases, with an interval that knows what cases share.

Cases of one run share its rounds, so what the machine is up to moves all of them, and it may last
from one round to the next. Rounds that resemble their neighbours tell less than as many that are
independent: with a correlation r, a mean of them varies by (1 + r) / (1 - r) as much (Bartlett
1946, of an autoregression).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.comparison import Geomean
from bench.resample import FEWEST_ROUNDS, Ratio, Side
from bench.rounds import Floats

STRONGEST = 0.6
"""Correlation of neighbouring rounds at most: a few rounds would give any."""


class Compared(NamedTuple):
    """A case: its ratio, and the baseline and candidate that gave it."""

    ratio: Ratio
    sides: tuple[Side, Side]


def geomean(cases: Sequence[Compared], confidence: float) -> Geomean | None:
    """The mean over cases of the bootstrap's draws, which took the same rounds for all.

    The interval is widened by what lasts from round to round. Where rounds are too few to know
    their noise, a case has to lie beyond its noise floor; the interval reaches that much farther.
    """
    if not cases:
        return None
    ratios = [case.ratio for case in cases]
    middle = float(np.mean([np.log(found.ratio) for found in ratios]))
    draws: Floats = np.mean([found.log_draws for found in ratios], axis=0)
    tail = (1.0 - confidence) / 2.0
    below, above = lasting(cases) * (np.quantile(draws, [tail, 1.0 - tail]) - middle)
    if any(len(side.rounds) < FEWEST_ROUNDS for case in cases for side in case.sides):
        floor = float(np.mean(np.log1p([found.noise_floor for found in ratios])))
        below, above = below - floor, above + floor
    return Geomean(
        ratio=float(np.exp(middle)),
        lo=float(np.exp(middle + min(below, 0.0))),
        hi=float(np.exp(middle + max(above, 0.0))),
        num_cases=len(cases),
    )


def lasting(cases: Sequence[Compared]) -> float:
    """By how much to widen for what lasts from one round to the next: 1 where nothing does."""
    runs = [_shared([case.sides[which] for case in cases]) for which in (0, 1)]
    num_rounds = sum(map(len, runs)) / 2.0
    total = sum(float(run @ run) for run in runs)
    if num_rounds < FEWEST_ROUNDS or total == 0.0:
        return 1.0
    seen = sum(float(run[1:] @ run[:-1]) for run in runs) / total
    # of n values about their own mean it is seen too small by (1 + 4 r) / n (Kendall 1954)
    found = (seen + 1.0 / num_rounds) / max(1.0 - 4.0 / num_rounds, 0.2)
    correlation = min(max(found, 0.0), STRONGEST)
    return float(((1.0 + correlation) / (1.0 - correlation)) ** 0.5)


def _shared(sides: Sequence[Side]) -> Floats:
    """What each round of a run differs by in the mean of its cases: of those with most rounds in
    common, in the order of rounds."""
    groups: dict[tuple[int, ...] | None, list[Floats]] = {}
    for side in sides:
        groups.setdefault(side.rounds_seed, []).append(side.log_medians)
    largest = max(groups.values(), key=len)
    means: Floats = np.mean(largest, axis=0)
    deviations: Floats = means - means.mean()
    return deviations
