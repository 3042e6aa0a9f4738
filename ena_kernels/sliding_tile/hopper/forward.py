"""The launch of the Hopper forward of Sliding Tile Attention."""

import math
from functools import cache

import torch
from torch import Tensor

from ena_kernels.canvas import Shape
from ena_kernels.sliding_tile.hopper.boxes import boxes, fold, view

# of K and V: boxes of 128 tokens
STAGES = 2


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
    """Attend to the windows; for what `boxes.supports` says yes to (q, k, v).

    Args:
        q: ``[B, H, L, D]``. k, v: ``[B, H_kv, L, D]``.

    Returns:
        out: ``[B, H, L, D]``, stored as ``[B, L, H, D]``.
        lse: float32 ``[B, H, L]``, natural logarithm, in the order of the tokens.
    """
    from ena_kernels.sliding_tile.hopper.forward_kernel import sliding_tile_hopper_fwd_kernel

    B, H, L, D = q.shape
    cut = boxes(canvas, tile, window, order)
    out = q.new_empty(B, L, H, D).transpose(1, 2)
    lse = q.new_empty(B, H, L, dtype=torch.float32)
    first = cut.sides[0]
    num_units = B * H * math.prod(cut.counts)
    sliding_tile_hopper_fwd_kernel[(min(num_units, _num_multiprocessors(q.device)),)](
        view(q, cut.sides, cut.half_box),
        view(k, cut.sides, cut.box),
        view(v, cut.sides, cut.box),
        view(out, cut.sides, cut.half_box),
        lse,
        scale * math.log2(math.e),
        num_units,
        H,
        H // k.shape[1],
        cut.counts,
        cut.seen,
        cut.per_tile,
        (1, 1) if len(cut.sides) == 1 else cut.sides[-2:],
        fold(q, first),
        fold(k, first),
        fold(v, first),
        fold(out, first),
        D=D,
        BOX=cut.box,
        HALF=cut.half,
        HALF_BOX=cut.half_box,
        NUM_AXES=len(cut.sides),
        STAGES=STAGES,
        FLIPPED=scale < 0,
        num_warps=4,
    )
    return out, lse


@cache
def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
