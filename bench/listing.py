"""What there is to measure, as plain rows: contenders, presets, cases and scans."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.contenders import Contender, registry, unavailable
from bench.grid import Planned, load_preset, preset_file, preset_names
from ena_kernels.scans.catalog import SCANS, scan_passes, scan_reason

if TYPE_CHECKING:
    from bench.machine import Check

Rows = list[dict[str, Any]]
_EXAMPLES = {"1-D": (4096,), "2-D": (64, 64), "3-D": (16, 16, 16)}
_EXAMPLE_HEADS = 12
_LEFT_EMPTY = {
    "sparsity": "sparsity_target",
    "tile": "tile",
    "window": "window",
    "scan": "scan",
    "scan_variant": "scan_variant",
    "interleave": "interleave",
    "permute": "permute",
}
"""The field of a case that is None where an axis means nothing."""


def contenders(device: str) -> Rows:
    """Every contender, whether it can run on a device, and if not why.

    What packages publish and cannot be used comes last, under the name of its entry point where
    that is all that is known.
    """
    rows: Rows = [
        {
            "level": contender.level,
            "contender": contender.name,
            "impl": contender.impl,
            "modes": " ".join(contender.modes),
            "dtypes": " ".join(contender.dtypes),
            "here": _why_not(contender, device) or "yes",
        }
        for contender in registry().values()
    ]
    for broken in unavailable():
        level, name, impl = broken.key or (None, broken.entry_point, None)
        rows.append(
            {"level": level, "contender": name, "impl": impl, "modes": None, "dtypes": None}
            | {"here": f"no: {broken.text}"}
        )
    return rows


def published_checks() -> "list[Check]":
    """A check for whatever installed packages publish and cannot be used; empty if all can."""
    from bench.machine import Check

    return [
        Check(name="contenders", ok=False, text=broken.text, cure=broken.cure)
        for broken in unavailable()
    ]


def presets() -> Rows:
    """The shipped grids, and the file of each to copy and change."""
    return [
        {
            "preset": name,
            "description": load_preset(name).description,
            "file": str(preset_file(name)),
        }
        for name in preset_names()
    ]


def cases(planned: Sequence[Planned]) -> Rows:
    """Planned cases, and why any cannot run."""
    return [{"case": p.case.case_path, "here": p.reason or "yes"} for p in planned]


def left_out(named: Sequence[str], planned: Sequence[Planned]) -> list[str]:
    """What means nothing to some contenders of the axes that a user named, a sentence for each."""
    told: list[str] = []
    if {"sparsity", "window"} <= set(named):
        told.append("--sparsity is left out: --window says what is attended")
        named = [axis for axis in named if axis != "sparsity"]
    axes: dict[tuple[str, ...], list[str]] = {}
    for axis in named:
        field = _LEFT_EMPTY.get(axis)
        if field is None:
            continue
        meant = {p.case.contender for p in planned if getattr(p.case, field) is not None}
        others = dict.fromkeys(p.case.contender for p in planned if p.case.contender not in meant)
        if others:
            axes.setdefault(tuple(others), []).append(f"--{axis.replace('_', '-')}")
    for contenders, options in axes.items():
        verbs = ("means", "is") if len(options) == 1 else ("mean", "are")
        told.append(
            f"{' and '.join(options)} {verbs[0]} nothing to {' and '.join(contenders)}, and "
            f"{verbs[1]} left out there"
        )
    return told


def scans() -> Rows:
    """Every scan, how often it runs the mixer, and which canvases it reads."""
    return [
        {"scan": name, "passes": scan_passes(name)}
        | {
            axes: "yes" if scan_reason(name, canvas, _EXAMPLE_HEADS) is None else "no"
            for axes, canvas in _EXAMPLES.items()
        }
        for name in SCANS
    ]


def text(rows: Rows) -> str:
    """Aligned columns under their names; the last column is not padded."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    return "n/a" if value is None else str(value)


def _why_not(contender: Contender, device: str) -> str | None:
    if reason := contender.lacks():
        return f"no: {reason}"
    if device not in contender.devices:
        return f"no: runs on {', '.join(contender.devices)} only"
    return None
