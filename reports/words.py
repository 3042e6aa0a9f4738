"""The fixed phrases of figures, pages and screens."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from reports import frames, speedup

Record = dict[str, Any]

LEVELS = {"op": "Operator", "layer": "Layer", "model": "Model"}
MODES = {
    "fwd": "forward",
    "bwd": "backward",
    "fwdbwd": "forward and backward",
    "step": "training step",
}
STATUS_WORDS = {
    "ok": "ok",
    "oom": "out of memory",
    "unsupported": "unsupported",
    "timeout": "timeout",
    "crashed": "crashed",
    "incorrect": "incorrect",
    "fallback": "fallback",
    "failed": "failed",
}


def heading(level: str, mode: str) -> str:
    """`Layer, forward and backward`."""
    return f"{LEVELS.get(level, level)}, {MODES.get(mode, mode)}"


def dimensions(ndim: int) -> str:
    """`2-D canvas`."""
    return f"{ndim}-D canvas"


def figure_title(cases: Sequence[Record], quantity: str) -> str:
    """`Layer, forward: latency`; a speed-up says over what."""
    if not cases:
        return quantity
    over = f" over {anchor_phrase(cases)}" if quantity == "speed-up" else ""
    return f"{heading(cases[0]['level'], cases[0]['mode'])}: {quantity}{over}"


def anchor_phrase(cases: Sequence[Record]) -> str:
    """`the FlashAttention Transformer`, or what stands in for it."""
    kind = "attention" if speedup.anchor_contender(cases[0]["level"]) == "attention" else ""
    if not any(c["anchor_is_flash"] for c in cases):
        return "full attention" if kind else "the Transformer"
    return "FlashAttention" if kind else "the FlashAttention Transformer"


def figure_subtitle(cases: Sequence[Record], quantity: str) -> str:
    """What the figure holds fixed, and for a speed-up what it is relative to."""
    if not cases:
        return ""
    names = anchors(cases)
    if quantity != "speed-up" or not names:
        return str(cases[0]["setting"])
    best = f"the fastest of {len(names)} at each length" if len(names) > 2 else " or ".join(names)
    return f"{cases[0]['setting']}; 1x is {best}"


def anchors(cases: Sequence[Record]) -> list[str]:
    """The series that other cases are compared with."""
    return frames.unique(c["anchor"] for c in cases)


def unsupported_note(cases: Sequence[Record], width: int = 110) -> str:
    """Which series are left out of a figure because they cannot run these cases."""
    missing = frames.unique(c["series"] for c in cases if c["status"] == "unsupported")
    if not missing:
        return ""
    lead = "Not drawn because unsupported (some lengths or all; reasons in the table): "
    return textwrap.shorten(lead + "; ".join(missing), width, placeholder=" ...")


def footer(cases: Sequence[Record]) -> str:
    """Machine, commit and run, for whoever finds the figure alone."""
    names = frames.unique(c["device_name"] for c in cases)
    commits = frames.unique(commit(c) for c in cases)
    runs = frames.unique(c["run_id"] for c in cases)
    parts = (_few(names, "machines"), _few(commits, "commits"), _few(runs, "runs", lead="run "))
    return " | ".join(p for p in parts if p)


def commit(case: Mapping[str, Any]) -> str | None:
    """`commit a1b2c3d`, with `+ changes` for a dirty working tree."""
    if not case["git_commit"]:
        return None
    return f"commit {str(case['git_commit'])[:7]}{' + changes' if case['git_dirty'] else ''}"


def _few(values: Sequence[str], noun: str, lead: str = "") -> str:
    if len(values) > 2:
        return f"{len(values)} {noun}"
    return ", ".join(f"{lead}{value}" for value in values)
