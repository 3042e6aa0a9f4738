"""Sliding Tile Attention by FlexAttention on the kernels of flash-attn-4, for Hopper and newer."""

from torch import Tensor

from ena_kernels.attention.flex_flash import run
from ena_kernels.canvas import Shape
from ena_kernels.sliding_tile.flex import block_mask_of

ORDERS = ("tiled",)
EXTRAS = ()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    canvas: Shape,
    window: Shape,
    tile: Shape,
    scale: float,
    order: str,
) -> Tensor:
    """``[B, H, L, D]``, under the lists of blocks that `flex` uses.

    Raises:
        UnsupportedError: as `ena_kernels.attention.flex_flash.run`.
    """
    assert order == "tiled"
    # PyTorch leaves out the lists of blocks, and attends everything, where there is no rule
    block_mask = block_mask_of(canvas, tile, window, q.device, has_rule=True)
    return run(q, k, v, scale=scale, block_mask=block_mask)
