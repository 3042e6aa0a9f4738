"""The launches of the Hopper backward of Sliding Tile Attention: dq, then dk and dv."""

import math

import torch
from torch import Tensor

from ena_kernels.canvas import Shape
from ena_kernels.sliding_tile.hopper.boxes import (
    BOX_TOKENS,
    Boxes,
    boxes,
    fold,
    row_view,
    view,
)

# of what streams: steps of 64 tokens
STAGES = 4


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    canvas: Shape,
    tile: Shape,
    window: Shape,
    scale: float,
    order: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; for what `boxes.supports` says yes to (q, k, v, out, grad_out).

    Args:
        grad_out, q, out: ``[B, H, L, D]``. k, v: ``[B, H_kv, L, D]``.
        grad_lse, lse: float32 ``[B, H, L]``, contiguous.

    Returns:
        Shaped like q, k and v, stored as ``[B, L, H, D]``.
    """
    cut = boxes(canvas, tile, window, order)
    grads = [x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v)]
    base_2_lse, delta = (torch.empty_like(lse) for _ in range(2))
    floats = lse, lse if grad_lse is None else grad_lse, base_2_lse, delta
    _launch_dq((q, k, v, out, grad_out, grads[0]), floats, scale, cut, grad_lse is None)
    _launch_dkdv((q, k, v, grad_out, *grads[1:]), floats[2:], scale, cut)
    return tuple(grads)


def _launch_dq(tensors, floats, scale: float, cut: Boxes, is_plain: bool) -> None:
    from ena_kernels.sliding_tile.hopper.dq_kernel import sliding_tile_hopper_bwd_dq_kernel

    q, k = tensors[:2]
    B, H, _, D = q.shape
    sliding_tile_hopper_bwd_dq_kernel[(B * H * math.prod(cut.counts),)](
        *(view(x, cut.sides, cut.half_box) for x in tensors),
        *floats,
        scale,
        H,
        H // k.shape[1],
        cut.counts,
        cut.seen,
        cut.per_tile,
        (1, 1) if len(cut.sides) == 1 else cut.sides[-2:],
        *(fold(x, cut.sides[0]) for x in tensors),
        D=D,
        BOX=cut.box,
        HALF=cut.half,
        HALF_BOX=cut.half_box,
        NUM_AXES=len(cut.sides),
        STAGES=STAGES,
        HAS_DLSE=not is_plain,
        num_warps=4,
    )


def _launch_dkdv(tensors, floats, scale: float, cut: Boxes) -> None:
    from ena_kernels.sliding_tile.hopper.dkdv_kernel import sliding_tile_hopper_bwd_dkdv_kernel

    q, k = tensors[:2]
    B, H_kv, _, D = k.shape
    views = [view(x, cut.sides, cut.half_box) for x in tensors]
    sliding_tile_hopper_bwd_dkdv_kernel[(B * H_kv * math.prod(cut.counts),)](
        *views[:4],
        *(row_view(x, BOX_TOKENS // 2) for x in floats),
        *views[4:],
        scale,
        H_kv,
        q.shape[1] // H_kv,
        cut.counts,
        cut.seen,
        cut.per_tile,
        *(fold(x, cut.sides[0]) for x in tensors),
        D=D,
        BOX=cut.box,
        HALF=cut.half,
        NUM_AXES=len(cut.sides),
        STAGES=STAGES,
        num_warps=4,
    )
