"""Sliding Tile Attention by FlexAttention, the way ENA itself runs it.

In tiled order the mask is a list of visible blocks of 128 tokens. Where every block is seen whole
or not at all (a tile of a multiple of 128 tokens), no mask is evaluated and one compiled kernel
serves all windows of one length; else mixed blocks evaluate it.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, noop_mask

from ena_kernels.attention.flex import run
from ena_kernels.canvas import Shape, num_tokens, tile_grid, visible_tiles, window_grid

ORDERS = ("tiled",)
EXTRAS = ()
BLOCK = 128


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
    """``[B, H, L, D]``; the first call for a geometry builds its mask and may compile.

    Raises:
        UnsupportedError: as `ena_kernels.attention.flex.run`.
    """
    assert order == "tiled"
    block_mask = block_mask_of(canvas, tile, window, q.device)
    return run(q, k, v, scale=scale, block_mask=block_mask)


@lru_cache(maxsize=32)
def block_mask_of(
    canvas: Shape, tile: Shape, window: Shape, device: torch.device, *, has_rule: bool = False
) -> BlockMask:
    """Lists of mixed and of full key blocks for every query block, ascending, on the device.

    Args:
        has_rule: Whether the rule for single tokens is there although no block asks for it.
    """
    some, every = (torch.from_numpy(x).to(device) for x in _seen_blocks(canvas, tile, window))
    mixed = some & ~every
    seq_len = num_tokens(canvas)
    return BlockMask.from_kv_blocks(
        *_lists(mixed),
        *_lists(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=_tile_mask(canvas, tile, window) if has_rule or mixed.any() else noop_mask,
        seq_lengths=(seq_len, seq_len),
    )


def _lists(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """bool ``[Q, K]`` to int32 counts ``[1, 1, Q]`` and ascending indices ``[1, 1, Q, K]``."""
    counts = blocks.sum(dim=-1, dtype=torch.int32)
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return counts[None, None].contiguous(), indices[None, None].contiguous()


def _seen_blocks(canvas: Shape, tile: Shape, window: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks see each other at all, and which wholly: two bool ``[Q, K]`` in tiled order."""
    volume, seq_len = num_tokens(tile), num_tokens(canvas)
    starts = np.arange(0, seq_len, BLOCK)
    first_tile = starts // volume
    end_tile = (np.minimum(starts + BLOCK, seq_len) - 1) // volume + 1
    visible = visible_tiles(canvas, tile, window)
    some, every = (np.zeros((len(starts), len(starts)), dtype=bool) for _ in range(2))
    for block, (first, end) in enumerate(zip(first_tile, end_tile, strict=True)):
        # how many query tiles of this block see each key tile, summed up over key tiles
        seen_by = np.bincount(visible[first:end].ravel(), minlength=len(visible))
        running = np.concatenate([[0], np.cumsum(seen_by)])
        pairs = running[end_tile] - running[first_tile]
        some[block] = pairs > 0
        every[block] = pairs == (end - first) * (end_tile - first_tile)
    if seq_len % BLOCK:
        every[-1, :] = every[:, -1] = False
    return some, every


def _tile_mask(canvas: Shape, tile: Shape, window: Shape):
    """The rule of `visible_tiles` on positions in tiled order, as FlexAttention asks for it."""
    grid, seen = tile_grid(canvas, tile), window_grid(canvas, tile, window)
    volume = num_tokens(tile)
    axes = [
        (math.prod(grid[axis + 1 :]), num_tiles, num_seen)
        for axis, (num_tiles, num_seen) in enumerate(zip(grid, seen, strict=True))
        if num_seen < num_tiles
    ]

    def tile_mask(b, h, q_idx, kv_idx):
        is_seen = q_idx >= 0
        for stride, num_tiles, num_seen in axes:
            query = q_idx // volume // stride % num_tiles
            key = kv_idx // volume // stride % num_tiles
            # torch.where instead of clamp, which does not compile inside a mask
            start = query - num_seen // 2
            start = torch.where(start < 0, 0, start)
            start = torch.where(start > num_tiles - num_seen, num_tiles - num_seen, start)
            is_seen = is_seen & (key >= start) & (key < start + num_seen)
        return is_seen

    return tile_mask
