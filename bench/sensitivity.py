"""Pure: how small a slow-down a comparison would have found, and how many rounds find a smaller."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from bench import units
from bench.baseline import ROUNDS
from bench.compare import CaseComparison
from bench.selftest_report import DETECTABLE

POWER = 0.95
"""A slow-down counts as found if this share of comparisons would call it slower."""


class Sensitivity(NamedTuple):
    """Slow-downs, as fractions, that would have been found in the median case and in the worst."""

    median: float
    worst: float
    worst_path: str


def sensitivity(cases: Sequence[CaseComparison], confidence: float) -> Sensitivity | None:
    """Of the compared cases, with the rounds that they have; None if there are none."""
    found = {c.case_path: d for c in cases if (d := detectable(c, confidence)) is not None}
    if not found:
        return None
    path = max(found, key=lambda name: found[name])
    return Sensitivity(float(np.median(list(found.values()))), found[path], path)


def detectable(case: CaseComparison, confidence: float) -> float | None:
    """The slow-down of a case that would have been called slower with `POWER`.

    Its whole interval has to lie beyond the bound, and estimates scatter: a normal law is assumed
    whose interval is the one that was found.
    """
    if case.ratio is None or case.ratio_lo is None or case.bound is None:
        return None
    below = float(np.log(case.ratio / case.ratio_lo))
    scatter = stats.norm.ppf(POWER) / stats.norm.isf((1.0 - confidence) / 2.0)
    return float((1.0 + case.bound) * np.exp((1.0 + scatter) * below) - 1.0)


def advice(num_rounds: int, device: str) -> str | None:
    """What a baseline of so few rounds cannot find; None if it has as many as it should."""
    wanted = ROUNDS[device]
    if num_rounds >= wanted:
        return None
    found = units.percent_label(DETECTABLE[device])
    return (
        f"the baseline has {units.plural(num_rounds, 'round')}: with {wanted}, a slow-down of "
        f"{found} is found in 95 of 100 gates on a {_NAMES[device]} like those of the self-test"
    )


_NAMES = {"cuda": "GPU", "cpu": "CPU"}
