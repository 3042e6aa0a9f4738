"""Where title, panels, legend and footer of a figure stand, in inches."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import theme

MARGIN, LEFT, GAP = 0.15, 0.85, 0.22
PANEL_HEIGHT, AXIS_LABEL, PANEL_TITLE = 2.75, 0.52, 0.28
TITLE, LINE, KEY_ROW, GROUP_GAP = 0.58, 0.17, 0.166, 0.08
FIGURE_WIDTHS = {1: 7.4, 2: 9.0, 3: 11.0}
_CHARACTER, _KEY = 0.067, 0.6


@dataclass(frozen=True, slots=True)
class Page:
    """A figure with its empty panels from left to right."""

    figure: Figure
    panels: list[Axes]


def page(
    *,
    num_panels: int,
    legend: Sequence[Sequence[Line2D]],
    title: str,
    subtitle: str,
    note: str,
    footer: str,
) -> Page:
    """Lay out a figure just high enough for its legend.

    Args:
        legend: Groups of keys; each group starts a row of its own.
    """
    width = FIGURE_WIDTHS.get(num_panels, 3.7 * num_panels)
    groups = [(list(keys), _num_columns(keys, width)) for keys in legend if keys]
    rows = sum(-(-len(keys) // columns) for keys, columns in groups)
    notes = textwrap.wrap(note, int((width - 2 * MARGIN) / 0.062))
    below = AXIS_LABEL + rows * KEY_ROW + GROUP_GAP * len(groups) + LINE * len(notes) + 0.36
    height = TITLE + PANEL_TITLE + PANEL_HEIGHT + below
    figure = Figure(figsize=(width, height), dpi=150, facecolor=theme.PAPER)
    at = _Inches(figure, width, height)
    at.text(MARGIN, height - 0.14, title, theme.TITLE_PT, weight="bold")
    at.text(MARGIN, height - 0.38, subtitle, theme.TEXT_PT, theme.MUTED)
    y = below - AXIS_LABEL
    for keys, columns in groups:
        at.legend(MARGIN, y, keys, columns)
        y -= KEY_ROW * -(-len(keys) // columns) + GROUP_GAP
    for line in notes:
        at.text(MARGIN, y - 0.04, line, theme.SMALL_PT, theme.MUTED)
        y -= LINE
    at.text(MARGIN, 0.24, footer, theme.SMALL_PT, theme.MUTED)
    return Page(figure, at.panels(num_panels, below))


class _Inches:
    """Places artists by inches from the lower left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def text(
        self,
        x: float,
        y: float,
        text: str,
        points: float,
        colour: str = theme.INK,
        *,
        weight: str = "normal",
    ) -> None:
        style = theme.text_style(points, colour)
        position = x / self.width, y / self.height
        self.figure.text(*position, theme.literal(text), va="top", fontweight=weight, **style)

    def legend(self, x: float, y: float, keys: Sequence[Line2D], columns: int) -> None:
        self.figure.legend(
            handles=_row_major(keys, columns),
            loc="upper left",
            bbox_to_anchor=(x / self.width, y / self.height),
            ncols=columns,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.6,
            columnspacing=1.6,
            labelspacing=0.4,
            prop={"family": list(theme.FONT), "size": theme.TEXT_PT - 0.5},
            labelcolor=theme.INK,
        )

    def panels(self, number: int, bottom: float) -> list[Axes]:
        width = (self.width - LEFT - MARGIN - GAP * (number - 1)) / number
        return [self._panel(LEFT + i * (width + GAP), bottom, width) for i in range(number)]

    def _panel(self, x: float, y: float, width: float) -> Axes:
        w, h = self.width, self.height
        panel = self.figure.add_axes((x / w, y / h, width / w, PANEL_HEIGHT / h))
        panel.set_facecolor(theme.PAPER)
        panel.set_axisbelow(True)
        panel.grid(visible=True, color=theme.GRID, linewidth=0.7)
        for side, spine in panel.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.MUTED)
        panel.tick_params(
            labelsize=theme.TEXT_PT - 0.5,
            labelfontfamily=theme.FONT[0],
            colors=theme.MUTED,
            labelcolor=theme.INK,
            length=3,
        )
        return panel


def _num_columns(keys: Sequence[Line2D], width: float) -> int:
    """As many as fit when every column is as wide as its longest label."""
    lengths = [len(str(key.get_label())) for key in keys]
    for columns in range(len(keys), 1, -1):
        widths = [_KEY + _CHARACTER * max(lengths[i::columns]) for i in range(columns)]
        if sum(widths) <= width - 2 * MARGIN:
            return columns
    return 1


def _row_major(keys: Sequence[Line2D], columns: int) -> list[Line2D]:
    """Reorder so that a legend, which fills columns first, reads along its rows.

    The first columns of a legend are the longer ones, as those of the transposed grid are.
    """
    return [key for start in range(columns) for key in keys[start::columns]]
