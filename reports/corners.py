"""Small text inside panels, in a corner that is made free for it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from reports import theme

Note = tuple[str, theme.Style | None]
"""A line of text, and the series whose marker stands before it."""
LINE_HEIGHT, CHARACTER = 0.135, 0.06
"""Inches of a line and of a letter in the smallest size."""
_INSET, _MARKER = 0.05, 0.16


def write(panels: Sequence[Axes], notes: Sequence[Sequence[Note]]) -> None:
    """Write lines into each of the panels of a row, which share a logarithmic vertical axis.

    They stand in the upper left corners or in the lower right ones, whichever takes less of the
    axis; the axis is stretched as far as it takes for them to hide nothing.
    """
    shares = {
        is_top: max(
            _lacking(panel, lines, is_top=is_top)
            for panel, lines in zip(panels, notes, strict=True)
        )
        for is_top in (True, False)
    }
    is_top = shares[True] <= shares[False]
    for panel in panels:
        low, high = panel.get_ylim()
        room = (high / low) ** (shares[is_top] / (1 - shares[is_top]))
        panel.set_ylim((low, high * room) if is_top else (low / room, high))
    for panel, lines in zip(panels, notes, strict=True):
        _write(panel, lines, is_top=is_top)


def _write(panel: Axes, lines: Sequence[Note], *, is_top: bool) -> None:
    wide, high = _inches(panel)
    width, height = _needed(panel, lines)
    left = _INSET / wide if is_top else 1 - width
    top = 1 - _INSET / high if is_top else height
    for index, (text, style) in enumerate(lines):
        y = top - index * LINE_HEIGHT / high
        if style is not None:
            panel.plot(
                [left + _MARKER / 3 / wide],
                [y - LINE_HEIGHT / 2 / high],
                transform=panel.transAxes,
                marker=style.marker,
                color=style.colour,
                markersize=4,
                linestyle="none",
                zorder=6,
            )
        panel.text(
            left + (_MARKER / wide if style is not None else 0.0),
            y,
            theme.literal(text),
            transform=panel.transAxes,
            va="top",
            zorder=6,
            gid="note",
            **theme.text_style(theme.SMALL_PT, theme.MUTED),
        )


def _needed(panel: Axes, lines: Sequence[Note]) -> tuple[float, float]:
    """Width and height of lines with their margins, as fractions of the panel."""
    wide, high = _inches(panel)
    widest = max((len(text) * CHARACTER + _MARKER for text, _ in lines), default=0.0)
    return (widest + _INSET) / wide, (len(lines) * LINE_HEIGHT + 2 * _INSET) / high


def _lacking(panel: Axes, lines: Sequence[Note], *, is_top: bool) -> float:
    """The share of a stretched axis that has to be added for lines to hide nothing."""
    if not lines:
        return 0.0
    width, height = _needed(panel, lines)
    points = _drawn(panel)
    beside = points[:, 0] < width if is_top else points[:, 0] > 1 - width
    ys = points[beside, 1] if is_top else 1 - points[beside, 1]
    reached = float(np.max(ys, initial=0.0))
    # the stretched axis has to hold what is drawn, which shrinks, and the lines, which do not
    return max(1 - (1 - height) / reached, 0.0) if reached > 0 else 0.0


def _inches(panel: Axes) -> tuple[float, float]:
    figure = panel.get_figure(root=True)
    assert figure is not None
    wide, high = figure.get_size_inches()
    box = panel.get_position()
    return wide * box.width, high * box.height


def _drawn(panel: Axes) -> np.ndarray:
    """Points along all lines of a panel, as fractions of its sides."""
    found = [np.empty((0, 2))]
    for line in panel.lines:
        is_data = line.get_transform() == panel.transData
        points = np.asarray(line.get_xydata(), dtype=float)
        points = line.get_transform().transform(points)
        points = panel.transAxes.inverted().transform(points)
        found.append(points)
        if is_data:
            steps = np.linspace(0, 1, 9)[:, None, None]
            found.append((points[:-1] * (1 - steps) + points[1:] * steps).reshape(-1, 2))
    everywhere = np.concatenate(found)
    return everywhere[np.isfinite(everywhere).all(axis=1)]
