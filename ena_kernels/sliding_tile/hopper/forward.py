"""The launch of the Hopper forward of Sliding Tile Attention."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from ena_kernels.canvas import Shape
from ena_kernels.hopper import num_multiprocessors, tensor_map
from ena_kernels.launches import Launch
from ena_kernels.operands import heads_last
from ena_kernels.sliding_tile.hopper.boxes import Boxes, View, boxes, view

# of K and V: boxes of 128 tokens
STAGES = 2
LOG2_E = math.log2(math.e)


class Forward:
    """Attention to windows, for tensors of one shape, dtype and layout on one device."""

    __slots__ = ("_launch", "_lse_shape", "_maps", "_out", "_sizes")

    def __init__(self, cut: Boxes, views: list[View], device: torch.device, *, flipped: bool):
        """Of q, k, v and out.

        Args:
            flipped: Whether the scale is negative.
        """
        from ena_kernels.sliding_tile.hopper.forward_kernel import sliding_tile_hopper_fwd_kernel

        B, H, L, D = views[0].shape
        num_units = B * H * math.prod(cut.counts)
        constants = {
            "D": D,
            "BOX": cut.box,
            "HALF": cut.half,
            "HALF_BOX": cut.half_box,
            "NUM_AXES": len(cut.sides),
            "STAGES": STAGES,
            "FLIPPED": flipped,
        }
        grid = min(num_units, num_multiprocessors(device))
        self._launch = Launch(sliding_tile_hopper_fwd_kernel, grid, constants, num_warps=4)
        self._sizes = (
            *(num_units, H, H // views[1].shape[1], cut.counts, cut.seen, cut.per_tile),
            cut.last_sides,
            *(seen.fold for seen in views),
        )
        self._maps = [seen.map for seen in views]
        self._out = views[3].shape, views[3].strides
        self._lse_shape = B, H, L

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Attend.

        Returns:
            out: ``[B, H, L, D]``, stored as ``[B, L, H, D]``.
            lse: float32 ``[B, H, L]``, natural logarithm, in the order of the tokens.
        """
        out = q.new_empty_strided(*self._out)
        lse = q.new_empty(self._lse_shape, dtype=torch.float32)
        q_map, k_map, v_map, o_map = self._maps
        self._launch(
            tensor_map(q, *q_map),
            tensor_map(k, *k_map),
            tensor_map(v, *v_map),
            tensor_map(out, *o_map),
            lse,
            scale * LOG2_E,
            *self._sizes,
        )
        return out, lse


def planned(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *geometry: Shape | str,
    flipped: bool,
) -> Forward | None:
    """What attends for ``[B, H, L, D]`` and two ``[B, H_kv, L, D]``; None where nothing can.

    Args:
        geometry: Canvas, tile, window, order.
        flipped: Whether the scale is negative.
    """
    if (q.data_ptr() | k.data_ptr() | v.data_ptr()) % 16 or not q.dtype == k.dtype == v.dtype:
        return None
    strides = q.stride(), k.stride(), v.stride()
    return _planned(q.device, q.dtype, q.shape, k.shape, strides, geometry, flipped)


# Python's time at a launch is seen where sequences are short, so what repeats is kept.


@lru_cache(maxsize=1024)
def _planned(device, dtype, q_shape, kv_shape, strides, geometry, flipped) -> Forward | None:
    cut = boxes(*geometry)
    if cut is None:
        return None
    q_strides, k_strides, v_strides = strides
    views = [
        view(q_shape, q_strides, dtype, cut.sides, cut.half_box),
        view(kv_shape, k_strides, dtype, cut.sides, cut.box),
        view(kv_shape, v_strides, dtype, cut.sides, cut.box),
        view(q_shape, heads_last(q_shape), dtype, cut.sides, cut.half_box),
    ]
    return None if None in views else Forward(cut, views, device, flipped=flipped)
