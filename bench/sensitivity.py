"""How small a slow-down a comparison would have found, and how many rounds find a smaller."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench import units
from bench.baseline import ROUNDS
from bench.comparison import CaseComparison
from bench.resample import FEWEST_ROUNDS
from bench.verdict import DETECTABLE

MOST_ROUNDS = 100
"""More are not worth measuring: a quieter machine is."""


class Sensitivity(NamedTuple):
    """Slow-downs, as fractions, that would have been found in the median case and in the worst."""

    median: float
    worst: float
    worst_path: str


def sensitivity(cases: Sequence[CaseComparison]) -> Sensitivity | None:
    """Of the compared cases, with the rounds that they have; None if there are none."""
    found = {c.case_path: c.detectable for c in cases if c.detectable is not None}
    if not found:
        return None
    path = max(found, key=lambda name: found[name])
    return Sensitivity(float(np.median(list(found.values()))), found[path], path)


def rounds_wanted(cases: Sequence[CaseComparison]) -> int | None:
    """Rounds on both sides with which half of the cases would be judged; None beyond reason.

    What noise hides shrinks as the root of the number of rounds, if they suffice to know it.
    """
    wanted = [
        min(case.num_rounds) * (math.log1p(case.detectable) / math.log1p(case.must_see)) ** 2
        for case in cases
        if case.detectable and case.must_see and min(case.num_rounds) >= FEWEST_ROUNDS
    ]
    if not wanted:
        return None
    middle = math.ceil(float(np.median(wanted)))
    return middle if middle <= MOST_ROUNDS else None


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
