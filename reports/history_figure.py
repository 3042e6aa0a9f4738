"""The cases that changed over many runs, as one figure for a pull request or a paper."""

import re
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import units
from reports import theme
from reports.history import CaseHistory, History
from reports.history_chart import LEAST_SPAN, change_text
from reports.history_text import device_lines

MAX_PANELS = 12
_COLUMNS = 2
_WIDTH, _PANEL, _HEAD = 11.0, 1.9, 1.05
_PATH, _CHANGES, _FOOTER = 76, 86, 180
"""Letters that fit above a panel, of a path and of changes, and below all panels."""


def figure(history: History) -> Figure:
    """Latency over runs with changes marked; cases with the largest changes first.

    Raises:
        ValueError: there is no case.
    """
    cases = shown(history)
    if not cases:
        raise ValueError("a figure of histories needs a case")
    rows = -(-len(cases) // _COLUMNS)
    height = _HEAD + rows * _PANEL
    drawn = Figure(figsize=(_WIDTH, height), facecolor=theme.PAPER)
    style = theme.text_style(theme.TITLE_PT)
    drawn.text(0.01, 1 - 0.16 / height, _title(history), va="top", weight="bold", **style)
    grid = drawn.add_gridspec(
        rows,
        _COLUMNS,
        left=0.075,
        right=0.985,
        top=1 - 0.9 / height,
        bottom=0.72 / height,
        wspace=0.18,
        hspace=0.62,
    )
    numbers = {run.device_name: run.number for run in history.runs}
    for index, case in enumerate(cases):
        axes = drawn.add_subplot(grid[divmod(index, _COLUMNS)])
        _panel(axes, case, numbers[case.device_name])
        if index + _COLUMNS >= len(cases):
            axes.set_xlabel("run, the earliest first", **theme.text_style(theme.SMALL_PT))
    footer = theme.literal(textwrap.fill("; ".join(device_lines(history)), _FOOTER))
    drawn.text(0.01, 0.08 / height, footer, **theme.text_style(theme.SMALL_PT, theme.MUTED))
    return drawn


def shown(history: History) -> tuple[CaseHistory, ...]:
    """The cases that changed or shifted; the first ones where none did."""
    changed = tuple(case for case in history.cases if case.steps or case.late)
    return (changed or history.cases)[:MAX_PANELS]


def path_lines(path: str) -> list[str]:
    """The path of a case in lines that fit above a panel, broken between its parts."""
    lines = [""]
    for part in re.split(r"(?<=[-/])", path):
        if lines[-1] and len(lines[-1] + part) > _PATH:
            lines.append("")
        lines[-1] += part
    return lines


def changes_line(texts: Sequence[str]) -> str:
    """As many changes as fit above a panel, and how many there are besides."""
    shown = len(texts)
    while shown > 1 and len(_listed(texts, shown)) > _CHANGES:
        shown -= 1
    return _listed(texts, shown)


def _listed(texts: Sequence[str], shown: int) -> str:
    more = f"{len(texts) - shown} more"
    return "; ".join([*texts[:shown], *([more] if shown < len(texts) else [])])


def _title(history: History) -> str:
    number, total = len(shown(history)), len(history.cases)
    text = f"Latency over {units.plural(len(history.runs), 'run')}"
    if number == total:
        return text
    which = "those that changed most"
    if not (history.steps or history.lates):
        which = "none of which changed"
    return f"{text}: {number} of {total} cases, {which}"


def _panel(axes: Axes, case: CaseHistory, num_runs: int) -> None:
    _frame(axes, case, num_runs)
    timed = [(p, p.latency_ms, p.lo_ms, p.hi_ms) for p in case.timed]
    for point, value, low, high in timed:
        if value is None or low is None or high is None:
            continue
        x = point.run.number
        axes.plot([x, x], [low, high], color=theme.MUTED, linewidth=0.8)
        face = theme.PAPER if point.is_outlier else theme.BLUE
        axes.plot(x, value, marker="o", markersize=3.2, color=theme.BLUE, markerfacecolor=face)
    for points, middle in case.levels:
        ends = points[0].run.number - 0.4, points[-1].run.number + 0.4
        axes.plot(ends, [middle, middle], color=theme.BLACK, linewidth=1.4)
    for step in case.steps:
        colour = theme.VERMILLION if step.is_slower else theme.GREEN
        place = (step.last_before.number + step.first_after.number) / 2
        axes.axvline(place, color=colour, linewidth=1.1, linestyle=(0, (4, 2)))
    for point in case.points:
        if point.latency_ms is None:
            top = axes.get_xaxis_transform()
            axes.plot(point.run.number, 0.96, "x", markersize=4.5, color=theme.INK, transform=top)


def _frame(axes: Axes, case: CaseHistory, num_runs: int) -> None:
    values = [v for p in case.timed for v in (p.lo_ms, p.hi_ms) if v is not None]
    low, high = min(values), max(values)
    spare = max(LEAST_SPAN * high - (high - low), 0.12 * (high - low)) / 2
    axes.set_ylim(max(low - spare, 0.0), high + spare)
    axes.set_xlim(0.5, num_runs + 0.5)
    axes.grid(visible=True, axis="y", color=theme.GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="y", nbins=4)
    step = max(1, round(num_runs / 8))
    axes.set_xticks([1, *range(step, num_runs + 1, step)] if step > 1 else range(1, num_runs + 1))
    axes.yaxis.set_major_formatter(lambda value, _: units.duration(value))
    axes.tick_params(labelsize=theme.SMALL_PT, colors=theme.MUTED, labelcolor=theme.INK)
    title = "\n".join(map(theme.literal, path_lines(case.case_path)))
    axes.set_title(title, loc="left", pad=14, **theme.text_style(theme.SMALL_PT))
    steps = [*case.steps, *([case.late] if case.late else [])]
    told = changes_line([f"run {s.first_after.number}: {change_text(s)}" for s in steps])
    axes.text(
        0.0,
        1.03,
        theme.literal(told or "no change"),
        transform=axes.transAxes,
        **theme.text_style(theme.SMALL_PT, theme.MUTED),
    )
