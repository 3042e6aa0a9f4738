"""The numbers inside the page: what its charts and its table are drawn from, and what it saves.

Columns are packed: one value where all are equal, a list of choices and indices where they repeat,
else one value per line. `reports/page/data.js` unpacks them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from bench.row import Row
from reports import few_samples, figures, frames, page_charts, theme
from reports.metrics import SPEEDUP, Metric
from reports.scaling import Scaling

Record = dict[str, Any]

_KEPT = tuple(name for name in frames.ROW_COLUMNS if name not in frames.RAW_LISTS)
_OF_CASES = (
    *("anchor", "speedup", "speedup_lo", "speedup_hi", "speedup_by_flops"),
    *("is_sure", "is_speedup_sure"),
)
DIGITS = 9
"""Significant digits of a number in the page; the run keeps them all."""
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""What could end a script element or begin a comment in it."""

CASE_COLUMNS = (
    "contender",
    "impl",
    "ndim",
    "canvas",
    "seq_len",
    "sparsity",
    "sparsity_target",
    "scan",
    "status",
    "reason",
    "is_squarest",
    "num_samples",
    "num_rounds",
    "anchor",
)
"""What charts and their tooltips need of a case, besides its quantities and its rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A column of the table of rows: which column of a row, and how its text is made.

    `format` is a function of `bench.units`, or `text`.
    """

    column: str
    title: str
    unit: str = ""
    format: str = "text"


