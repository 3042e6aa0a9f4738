"""What scans cost: bars of the time over that of `uni`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench import units
from reports import axes, few_samples, frames, layout, selection, theme, words
from reports.scan_overhead import Overhead, overheads
from reports.small_multiples import ticks, title

Record = dict[str, Any]

MAX_LENGTHS = 5
"""Lengths that have bars, the largest."""
MAX_WRITTEN = 15
"""Up to so many bars of a panel have their value written above them."""
_GROUP = 0.82


def scan_bars(frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """Bars for each length: time of a scan over time of `uni`, all else being the same."""
    everything = frames.records(frame)
    cases = selection.shown(everything)
    found = overheads(cases)
    lengths = sorted({o.seq_len for o in found})[-MAX_LENGTHS:]
    found = [o for o in found if o.seq_len in lengths]
    names = frames.unique(o.series for o in found)
    palette = [c for c in theme.PALETTE if c != theme.BLACK]
    colours = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    modes, ndims = layout.modes_and_ndims([{"mode": o.mode, "ndim": o.ndim} for o in found])
    bases = frames.unique(o.base for o in found)
    measured = {o.contender for o in found}
    page = layout.page(
        num_panels=len(ndims),
        num_rows=len(modes),
        legend=[[Patch(color=c, label=theme.literal(n)) for n, c in colours.items()]],
        title=f"{words.level_heading(cases)}: what scans cost" if cases else "Scans",
        subtitle="; 1x is ".join([cases[0]["setting"], " or ".join(bases[:2])]) if cases else "",
        note=words.notes(
            "Whiskers: as far as both 95% intervals allow.",
            few_samples.figure_note((o.is_sure for o in found), "Pale"),
            words.failure_note([c for c in cases if c["scan"] and c["contender"] in measured]),
            selection.note(everything),
        ),
        footer=words.footer(cases),
    )
    for mode, row in zip(modes, page.rows, strict=True):
        of_mode = [o for o in found if o.mode == mode]
        top = max([1.0, *(o.hi for o in of_mode)]) * 1.12
        for ndim, panel in zip(ndims, row, strict=True):
            title(panel, layout.panel_title(modes, mode, ndim))
            here = [o for o in of_mode if o.ndim == ndim]
            _draw_bars(panel, here, lengths, colours)
            _axes(panel, lengths, top, is_first=panel is row[0], is_last=row is page.rows[-1])
    return page.figure


def scan_bars_alt(cases: Sequence[Record]) -> str:
    """The cost at the largest length of each mode and number of axes."""
    found = overheads(cases)
    longest = max(o.seq_len for o in found)
    parts = [
        f"{words.MODES.get(o.mode, o.mode)}, {o.ndim}-D, {o.series}: {units.ratio(o.ratio)}"
        for o in found
        if o.seq_len == longest
    ]
    lead = f"Time of each scan over that of uni. At {units.tokens(longest)} tokens: "
    return lead + "; ".join(parts) + "."


def _draw_bars(
    panel: Axes, here: Sequence[Overhead], lengths: Sequence[int], colours: Mapping[str, str]
) -> None:
    panel.grid(visible=False, axis="x")
    panel.axhline(1.0, color=theme.INK, linewidth=0.9, zorder=3)
    own = [name for name in colours if any(o.series == name for o in here)]
    width = _GROUP / max(len(own), 1)
    for o in here:
        x = lengths.index(o.seq_len) + (own.index(o.series) - (len(own) - 1) / 2) * width
        bar = panel.bar(x, o.ratio, width * 0.94, color=colours[o.series], gid=f"bar:{o.series}")
        bar[0].set_alpha(None if o.is_sure else 0.4)
        panel.vlines(x, o.lo, o.hi, color=theme.INK, linewidth=0.9, zorder=4)
        if len(here) <= MAX_WRITTEN:
            panel.annotate(
                units.significant(o.ratio, 2),
                (x, o.hi),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                zorder=5,
                bbox={"facecolor": theme.PAPER, "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
                **theme.text_style(theme.SMALL_PT, theme.MUTED),
            )


def _axes(
    panel: Axes, lengths: Sequence[int], top: float, *, is_first: bool, is_last: bool
) -> None:
    panel.set_xlim(-0.6, len(lengths) - 0.4)
    panel.set_ylim(0.0, top)
    ticks(
        panel.xaxis,
        range(len(lengths)),
        axes.length_labels(lengths) if is_last else [],
        words.LENGTH_AXIS if is_last else "",
    )
    places = axes.linear_ticks(top)
    shown = axes.labels(places, units.ratio) if is_first else []
    ticks(panel.yaxis, places, shown, "time over uni (ratio)" if is_first else "")
