"""Canvases cut into boxes of 128 tokens, and the tensor maps through which Hopper moves them.

Tiles are read and written in place by n-dimensional boxes. A tensor map has at most five axes, a
canvas of three with batch, head and D has six: so the batch is folded into the heads (tensors
stored ``[B, H, L, D]``) or into the slowest axis (``[B, L, H, D]``, packed projections).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.canvas import Shape, tile_grid, window_grid
from ena_kernels.hopper import DTYPES, can_import, is_hopper, shared_layout

HEAD_DIMS = (64, 128)
BOX_TOKENS = 128
MOST_AXES = 3
FAR = 2**31


class Boxes(NamedTuple):
    """A canvas cut into boxes of 128 tokens; triples are over three axes, the first may be 1.

    sides: of the view's axes, in tokens. box, half_box, half: tokens of a box, of half of one, and
    how far apart the halves are. counts, seen, per_tile: boxes in all, in a window, in a tile.
    """

    sides: Shape
    box: Shape
    half_box: Shape
    half: Shape
    counts: Shape
    seen: Shape
    per_tile: Shape

    @property
    def last_sides(self) -> Shape:
        """The tokens along the last two axes, as the kernels take them; ones where there is one."""
        return (1, 1) if len(self.sides) == 1 else self.sides[-2:]


class View(NamedTuple):
    """A tensor ``[B, H, L, D]`` seen as [heads, *sides, D].

    map: what its tensor map needs to know beside where it is (`hopper.tensor_map`). fold: what one
    batch adds to the heads and to the slowest axis.
    """

    shape: Shape
    strides: Shape
    map: tuple
    fold: Shape


def supports(q: Tensor) -> bool:
    """Whether the Hopper kernels can run here on tensors like q, if their views exist."""
    return (
        q.is_cuda
        and q.dtype in DTYPES
        and is_hopper(q.device)
        and can_import("ena_kernels.sliding_tile.hopper.forward_kernel")
    )


@lru_cache(maxsize=256)
def boxes(canvas: Shape, tile: Shape, window: Shape, order: str) -> Boxes | None:
    """How a canvas is cut into boxes; None where it cannot be.

    A box lies inside one tile, so every window is a product of intervals of boxes.
    """
    if len(canvas) > MOST_AXES or any(n % t for n, t in zip(canvas, tile, strict=True)):
        return None
    volume = math.prod(tile)
    if volume % BOX_TOKENS or math.prod(canvas) >= FAR:
        return None
    ones = (1,) * (MOST_AXES - len(canvas))
    grid = (*ones, *tile_grid(canvas, tile))
    seen = (*ones, *window_grid(canvas, tile, window))
    if order == "tiled" or len(canvas) == 1:
        sides: Shape = (math.prod(canvas),)
        box: Shape = (1, 1, BOX_TOKENS)
        per_tile: Shape = (1, 1, volume // BOX_TOKENS)
    else:
        sides = canvas
        box = _box((*ones, *tile))
        per_tile = tuple(t // b for t, b in zip((*ones, *tile), box, strict=True))
        if math.prod(box) != BOX_TOKENS:
            return None
    cut = next(axis for axis, side in enumerate(box) if side > 1)
    half_box = tuple(b // 2 if axis == cut else b for axis, b in enumerate(box))
    return Boxes(
        sides=sides,
        box=box,
        half_box=half_box,
        half=tuple(h if axis == cut else 0 for axis, h in enumerate(half_box)),
        counts=tuple(g * s for g, s in zip(grid, per_tile, strict=True)),
        seen=tuple(w * s for w, s in zip(seen, per_tile, strict=True)),
        per_tile=per_tile,
    )


def _box(tile: Shape) -> Shape:
    """Powers of two that divide the tile, the fastest axis first, up to 128 tokens."""
    box, left = [], BOX_TOKENS
    for side in reversed(tile):
        box.insert(0, min(side & -side, left))
        left //= box[0]
    return tuple(box)


def view(shape: Shape, strides: Shape, dtype: torch.dtype, sides: Shape, box: Shape) -> View | None:
    """The view of a tensor that starts at a multiple of 16 bytes; None where it has none.

    Args:
        shape, strides: Of ``[B, H, L, D]``.
        sides: As in `Boxes`.
        box: Tokens along three axes, what one map moves.
    """
    added = fold(shape, strides, sides[0])
    B, H, L, D = shape
    if added is None or B * H == 0 or math.prod(sides) != L or D not in HEAD_DIMS:
        return None
    batch, head, token, _ = strides
    per_head, per_axis = added
    axes = [H * B if per_head else H, sides[0] * (B if per_axis else 1), *sides[1:], D]
    if H == 1:
        head = batch if per_head else L * token
    steps = [head, *(token * math.prod(sides[i + 1 :]) for i in range(len(sides))), 1]
    block = [1, *box[MOST_AXES - len(sides) :], D]
    return View(shape, strides, (axes, steps, block, shared_layout(tuple(block), dtype)), added)


def row_map(shape: Shape, rows: int) -> tuple:
    """What the tensor map of a float per query ``[B, H, L]``, seen as [B * H, L], needs."""
    B, H, L = shape
    return [B * H, L], [L, 1], [1, rows], shared_layout((1, rows), torch.float32)


def fold(shape: Shape, strides: Shape, first: int) -> Shape | None:
    """What one batch adds to the heads and to the slowest axis; None without such a view.

    Args:
        shape, strides: Of ``[B, H, L, D]``.
        first: Tokens of the slowest axis.
    """
    B, H, L, _ = shape
    batch, head, token, unit = strides
    has_rows = unit == 1 and token > 0 and token % 8 == 0 and B * max(H, L) < FAR
    if not has_rows or (H > 1 and (head <= 0 or head % 8)):
        return None
    if B == 1:
        return 0, 0
    if batch == L * token:
        return 0, first
    if H > 1 and batch == H * head:
        return H, 0
    if H == 1 and batch > 0 and batch % 8 == 0:
        return 1, 0
    return None
