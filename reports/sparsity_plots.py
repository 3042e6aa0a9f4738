"""Figures of sparsity: the sweep against its ideal, and the map of speed-ups by length."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from bench import units
from reports import axes, corners, few_samples, frames, layout, selection, theme, words
from reports.small_multiples import log_ticks, log_values, ticks, title
from reports.sparsity import Efficiency, efficiencies

Record = dict[str, Any]

MAX_LENGTHS = 5
"""Lengths drawn in a sweep, the largest."""
_CELL = 0.31
_SHORT = {
    "oom": "OOM",
    "timeout": "time",
    "crashed": "crash",
    "incorrect": "wrong",
    "unsupported": "n/a",
}


def sweep(frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """Speed-up over full attention by sparsity, and what it would be if time went with work."""
    everything = frames.records(frame)
    cases = selection.shown(everything)
    found = swept(cases)
    lengths = sorted({e.seq_len for e in found})[-MAX_LENGTHS:]
    found = [e for e in found if e.seq_len in lengths]
    families = frames.unique(e.family for e in found)
    colours = dict(zip(lengths, theme.ramp(len(lengths)), strict=True))
    modes, ndims = layout.modes_and_ndims([{"mode": e.mode, "ndim": e.ndim} for e in found])
    page = layout.page(
        num_panels=len(ndims),
        num_rows=len(modes),
        legend=[_sweep_keys(colours), _family_keys(families)],
        title=f"{words.level_heading(cases)}: what sparsity gains" if cases else "Sparsity",
        subtitle=_sweep_subtitle(cases, found),
        note=words.notes(
            "Dashed: the ideal, where time goes with work. Efficiency is the measured speed-up "
            "over the ideal one.",
            few_samples.figure_note((e.is_sure for e in found), f"Hollow, {few_samples.MARK}"),
            words.failure_note(cases),
            selection.note(everything),
        ),
        footer=words.footer(cases),
    )
    for mode, row in zip(modes, page.rows, strict=True):
        of_mode = [e for e in found if e.mode == mode]
        values = [v for e in of_mode for v in (e.speedup, e.lo, e.hi, e.ideal)]
        notes = []
        for ndim, panel in zip(ndims, row, strict=True):
            here = [e for e in of_mode if e.ndim == ndim]
            title(panel, layout.panel_title(modes, mode, ndim))
            log_values(panel, [1.0, *values], units.ratio, "", is_first=False)
            _sparsity_axis(panel, found, is_last=row is page.rows[-1])
            panel.axhline(1.0, color=theme.INK, linewidth=0.9, zorder=1.5)
            for family in families:
                for length in lengths:
                    own = [e for e in here if (e.family, e.seq_len) == (family, length)]
                    _draw_sweep(panel, own, colours[length], families.index(family))
            notes.append(_efficiency_notes(here))
        corners.write(row, notes)
        for panel in row:
            label = "speed-up over full attention"
            log_ticks(panel, units.ratio, label, is_first=panel is row[0])
    return page.figure


def swept(cases: Sequence[Record]) -> list[Efficiency]:
    """The efficiencies that belong to a sweep: families with several sparsities at a length."""
    found = efficiencies(cases)
    groups: dict[tuple[Any, ...], set[float]] = {}
    for e in found:
        groups.setdefault((e.mode, e.ndim, e.seq_len, e.family), set()).add(e.sparsity)
    return [e for e in found if len(groups[e.mode, e.ndim, e.seq_len, e.family]) > 1]


def sweep_alt(cases: Sequence[Record]) -> str:
    """The efficiency at the largest length of each sweep."""
    found = swept(cases)
    longest = max(e.seq_len for e in found)
    parts = [
        f"{words.MODES.get(e.mode, e.mode)}, {e.ndim}-D, {e.series}: "
        + few_samples.marked(units.ratio(e.speedup), e.is_sure)
        + f" of {units.ratio(e.ideal)} possible"
        for e in found
        if e.seq_len == longest
    ]
    lead = f"Speed-up over full attention by sparsity. At {units.tokens(longest)} tokens: "
    return lead + "; ".join(parts) + "."


def _draw_sweep(panel: Axes, own: Sequence[Efficiency], colour: str, family: int) -> None:
    if not own:
        return
    own = sorted(own, key=lambda e: e.sparsity)
    xs = [0.0, *(e.sparsity for e in own)]
    lows, highs = [1.0, *(e.lo for e in own)], [1.0, *(e.hi for e in own)]
    panel.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0)
    panel.plot(
        xs,
        [1.0, *(e.ideal for e in own)],
        color=colour,
        linestyle=(0, (4, 3)),
        linewidth=1.0,
        gid=f"ideal:{own[0].family}:{own[0].seq_len}",
    )
    panel.plot(
        xs,
        [1.0, *(e.speedup for e in own)],
        color=colour,
        marker=theme.MARKERS[family % len(theme.MARKERS)],
        linewidth=1.6,
        markersize=5,
        markeredgecolor=theme.PAPER,
        markeredgewidth=0.6,
        zorder=3,
        gid=f"sweep:{own[0].family}:{own[0].seq_len}",
    )
    unsure = [e for e in own if not e.is_sure]
    panel.plot(
        [e.sparsity for e in unsure],
        [e.speedup for e in unsure],
        color=colour,
        marker=theme.MARKERS[family % len(theme.MARKERS)],
        linestyle="none",
        markersize=4.4,
        markerfacecolor=theme.PAPER,
        zorder=3.5,
        gid=f"few-samples:{own[0].family}:{own[0].seq_len}",
    )


def _efficiency_notes(here: Sequence[Efficiency]) -> list[corners.Note]:
    """The efficiencies at the largest length, of the first family."""
    if not here:
        return []
    longest = max(e.seq_len for e in here)
    shown = [e for e in here if e.seq_len == longest and e.family == here[0].family]
    shown.sort(key=lambda e: e.sparsity)
    lead = f"efficiency at {units.tokens(longest)}:"
    parts = (
        f"{units.percent_label(e.sparsity_target)}: "
        + few_samples.marked(units.percent(e.efficiency, 0), e.is_sure)
        for e in shown
    )
    return [(lead, None), *((part, None) for part in parts)]


def _sparsity_axis(panel: Axes, found: Sequence[Efficiency], *, is_last: bool) -> None:
    places: list[float] = [0.0]
    for place in sorted({e.sparsity_target or round(e.sparsity, 2) for e in found}):
        if place - places[-1] >= 0.08:
            places.append(place)
    panel.set_xlim(-0.03, 1.0)
    shown = [units.percent_label(p) for p in places] if is_last else []
    ticks(panel.xaxis, places, shown, "sparsity (share not attended)" if is_last else "")


def _sweep_keys(colours: Mapping[int, str]) -> list[Line2D]:
    return [
        Line2D([], [], color=c, linewidth=2.4, label=f"{units.tokens(n)} tokens")
        for n, c in colours.items()
    ]


def _family_keys(families: Sequence[str]) -> list[Line2D]:
    """Markers of families, where there are several."""
    return [
        Line2D([], [], color=theme.MUTED, marker=theme.MARKERS[i % 10], label=theme.literal(name))
        for i, name in enumerate(families)
        if len(families) > 1
    ]


def _sweep_subtitle(cases: Sequence[Record], found: Sequence[Efficiency]) -> str:
    if not found:
        return ""
    dense = frames.unique(e.dense for e in found)
    over = dense[0] if len(dense) == 1 else "the fastest full attention"
    return f"{cases[0]['setting']}; 1x is {over}"


def heat_map(frame: pd.DataFrame, styles: Mapping[str, theme.Style] | None = None) -> Figure:
    """Speed-up over the Transformer by length and sparsity, of the fastest implementation."""
    everything = frames.records(frame)
    cases = _of_latest_run(selection.shown(everything))
    shown = mapped(cases)
    modes, ndims = layout.modes_and_ndims(shown)
    lengths = sorted({c["seq_len"] for c in shown})
    sparsities = sorted({_target(c) for c in shown})
    name = "Sliding tile" if cases and cases[0]["level"] == "op" else "ENA"
    over = words.anchor_phrase(cases) if cases else ""
    page = layout.page(
        num_panels=len(ndims),
        num_rows=len(modes),
        legend=[_scale_keys()],
        title=f"{words.level_heading(cases)}: speed-up of {name} over {over}" if cases else name,
        subtitle=words.figure_subtitle(cases, "speed-up"),
        note=words.notes(
            "Each cell is the fastest implementation measured at that length and sparsity; n/a is "
            "unsupported.",
            few_samples.figure_note((c["is_speedup_sure"] for c in shown), few_samples.MARK),
            selection.note(everything),
        ),
        footer=words.footer(cases),
        row_height=max(_CELL * len(sparsities), 0.9),
    )
    for mode, row in zip(modes, page.rows, strict=True):
        for ndim, panel in zip(ndims, row, strict=True):
            here = [c for c in shown if (c["mode"], c["ndim"]) == (mode, ndim)]
            title(panel, layout.panel_title(modes, mode, ndim))
            _draw_cells(panel, here, lengths, sparsities)
            texts = [units.percent_label(s) for s in sparsities]
            is_first, is_last = panel is row[0], row is page.rows[-1]
            ticks(
                panel.yaxis,
                range(len(sparsities)),
                texts if is_first else [],
                "sparsity" if is_first else "",
            )
            ticks(
                panel.xaxis,
                range(len(lengths)),
                axes.length_labels(lengths) if is_last else [],
                words.LENGTH_AXIS if is_last else "",
            )
    return page.figure


def mapped(cases: Sequence[Record]) -> list[Record]:
    """Of each mode, number of axes, length and sparsity the fastest case of the headline; where
    none was measured one that failed, else one that is unsupported. Of several runs the latest is
    mapped: cells of different machines say nothing beside each other."""
    best: dict[tuple[Any, ...], Record] = {}
    for case in _of_latest_run(cases):
        is_headline = case["contender"] == words.headline(case["level"])
        if not is_headline or case["sparsity_target"] is None or not case["is_squarest"]:
            continue
        if _is_ok(case) and not _is_compared(case):
            continue
        key = (case["mode"], case["ndim"], case["seq_len"], _target(case))
        if key not in best or _merit(case) > _merit(best[key]):
            best[key] = case
    return list(best.values())


def _of_latest_run(cases: Sequence[Record]) -> list[Record]:
    latest = selection.latest_runs(cases)[-1:]
    return [c for c in cases if c["run_label"] in latest]


def _merit(case: Record) -> tuple[int, float]:
    """Measured before failed before unsupported; of measured ones the fastest."""
    if _is_compared(case):
        return 2, -float(case["latency_ms"])
    return int(case["status"] != "unsupported"), 0.0


def is_map_worth(cases: Sequence[Record]) -> bool:
    """Whether there are several lengths and sparsities to lay out."""
    shown = [c for c in mapped(cases) if _is_compared(c)]
    return len({c["seq_len"] for c in shown}) > 1 and len({_target(c) for c in shown}) > 1


def heat_map_alt(cases: Sequence[Record]) -> str:
    """The ends of the scale and where they lie."""
    shown = [c for c in mapped(cases) if _is_compared(c)]
    low, high = (pick(shown, key=lambda c: c["speedup"]) for pick in (min, max))

    def place(case: Record) -> str:
        return (
            few_samples.marked(units.ratio(case["speedup"]), case["is_speedup_sure"])
            + f" at {units.tokens(case['seq_len'])} tokens, "
            f"{units.percent_label(_target(case))} sparse, {case['ndim']}-D, "
            f"{words.MODES.get(case['mode'], case['mode'])}"
        )

    faster = sum(c["speedup"] > 1 for c in shown)
    return (
        f"Speed-up over {words.anchor_phrase(cases)} by length and sparsity: {faster} of "
        f"{len(shown)} cells are above 1x; the best is {place(high)}, the worst {place(low)}."
    )


def _is_ok(case: Record) -> bool:
    return frames.is_timed(case)


def _is_compared(case: Record) -> bool:
    return _is_ok(case) and case["speedup"] is not None


def _target(case: Record) -> float:
    return float(case["sparsity_target"])


def _scale() -> LinearSegmentedColormap:
    ends = (theme.SLOWER, theme.PAPER, theme.FASTER)
    return LinearSegmentedColormap.from_list("speed-up", ends)


_LIMIT = 2.0
"""Of the scale in powers of two: from a quarter to four times as fast."""


def _colour(speedup: float) -> Any:
    norm = TwoSlopeNorm(0.0, -_LIMIT, _LIMIT)
    share = norm(max(min(math.log2(speedup), _LIMIT), -_LIMIT))
    return _scale()(0.08 + 0.84 * float(share))


def _draw_cells(
    panel: Axes, here: Sequence[Record], lengths: Sequence[int], sparsities: Sequence[float]
) -> None:
    panel.grid(visible=False)
    panel.set_xlim(-0.5, len(lengths) - 0.5)
    panel.set_ylim(-0.5, len(sparsities) - 0.5)
    points = theme.SMALL_PT if len(lengths) <= 8 else theme.SMALL_PT - 1.5
    for case in here:
        x, y = lengths.index(case["seq_len"]), sparsities.index(_target(case))
        is_measured = _is_compared(case)
        colour = _colour(case["speedup"]) if is_measured else theme.GRID
        text = (
            few_samples.marked(units.significant(case["speedup"], 2), case["is_speedup_sure"])
            if is_measured
            else _SHORT.get(case["status"], "failed")
        )
        panel.add_patch(
            Rectangle(
                (x - 0.5, y - 0.5),
                1,
                1,
                facecolor=colour,
                edgecolor=theme.PAPER,
                linewidth=1.2,
                gid=f"cell:{case['seq_len']}:{_target(case)}",
            )
        )
        panel.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            **theme.text_style(points, theme.ink_on(colour)),
        )


def _scale_keys() -> list[Rectangle]:
    """What the colours mean."""
    return [
        Rectangle((0, 0), 1, 1, facecolor=_colour(s), edgecolor=theme.MUTED, label=text)
        for s, text in (
            (0.25, "1/4 as fast or slower"),
            (0.5, "half as fast"),
            (1.0, "the same"),
            (2.0, "twice as fast"),
            (4.0, "4x as fast or more"),
        )
    ]
