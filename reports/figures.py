"""Which figures a report has, in the order in which they should be read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench import units
from reports import plots, words
from reports.metrics import (
    LATENCY,
    PEAK_MEMORY,
    SPEEDUP,
    THROUGHPUT,
    Metric,
    has_points,
    is_drawn,
)
from reports.theme import Style

Record = dict[str, Any]

SCOPES = ("mode", "level", "report", "rows")
"""What a figure is drawn from: one level, mode and setting; one level and setting; all cases; or
the rows as they were measured, with their samples."""
FORMATS = ("png", "svg")


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
        scope="mode",
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
    """What the figure shows, with the values at each series' largest length."""
    best: dict[str, Record] = {}
    for case in cases:
        if metric.value(case) is not None and case["is_squarest"]:
            best[f"{case['ndim']}-D {case['series']}"] = case
    values = [
        f"{name}: {metric.tick_label(metric.value(case) or 0.0)} at {units.tokens(case['seq_len'])}"
        for name, case in best.items()
    ]
    heading = words.heading(cases[0]["level"], cases[0]["mode"])
    lead = f"{heading}: {metric.axis} over sequence length."
    return " ".join([lead, *([f"At the largest lengths: {'; '.join(values)}."] if values else [])])


QUANTITIES = (LATENCY, SPEEDUP, THROUGHPUT, PEAK_MEMORY)
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
        "Latency of the anchor over latency: above 1 is faster than the anchor.",
    ),
    over_length(THROUGHPUT, plots.throughput, "Tokens per second, with the latency's interval."),
    over_length(PEAK_MEMORY, plots.peak_memory, "Most memory that was allocated at once."),
)
