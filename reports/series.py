"""Names of series: what one line in a figure and one row in a table is called, and their order."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from bench import units
from ena_kernels.scans.catalog import SCANS

Record = dict[str, Any]

NAMES = {
    "ena": "ENA",
    "transformer": "Transformer",
    "linear": "Linear",
    "attention": "Attention",
    "sliding_tile": "Sliding tile",
    "delta_rule": "Delta rule",
    "scan": "Scan",
}
_ORDER = (
    "transformer",
    "attention",
    "ena",
    "sliding_tile",
    "linear",
    "delta_rule",
    "scan",
)
_TIE_BREAKERS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("sparsity_target", lambda v: f"asked for {units.percent_label(v)}"),
    ("tile", lambda v: f"tile {v}"),
    ("window", lambda v: f"window {v}"),
    ("permute", lambda v: f"permuting {v}"),
    ("timer", lambda v: f"timer {v}"),
    ("run_id", lambda v: f"run {v}"),
    ("case_id", lambda v: f"case {v}"),
)


def label(case: Mapping[str, Any]) -> str:
    """`ENA 70% (flex+fla)`, `Linear cross, official (fla)`: everything that is not a default."""
    contender = str(case["contender"])
    words = [NAMES.get(contender, contender), _sparsity(case), _scan(case, contender)]
    head = " ".join(w for w in words if w)
    extras = [
        f"{case['scan']} scan" if contender == "ena" and case["scan"] not in (None, "uni") else "",
        "official" if case["scan_variant"] == "official" else "",
        case["interleave"] if case["interleave"] not in (None, "linear-first") else "",
        f"permuting {case['permute']}" if case["permute"] not in (None, "io") else "",
    ]
    return f"{', '.join([head, *filter(None, extras)])} ({case['impl']})"


def without_run(case: Mapping[str, Any]) -> Any:
    """The name that a series has in every run."""
    name, run = case["series"], case.get("run_label")
    return re.sub(rf"\), {re.escape(run)}(?=,|$)", ")", name, count=1) if name and run else name


def name_all(cases: list[Record]) -> None:
    """Set `series` on every case so that no two cases of one canvas in one figure share it.

    What several runs have ends in what tells them apart: `Transformer (sdpa_cudnn), H200`; on
    several machines everything does. Cases with the same label that differ in tile, window, run
    and the like get those named.
    """
    runs: dict[str, set[Any]] = {}
    for case in cases:
        runs.setdefault(label(case), set()).add(case.get("run_label"))
    is_one_machine = len({(c.get("device_id"), c.get("device_name")) for c in cases}) == 1
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        name, run = label(case), case.get("run_label")
        is_shared = len(runs[name]) > 1 or not is_one_machine
        case["series"] = f"{name}, {run}" if run and is_shared else name
        key = (case["level"], case["mode"], case["setting"], case["series"])
        groups.setdefault(key, []).append(case)
    for group in groups.values():
        for column, describe in _TIE_BREAKERS:
            if _tells_apart(group, column):
                for case in group:
                    case["series"] += f", {describe(case[column])}"


def sort_key(case: Mapping[str, Any]) -> tuple[Any, ...]:
    """Baselines, then ENA from dense to sparse, then linear models by scan, then others."""
    contender = case["contender"]
    rank = _ORDER.index(contender) if contender in _ORDER else len(_ORDER)
    scan = SCANS.index(case["scan"]) if case["scan"] in SCANS else len(SCANS)
    return (rank, case["sparsity_target"] or 0.0, scan, case["series"])


def _tells_apart(group: list[Record], column: str) -> bool:
    """Whether some canvas occurs twice under one name, with different values of the column."""
    seen: dict[tuple[Any, ...], set[Any]] = {}
    for case in group:
        seen.setdefault((case["canvas"], case["series"]), set()).add(case[column])
    return any(len(values) > 1 for values in seen.values())


def _sparsity(case: Mapping[str, Any]) -> str:
    target, window = case["sparsity_target"], case["window"]
    if target == 0.0 and case["contender"] == "ena":
        return "full attention"
    if target is not None:
        return units.percent_label(target)
    if window is not None:
        return f"window {window}"
    return "full attention" if case["contender"] == "ena" else ""


def _scan(case: Mapping[str, Any], contender: str) -> str:
    return str(case["scan"]) if case["scan"] is not None and contender != "ena" else ""
