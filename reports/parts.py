"""What a whole is made of: the time of a call by component, its peak memory by what holds it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import frames

Record = dict[str, Any]
Parts = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""From a case to its parts; empty where they are unknown."""

COMPONENTS = (
    *("attention", "recurrence", "permutation", "projections", "mlp", "norm"),
    "other",
)
MEMORY = ("parameters", "inputs", "activations")
_MEMORY_COLUMNS = {
    "parameters": "parameters_mib",
    "inputs": "inputs_mib",
    "activations": "activations_mib",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One case in parts, in ms or MiB, in the order in which they are stacked."""

    level: str
    mode: str
    setting: str
    ndim: int
    seq_len: int
    series: str
    contender: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(size for _, size in self.parts)

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """The parts as fractions of their sum."""
        return tuple((name, size / self.total) for name, size in self.parts)


def component_table(frame: pd.DataFrame) -> list[Split]:
    """Time by component, in ms of one profiled call, of every case of a tidy frame that has it."""
    return splits(frames.records(frame), component_ms)


def memory_table(frame: pd.DataFrame) -> list[Split]:
    """Peak memory in MiB by what holds it, of every case of a tidy frame that has it."""
    return splits(frames.records(frame), memory_mib)


def splits(cases: Iterable[Record], parts: Parts) -> list[Split]:
    """The cases that have parts, of one length and series the squarest canvas."""
    shared = ("level", "mode", "setting", "ndim", "seq_len", "series", "contender")
    return [
        Split(**{name: case[name] for name in shared}, parts=tuple(found.items()))
        for case in cases
        if case["is_squarest"] and case["seq_len"] and (found := parts(case))
    ]


def component_ms(case: Mapping[str, Any]) -> dict[str, float]:
    """Time of the components of a timed case, those without time left out; empty if unknown."""
    if not frames.is_timed(case):
        return {}
    found = _plain(case["component_ms"])
    order = [*COMPONENTS, *(name for name in found if name not in COMPONENTS)]
    return {name: found[name] for name in order if found.get(name, 0.0) > 0}


def memory_mib(case: Mapping[str, Any]) -> dict[str, float]:
    """Parameters, inputs and what a call adds; empty if any is unknown."""
    sizes = {name: case[column] for name, column in _MEMORY_COLUMNS.items()}
    if not frames.is_timed(case) or None in sizes.values() or not sum(sizes.values()):
        return {}
    return sizes


def names(found: Sequence[Split], order: Sequence[str]) -> list[str]:
    """The parts that occur, in a fixed order, strangers last."""
    present = dict.fromkeys(name for split in found for name, _ in split.parts)
    return [*(n for n in order if n in present), *(n for n in present if n not in order)]


def _plain(text: str | None) -> dict[str, float]:
    """JSON of a row; what is no map from names to numbers is as good as unknown."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(n): float(v) for n, v in found.items() if isinstance(v, int | float)}
