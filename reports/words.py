"""The fixed phrases of figures, pages and screens."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from bench import units
from reports import frames, series, speedup

Record = dict[str, Any]

LEVELS = {"op": "Operator", "layer": "Layer", "model": "Model"}
MODES = {
    "fwd": "forward",
    "bwd": "backward",
    "fwdbwd": "forward and backward",
    "step": "training step",
}
LENGTH_AXIS = "sequence length (tokens, 1k = 1024)"
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
TIMERS = {
    "events": "CUDA events around single calls with a flushed L2 cache",
    "graph": "CUDA graph replay",
    "wall": "the host clock with synchronisation",
}
_ROUNDS = (
    "Cases were visited in up to {rounds} rounds; their samples are pooled, and the interval is "
    "widened to contain the median of every round."
)
_METHOD = (
    "A speed-up is the anchor's median over the case's; its range is the widest that both "
    "intervals allow. The anchor is the fastest FlashAttention Transformer (for operators, the "
    "fastest FlashAttention) of the same mode, shape, type and device.",
    "An exponent is the slope of the logarithm over that of the length, from the length on at "
    "which no fixed overhead dominates (the first one where none does); its interval comes from "
    "those of the medians, and 'off by' says how far a curve is from a power law. The length at "
    "which a series overtakes its anchor is interpolated between measured lengths; its interval "
    "takes the errors of both medians in quadrature.",
    "Peak memory is the most that was allocated at once, in a pass of its own.",
    "Every result was compared with float64 before and after timing; a case that failed that has "
    "no latency.",
    "A failed case is a marker at the edge of its figure, never a zero.",
)


def headline(level: str) -> str:
    """Whose speed-up a level is about."""
    return "sliding_tile" if level == "op" else "ena"


def heading(level: str, mode: str) -> str:
    """`Layer, forward and backward`."""
    return f"{LEVELS.get(level, level)}, {MODES.get(mode, mode)}"


def dimensions(ndim: int) -> str:
    """`2-D canvas`."""
    return f"{ndim}-D canvas"


def figure_title(cases: Sequence[Record], quantity: str) -> str:
    """`Layer, forward: latency`, of several modes `Layer: latency`; a speed-up says over what."""
    if not cases:
        return quantity
    over = f" over {anchor_phrase(cases)}" if quantity == "speed-up" else ""
    return f"{level_heading(cases)}: {quantity}{over}"


def level_heading(cases: Sequence[Record]) -> str:
    """`Layer, forward`, of several modes `Layer`."""
    level, modes = str(cases[0]["level"]), frames.unique(c["mode"] for c in cases)
    return heading(level, modes[0]) if len(modes) == 1 else LEVELS.get(level, level)


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
    names = frames.unique(series.without_run(c | {"series": c["anchor"]}) for c in cases)
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


def notes(*sentences: str) -> str:
    """Those that say something, one after the other."""
    return " ".join(filter(None, sentences))


def failure_note(cases: Sequence[Record], width: int = 170) -> str:
    """Which cases ran and gave no number, by status, for figures that cannot place them."""
    found: dict[str, dict[str, list[int]]] = {}
    for case in cases:
        if not frames.is_timed(case) and case["status"] != "unsupported" and case["seq_len"]:
            own = found.setdefault(case["status"], {}).setdefault(case["series"], [])
            own.append(case["seq_len"])
    parts = [
        f"{STATUS_WORDS.get(status, status)}: {name} at "
        f"{', '.join(units.tokens(n) for n in sorted(set(lengths)))}"
        for status, series_ in found.items()
        for name, lengths in series_.items()
    ]
    if not parts:
        return ""
    return textwrap.shorten(f"Without a result: {'; '.join(parts)}.", width, placeholder=" ...")


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


def slug(text: str) -> str:
    """Lower-case letters, digits and dashes only: safe in file names and ids."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def run_lines(cases: Sequence[Record]) -> list[str]:
    """Run, date and number of cases of each run."""
    lines = []
    for run in frames.unique(c["run_id"] for c in cases):
        own = [c for c in cases if c["run_id"] == run]
        starts = sorted(c["started_at"] for c in own if c["started_at"])
        when = f", started {starts[0]}" if starts else ""
        lines.append(f"{run}: {units.plural(len(own), 'case')}{when}")
    return lines


def anchor_notes(cases: Sequence[Record]) -> list[str]:
    """What speed-ups are relative to, and what a reader could mistake."""
    names = anchors(cases)
    if not names:
        return [f"Without a measured {_anchor_name(cases)} there is no speed-up."]
    runs = {c["run_label"] for c in cases if c["anchor"]}
    own = f"the fastest {_anchor_name(cases)} of the same run: {'; '.join(names)}"
    notes = [f"Speed-ups are relative to {own if len(runs) > 1 else _one_of(names)}."]
    if not any(c["anchor_is_flash"] for c in cases):
        notes.append(
            f"No flash {_anchor_name(cases)} was measured; the fastest other one stands in."
        )
    if any(c["anchor_canvas"] not in (None, c["canvas"]) for c in cases):
        notes.append(
            "Where it was not measured on a canvas, its time on another canvas of the same length "
            "is used: full attention does not depend on the canvas."
        )
    return notes


def method(cases: Sequence[Record]) -> list[str]:
    """How the numbers came about, for a reader who doubts them."""
    timed = [c for c in cases if frames.is_timed(c)]
    if not timed:
        return []
    samples = [c["num_samples"] for c in timed if c["num_samples"]]
    converged = sum(c["stop_reason"] == "converged" for c in timed)
    clocks = sorted({TIMERS.get(str(c["timer"]), str(c["timer"])) for c in timed})
    numbers = " to ".join(map(str, sorted({min(samples), max(samples)}))) if samples else ""
    taken = f" of {numbers} samples" if samples else ""
    rounds = max(c["num_rounds"] for c in timed)
    return [
        f"Latency is the median{taken} per case, timed by {' and '.join(clocks)}. No sample is "
        "dropped.",
        "Bands and intervals are 95% intervals of the median that assume no distribution; "
        f"{converged} of {units.plural(len(timed), 'case')} reached the wanted precision before "
        "the time budget was spent.",
        *([_ROUNDS.format(rounds=rounds)] if rounds > 1 else []),
        *_METHOD,
    ]


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"the fastest of {', '.join(names)} at each length"


def _anchor_name(cases: Sequence[Record]) -> str:
    return series.NAMES[speedup.anchor_contender(cases[0]["level"])]
