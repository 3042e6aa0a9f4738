"""Sliding Tile Attention in plain PyTorch: gathered key tiles under fused dense attention.

for each group of query tiles that see the same window:
    gather its queries, keys and values; scaled_dot_product_attention; scatter the output

Groups of one size run as one batch, cut into parts so that gathered keys and values stay within
GATHER_BYTES (or one group). No fused kernel takes float64 on CUDA: there the scores exist, and the
parts also keep them within GATHER_BYTES (or one query tile of one head). The backward gathers and
recomputes part by part, so forward and backward keep O(L) memory. Gradients of keys add up in
float32 or wider; on CUDA their order of summation varies.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from ena_kernels.canvas import Shape, num_tokens, visible_tiles

ORDERS = ("tiled",)
EXTRAS = ()
GATHER_BYTES = {"cuda": 256 * 2**20, "cpu": 16 * 2**20}

# Legend: N batch times key heads, G tiles, K visible tiles, V tokens of a tile,
# R queries of a tile (V for each query head of a key head), D head dim.


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
    """``[B, H, L, D]`` in ``q.dtype``, on any device, in any floating dtype; differentiable."""
    assert order == "tiled"
    B, num_kv_heads, L, D = k.shape
    volume = num_tokens(tile)
    # [B, H, L, D] -> [N, G, R, D]; a view unless several query heads share a key head.
    by_tile = q.reshape(B, num_kv_heads, -1, L // volume, volume, D).transpose(2, 3)
    q_tiles = by_tile.reshape(B * num_kv_heads, L // volume, -1, D)
    k_tiles, v_tiles = (x.reshape(B * num_kv_heads, L // volume, volume, D) for x in (k, v))
    groups = _groups(canvas, tile, window, q.device)
    out = _GatheredAttention.apply(q_tiles, k_tiles, v_tiles, groups, scale)
    return out.reshape(by_tile.shape).transpose(2, 3).reshape(q.shape)


class _GatheredAttention(torch.autograd.Function):
    """q ``[N, G, R, D]``, k and v ``[N, G, V, D]`` to ``[N, G, R, D]``."""

    @staticmethod
    def forward(ctx, q, k, v, groups, scale):
        ctx.save_for_backward(q, k, v)
        ctx.groups, ctx.scale = groups, scale
        out = torch.empty_like(q)
        for heads, queries, keys in _parts(groups, q, k):
            gathered = (_gather(x[heads], ids) for x, ids in ((q, queries), (k, keys), (v, keys)))
            _scatter(out[heads], queries, _attend(*gathered, scale))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        q, k, v = ctx.saved_tensors
        wide = torch.promote_types(k.dtype, torch.float32)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = (torch.zeros_like(x, dtype=wide) for x in (k, v))
        for heads, queries, keys in _parts(ctx.groups, q, k):
            gathered = (_gather(x[heads], ids) for x, ids in ((q, queries), (k, keys), (v, keys)))
            leaves = [part.detach().requires_grad_() for part in gathered]
            with torch.enable_grad():
                out = _attend(*leaves, ctx.scale)
            grads = torch.autograd.grad(out, leaves, _gather(grad_out[heads], queries))
            _scatter(grad_q[heads], queries, grads[0])
            for total, part in zip((grad_k[heads], grad_v[heads]), grads[1:], strict=True):
                total.index_add_(1, keys.flatten(), _by_tile(part, total).to(wide))
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None, None


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Groups side by side, as if they were heads: ``[N, groups, queries or keys, D]``."""
    return scaled_dot_product_attention(q, k, v, scale=scale)


def _gather(x: Tensor, ids: Tensor) -> Tensor:
    """Tiles of x ``[N, G, T, D]`` named by ids ``[groups, n]``: ``[N, groups, n * T, D]``."""
    return x.index_select(1, ids.flatten()).reshape(x.shape[0], len(ids), -1, x.shape[3])


def _scatter(out: Tensor, ids: Tensor, part: Tensor) -> None:
    """Undo `_gather` into `out`; every tile is named once."""
    out.index_copy_(1, ids.flatten(), _by_tile(part, out))


def _by_tile(part: Tensor, like: Tensor) -> Tensor:
    """``[N, groups, n * T, D]`` to ``[N, groups * n, T, D]``, T as in `like`."""
    return part.reshape(like.shape[0], -1, *like.shape[2:])


@lru_cache(maxsize=16)
def _groups(
    canvas: Shape, tile: Shape, window: Shape, device: torch.device
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Query tiles that see the same window, and that window, one pair per size of group.

    A pair is int64 ``[groups, size]`` and int32 ``[groups, K]``. Moved windows make groups at the
    borders; the wider the window, the larger they are.
    """
    visible = visible_tiles(canvas, tile, window)
    # A window is known by its first tile.
    _, first, counts = np.unique(visible[:, 0], return_index=True, return_counts=True)
    members = np.argsort(visible[:, 0], kind="stable")
    offsets = np.cumsum(counts) - counts
    pairs = []
    for size in np.unique(counts):
        groups = np.flatnonzero(counts == size)
        queries = members[offsets[groups][:, None] + np.arange(size)]
        pairs.append((queries, visible[first[groups]]))
    return tuple(
        (torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device))
        for queries, keys in pairs
    )


def _parts(
    groups: tuple[tuple[Tensor, Tensor], ...], q: Tensor, k: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Cut heads and groups so that what a part gathers fits into GATHER_BYTES, and its scores too.

    Yields a slice of N, query tiles ``[groups, size]`` and key tiles ``[groups, K]``.
    """
    budget = GATHER_BYTES.get(k.device.type, GATHER_BYTES["cpu"])
    num_heads = k.shape[0]
    for queries, keys in groups:
        window = keys.shape[1] * k.shape[2]
        group_bytes = 2 * k.element_size() * num_heads * window * k.shape[3]
        size, heads_per_part = queries.shape[1], num_heads
        # Kernels put groups on a CUDA grid axis that ends at 65535.
        groups_per_part = min(max(1, budget // group_bytes), 2**15)
        if k.dtype == torch.float64:
            tile_bytes = k.element_size() * q.shape[2] * window
            heads_per_part = min(max(1, budget // tile_bytes), num_heads)
            tiles = max(1, budget // (tile_bytes * heads_per_part))
            groups_per_part = min(groups_per_part, max(1, tiles // size))
            size = min(size, tiles)
        for first in range(0, num_heads, heads_per_part):
            heads = slice(first, first + heads_per_part)
            for tiles_of, window_of in zip(
                queries.split(groups_per_part), keys.split(groups_per_part), strict=True
            ):
                for part in tiles_of.split(size, dim=1):
                    yield heads, part, window_of
