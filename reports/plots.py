"""Quantities over the sequence length: a tidy frame of one level and setting in, a Figure out.

Every figure is a grid of small multiples, log-log: a row for each mode, a column for each number of
canvas axes. Lines break where a case failed; a failed case is a marker at the edge where it would
lie.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from reports import (
    axes,
    corners,
    crossover,
    few_samples,
    frames,
    layout,
    selection,
    series,
    theme,
    words,
)
from reports.crossover import Overtaking
from reports.metrics import (
    ENERGY,
    LATENCY,
    PEAK_MEMORY,
    SPEEDUP,
    THROUGHPUT,
    Metric,
    is_drawn,
)

Record = dict[str, Any]
MAX_CROSSINGS_TOLD = 5
MAX_PREDICTIONS = 3
Styles = Mapping[str, theme.Style]

FAILURE_STEP = 0.065
"""Height of one row of failure markers, as a share of the panel."""
MAX_VALUE_LABELS = 12
"""With a single length, up to this many series have their value written beside the marker."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """A page whose rows are modes and whose columns are numbers of canvas axes."""

    page: layout.Page
    modes: list[str]
    ndims: list[int]


def latency(frame: pd.DataFrame, styles: Styles | None = None) -> Figure:
    """Median time of a call, with its 95% interval."""
    return _figure(frame, LATENCY, styles)


def throughput(frame: pd.DataFrame, styles: Styles | None = None) -> Figure:
    """Tokens per second, with the interval of the latency."""
    return _figure(frame, THROUGHPUT, styles)


def peak_memory(frame: pd.DataFrame, styles: Styles | None = None) -> Figure:
    """Most memory allocated at once."""
    return _figure(frame, PEAK_MEMORY, styles)


def energy(frame: pd.DataFrame, styles: Styles | None = None) -> Figure:
    """Energy of a call over its tokens."""
    return _figure(frame, ENERGY, styles)


def speedup(frame: pd.DataFrame, styles: Styles | None = None) -> Figure:
    """Latency of the anchor over latency; the anchor is the line at 1.

    Where a series overtakes it is marked with its interval, and written for those that a level is
    about; for those a dotted line is what their FLOPs predict.
    """
    styles = styles or series_styles(frame)
    grid = _grid(frame, SPEEDUP, styles)
    shown = selection.shown(frames.records(frame))
    names = {c["series"] for c in shown}
    found = [o for o in crossover.overtaking_table(frame) if o.series in names]
    for mode, row in zip(grid.modes, grid.page.rows, strict=True):
        notes = []
        for ndim, panel in zip(grid.ndims, row, strict=True):
            here = [o for o in found if (o.mode, o.ndim) == (mode, ndim) and o.seq_len is not None]
            own = [c for c in shown if (c["mode"], c["ndim"]) == (mode, ndim)]
            _draw_predictions(panel, own, styles)
            _draw_crossings(panel, here, styles)
            notes.append(_crossing_notes(here, styles))
        corners.write(row, notes)
        for panel in row:
            _value_axis(panel, SPEEDUP, *panel.get_ylim(), is_first=panel is row[0])
    return grid.page.figure


def series_styles(frame: pd.DataFrame) -> dict[str, theme.Style]:
    """One style per series that is drawn anywhere in the frame.

    Of several runs a series keeps its colour, and each run has a dash and markers of its own;
    those of runs that no figure shows look alike. Operators never share a figure with layers or
    models, so give them frames of their own.
    """
    drawn = frames.records(frame[frame["status"] != "unsupported"])
    order = sorted(drawn, key=series.sort_key)
    runs = selection.latest_runs(order)
    if len(runs) < 2:
        return theme.styles((r["series"], r["contender"]) for r in order)
    seen = [r for r in order if r["run_label"] in runs]
    bases = theme.styles((series.without_run(r), r["contender"]) for r in seen)
    found = {r["series"]: theme.UNSEEN for r in order}
    for case in seen:
        base = series.without_run(case)
        found[case["series"]] = theme.of_run(
            bases[base], runs.index(case["run_label"]), list(bases).index(base), len(bases)
        )
    return found


def _figure(frame: pd.DataFrame, metric: Metric, styles: Styles | None) -> Figure:
    return _grid(frame, metric, styles).page.figure


def _grid(frame: pd.DataFrame, metric: Metric, styles: Styles | None) -> _Grid:
    everything = frames.records(frame)
    cases = selection.shown(everything)
    drawn = [c for c in cases if is_drawn(c, metric)]
    styles = styles or series_styles(frame)
    modes, panels = layout.modes_and_ndims(drawn)
    names = frames.unique(c["series"] for c in sorted(drawn, key=series.sort_key))
    is_single = len({c["seq_len"] for c in drawn}) == 1
    dodge = _dodge(names) if is_single else {}
    legend = [
        _line([], [], styles[name], label=theme.literal(name), dots=is_single) for name in names
    ]
    failures = theme.failure_order(c["status"] for c in drawn if not frames.is_timed(c))
    page = layout.page(
        num_panels=len(panels),
        num_rows=len(modes),
        legend=[legend, [_failure_key(status) for status in failures]],
        title=words.figure_title(cases, metric.title),
        subtitle=words.figure_subtitle(cases, metric.title),
        note=words.notes(
            metric.note,
            few_samples.figure_note(metric.is_sure(c) for c in drawn),
            words.unsupported_note(cases),
            selection.note(everything),
        ),
        footer=words.footer(cases),
    )
    for mode, row in zip(modes, page.rows, strict=True):
        of_mode = [c for c in drawn if c["mode"] == mode]
        failed = [_failure_rows(c for c in of_mode if c["ndim"] == ndim) for ndim in panels]
        low, high = _value_limits(of_mode, metric, failed)
        for panel, ndim, lost in zip(row, panels, failed, strict=True):
            panel.set_title(layout.panel_title(modes, mode, ndim), **layout.TITLE_STYLE)
            _length_axis(panel, [c["seq_len"] for c in drawn], is_last=row is page.rows[-1])
            _value_axis(panel, metric, low, high, is_first=panel is row[0])
            here = [c for c in of_mode if c["ndim"] == ndim]
            for name in names:
                own = [c for c in here if c["series"] == name]
                _draw_series(panel, own, metric, styles[name], dodge.get(name))
                if is_single and len(panels) == 1 and len(names) <= MAX_VALUE_LABELS:
                    _draw_values(panel, own, metric, dodge[name])
            _draw_failures(panel, lost, metric, styles, dodge)
    return _Grid(page, modes, panels)


def _draw_crossings(panel: Axes, here: Sequence[Overtaking], styles: Styles) -> None:
    """The line of the anchor, and where others cross it."""
    panel.axhline(1.0, color=theme.INK, linewidth=0.9, zorder=1.5, gid="anchor")
    for line in here:
        assert line.seq_len is not None
        colour = styles[line.series].colour
        ends = [line.lo or line.seq_len, line.hi or line.seq_len]
        panel.plot(ends, [1.0, 1.0], color=colour, linewidth=4, alpha=0.5, solid_capstyle="butt")
        panel.plot(
            [line.seq_len],
            [1.0],
            marker="o",
            markersize=6,
            markerfacecolor=theme.PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            linestyle="none",
            zorder=5,
            gid=f"crossing:{line.series}",
        )


def _draw_predictions(panel: Axes, cases: Sequence[Record], styles: Styles) -> None:
    """The speed-up if time went with FLOPs, for the longest curves of whom a level is about."""
    found: dict[tuple[tuple[int, float], ...], str] = {}
    for name in frames.unique(
        c["series"] for c in cases if c["contender"] == words.headline(c["level"])
    ):
        own = [c for c in cases if c["series"] == name and c["is_squarest"]]
        points = [(c["seq_len"], c["speedup_by_flops"]) for c in own if c["speedup_by_flops"]]
        if len(points) > 1:
            # implementations of one contender share a line
            found.setdefault(tuple(points), name)
    for curve in sorted(found, key=len, reverse=True)[:MAX_PREDICTIONS]:
        xs, ys = zip(*curve, strict=True)
        colour, mark = styles[found[curve]].colour, f"predicted:{found[curve]}"
        panel.plot(xs, ys, color=colour, linestyle=":", linewidth=1.3, gid=mark)


def _crossing_notes(here: Sequence[Overtaking], styles: Styles) -> list[corners.Note]:
    """The crossings of the headline series in words; their intervals are drawn."""
    told = [o for o in here if o.contender == words.headline(o.level)]
    return [(crossover.text(o), styles[o.series]) for o in told[:MAX_CROSSINGS_TOLD]]


def _draw_series(
    panel: Axes, cases: list[Record], metric: Metric, style: theme.Style, shift: float | None
) -> None:
    """A line with markers through the squarest canvases, a band around it, the others as dots."""
    dots, shift = shift is not None, shift or 1.0
    line = [c for c in cases if c["is_squarest"]]
    points = [(c["seq_len"] * shift, metric.value(c), metric.interval(c)) for c in line]
    if not any(value is not None for _, value, _ in points):
        return
    gap = math.nan
    xs = [x for x, _, _ in points]
    ys = [gap if y is None else y for _, y, _ in points]
    lows = [y if low is None else low for y, (_, _, (low, _)) in zip(ys, points, strict=True)]
    highs = [y if high is None else high for y, (_, _, (_, high)) in zip(ys, points, strict=True)]
    colour, name = style.colour, line[0]["series"]
    panel.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0, gid=f"band:{name}")
    ends = [[(x, low), (x, high)] for x, low, high in zip(xs, lows, highs, strict=True)]
    panel.add_collection(LineCollection(ends, colors=colour, linewidths=1.0, alpha=0.7))
    panel.add_line(_line(xs, ys, style, dots=dots, label=name, gid=f"series:{name}"))
    places = zip(line, xs, ys, strict=True)
    unsure = [(x, y) for c, x, y in places if metric.is_sure(c) is False]
    if unsure:
        at, values = map(list, zip(*unsure, strict=True))
        over = _line(at, values, style, dots=True, gid=f"few-samples:{name}")
        over.set(markersize=6 if dots else 4.4, markerfacecolor=theme.PAPER)
        over.set(markeredgecolor=colour, markeredgewidth=1.2, zorder=3.5)
        panel.add_line(over)
    extra = [(c["seq_len"] * shift, metric.value(c)) for c in cases if not c["is_squarest"]]
    for x, y in extra:
        if y is not None:
            panel.plot([x], [y], marker=style.marker, color=colour, markersize=3.2, alpha=0.55)


def _draw_values(panel: Axes, cases: Sequence[Record], metric: Metric, shift: float) -> None:
    for case in cases:
        value = metric.value(case)
        if value is not None and case["is_squarest"]:
            panel.annotate(
                metric.tick_label(value),
                (case["seq_len"] * shift, value),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                va="bottom",
                bbox={"facecolor": theme.PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                **theme.text_style(theme.SMALL_PT, theme.MUTED),
            )


def _draw_failures(
    panel: Axes,
    failed: list[tuple[int, Record]],
    metric: Metric,
    styles: Styles,
    dodge: Mapping[str, float],
) -> None:
    for row, case in failed:
        depth = (row + 0.6) * FAILURE_STEP
        height = 1 - depth if metric.is_worse_higher else depth
        panel.plot(
            [case["seq_len"] * dodge.get(case["series"], 1.0)],
            [height],
            transform=panel.get_xaxis_transform(),
            color=styles[case["series"]].colour,
            clip_on=False,
            zorder=4,
            gid=f"failure:{case['status']}:{case['series']}",
            **_failure_marker(case["status"]),
        )


def _failure_rows(cases: Any) -> list[tuple[int, Record]]:
    """Failed cases with the row to draw them in: one row per series that fails at a length."""
    taken: dict[int, int] = {}
    rows = []
    for case in cases:
        if not frames.is_timed(case):
            row = taken.get(case["seq_len"], 0)
            taken[case["seq_len"]] = row + 1
            rows.append((row, case))
    return rows


def _value_limits(
    drawn: Sequence[Record], metric: Metric, rows: Sequence[list[tuple[int, Record]]]
) -> tuple[float, float]:
    values = [v for c in drawn for v in (metric.value(c), *metric.interval(c)) if v is not None]
    if metric is SPEEDUP:
        headline = [c for c in drawn if c["contender"] == words.headline(c["level"])]
        values += [1.0, *(c["speedup_by_flops"] for c in headline if c["speedup_by_flops"])]
    low, high = axes.limits(values)
    deepest = max((row + 1 for panel in rows for row, _ in panel), default=0)
    if not deepest:
        return low, high
    share = min((deepest + 0.4) * FAILURE_STEP, 0.6)
    return axes.stretch(low, high, share, at_top=metric.is_worse_higher)


def _length_axis(panel: Axes, lengths: Sequence[int], *, is_last: bool) -> None:
    ticks = axes.length_ticks(lengths)
    panel.set_xscale("log", base=2)
    room = 2**0.6 if len(ticks) == 1 else (ticks[-1] / ticks[0]) ** 0.06 if ticks else 2.0
    if ticks:
        panel.set_xlim(ticks[0] / room, ticks[-1] * room)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    shown = axes.length_labels(ticks) if is_last else [""] * len(ticks)
    panel.xaxis.set_major_formatter(FixedFormatter(shown))
    panel.xaxis.set_minor_locator(NullLocator())
    if is_last:
        panel.set_xlabel(words.LENGTH_AXIS, **theme.text_style(theme.TEXT_PT))


def _value_axis(panel: Axes, metric: Metric, low: float, high: float, *, is_first: bool) -> None:
    ticks = metric.ticks(low, high)
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    panel.yaxis.set_major_locator(FixedLocator(ticks))
    shown = axes.labels(ticks, metric.tick_label) if is_first else [""] * len(ticks)
    panel.yaxis.set_major_formatter(FixedFormatter(shown))
    panel.yaxis.set_minor_locator(NullLocator())
    if is_first:
        panel.set_ylabel(metric.axis, **theme.text_style(theme.TEXT_PT))


def _dodge(names: Sequence[str]) -> dict[str, float]:
    """With a single length, factors that set series side by side around its tick."""
    step = min(0.9 / max(len(names) - 1, 1), 0.15)
    return {n: 2 ** (step * (i - (len(names) - 1) / 2)) for i, n in enumerate(names)}


def _line(
    xs: Sequence[float], ys: Sequence[float], style: theme.Style, *, dots: bool, **more: Any
) -> Line2D:
    """A line with markers; with a single length, where no line shows, larger markers alone."""
    return Line2D(
        xs,
        ys,
        color=style.colour,
        marker=style.marker,
        linestyle="none" if dots else style.dash,
        linewidth=1.6,
        markersize=7 if dots else 5,
        markeredgecolor=theme.PAPER,
        markeredgewidth=0.6,
        zorder=3,
        **more,
    )


def _failure_key(status: str) -> Line2D:
    label = theme.FAILURE_WORDS[status]
    return Line2D([], [], color=theme.MUTED, label=label, **_failure_marker(status))


def _failure_marker(status: str) -> dict[str, Any]:
    return {
        "marker": theme.FAILURES[status],
        "linestyle": "none",
        "markersize": 7,
        "markeredgewidth": 0.2 if status in theme.SIGNS else 0.8,
    }
