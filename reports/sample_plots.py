"""The measurement itself: every sample of a case in order, how they spread, and the clock."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench import units
from reports import axes, frames, layout, series, theme, words
from reports.small_multiples import ticks, title

Record = dict[str, Any]

LEAST_SAMPLES = 5


def samples(rows: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """A typical row beside the least steady one: samples, their distribution, clock and power."""
    shown = picked(frames.records(rows))
    has_clock = any(_clock(row) for row in shown)
    page = layout.page(
        num_panels=max(len(shown), 1),
        num_rows=3 if has_clock else 2,
        legend=[_keys(has_clock=has_clock)],
        title="Samples as they were measured",
        subtitle="the row of median spread, and the least steady one of all"
        if len(shown) > 1
        else "the only row with samples",
        note="Nothing is dropped: outliers, by a modified z-score above 3.5, are only labelled.",
        footer=words.footer(shown),
        row_height=1.75,
        between=0.2,
        right=0.7 if has_clock else layout.RIGHT,
        gap=1.45 if has_clock else 0.8,
    )
    for row, column in zip(shown, zip(*page.rows, strict=True), strict=False):
        title(column[0], f"{series.label(row)}, {row['mode']}, {row['canvas']}")
        _draw_order(column[0], row)
        _draw_distribution(column[1], row)
        if has_clock:
            _draw_clock(column[2], row)
    return page.figure


def picked(rows: Sequence[Record]) -> list[Record]:
    """The row of median spread and the one of the largest; those with a known clock come first."""
    timed = [r for r in rows if frames.is_timed(r) and len(r["samples_ms"] or ()) >= LEAST_SAMPLES]
    timed = [r for r in timed if _clock(r)] or timed
    timed.sort(key=_spread)
    if len(timed) < 2:
        return timed
    return [timed[(len(timed) - 1) // 2], timed[-1]]


def samples_alt(rows: Sequence[Record]) -> str:
    """Median and spread of the rows that are drawn."""
    texts = [
        f"{series.label(r)}, {r['mode']}, {r['canvas']}: {len(r['samples_ms'])} samples, median "
        f"{units.duration(r['latency_ms'])}, 90% of them within {units.percent(_spread(r))} of it"
        for r in picked(rows)
    ]
    return f"Samples in order and their distribution. {'; '.join(texts)}."


def _spread(row: Record) -> float:
    low, high = row["latency_ms_p05"], row["latency_ms_p95"]
    return 0.0 if low is None or high is None else float((high - low) / row["latency_ms"])


def _clock(row: Record) -> list[tuple[float, float]]:
    """(s, MHz) of every reading of the clock."""
    return list(zip(row["readings_s"] or (), row["sm_clock_readings_mhz"] or (), strict=False))


def _draw_order(panel: Axes, row: Record) -> None:
    values = np.asarray(row["samples_ms"], dtype=float)
    labels = row["outliers"] or []
    is_out = np.asarray(labels if len(labels) == len(values) else [False] * len(values), dtype=bool)
    order = np.arange(1, len(values) + 1)
    low, high = row["latency_ms_lo"], row["latency_ms_hi"]
    if low is not None and high is not None:
        panel.axhspan(low, high, color=theme.BLUE, alpha=0.18, linewidth=0)
    panel.axhline(row["latency_ms"], color=theme.BLUE, linewidth=1.2, gid="median")
    dots: dict[str, Any] = {"marker": "o", "linestyle": "none", "zorder": 3}
    size = 3.2 if len(values) < 400 else 1.8
    inside = ~is_out
    panel.plot(
        order[inside],
        values[inside],
        color=theme.INK,
        markersize=size,
        alpha=0.7,
        **dots,
        gid="samples",
    )
    panel.plot(
        order[is_out],
        values[is_out],
        color=theme.VERMILLION,
        markersize=size + 1.6,
        markerfacecolor="none",
        **dots,
        gid="outliers",
    )
    _linear(panel.yaxis, values, "latency (ms)")
    _linear(panel.xaxis, [0.0, float(len(values))], "sample, in order")


def _draw_distribution(panel: Axes, row: Record) -> None:
    values = np.sort(np.asarray(row["samples_ms"], dtype=float))
    shares = np.arange(1, len(values) + 1) / len(values)
    panel.step(values, shares, where="post", color=theme.INK, linewidth=1.3, gid="distribution")
    low, high = row["latency_ms_lo"], row["latency_ms_hi"]
    if low is not None and high is not None:
        panel.axvspan(low, high, color=theme.BLUE, alpha=0.18, linewidth=0)
    panel.axvline(row["latency_ms"], color=theme.BLUE, linewidth=1.2)
    panel.set_ylim(0, 1.03)
    ticks(panel.yaxis, [0.0, 0.5, 1.0], ["0%", "50%", "100%"], "samples up to here")
    _linear(panel.xaxis, values, "latency (ms)")


def _draw_clock(panel: Axes, row: Record) -> None:
    readings = _clock(row)
    if not readings:
        panel.text(0.5, 0.5, "clock unknown", ha="center", transform=panel.transAxes)
        ticks(panel.xaxis, [], [], "")
        ticks(panel.yaxis, [], [], "")
        return
    at_s, mhz = zip(*readings, strict=True)
    panel.plot(at_s, mhz, color=theme.GREEN, linewidth=1.3, marker=".", markersize=4, gid="clock")
    _linear(panel.yaxis, [0.0, *mhz], "SM clock (MHz)")
    _linear(panel.xaxis, [0.0, *at_s], "time since the first warm-up (s)")
    power = row["power_readings_w"] or []
    if len(power) == len(at_s):
        other = panel.twinx()
        other.set_label("power")
        other.plot(at_s, power, color=theme.VERMILLION, linewidth=1.1, linestyle=(0, (3, 2)))
        other.spines[["top", "left", "bottom", "right"]].set_visible(False)
        other.tick_params(labelsize=theme.TEXT_PT - 0.5, colors=theme.MUTED, length=3)
        _linear(other.yaxis, [0.0, *power], "power (W)")


def _linear(axis: Any, values: Sequence[float] | np.ndarray, label: str) -> None:
    """A linear axis around values, a little wider than they are."""
    low, high = float(np.min(values)), float(np.max(values))
    room = max(high - low, abs(high) * 0.02, 1e-9) * 0.06
    places = axes.even_ticks(low, high)
    set_limits = axis.axes.set_ylim if axis.axis_name == "y" else axis.axes.set_xlim
    set_limits(low - room if low else 0.0, high + room)
    ticks(axis, places, [axes.plain(p) for p in places], label)


def _keys(*, has_clock: bool) -> list[Line2D]:
    dots: dict[str, Any] = {"marker": "o", "linestyle": "none"}
    clock = [
        Line2D([], [], color=theme.GREEN, marker=".", label="SM clock"),
        Line2D([], [], color=theme.VERMILLION, linestyle=(0, (3, 2)), label="power"),
    ]
    return [
        Line2D([], [], color=theme.INK, markersize=4, label="sample", **dots),
        Line2D(
            [],
            [],
            color=theme.VERMILLION,
            markersize=5,
            markerfacecolor="none",
            label="outlier",
            **dots,
        ),
        Line2D([], [], color=theme.BLUE, label="median and its 95% interval"),
        *(clock if has_clock else []),
    ]
