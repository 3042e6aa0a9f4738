"""The forward of Sliding Tile Attention on Hopper: what it takes, its views, its launch.

Tiles are read and written in place by n-dimensional boxes of 128 tokens. A tensor map has at most
five axes, a canvas of three with batch, head and D has six: so the batch is folded into the heads
(tensors stored ``[B, H, L, D]``) or into the slowest axis (``[B, L, H, D]``, packed projections).
"""

import math
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.canvas import Shape, tile_grid, window_grid

DTYPES = (torch.float16, torch.bfloat16)
HEAD_DIMS = (64, 128)
BOX_TOKENS = 128
MOST_AXES = 3
FAR = 2**31
# D to stages of K and V, and whether the two warpgroups take turns at the tensor cores
CONFIGS = {64: (2, False), 128: (2, False)}


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


def supports(
    q: Tensor, k: Tensor, v: Tensor, canvas: Shape, tile: Shape, window: Shape, order: str
) -> bool:
    """Whether `forward` can run these validated arguments here."""
    return (
        q.is_cuda
        and q.dtype in DTYPES
        and q.shape[3] in HEAD_DIMS
        and q.numel() > 0
        and q.shape[2] == math.prod(canvas)
        and _is_hopper(q.device)
        and boxes(canvas, tile, window, order) is not None
        and all(_fold(x, 1) is not None for x in (q, k, v))
        and _has_gluon()
    )


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    canvas: Shape,
    tile: Shape,
    window: Shape,
    scale: float,
    order: str,
) -> tuple[Tensor, Tensor]:
    """Attend to the windows; for what `supports` says yes to.

    Args:
        q: ``[B, H, L, D]``. k, v: ``[B, H_kv, L, D]``.

    Returns:
        out: ``[B, H, L, D]``, stored as ``[B, L, H, D]``.
        lse: float32 ``[B, H, L]``, natural logarithm, in the order of the tokens.
    """
    stages, in_turn = CONFIGS[q.shape[3]]
    return _launch(q, k, v, canvas, tile, window, scale, order, stages, in_turn)


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


def _launch(q, k, v, canvas, tile, window, scale, order, stages, in_turn):
    from ena_kernels.sliding_tile.hopper_kernel import sliding_tile_hopper_fwd_kernel

    B, H, L, D = q.shape
    cut = boxes(canvas, tile, window, order)
    out = q.new_empty(B, L, H, D).transpose(1, 2)
    lse = q.new_empty(B, H, L, dtype=torch.float32)
    first = cut.sides[0]
    num_units = B * H * math.prod(cut.counts)
    sliding_tile_hopper_fwd_kernel[(min(num_units, _num_multiprocessors(q.device)),)](
        _view(q, cut.sides, cut.half_box),
        _view(k, cut.sides, cut.box),
        _view(v, cut.sides, cut.box),
        _view(out, cut.sides, cut.half_box),
        lse,
        scale * math.log2(math.e),
        num_units,
        H,
        H // k.shape[1],
        cut.counts,
        cut.seen,
        cut.per_tile,
        (1, 1) if len(cut.sides) == 1 else cut.sides[-2:],
        _fold(q, first),
        _fold(k, first),
        _fold(v, first),
        _fold(out, first),
        D=D,
        BOX=cut.box,
        HALF=cut.half,
        HALF_BOX=cut.half_box,
        NUM_AXES=len(cut.sides),
        STAGES=stages,
        IN_TURN=in_turn,
        FLIPPED=scale < 0,
        num_warps=4,
    )
    return out, lse


def _fold(x: Tensor, first: int) -> Shape | None:
    """What one batch adds to the heads and to the slowest axis; None without such a view."""
    B, H, L, _ = x.shape
    batch, head, token, unit = x.stride()
    is_aligned = x.data_ptr() % 16 == 0 and (H == 1 or (head > 0 and head % 8 == 0))
    if not is_aligned or unit != 1 or token <= 0 or token % 8 or B * max(H, L) >= FAR:
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


def _view(x: Tensor, sides: Shape, box: Shape):
    """Tensor map of x seen as [heads, *sides, D], with the batch where `_fold` says."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    B, H, L, D = x.shape
    batch, head, token, _ = x.stride()
    per_head, per_axis = _fold(x, sides[0])
    shape = [H * B if per_head else H, sides[0] * (B if per_axis else 1), *sides[1:], D]
    if H == 1:
        head = batch if per_head else L * token
    strides = [head, *(token * math.prod(sides[i + 1 :]) for i in range(len(sides))), 1]
    block = [1, *box[MOST_AXES - len(sides) :], D]
    return TensorDescriptor(x, shape, strides, block, _layout(tuple(block), x.dtype))


@cache
def _layout(block: Shape, dtype: torch.dtype):
    from triton.experimental.gluon import language as gl

    elements = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16}
    return gl.NVMMASharedLayout.get_default_for(list(block), elements[dtype])


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) == (9, 0)


@cache
def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _has_gluon() -> bool:
    try:
        import ena_kernels.sliding_tile.hopper_kernel  # noqa: F401
    except ImportError:
        return False
    return True
