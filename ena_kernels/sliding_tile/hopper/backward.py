"""The launches of the Hopper backward of Sliding Tile Attention: dq, then dk and dv."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from ena_kernels.canvas import Shape
from ena_kernels.hopper import tensor_map
from ena_kernels.launches import Launch
from ena_kernels.operands import heads_last
from ena_kernels.sliding_tile.hopper.boxes import (
    BOX_TOKENS,
    Boxes,
    View,
    boxes,
    row_map,
    view,
)

# of what streams: steps of 64 tokens
STAGES = 4


class Backward:
    """Gradients of attention to windows, for tensors of one shape, dtype and layout on a device."""

    __slots__ = ("_dkdv", "_dkdv_sizes", "_dq", "_dq_sizes", "_grads", "_maps", "_row_map")

    def __init__(self, cut: Boxes, views: list[View], *, has_dlse: bool):
        """Of q, k, v, out, grad_out, grad_q, grad_k and grad_v.

        Args:
            has_dlse: Whether there is a gradient of the log-sum-exp.
        """
        from ena_kernels.sliding_tile.hopper.dkdv_kernel import sliding_tile_hopper_bwd_dkdv_kernel
        from ena_kernels.sliding_tile.hopper.dq_kernel import sliding_tile_hopper_bwd_dq_kernel

        q, k, v, out, grad_out, *grads = views
        (B, H, L, D), H_kv = q.shape, k.shape[1]
        num_boxes = B * math.prod(cut.counts)
        sizes = H // H_kv, cut.counts, cut.seen, cut.per_tile
        constants = {
            "D": D,
            "BOX": cut.box,
            "HALF": cut.half,
            "NUM_AXES": len(cut.sides),
            "STAGES": STAGES,
        }
        own = {"HALF_BOX": cut.half_box, "HAS_DLSE": has_dlse}
        self._dq = Launch(
            sliding_tile_hopper_bwd_dq_kernel, num_boxes * H, constants | own, num_warps=4
        )
        self._dq_sizes = (
            *(H, *sizes, cut.last_sides),
            *(seen.fold for seen in (q, k, v, out, grad_out, grads[0])),
        )
        self._dkdv = Launch(
            sliding_tile_hopper_bwd_dkdv_kernel, num_boxes * H_kv, constants, num_warps=4
        )
        self._dkdv_sizes = (
            *(H_kv, *sizes),
            *(seen.fold for seen in (q, k, v, grad_out, *grads[1:])),
        )
        self._maps = [seen.map for seen in views]
        self._row_map = row_map((B, H, L), BOX_TOKENS // 2)
        self._grads = [(seen.shape, seen.strides) for seen in grads]

    def __call__(
        self,
        grad_out: Tensor,
        grad_lse: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v, stored as ``[B, L, H, D]``.

        Args:
            grad_lse, lse: float32 ``[B, H, L]``, contiguous.
        """
        grads = [q.new_empty_strided(*like) for like in self._grads]
        base_2_lse, delta = torch.empty_like(lse), torch.empty_like(lse)
        tensors = (q, k, v, out, grad_out, *grads)
        maps = [tensor_map(x, *how) for x, how in zip(tensors, self._maps, strict=True)]
        self._dq(
            *maps[:6],
            *(lse, lse if grad_lse is None else grad_lse, base_2_lse, delta, scale),
            *self._dq_sizes,
        )
        self._dkdv(
            *(*maps[:3], maps[4]),
            *(tensor_map(x, *self._row_map) for x in (base_2_lse, delta)),
            *(*maps[6:], scale),
            *self._dkdv_sizes,
        )
        return tuple(grads)


def planned(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *geometry: Shape | str,
) -> Backward | None:
    """What computes the gradients of a forward; None where nothing can.

    Args:
        grad_out, q, out: ``[B, H, L, D]``. k, v: ``[B, H_kv, L, D]``.
        grad_lse, lse: ``[B, H, L]``, contiguous.
        geometry: Canvas, tile, window, order.
    """
    has_dlse = grad_lse is not None
    tensors = (q, k, v, out, grad_out)
    floats = (lse, grad_lse) if has_dlse else (lse,)
    if any(x.data_ptr() % 16 for x in (*tensors, *floats)):
        return None
    if any(x.dtype != q.dtype for x in tensors):
        return None
    strides = tuple(x.stride() for x in tensors)
    return _planned(q.device, q.dtype, q.shape, k.shape, strides, geometry, has_dlse)


# launches are compiled for one device
@lru_cache(maxsize=1024)
def _planned(_device, dtype, q_shape, kv_shape, strides, geometry, has_dlse) -> Backward | None:
    cut = boxes(*geometry)
    if cut is None:
        return None
    query, key = (q_shape, heads_last(q_shape)), (kv_shape, heads_last(kv_shape))
    shapes = (q_shape, kv_shape, kv_shape, q_shape, q_shape)
    stored = [*zip(shapes, strides, strict=True), query, key, key]
    views = [view(*where, dtype, cut.sides, cut.half_box) for where in stored]
    return None if None in views else Backward(cut, views, has_dlse=has_dlse)
