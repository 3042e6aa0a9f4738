"""Colours, markers and sizes of every figure, in one place.

The palette is that of Okabe and Ito (2008), safe for the common kinds of colour blindness, without
its yellow, which vanishes on paper. Marker and dash tell series apart where colour cannot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

INK, MUTED, GRID, PAPER = "#1a1a1a", "#5f6368", "#e3e5e8", "#ffffff"
FONT = ("DejaVu Sans",)
_END_OF_FONT = 0x0500  # Latin, Greek and Cyrillic
TITLE_PT, TEXT_PT, SMALL_PT = 11.5, 9.0, 7.5

BLACK, BLUE, VERMILLION, GREEN = "#1a1a1a", "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, GREY = "#B4659A", "#E69F00", "#56B4E9", "#8a8d91"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY, BLACK)
_PREFERRED = {
    "transformer": (BLACK, GREY),
    "attention": (BLACK, GREY),
    "ena": (BLUE, VERMILLION, SKY, PURPLE),
    "sliding_tile": (BLUE, VERMILLION, SKY, PURPLE),
    "linear": (GREEN, ORANGE),
    "delta_rule": (GREEN, ORANGE),
    "scan": (PURPLE,),
}
PARTS = {
    "attention": BLUE,
    "recurrence": GREEN,
    "permutation": ORANGE,
    "projections": PURPLE,
    "mlp": SKY,
    "norm": GREY,
    "other": "#d5d7da",
    "parameters": PURPLE,
    "inputs": ORANGE,
    "activations": SKY,
}
"""Colours of what a whole is made of, time or memory."""
SLOWER, FASTER = VERMILLION, BLUE
"""Ends of the scale of speed-ups."""
MARKERS = ("o", "s", "^", "D", "v", "P", "<", "p", ">", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

_HOURGLASS = Path([(-0.6, 1), (0.6, 1), (-0.6, -1), (0.6, -1), (-0.6, 1)], closed=True)
FAILURES: dict[str, Any] = {
    "oom": "X",
    "timeout": _HOURGLASS,
    "crashed": (8, 2, 0),
    "incorrect": MarkerStyle(r"$\neq$", transform=Affine2D().scale(1.2)),
    "fallback": MarkerStyle(r"$\hookrightarrow$", transform=Affine2D().scale(1.25)),
    "failed": MarkerStyle(r"$\mathbf{!}$", transform=Affine2D().scale(1.3)),
}
"""Markers of cases that ran and gave no number; none of them marks a series."""
SIGNS = ("incorrect", "fallback", "failed")
"""The markers above that are signs of a font, drawn without an edge."""
FAILURE_WORDS = {
    "oom": "out of memory",
    "timeout": "timeout",
    "crashed": "crashed",
    "incorrect": "incorrect result",
    "fallback": "ran other kernels",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How one series looks in every figure."""

    colour: str
    marker: str
    dash: Any


UNSEEN = Style(GREY, ".", DASHES[-1])
"""Of what no figure shows."""


def styles(series: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each series, all different, the same whenever the same series are given.

    Every contender first gets the colours that it prefers; whoever is left over takes the colours
    that remain, and then its own again with dashes.

    Args:
        series: (name, contender) in the order in which they should get the best colours.
    """
    named = dict(series)
    looks = list(product(DASHES, PALETTE))
    taken: dict[str, tuple[Any, str]] = {}
    for name, contender in named.items():
        own = product(DASHES[:1], _PREFERRED.get(contender, ()))
        _take(taken, name, own, looks)
    for name, contender in named.items():
        if name not in taken:
            dashed = product(DASHES, _PREFERRED.get(contender, PALETTE))
            _take(taken, name, [*product(DASHES[:1], PALETTE), *dashed, *looks], looks)
    found = {}
    for index, name in enumerate(named):
        dash, colour = taken.get(name, (DASHES[-1], GREY))
        found[name] = Style(colour, MARKERS[index % len(MARKERS)], dash)
    return found


def of_run(base: Style, run: int, index: int, num_series: int) -> Style:
    """The look of a series in one of several runs: its colour, with dash and marker of the run."""
    dash = DASHES[(DASHES.index(base.dash) + run) % len(DASHES)]
    return Style(base.colour, MARKERS[(index + run * num_series) % len(MARKERS)], dash)


def _take(
    taken: dict[str, tuple[Any, str]],
    name: str,
    wanted: Iterable[tuple[Any, str]],
    looks: list[tuple[Any, str]],
) -> None:
    """Give the first wanted look that is still free, if any."""
    look = next((w for w in wanted if w in looks), None)
    if look is not None:
        looks.remove(look)
        taken[name] = look


def ramp(number: int) -> list[str]:
    """Colours from light to dark for ordered values, told apart in grey and by the colour-blind."""
    scale = matplotlib.colormaps["viridis_r"]
    places = [0.12 + 0.83 * i / max(number - 1, 1) for i in range(number)]
    return [to_hex(scale(place)) for place in places]


def ink_on(colour: Any) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue = to_rgb(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else PAPER


def failure_order(statuses: Iterable[str]) -> list[str]:
    """The failures that are drawn, in the order of the legend."""
    present = set(statuses)
    return [status for status in FAILURES if status in present]


def literal(text: str) -> str:
    """Text that matplotlib draws as it is: no formula, no glyph that the font lacks.

    A leading underscore would hide a label from its legend.
    """
    known = "".join(c if c.isprintable() and ord(c) < _END_OF_FONT else "?" for c in text)
    return (" " if known.startswith("_") else "") + known.replace("$", r"\$")


def text_style(points: float = TEXT_PT, colour: str = INK) -> Mapping[str, Any]:
    """Keyword arguments of a text artist."""
    return {"fontsize": points, "color": colour, "fontfamily": list(FONT)}