TABLE = (
    Shown(column="level", title="level"),
    Shown(column="mode", title="mode"),
    Shown(column="series", title="series"),
    Shown(column="canvas", title="canvas", unit="tokens"),
    Shown(column="seq_len", title="length", unit="tokens", format="tokens"),
    Shown(column="status", title="status"),
    Shown(column="latency_ms", title="latency", unit="ms", format="significant"),
    Shown(column="latency_ms_lo", title="from", unit="ms, 95%", format="significant"),
    Shown(column="latency_ms_hi", title="to", unit="ms, 95%", format="significant"),
    Shown(column="speedup", title="speed-up", unit="over anchor", format="ratio"),
    Shown(column="speedup_by_flops", title="predicted", unit="by FLOPs", format="ratio"),
    Shown(column="tokens_per_s", title="throughput", unit="tokens/s", format="rate"),
    Shown(column="tflops_per_s", title="compute", unit="TFLOP/s", format="significant"),
    Shown(column="peak_memory_mib", title="peak memory", unit="MiB", format="significant"),
    Shown(column="error_budget_used", title="error", unit="of budget", format="percent"),
    Shown(column="batch", title="B", format="count"),
    Shown(column="heads", title="H", format="count"),
    Shown(column="head_dim", title="D", format="count"),
    Shown(column="depth", title="depth", format="count"),
    Shown(column="dtype", title="dtype"),
    Shown(column="device_name", title="device"),
    Shown(column="run_id", title="run"),
    Shown(column="round", title="round", format="count"),
    Shown(column="reason", title="reason"),
    Shown(column="warnings", title="warnings"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One level, mode and setting: what its series look like and where they cross."""

    level: str
    mode: str
    heading: str
    setting: str
    cases: Sequence[Record]
    styles: Mapping[str, theme.Style]
    scaling: Sequence[Scaling]
    notes: Sequence[str]


def page_data(rows: pd.DataFrame, groups: Sequence[Group]) -> dict[str, Any]:
    """Everything that the page draws, ready to become JSON.

    Args:
        rows: As measured, columns of `bench.row.Row`.
        groups: All their cases.
    """
    looks: dict[tuple[str, theme.Style], int] = {}
    cases: list[Record] = []
    places: dict[str, list[int]] = {"group": [], "line": []}
    for number, group in enumerate(groups):
        for case in group.cases:
            cases.append(case)
            places["group"].append(number)
            places["line"].append(
                looks.setdefault((case["series"], _look(group, case)), len(looks))
            )
    columns = {name: [_plain(c[name]) for c in cases] for name in CASE_COLUMNS} | places
    for metric in figures.QUANTITIES:
        columns |= _quantity_columns(metric, cases)
    return {
        "cases": _table(columns, len(cases)),
        "rows": _rows(rows, cases),
        "shown": [asdict(shown) for shown in TABLE],
        "units": {f.name: f.metadata["unit"] for f in fields(Row) if f.name in _KEPT},
        "groups": [_group(group) for group in groups],
        "series": [_series(name, style) for name, style in looks],
        "quantities": [_quantity(metric) for metric in figures.QUANTITIES],
        "failures": theme.FAILURE_WORDS,
        "few_samples": {"mark": few_samples.MARK, "note": few_samples.page_note()},
    }


def script_text(data: Any) -> str:
    """JSON that can stand inside a script element whatever is in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign, escape in _UNSAFE.items():
        text = text.replace(sign, escape)
    return text


def packed(values: Sequence[Any]) -> dict[str, Any]:
    """A column in few characters that are still easy to read back."""
    choices = {(type(v), v): v for v in values}
    if len(choices) <= 1:
        return {"all": values[0] if values else None}
    if len(choices) <= len(values) // 2 and any(isinstance(v, str) for v in choices.values()):
        places = {key: index for index, key in enumerate(choices)}
        return {"of": list(choices.values()), "at": [places[type(v), v] for v in values]}
    return {"each": list(values)}


def _table(columns: Mapping[str, list[Any]], length: int) -> dict[str, Any]:
    return {"length": length, "columns": {name: packed(v) for name, v in columns.items()}}


def _rows(rows: pd.DataFrame, cases: Sequence[Record]) -> dict[str, Any]:
    """Every row as measured without its samples, in the order of the cases; `case` is its place
    there."""
    places = {frames.case_key(case): index for index, case in enumerate(cases)}
    shown = frames.records(rows.drop(columns=list(frames.RAW_LISTS), errors="ignore"))
    found = [(places.get(frames.case_key(r), len(cases)), r["round"] or 0, r) for r in shown]
    found.sort(key=lambda f: f[:2])
    columns = {name: [_plain(row[name]) for _, _, row in found] for name in _KEPT}
    of_cases = [cases[place] if place < len(cases) else None for place, _, _ in found]
    columns["series"] = [case and case["series"] for case in of_cases]
    for name in _OF_CASES:
        columns[name] = [case and _plain(case[name]) for case in of_cases]
    columns["case"] = [place if place < len(cases) else None for place, _, _ in found]
    return _table(columns, len(found))


def _quantity_columns(metric: Metric, cases: Sequence[Record]) -> dict[str, list[Any]]:
    ends = [metric.interval(c) for c in cases]
    return {
        f"{metric.name}:value": [_plain(metric.value(c)) for c in cases],
        f"{metric.name}:lo": [_plain(low) for low, _ in ends],
        f"{metric.name}:hi": [_plain(high) for _, high in ends],
        f"{metric.name}:is_sure": [metric.is_sure(c) for c in cases],
    }


def _quantity(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "title": metric.title,
        "axis": metric.axis,
        "format": metric.tick_label.__name__,
        "is_worse_higher": metric.is_worse_higher,
        "has_anchor": metric is SPEEDUP,
    }


def _group(group: Group) -> dict[str, Any]:
    crossings = [
        {"series": line.series, "ndim": line.ndim, **asdict(line.crossover)}
        for line in group.scaling
        if line.crossover is not None and line.crossover.seq_len is not None
    ]
    return {
        "level": group.level,
        "mode": group.mode,
        "heading": group.heading,
        "setting": group.setting,
        "crossings": crossings,
        "charts": [_chart(chart) for chart in page_charts.charts(group.cases, group.styles)],
        "notes": list(group.notes),
    }


def _chart(chart: page_charts.Chart) -> dict[str, Any]:
    shared = ("name", "title", "caption", "form", "panel", "ndim")
    lines = [
        _series(line.name, line.style)
        | {
            "is_reference": line.is_reference,
            "points": [[_plain(part) for part in point] for point in line.points],
        }
        for line in chart.lines
    ]
    axes = {"x": asdict(chart.x), "y": asdict(chart.y)}
    return {name: getattr(chart, name) for name in shared} | axes | {"lines": lines}


def _look(group: Group, case: Record) -> theme.Style:
    """Series that are drawn nowhere, because unsupported everywhere, are grey."""
    return group.styles.get(case["series"]) or theme.Style(theme.GREY, theme.MARKERS[0], "-")


def _series(name: str, style: theme.Style) -> dict[str, Any]:
    return {
        "name": name,
        "colour": theme.PALETTE.index(style.colour),
        "marker": style.marker,
        "dash": list(style.dash[1]) if style.dash in theme.DASHES[1:] else [],
    }


def _plain(value: Any) -> Any:
    """What JSON can hold; a list of texts as one text."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return "; ".join(map(str, value)) or None
    return value
