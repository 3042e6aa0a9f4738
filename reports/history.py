"""Latencies of the same cases over many runs, in order of time, with the changes among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd

from bench.stats import median
from reports import change_points, frames, late_shifts, run_labels
from reports.change_points import Change

Record = dict[str, Any]

COMMON_SHARE = 0.5
"""Share of the cases of a device from which on a change at one run is more than one kernel's."""
COMMON_CASES = 4
"""Fewer cases do not make a change common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run on one device; `number` counts the runs of a device from 1, the earliest first."""

    run_id: str
    number: int
    device_name: str
    started_at: str
    commit: str
    num_ok: int
    num_cases: int
    example: Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A case in one run; the latency is None unless the status is ok."""

    run: Run
    status: str
    reason: str | None
    latency_ms: float | None
    lo_ms: float | None
    hi_ms: float | None
    is_outlier: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A change: the runs on both sides of it, the medians before and after, and what else changed.

    `change.index` counts the points with a latency.
    """

    change: Change
    last_before: Run
    first_after: Run
    before_ms: float
    after_ms: float
    others: tuple[str, ...]

    @property
    def is_slower(self) -> bool:
        return self.change.ratio > 1

    @property
    def commits(self) -> str:
        """`a1b2c3d..f6e5d4c` for git log; the one commit where it is the same."""
        old, new = self.last_before.commit, self.first_after.commit
        if old == new:
            return f"same commit {old}"
        return f"{old}..{new}" if " " not in old + new else f"{old} to {new}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseHistory:
    """A case on one device over its runs; `late` is a shift of its last one or two runs."""

    case_path: str
    device_name: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...] = ()
    late: Step | None = None

    @property
    def timed(self) -> tuple[Point, ...]:
        """The points with a latency."""
        return tuple(p for p in self.points if p.latency_ms is not None)

    @property
    def levels(self) -> list[tuple[Sequence[Point], float]]:
        """The points with a latency between changes, and the median of each group in ms."""
        timed, ends = self.timed, [0, *(s.change.index for s in self.steps), len(self.timed)]
        groups = [timed[a:b] for a, b in pairwise(ends)]
        return [(g, median([p.latency_ms or 0.0 for p in g])) for g in groups]

    @property
    def stopped(self) -> tuple[Point, Point] | None:
        """The last point with a latency and the first one without, where it ends without any."""
        timed = self.timed
        if not timed or self.points[-1].latency_ms is not None:
            return None
        place = self.points.index(timed[-1])
        return timed[-1], self.points[place + 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """A run at which many cases of a device changed at once."""

    run: Run
    steps: tuple[Step, ...]
    num_cases: int


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Everything that a page of histories tells; cases with the largest changes come first."""

    runs: tuple[Run, ...]
    cases: tuple[CaseHistory, ...]

    @property
    def steps(self) -> list[tuple[CaseHistory, Step]]:
        """Every change, the slower ones first, the largest of them before the others."""
        found = [(case, step) for case in self.cases for step in case.steps]
        return sorted(found, key=lambda pair: (not pair[1].is_slower, -_size(pair[1])))

    @property
    def lates(self) -> list[tuple[CaseHistory, Step]]:
        """Every shift of the last runs, in the order of `steps`."""
        found = [(case, case.late) for case in self.cases if case.late is not None]
        return sorted(found, key=lambda pair: (not pair[1].is_slower, -_size(pair[1])))

    @property
    def common(self) -> list[Common]:
        """The runs at which at least half of the cases of a device changed."""
        groups: dict[tuple[str, int], list[Step]] = {}
        for case in self.cases:
            for step in (*case.steps, *([case.late] if case.late else [])):
                key = (case.device_name, step.first_after.number)
                groups.setdefault(key, []).append(step)
        found = []
        for (device, _), steps in groups.items():
            number = sum(case.device_name == device for case in self.cases)
            if len(steps) >= max(COMMON_CASES, COMMON_SHARE * number):
                run = steps[0].first_after
                found.append(Common(run=run, steps=tuple(steps), num_cases=number))
        return found


def compose(rows: pd.DataFrame) -> History:
    """The history in rows (columns of `bench.row.Row`) of any number of runs.

    Cases of devices of one name are one history: a fleet of equal machines counts as one.
    """
    cases = frames.combine_rounds(frames.records(rows))
    runs = _runs(cases)
    histories = _histories(cases, runs)
    values = [[p.latency_ms or 0.0 for p in h.timed] for h in histories]
    changes = change_points.find(values)
    lates = late_shifts.find(values, changes)
    told = [
        _with_steps(h, found, late)
        for h, found, late in zip(histories, changes, lates, strict=True)
    ]
    told.sort(key=lambda h: (-_largest(h), h.device_name, h.case_path))
    return History(runs=tuple(runs.values()), cases=tuple(told))


def _key(case: Record) -> tuple[Any, ...]:
    return tuple(case[name] for name in run_labels.KEY)


def _runs(cases: Sequence[Record]) -> dict[tuple[Any, ...], Run]:
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        groups.setdefault(_key(case), []).append(case)
    found: dict[tuple[Any, ...], Run] = {}
    numbers: dict[str, int] = {}
    ordered = sorted(groups.items(), key=lambda item: (run_labels.started(item[1]), str(item[0])))
    for key, own in ordered:
        device = _device(own[0])
        numbers[device] = numbers.get(device, 0) + 1
        found[key] = Run(
            run_id=str(own[0]["run_id"]),
            number=numbers[device],
            device_name=device,
            started_at=run_labels.started(own),
            commit=run_labels.commit_text(own[0]),
            num_ok=sum(map(frames.is_timed, own)),
            num_cases=len(own),
            example=next(filter(frames.is_timed, own), own[0]),
        )
    return found


def _device(case: Record) -> str:
    return str(case["device_name"] or "unknown device")


def _histories(cases: Sequence[Record], runs: dict[tuple[Any, ...], Run]) -> list[CaseHistory]:
    """Cases that were measured at least once, each with its points in order of time."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for case in cases:
        name = str(case["case_id"] or case["case_path"])
        groups.setdefault((name, _device(case)), []).append(case)
    found = []
    for (_, device), own in groups.items():
        if any(map(frames.is_timed, own)):
            points = sorted(
                (_point(case, runs[_key(case)]) for case in own), key=lambda p: p.run.number
            )
            path = str(own[0]["case_path"] or own[0]["case_id"])
            history = CaseHistory(case_path=path, device_name=device, points=tuple(points))
            found.append(_with_outliers(history))
    return found


def _point(case: Record, run: Run) -> Point:
    is_timed = frames.is_timed(case)
    latency = case["latency_ms"] if is_timed else None
    return Point(
        run=run,
        status=str(case["status"]),
        reason=case["reason"],
        latency_ms=latency,
        lo_ms=(case["latency_ms_lo"] or latency) if is_timed else None,
        hi_ms=(case["latency_ms_hi"] or latency) if is_timed else None,
    )


def _with_outliers(history: CaseHistory) -> CaseHistory:
    timed = history.timed
    if len(timed) < 2 * change_points.LEAST_RUNS:
        return history
    far = change_points.outliers([p.latency_ms or 0.0 for p in timed])
    alone = {p.run.number for p, is_far in zip(timed, far, strict=True) if is_far}
    points = (replace(p, is_outlier=p.run.number in alone) for p in history.points)
    return replace(history, points=tuple(points))


def _with_steps(
    history: CaseHistory, changes: Sequence[Change], late: Change | None
) -> CaseHistory:
    timed = history.timed
    ends = [0, *(c.index for c in changes), len(timed)]
    parts = [timed[a:b] for a, b in pairwise(ends)]
    steps = [_step(change, *pair) for change, pair in zip(changes, pairwise(parts), strict=True)]
    last = None
    if late is not None:
        last = _step(late, timed[ends[-2] : late.index], timed[late.index :])
    return replace(history, steps=tuple(steps), late=last)


def _step(change: Change, before: Sequence[Point], after: Sequence[Point]) -> Step:
    before_ms, after_ms = (median([p.latency_ms or 0.0 for p in part]) for part in (before, after))
    last, first = before[-1].run, after[0].run
    return Step(
        change=change,
        last_before=last,
        first_after=first,
        before_ms=before_ms,
        after_ms=after_ms,
        others=tuple(run_labels.changed(last.example, first.example)),
    )


def _largest(case: CaseHistory) -> float:
    steps = [*case.steps, *([case.late] if case.late else [])]
    return max(map(_size, steps), default=0.0)


def _size(step: Step) -> float:
    return abs(math.log(step.change.ratio))
