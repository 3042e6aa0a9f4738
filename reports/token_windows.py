"""What windows that slide token by token would make blocks of tiles compute."""

import math

from bench.case import Shape


def token_wise_waste(canvas: Shape, tile: Shape, window: Shape) -> float:
    """Pairs in the tiles that such windows touch, over the pairs that they attend.

    Every token sees as many tokens on each axis as the window is wide; at a border the window is
    moved inside. Windows that slide tile by tile have 1.

    Args:
        canvas, tile, window: In tokens, slowest axis first; the tile divides the canvas.
    """
    widths = map(min, canvas, window)
    axes = zip(canvas, tile, widths, strict=True)
    return math.prod(_touched(side, step, width) / width for side, step, width in axes)


def _touched(side: int, step: int, width: int) -> float:
    """Mean width of the tiles that the windows of one query tile touch, in tokens."""
    total = 0
    for begin in range(0, side, step):
        first = _window_begin(begin, side, width)
        last = _window_begin(begin + step - 1, side, width) + width - 1
        total += (last // step - first // step + 1) * step
    return total / (side // step)


def _window_begin(token: int, side: int, width: int) -> int:
    return min(max(token - width // 2, 0), side - width)
