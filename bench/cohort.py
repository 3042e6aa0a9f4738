"""Pure: rows of one case gathered from a run, and whether two runs measured the same thing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bench.rounds import Floats
from bench.verdict import METRICS

Record = Mapping[str, Any]
RoundKey = tuple[Any, Any]

SHAPE = ("level", "mode", "canvas", "batch", "heads", "head_dim", "depth", "dtype", "device")
"""What a case shares with the anchor that it is relative to."""
SOFTWARE = ("ena_bench", "torch", "triton", "cuda", "python", "libraries")
"""Versions that may differ between runs, and are then named."""
_IDENTITY = (
    *("case_id", "case_path", "contender", "impl", *SHAPE),
    *("run_id", "round", "status", "reason", "latency_ms", "peak_memory_mib"),
    *("schema_version", "device_name", "device_id", "driver", "timer"),
    *("kernel_fingerprint", "kernels", "num_threads", "git_commit", "git_dirty"),
)
_MACHINE = {"device_name": "device", "driver": "driver"}
_CLOCK = {"timer": "timer"}


class Named(Protocol):
    """What has a contender and an impl."""

    @property
    def contender(self) -> str: ...

    @property
    def impl(self) -> str: ...


@dataclass(frozen=True)
class Cohort:
    """All rows of one case in one run or several, failed ones among them."""

    rows: tuple[Record, ...]

    @property
    def case_id(self) -> str:
        return str(self.rows[0]["case_id"])

    @property
    def case_path(self) -> str:
        return str(self.rows[0]["case_path"] or self.case_id)

    @property
    def contender(self) -> str:
        return str(self.rows[0]["contender"])

    @property
    def impl(self) -> str:
        return str(self.rows[0]["impl"])

    @property
    def shape(self) -> tuple[Any, ...]:
        return tuple(self.rows[0][name] for name in SHAPE)

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        """The rows that have a latency."""
        return tuple(row for row in self.rows if _is_ok(row))

    @cached_property
    def failed(self) -> tuple[Record, ...]:
        """The others: an ok without a latency is a failure, too."""
        return tuple(row for row in self.rows if not _is_ok(row))

    def samples(self, metric: str) -> dict[RoundKey, Floats]:
        """The samples in ms of each successful round that has any."""
        column = METRICS[metric]
        found = {(row["run_id"], row["round"]): row for row in self.ok}
        return {
            key: np.asarray(row[column], dtype=float)
            for key, row in found.items()
            if row[column] is not None and len(row[column])
        }

    def memory_mib(self) -> float | None:
        """The largest peak of its rounds."""
        return max((r["peak_memory_mib"] for r in self.ok if r["peak_memory_mib"]), default=None)

    def values(self, column: str) -> list[Any]:
        """Distinct values among the successful rows, in order of appearance."""
        return list(dict.fromkeys(row[column] for row in self.ok))

    def failure(self) -> str:
        """`crashed in 1 of 5 rounds: worker was killed by SIGSEGV`."""
        first = self.failed[0]
        share = f" in {len(self.failed)} of {len(self.rows)} rounds" if self.ok else ""
        why = str(first["reason"] or "no reason given").splitlines()[0]
        return f"{first['status']}{share}: {why}"


def is_named(found: Named, name: str) -> bool:
    """Whether `name` is its contender, or its contender and impl joined by a slash."""
    return name in (found.contender, f"{found.contender}/{found.impl}")


def cohorts(rows: pd.DataFrame) -> dict[str, Cohort]:
    """The cases of a frame of `bench.row.Row`, by case_id; absent columns are unknown."""
    wanted = [*_IDENTITY, *SOFTWARE, *METRICS.values()]
    names = [name for name in wanted if name in rows.columns]
    plain = rows[names].astype(object)
    plain = plain.where(plain.notna(), None)
    unknown = dict.fromkeys(wanted)
    groups: dict[str, list[Record]] = {}
    for values in zip(*(plain[name].tolist() for name in names), strict=True):
        row = unknown | dict(zip(names, values, strict=True))
        groups.setdefault(str(row["case_id"]), []).append(row)
    return {case_id: Cohort(rows=tuple(group)) for case_id, group in groups.items()}


def differences(
    baseline: Cohort, candidate: Cohort, *, metric: str, across_machines: bool, new_kernels: bool
) -> list[str]:
    """Why two cohorts of one case cannot be compared, each reason in words; empty if they can.

    Args:
        across_machines: Both are relative to an anchor of their own run, so that machines may
            differ; kernels may then differ, too, because libraries choose them by machine.
    """
    columns = {"schema_version": "schema"}
    columns |= {} if across_machines else _MACHINE
    columns |= _CLOCK if metric == "latency_ms" else {}
    found = [
        f"another {word} ({_listed(before)}, now {_listed(after)})"
        for column, word in columns.items()
        if set(before := baseline.values(column)) != set(after := candidate.values(column))
    ]
    found += [
        f"several {word}s in one run ({_listed(values)})"
        for column, word in columns.items()
        if len(values := baseline.values(column)) > 1
        and set(values) == set(candidate.values(column))
    ]
    if not across_machines:
        found += _thread_differences(baseline, candidate)
    is_same_machine = baseline.values("device_name") == candidate.values("device_name")
    if is_same_machine and not new_kernels:
        found += _kernel_differences(baseline, candidate)
    return found


def software_changes(baseline: Iterable[Cohort], candidate: Iterable[Cohort]) -> list[str]:
    """`torch 2.11.0 (baseline) and 2.12.0`, for every version that differs."""
    sides = [list(baseline), list(candidate)]
    lines = []
    for column in SOFTWARE:
        before, after = (
            sorted({str(value) for cohort in side for value in cohort.values(column) if value})
            for side in sides
        )
        if before and after and before != after:
            lines.append(f"{column} was {_listed(before)} and is {_listed(after)}")
    return lines


def _is_ok(row: Record) -> bool:
    return row["status"] == "ok" and bool(row["latency_ms"])


def _thread_differences(baseline: Cohort, candidate: Cohort) -> list[str]:
    """Of what a CPU computes; on a GPU the host's threads launch and no more."""
    if baseline.rows[0]["device"] == "cuda":
        return []
    old, new = (set(c.values("num_threads")) - {None} for c in (baseline, candidate))
    if not (old and new) or old == new:
        return []
    before, after = (_listed([f"{n:.0f}" for n in sorted(side)]) for side in (old, new))
    return [f"another number of CPU threads ({before}, now {after})"]


def _kernel_differences(baseline: Cohort, candidate: Cohort) -> list[str]:
    before, after = (set(c.values("kernel_fingerprint")) for c in (baseline, candidate))
    # a library may choose anew in each process, so one choice in common is enough
    if before & after:
        return []
    old, new = (_kernel_names(c) for c in (baseline, candidate))
    gone, come = sorted(old - new), sorted(new - old)
    parts = [
        *([f"now {_few(come)}"] if come else []),
        *([f"no longer {_few(gone)}"] if gone else []),
    ]
    return [f"other kernels ({'; '.join(parts) or 'unknown ones'})"]


def _kernel_names(cohort: Cohort) -> set[str]:
    return {
        str(k) for row in cohort.ok for k in (row["kernels"] if row["kernels"] is not None else ())
    }


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _listed(values: Sequence[Any]) -> str:
    return " and ".join("unknown" if v is None else str(v) for v in values) or "unknown"
