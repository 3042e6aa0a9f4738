"""Where title, panels, legend and footer of a figure stand, in inches."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import frames, theme, words

MARGIN, LEFT, RIGHT, GAP = 0.15, 0.85, 0.24, 0.22
PANEL_HEIGHT, AXIS_LABEL, PANEL_TITLE = 2.75, 0.52, 0.28
ROW_HEIGHT, ROW_GAP = 2.2, 0.16
"""Of a panel where there are several rows, and between one row and the title of the next."""
TITLE, LINE, KEY_ROW, GROUP_GAP = 0.58, 0.17, 0.166, 0.08
FIGURE_WIDTHS = {1: 7.4, 2: 9.0, 3: 11.0}
_CHARACTER, _KEY = 0.067, 0.6


TITLE_STYLE: Mapping[str, Any] = {"loc": "left", "y": 1.0, **theme.text_style(theme.TEXT_PT)}
"""Of a panel; at a place of its own, which spares matplotlib a layout of all ticks to find one."""


def modes_and_ndims(cases: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int]]:
    """The rows and columns of small multiples: modes in order of appearance, canvas axes."""
    modes = [str(mode) for mode in frames.unique(c["mode"] for c in cases)] or ["fwd"]
    return modes, sorted({int(c["ndim"]) for c in cases if c["ndim"]}) or [1]


def panel_title(modes: Sequence[str], mode: str, ndim: int) -> str:
    """`2-D canvas`, with the mode where there are several."""
    lead = f"{words.MODES.get(mode, mode)}, " if len(modes) > 1 else ""
    return theme.literal(f"{lead}{words.dimensions(ndim)}")


@dataclass(frozen=True, slots=True)
class Page:
    """A figure with its empty panels: rows from the top, in each from left to right."""

    figure: Figure
    rows: list[list[Axes]]

    @property
    def panels(self) -> list[Axes]:
        """Row after row."""
        return [panel for row in self.rows for panel in row]


def page(
    *,
    num_panels: int,
    num_rows: int = 1,
    legend: Sequence[Sequence[Artist]],
    title: str,
    subtitle: str,
    note: str,
    footer: str,
    row_height: float | None = None,
    between: float = 0.0,
    left: float = LEFT,
    right: float = RIGHT,
    gap: float = GAP,
) -> Page:
    """Lay out a figure just high enough for its legend.

    Args:
        num_panels: In each row.
        legend: Groups of keys; each group starts a row of its own.
        row_height: Of a panel, in inches.
        between: Room between rows, beyond that for the title of a panel; without any, only the
            lowest row has room for tick labels.
        left, right, gap: Room for labels beside and between the panels of a row, in inches.
    """
    width = FIGURE_WIDTHS.get(num_panels, 3.7 * num_panels)
    groups = [(list(keys), _num_columns(keys, width)) for keys in legend if keys]
    rows = sum(-(-len(keys) // columns) for keys, columns in groups)
    notes = textwrap.wrap(note, int((width - 2 * MARGIN) / 0.062))
    below = AXIS_LABEL + rows * KEY_ROW + GROUP_GAP * len(groups) + LINE * len(notes) + 0.36
    high = row_height or (PANEL_HEIGHT if num_rows == 1 else ROW_HEIGHT)
    pitch = high + PANEL_TITLE + ROW_GAP + between
    height = TITLE + PANEL_TITLE + high + (num_rows - 1) * pitch + below
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
    bottoms = [below + pitch * row for row in reversed(range(num_rows))]
    width = (width - left - right - gap * (num_panels - 1)) / num_panels
    places = [left + i * (width + gap) for i in range(num_panels)]
    return Page(figure, [[at.panel(x, y, width, high) for x in places] for y in bottoms])


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

    def legend(self, x: float, y: float, keys: Sequence[Artist], columns: int) -> None:
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

    def panel(self, x: float, y: float, width: float, high: float) -> Axes:
        w, h = self.width, self.height
        panel = self.figure.add_axes((x / w, y / h, width / w, high / h))
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


def _num_columns(keys: Sequence[Artist], width: float) -> int:
    """As many as fit when every column is as wide as its longest label."""
    lengths = [len(str(key.get_label())) for key in keys]
    for columns in range(len(keys), 1, -1):
        widths = [_KEY + _CHARACTER * max(lengths[i::columns]) for i in range(columns)]
        if sum(widths) <= width - 2 * MARGIN:
            return columns
    return 1


def _row_major(keys: Sequence[Artist], columns: int) -> list[Artist]:
    """Reorder so that a legend, which fills columns first, reads along its rows.

    The first columns of a legend are the longer ones, as those of the transposed grid are.
    """
    return [key for start in range(columns) for key in keys[start::columns]]
