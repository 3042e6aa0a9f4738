"""Scans that read every token once and whole: flips, shifts, transpositions, and the way back."""

import math

from torch import Tensor

Shape = tuple[int, ...]

MOVES = ("uni", "flip", "1d-shift", "2d-shift", "switch")


def move(x: Tensor, scan: str, canvas: Shape, layer: int) -> Tensor:
    """``[B, L, C]`` in raster order to the order in which the scan reads it."""
    match scan:
        case "flip":
            return x.flip(1)
        case "1d-shift":
            return x.roll(layer, dims=1)
        case "2d-shift":
            return _roll_canvas(x, canvas, math.isqrt(layer))
        case "switch":
            return x.flip(1) if layer % 2 == 0 else _transpose(x, canvas)
    return x


def move_back(y: Tensor, scan: str, canvas: Shape, layer: int) -> Tensor:
    """``[B, L, C]`` in the order of the scan to raster order."""
    match scan:
        case "1d-shift":
            return y.roll(-layer, dims=1)
        case "2d-shift":
            return _roll_canvas(y, canvas, -math.isqrt(layer))
        case "switch" if layer % 2:
            return _transpose(y, canvas[::-1])
    return move(y, scan, canvas, layer)


def _roll_canvas(x: Tensor, canvas: Shape, step: int) -> Tensor:
    return x.unflatten(1, canvas).roll((step, step), dims=(1, 2)).flatten(1, 2)


def _transpose(x: Tensor, canvas: Shape) -> Tensor:
    """Column-major order of a (y, x) canvas; the same of the (x, y) canvas undoes it."""
    return x.unflatten(1, canvas).transpose(1, 2).flatten(1, 2)
