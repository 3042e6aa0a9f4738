"""Ticks and limits of logarithmic axes: few, round, and never so tight that noise looks large."""

import math
import re
from collections.abc import Callable, Sequence

from bench import units

MAX_LENGTH_TICKS = 8
MIN_FACTOR = 3.0
"""Smallest ratio between the ends of a value axis."""

_DECIMAL_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
)


def limits(values: Sequence[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Ends of a logarithmic axis around the values, with a margin as a share of its length."""
    positive = [v for v in values if v > 0]
    if not positive:
        return 1.0, 10.0
    low, high = math.log(min(positive)), math.log(max(positive))
    lacking = max(math.log(MIN_FACTOR) - (high - low), 0.0)
    low, high = low - lacking / 2, high + lacking / 2
    pad = margin * (high - low)
    return math.exp(low - pad), math.exp(high + pad)


def stretch(low: float, high: float, share: float, *, at_top: bool) -> tuple[float, float]:
    """Add room of `share` of the new axis at one end, for markers of failures."""
    room = (high / low) ** (share / (1 - share))
    return (low, high * room) if at_top else (low / room, high)


def decimal_ticks(low: float, high: float) -> list[float]:
    """Five to eight round numbers where they exist: powers of ten, 1-3, 1-2-5 or finer steps."""
    ticks: list[float] = []
    for steps in _DECIMAL_STEPS:
        ticks = _within(low, high, 10.0, steps)
        if len(ticks) >= 5:
            break
    return _thin(ticks, 8)


def binary_ticks(low: float, high: float) -> list[float]:
    """Powers of two, every second or third one on long axes, with halves on short ones."""
    ticks = _within(low, high, 2.0, (1.0,))
    return _thin(ticks, 7) if len(ticks) > 2 else _within(low, high, 2.0, (1.0, 1.5))


def length_ticks(lengths: Sequence[int]) -> list[int]:
    """The measured lengths; of more than eight, those furthest apart, both ends included."""
    ordered = sorted(set(lengths))
    if len(ordered) < 2:
        return ordered
    apart = math.log(ordered[-1] / ordered[0]) / MAX_LENGTH_TICKS
    kept = [ordered[-1]]
    for length in reversed(ordered[:-1]):
        if math.log(kept[-1] / length) >= max(apart, math.log(1.3)):
            kept.append(length)
    return kept[::-1]


def length_labels(ticks: Sequence[int]) -> list[str]:
    """`1k`, `2k`, `4k`."""
    return [units.tokens(t) for t in ticks]


def labels(ticks: Sequence[float], text: Callable[[float], str]) -> list[str]:
    """Tick texts without the zeros that significant digits add: `1 GiB`, `0.5x`, `20`."""
    return [_trim(text(t)) for t in ticks]


def _within(low: float, high: float, base: float, steps: Sequence[float]) -> list[float]:
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    grid = [s * base**e for e in range(first, last + 1) for s in steps]
    return [g for g in grid if low * (1 - 1e-9) <= g <= high * (1 + 1e-9)]


def _thin(ticks: list[float], most: int) -> list[float]:
    step = math.ceil(len(ticks) / most) if ticks else 1
    return ticks[::step]


def _trim(text: str) -> str:
    shorter = re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text)
    return re.sub(r"\.(?!\d)", "", shorter)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers at equal distances between two values, the fewest that are at least three."""
    width = max(high - low, abs(high) * 1e-6, 1e-12)
    exponent = math.floor(math.log10(width))
    for factor in (5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05):
        step = factor * 10.0**exponent
        places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(places) >= 3:
            return [p * step for p in places][:: max(1, math.ceil(len(places) / most))]
    return [low, high]


def linear_ticks(top: float) -> list[float]:
    """Round numbers from zero to a top."""
    return even_ticks(0.0, top)


def plain(value: float) -> str:
    """`0`, `0.25`, `1,500`: a tick of a linear axis, as many digits as it has."""
    return f"{value:,.10g}" if abs(value) < 1e-12 or abs(value) >= 1e-4 else f"{value:.3g}"
