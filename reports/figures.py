"""Which figures a report has, in the order in which they should be read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench import units
from reports import (
    few_samples,
    part_plots,
    plots,
    roofline_plot,
    sample_plots,
    scan_plots,
    sparsity_plots,
    words,
)
from reports.metrics import (
    ENERGY,
    LATENCY,
    PEAK_MEMORY,
    ROOFLINE,
    SPEEDUP,
    THROUGHPUT,
    Metric,
    has_points,
    is_drawn,
)
from reports.roofline import attained
from reports.scan_overhead import overheads
from reports.theme import Style

Record = dict[str, Any]

SCOPES = ("mode", "level", "report", "rows")
"""What a figure is drawn from: one level, mode and setting; one level and setting; all cases; or
the rows as they were measured, with their samples."""
FORMATS = ("png", "svg", "pdf")
MAX_ALT_VALUES = 16
"""Of a figure with more values, the first are told and the rest is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureKind:
    """A figure that a report can have, what it shows, and when it is worth drawing.

    `is_interactive` marks what the page draws itself, with tooltips; its files are for papers.
    """

    name: str
    title: str
    caption: str
    scope: str
    draw: Callable[[pd.DataFrame, Mapping[str, Style] | None], Figure]
    is_worth: Callable[[Sequence[Record]], bool]
    alt: Callable[[Sequence[Record]], str]
    is_interactive: bool = False


def over_length(metric: Metric, draw: Callable[..., Figure], caption: str) -> FigureKind:
    """A quantity over the sequence length."""
    return FigureKind(
        name=metric.name,
        title=metric.title[0].upper() + metric.title[1:],
        caption=caption,
        scope="level",
        draw=draw,
        is_worth=partial(_is_worth, metric),
        alt=partial(_alt, metric),
        is_interactive=True,
    )


def _is_worth(metric: Metric, cases: Sequence[Record]) -> bool:
    """Failures alone are drawn once, in the figure of the latency."""
    if metric is LATENCY:
        return any(is_drawn(case, metric) for case in cases)
    return has_points(cases, metric)


def _alt(metric: Metric, cases: Sequence[Record]) -> str:
    """What the figure shows, with the values at the largest length of the first series."""
    best: dict[tuple[str, int, str], Record] = {}
    for case in cases:
        if metric.value(case) is not None and case["is_squarest"]:
            key = (case["mode"], case["ndim"], case["series"])
            if key not in best or case["seq_len"] > best[key]["seq_len"]:
                best[key] = case
    values = [
        f"{words.MODES.get(mode, mode)}, {ndim}-D, {name}: "
        + few_samples.marked(metric.tick_label(metric.value(case) or 0.0), metric.is_sure(case))
        + f" at {units.tokens(case['seq_len'])}"
        for (mode, ndim, name), case in best.items()
    ]
    lead = f"{words.level_heading(cases)}: {metric.axis} over sequence length."
    if not values:
        return lead
    more = len(values) - MAX_ALT_VALUES
    rest = f"; {more} more in the tables" if more > 0 else ""
    few = few_samples.figure_note(map(metric.is_sure, best.values()), few_samples.MARK)
    text = f"{lead} At the largest lengths: {'; '.join(values[:MAX_ALT_VALUES])}{rest}."
    return f"{text} {few}".strip()


QUANTITIES = (LATENCY, SPEEDUP, THROUGHPUT, PEAK_MEMORY, ENERGY, ROOFLINE)
"""What the page draws over the sequence length."""
FIGURES = (
    over_length(
        LATENCY,
        plots.latency,
        "Median time of a call; bands are 95% intervals. Both axes are logarithmic.",
    ),
    over_length(
        SPEEDUP,
        plots.speedup,
        "Latency of the anchor over latency: above 1 is faster than the anchor. Circles mark where "
        "a series overtakes it; dotted lines are what FLOPs predict.",
    ),
    over_length(THROUGHPUT, plots.throughput, "Tokens per second, with the latency's interval."),
    over_length(PEAK_MEMORY, plots.peak_memory, "Most memory that was allocated at once."),
    FigureKind(
        name="sparsity",
        title="Efficiency of sparsity",
        caption="Speed-up over full attention by sparsity. The dashed line is the ideal: an "
        "operator does what it attends, a layer the FLOPs that are left.",
        scope="level",
        draw=sparsity_plots.sweep,
        is_worth=lambda cases: bool(sparsity_plots.swept(cases)),
        alt=sparsity_plots.sweep_alt,
        is_interactive=True,
    ),
    FigureKind(
        name="speedup-map",
        title="Speed-up by length and sparsity",
        caption="Blue cells are faster than the anchor, orange ones slower.",
        scope="level",
        draw=sparsity_plots.heat_map,
        is_worth=sparsity_plots.is_map_worth,
        alt=sparsity_plots.heat_map_alt,
        is_interactive=True,
    ),
    FigureKind(
        name="scans",
        title="Cost of scans",
        caption="Time of each order in which the recurrence reads the canvas, over that of uni.",
        scope="level",
        draw=scan_plots.scan_bars,
        is_worth=lambda cases: bool(overheads(cases)),
        alt=scan_plots.scan_bars_alt,
        is_interactive=True,
    ),
    FigureKind(
        name="components",
        title="Where the time goes",
        caption="Share of each component in one profiled call, by sequence length.",
        scope="level",
        draw=part_plots.component_shares,
        is_worth=part_plots.worth_components,
        alt=part_plots.component_alt,
        is_interactive=True,
    ),
    FigureKind(
        name="memory-split",
        title="What holds the memory",
        caption="Parameters, inputs and what a call adds, at the peak, by sequence length.",
        scope="level",
        draw=part_plots.memory_split,
        is_worth=part_plots.worth_memory,
        alt=part_plots.memory_alt,
        is_interactive=True,
    ),
    FigureKind(
        name="roofline",
        title="Roofline",
        caption="Useful work per second under the peaks that this machine was measured to reach.",
        scope="level",
        draw=roofline_plot.roofline,
        is_worth=lambda cases: bool(attained(cases)),
        alt=roofline_plot.roofline_alt,
        is_interactive=True,
    ),
    over_length(
        ENERGY,
        plots.energy,
        "Energy of a call over its tokens, from the median power of the board while timing.",
    ),
    FigureKind(
        name="samples",
        title="Samples",
        caption="All samples of a typical row and of the least steady one, to judge the "
        "measurement itself.",
        scope="rows",
        draw=sample_plots.samples,
        is_worth=lambda rows: bool(sample_plots.picked(rows)),
        alt=sample_plots.samples_alt,
    ),
)
