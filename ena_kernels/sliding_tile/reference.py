"""Sliding Tile Attention as specified (SPEC 2.2): a loop over query tiles, any device and dtype.

Slow and plain; autograd differentiates it. The other implementations are tested against it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ena_kernels.canvas import Shape, num_tokens, tiled_order, visible_tiles

ORDERS = ("tiled",)


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
    """Compute in float32, or float64 for float64 inputs; ``[B, H, L, D]`` in ``q.dtype``."""
    assert order == "tiled"
    volume = num_tokens(tile)
    wide = torch.promote_types(q.dtype, torch.float32)
    q_tiles, k_tiles, v_tiles = (x.to(wide).unflatten(2, (-1, volume)) for x in (q, k, v))
    out = [
        _attend(q_tiles[:, :, query_tile], k_tiles[:, :, seen], v_tiles[:, :, seen], scale)
        for query_tile, seen in enumerate(visible_tiles(canvas, tile, window).tolist())
    ]
    return torch.cat(out, dim=2).to(q.dtype)


def reference_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tile_ids: Sequence[int],
    *,
    canvas: Shape,
    window: Shape,
    tile: Shape,
    scale: float | None = None,
    order: str = "raster",
) -> tuple[Tensor, Tensor]:
    """Some query tiles only, in float64: to check a result too large to compute in full.

    Args:
        tile_ids: Query tiles to compute, by their number in raster order of tiles.
        The others: as in `sliding_tile`.

    Returns:
        tokens: int64 ``[len(tile_ids) * V]``: where the rows are on the token axis of a result
            in this `order`; V is the volume of a tile.
        rows: float64 ``[B, H, len(tile_ids) * V, D]``: what ``result[:, :, tokens]`` should be.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    volume = num_tokens(tile)
    if order == "raster":
        positions = torch.from_numpy(tiled_order(canvas, tile)).to(q.device)
    else:
        positions = torch.arange(num_tokens(canvas), device=q.device)
    positions = positions.unflatten(0, (-1, volume))
    visible = visible_tiles(canvas, tile, window)
    rows = []
    for tile_id in tile_ids:
        seen = positions[visible[tile_id].tolist()].flatten()
        q_rows = q[:, :, positions[tile_id]].double()
        k_rows, v_rows = k[:, :, seen].double(), v[:, :, seen].double()
        rows.append(_attend(q_rows, k_rows[:, :, None], v_rows[:, :, None], scale))
    return positions[list(tile_ids)].flatten(), torch.cat(rows, dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One query tile ``[B, H, V, D]`` against its key tiles ``[B, H_kv, K, V, D]``."""
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (x.flatten(2, 3).repeat_interleave(heads_per_kv_head, dim=1) for x in (k, v))
    scores = scale * q @ k.transpose(-1, -2)
    lse = scores.logsumexp(dim=-1, keepdim=True)
    return (scores - lse).exp() @ v
