"""What figures of small multiples share: axes of lengths and values, rows by mode."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from reports import axes, layout, theme


def title(panel: Axes, text: str) -> None:
    """Above a panel, to the left."""
    panel.set_title(theme.literal(text), **layout.TITLE_STYLE)


def ticks(axis: Any, places: Sequence[float], texts: Sequence[str], label: str) -> None:
    """Fixed ticks of an axis; without texts only its lines."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(texts) or [""] * len(places)))
    axis.set_minor_locator(NullLocator())
    if label:
        axis.set_label_text(label, **theme.text_style(theme.TEXT_PT))


def log_values(
    panel: Axes,
    values: Sequence[float],
    text: Callable[[float], str],
    label: str,
    *,
    is_first: bool,
) -> None:
    """A logarithmic vertical axis around values, labelled in the first panel of a row."""
    low, high = axes.limits(values)
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    log_ticks(panel, text, label, is_first=is_first)


def log_ticks(panel: Axes, text: Callable[[float], str], label: str, *, is_first: bool) -> None:
    """Ticks for the limits that a logarithmic vertical axis has."""
    places = axes.decimal_ticks(*panel.get_ylim())
    shown = axes.labels(places, text) if is_first else []
    ticks(panel.yaxis, places, shown, label if is_first else "")
