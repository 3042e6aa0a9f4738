"""The roofline: useful work per second over work per byte, under the measured peaks."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench import units
from reports import axes, frames, layout, selection, theme, words
from reports.plots import series_styles
from reports.roofline import Attained, Roof, attained, roofs
from reports.small_multiples import log_ticks, ticks, title

Record = dict[str, Any]


def roofline(frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """Every case as a dot that grows with its length, joined by series."""
    everything = frames.records(frame)
    cases = selection.shown(everything)
    found, over = attained(cases), roofs(cases)
    names = frames.unique(a.series for a in found)
    styles = styles or series_styles(frame)
    modes, ndims = layout.modes_and_ndims([{"mode": a.mode, "ndim": a.ndim} for a in found])
    page = layout.page(
        num_panels=len(ndims),
        num_rows=len(modes),
        legend=[[_key(name, styles[name]) for name in names]],
        title=f"{words.level_heading(cases)}: roofline" if cases else "Roofline",
        subtitle=cases[0]["setting"] if cases else "",
        note=words.notes(_note(over, found), words.failure_note(cases), selection.note(everything)),
        footer=words.footer(cases),
        row_height=2.5 if len(modes) > 1 else None,
    )
    xs, ys = [a.intensity for a in found], [a.tflops_per_s for a in found]
    x_ends = axes.limits([*xs, *(r.ridge for r in over)])
    y_ends = axes.limits([*ys, *(r.tflops_per_s for r in over)])
    for mode, row in zip(modes, page.rows, strict=True):
        for ndim, panel in zip(ndims, row, strict=True):
            title(panel, layout.panel_title(modes, mode, ndim))
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xlim(x_ends)
            panel.set_ylim(y_ends)
            for roof in over:
                _draw_roof(panel, roof, x_ends)
            for name in names:
                own = [a for a in found if (a.mode, a.ndim, a.series) == (mode, ndim, name)]
                _draw_series(panel, own, styles[name], found)
            log_ticks(panel, units.significant, "useful TFLOP/s", is_first=panel is row[0])
            places = axes.decimal_ticks(*x_ends)
            is_last = row is page.rows[-1]
            shown = axes.labels(places, units.significant) if is_last else []
            ticks(panel.xaxis, places, shown, "useful FLOPs per byte" if is_last else "")
    return page.figure


def roofline_alt(cases: Sequence[Record]) -> str:
    """The peaks and the share of the roof that each series reaches at best."""
    best: dict[str, Attained] = {}
    found = attained(cases)
    for a in found:
        if a.series not in best or a.fraction > best[a.series].fraction:
            best[a.series] = a
    parts = [
        f"{name}: {units.percent(a.fraction)} at {units.tokens(a.seq_len)} tokens, {a.ndim}-D, "
        f"{words.MODES.get(a.mode, a.mode)} ({a.limit}-bound)"
        for name, a in best.items()
    ]
    return f"{_note(roofs(cases), found)} Largest share of the roof: {'; '.join(parts)}."


def _note(over: Sequence[Roof], found: Sequence[Attained]) -> str:
    texts = [
        f"{units.significant(r.tflops_per_s)} TFLOP/s in a matrix product and "
        f"{units.count(r.bandwidth_gb_per_s)} GB/s in a copy"
        for r in over[:2]
    ]
    lead = f"Peaks measured in the run: {'; '.join(texts)}. " if texts else ""
    above = sum(a.fraction > 1 for a in found)
    doubt = (
        f" {units.plural(above, 'dot')} above the roof: the peaks were measured while the machine "
        "was slower, so shares of the roof are too large."
    )
    told = "Bytes are the least that a call must move; larger dots are longer sequences."
    return lead + told + (doubt if above else "")


def _draw_roof(panel: Axes, roof: Roof, ends: tuple[float, float]) -> None:
    xs = [ends[0], max(roof.ridge, ends[0]), ends[1]]
    panel.plot(xs, [roof.at(x) for x in xs], color=theme.INK, linewidth=1.3, zorder=2, gid="roof")


def _draw_series(
    panel: Axes, own: Sequence[Attained], style: theme.Style, found: Sequence[Attained]
) -> None:
    own = sorted(own, key=lambda a: a.seq_len)
    lengths = sorted({a.seq_len for a in found})
    xs, ys = [a.intensity for a in own], [a.tflops_per_s for a in own]
    panel.plot(xs, ys, color=style.colour, linewidth=0.9, alpha=0.6, zorder=2.5)
    for a in own:
        grown = lengths.index(a.seq_len) / (len(lengths) - 1) if len(lengths) > 1 else 1.0
        panel.plot(
            [a.intensity],
            [a.tflops_per_s],
            marker=style.marker,
            color=style.colour,
            markersize=4.0 + 3.5 * grown,
            markeredgecolor=theme.PAPER,
            markeredgewidth=0.5,
            linestyle="none",
            zorder=3,
            gid=f"dot:{a.series}:{a.seq_len}",
        )


def _key(name: str, style: theme.Style) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.colour,
        marker=style.marker,
        linewidth=0.9,
        markersize=5,
        label=theme.literal(name),
    )
