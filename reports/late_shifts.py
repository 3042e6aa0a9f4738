"""Shifts in the last one or two runs of histories: too young to be called changes, worth a look.

A lone run far from the others is an outlier more often than a change, so it is held against what
the ends of unchanged histories look like: the same statistic of shuffled deviations of all
histories, outliers included. Of all histories those are named that Benjamini and Hochberg's
procedure keeps: something is named in 2 of 720 simulated and recorded sets of 1 to 40 unchanged
histories.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from reports.change_points import (
    LEAST_CHANGE,
    LEAST_RUNS,
    NOISE_FLOOR,
    PRIOR_DF,
    RATE,
    Change,
    benjamini_hochberg,
    correlation,
    p_value_of,
)

Array = NDArray[np.float64]

LEAST_LEVEL = 6
"""Runs of an unchanged level before the last ones."""
_DRAWS, _DRAWS_EACH = 4000, 50
_MAD_TO_SIGMA = 1.4826


def find(
    histories: Sequence[Sequence[float]],
    changes: Sequence[Sequence[Change]],
    *,
    rate: float = RATE,
    seed: int = 0,
) -> list[Change | None]:
    """The shift at the end of each history, if any; its `index` is the first shifted value.

    Args:
        histories: Positive values in order of time.
        changes: What `change_points.find` found in each.
    """
    levels = [_level(values, found) for values, found in zip(histories, changes, strict=True)]
    judged = [i for i, y in enumerate(levels) if len(y) >= LEAST_LEVEL + 2]
    result: list[Change | None] = [None] * len(histories)
    if not judged:
        return result
    # what is judged does not judge itself: the last runs are no part of the noise
    deviations = [_deviations(levels[i][: 1 - LEAST_RUNS]) for i in judged]
    variance = max(float(np.median([_sigma(d) ** 2 for d in deviations])), NOISE_FLOOR**2)
    strengths = [_strongest(levels[i][None], variance) for i in judged]
    null = _null(deviations, {len(levels[i]) for i in judged}, variance, seed)
    p_values = np.array(
        [p_value_of(s[0][0], null[len(levels[i])]) for i, s in zip(judged, strengths, strict=True)]
    )
    for place, keep in enumerate(benjamini_hochberg(p_values, rate)):
        i = judged[place]
        shift = _described(levels[i], int(strengths[place][1][0]), variance, p_values[place])
        if keep and abs(math.log(shift.ratio)) >= math.log1p(LEAST_CHANGE):
            before = len(histories[i]) - len(levels[i])
            result[i] = replace(shift, index=before + shift.index)
    return result


def _level(values: Sequence[float], found: Sequence[Change]) -> Array:
    """Logarithms of the values since the last change."""
    begin = found[-1].index if found else 0
    level: Array = np.log(np.asarray(values[begin:], float))
    return level


def _deviations(level: Array) -> Array:
    centred: Array = level - np.median(level)
    return centred


def _sigma(deviations: Array) -> float:
    return _MAD_TO_SIGMA * float(np.median(np.abs(deviations)))


def _null(
    deviations: Sequence[Array], lengths: set[int], variance: float, seed: int
) -> dict[int, Array]:
    """By length: sorted statistics of histories made of the deviations of all, shuffled."""
    rng = np.random.default_rng(seed)
    shared = correlation(deviations)
    widening = math.sqrt((1 + shared) / (1 - shared))
    num_free = sum(len(d) - 1 for d in deviations)
    widening *= float(stats.t.isf(1e-3, num_free) / stats.norm.isf(1e-3))
    number = max(_DRAWS, _DRAWS_EACH * len(deviations))
    found = {}
    for length in lengths:
        source = rng.integers(len(deviations), size=number)
        drawn = np.empty((number, length))
        for index, own in enumerate(deviations):
            at = np.flatnonzero(source == index)
            if len(own) >= length:
                drawn[at] = rng.permuted(np.tile(own, (len(at), 1)), axis=1)[:, :length]
            else:
                drawn[at] = rng.choice(own, size=(len(at), length))
        found[length] = np.sort(widening * _strongest(drawn, variance)[0])
    return found


def _strongest(series: Array, variance: float) -> tuple[Array, NDArray[np.int64]]:
    """The larger of the statistics of the last one and the last two values, and how many."""
    found = []
    for late in range(1, LEAST_RUNS):
        before, after = series[:, :-late], series[:, -late:]
        middle = np.median(before, axis=1)
        own = _MAD_TO_SIGMA * np.median(np.abs(before - middle[:, None]), axis=1)
        shift = np.abs(after.mean(axis=1) - middle)
        found.append(shift / np.sqrt(_spread(own**2, before.shape[1], late, variance)))
    table = np.array(found)
    return table.max(axis=0), table.argmax(axis=0) + 1


def _spread(own: Array, num_before: int, late: int, variance: float) -> Array:
    """Variance of a shift; a history's own is drawn towards that of all."""
    pooled = (PRIOR_DF * variance + num_before * own) / (PRIOR_DF + num_before)
    spread: Array = pooled * (1 / late + 1 / num_before)
    return spread


def _described(level: Array, late: int, variance: float, p_value: float) -> Change:
    before, after = level[:-late], level[-late:]
    # with their outliers: a last run may be one of them
    own = max(float(np.var(before, ddof=1)), variance)
    error = math.sqrt(own * (1 / late + 1 / len(before)))
    shift = float(after.mean() - np.median(before))
    half = float(stats.t.isf(0.025, len(before) - 1)) * error
    lo, ratio, hi = (math.exp(shift + side * half) for side in (-1, 0, 1))
    return Change(index=len(level) - late, ratio=ratio, lo=lo, hi=hi, p_value=float(p_value))
