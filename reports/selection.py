"""What a figure of many runs shows: the latest ones, and not more series than eyes can follow."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import units
from reports import frames, series

Record = dict[str, Any]

MAX_RUNS = 4
"""Runs in one figure, as many as there are dashes."""
MAX_SERIES = 32


def shown(cases: Sequence[Record]) -> list[Record]:
    """The cases of the latest runs and of the first series, in their order."""
    kept = set(latest_runs(cases))
    cases = [c for c in cases if c["run_label"] in kept]
    names = set(_series(cases)[:MAX_SERIES])
    return [c for c in cases if c["series"] in names or c["status"] == "unsupported"]


def note(cases: Sequence[Record]) -> str:
    """What is left out of a figure of these cases, and where it is to be found; mostly nothing."""
    runs = len(_runs(cases)) - MAX_RUNS
    latest = set(latest_runs(cases))
    left = len(_series([c for c in cases if c["run_label"] in latest])) - len(_series(shown(cases)))
    parts = [
        f"{units.plural(runs, 'earlier run')} not drawn (ena-bench history)" if runs > 0 else "",
        f"{left} more series not drawn (all are in the page)" if left > 0 else "",
    ]
    return "; ".join(filter(None, parts)) + ("." if any(parts) else "")


def latest_runs(cases: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """The labels of the runs that are drawn, the earliest first; None stands for a single run."""
    return _runs(cases)[-MAX_RUNS:]


def _runs(cases: Iterable[Mapping[str, Any]]) -> list[str | None]:
    begun: dict[str | None, str] = {}
    for case in cases:
        label, at = case["run_label"], str(case["started_at"] or "")
        begun[label] = min(begun.get(label, at), at)
    return sorted(begun, key=lambda label: (begun[label], str(label)))


def _series(cases: Iterable[Record]) -> list[str]:
    drawn = [c for c in cases if c["status"] != "unsupported"]
    return frames.unique(c["series"] for c in sorted(drawn, key=series.sort_key))
