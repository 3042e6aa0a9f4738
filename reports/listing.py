"""Text for the terminal: one line per case, numbers aligned, units in the header."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench import units
from reports import few_samples, frames, series, speedup

Record = dict[str, Any]
GAP = "  "


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen with a style that rich understands."""

    text: str
    style: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A column of numbers; the least important ones are left out where the terminal is narrow."""

    heading: str
    unit: str
    text: Callable[[Record], str]
    importance: int


def case_lines(cases: Sequence[Record], width: int) -> Iterator[Line]:
    """One aligned table with a heading for each level, mode and setting.

    A failed case shows its status and reason instead of numbers.
    """
    sheet = _Sheet(cases, width)
    yield from sheet.header()
    for title, group in groupby(cases, group_title):
        members = list(group)
        yield Line(title + _versus(members), "bold cyan")
        yield from (sheet.line(case) for case in members)


def group_title(case: Record) -> str:
    """`layer fwd: batch 1, 12 heads of 64, depth 2, bfloat16, cuda`."""
    return f"{case['level']} {case['mode']}: {case['setting']}"


def anchor_name(cases: Sequence[Record]) -> str | None:
    """The series that speed-ups are relative to, or what several of them are."""
    anchors = frames.unique(c["anchor"] for c in cases)
    if len(anchors) <= 1:
        return anchors[0] if anchors else None
    return f"the fastest {series.NAMES[speedup.anchor_contender(cases[0]['level'])]}"


def shorten(text: str, width: int) -> str:
    """Cut at the end, visibly."""
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."


def joined(lead: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells to the right of their columns, after a lead that is already as wide as it must be."""
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return GAP.join([lead, *padded]).rstrip()


def _versus(cases: Sequence[Record]) -> str:
    name = anchor_name(cases)
    return f", vs {name}" if name else ""


class _Sheet:
    """The columns that fit into a width, and how wide each is."""

    def __init__(self, cases: Sequence[Record], width: int) -> None:
        self.width = width
        self.label = max([len(c["series"]) + 2 for c in cases] + [len("series")])
        self.canvas = max([len(str(c["canvas"])) for c in cases] + [len("canvas")])
        self.fields = list(_FIELDS)
        room = width - self.label - len(GAP) - self.canvas
        while sum(_width(f, cases) + len(GAP) for f in self.fields) > room:
            if len(self.fields) == 1:
                break
            self.fields.remove(min(self.fields, key=lambda f: f.importance))
        self.widths = [_width(f, cases) for f in self.fields]

    def header(self) -> Iterator[Line]:
        """Names, then units."""
        names, units_ = [f.heading for f in self.fields], [f.unit for f in self.fields]
        yield Line(joined(self._lead("", ""), names, self.widths), "bold")
        yield Line(joined(self._lead("series", "canvas"), units_, self.widths), "bold")

    def line(self, case: Record) -> Line:
        """Numbers, or why there are none."""
        lead = self._lead(f"  {case['series']}", str(case["canvas"]))
        if frames.is_timed(case):
            return Line(joined(lead, [f.text(case) for f in self.fields], self.widths))
        why = " ".join(f"{case['status']}: {case['reason'] or 'no reason given'}".split())
        return Line(shorten(lead + GAP + why, self.width), "red")

    def _lead(self, label: str, canvas: str) -> str:
        return label.ljust(self.label) + GAP + canvas.rjust(self.canvas)


def _width(column: Field, cases: Sequence[Record]) -> int:
    texts = [column.text(c) for c in cases if frames.is_timed(c)]
    return max(len(t) for t in (column.heading, column.unit, *texts))


_FIELDS = (
    Field(
        heading="latency",
        unit="ms",
        text=lambda c: few_samples.marked(units.significant(c["latency_ms"]), c["is_sure"]),
        importance=9,
    ),
    Field(
        heading="spread",
        unit="%",
        text=lambda c: units.percent(c["spread_fraction"]).removesuffix("%"),
        importance=2,
    ),
    Field(
        heading="rate",
        unit="tokens/s",
        text=lambda c: units.rate(c["tokens_per_s"]),
        importance=3,
    ),
    Field(
        heading="compute",
        unit="TFLOP/s",
        text=lambda c: units.significant(c["tflops_per_s"]),
        importance=1,
    ),
    Field(
        heading="memory",
        unit="MiB",
        text=lambda c: units.significant(c["peak_memory_mib"]),
        importance=4,
    ),
    Field(
        heading="speed-up",
        unit="x",
        text=lambda c: few_samples.marked(
            units.ratio(c["speedup"]).removesuffix("x"), c["is_speedup_sure"]
        ),
        importance=8,
    ),
)
