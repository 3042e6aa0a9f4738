"""Sliding Tile Attention by its definition: a loop over query tiles, any device and dtype.

The definition is in docs/maths.md, "Windows" and "Sliding Tile Attention". Slow and plain; autograd
differentiates it. The other implementations are tested against it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ena_kernels.canvas import Shape, num_tokens, tiled_order, visible_tiles
from ena_kernels.sliding_tile.tiling import whole_tiles

ORDERS = ("tiled", "raster")
EXTRAS = ("text_tokens", "pad", "return_lse")


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
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute in float32, or float64 for float64 inputs; ``[B, H, L, D]`` in ``q.dtype``.

    Tokens beyond the canvas are text: all see them, and they see all. Tiles that the canvas cuts
    hold the tokens that exist. With `return_lse` also the log-sum-exp of the scores, ``[B, H, L]``
    in the dtype of the computation.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q_wide, k_wide, v_wide = (x.to(wide) for x in (q, k, v))
    tiles = token_lists(canvas, tile, order, q.device)
    text = torch.arange(num_tokens(canvas), q.shape[2], device=q.device)
    queries, outs, lses = [], [], []
    for query_tile, seen in enumerate(_seen(canvas, tile, window)):
        keys = torch.cat([*(tiles[i] for i in seen), text])
        queries.append(tiles[query_tile])
        attended = _attend(q_wide[:, :, queries[-1]], k_wide[:, :, keys], v_wide[:, :, keys], scale)
        outs.append(attended[0])
        lses.append(attended[1])
    if len(text):
        queries.append(text)
        out, lse = _attend(q_wide[:, :, text], k_wide, v_wide, scale)
        outs.append(out)
        lses.append(lse)
    back = torch.cat(queries).argsort()
    out = torch.cat(outs, dim=2)[:, :, back].to(q.dtype)
    return (out, torch.cat(lses, dim=2)[:, :, back]) if return_lse else out


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
        The others: as in `sliding_tile`; tokens beyond the canvas are text, and tiles may be cut.

    Returns:
        tokens: int64, at most ``[len(tile_ids) * V]``: where the rows are on the token axis of a
            result in this `order`; V is the volume of a tile.
        rows: float64 ``[B, H, len(tokens), D]``: what ``result[:, :, tokens]`` should be.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    tiles = token_lists(canvas, tile, order, q.device)
    text = torch.arange(num_tokens(canvas), q.shape[2], device=q.device)
    visible = _seen(canvas, tile, window)
    rows = []
    for tile_id in tile_ids:
        seen = torch.cat([*(tiles[i] for i in visible[tile_id]), text])
        q_rows = q[:, :, tiles[tile_id]].double()
        rows.append(_attend(q_rows, k[:, :, seen].double(), v[:, :, seen].double(), scale)[0])
    return torch.cat([tiles[i] for i in tile_ids]), torch.cat(rows, dim=2)


def token_lists(
    canvas: Shape, tile: Shape, order: str, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Tokens of each tile, int64, ascending places on the token axis of a tensor in this order.

    Tiles that the canvas cuts, which raster order alone knows, have fewer tokens.
    """
    whole, volume = whole_tiles(canvas, tile), num_tokens(tile)
    if order == "tiled":
        assert whole == canvas
        places = torch.arange(num_tokens(canvas))
    else:
        places = torch.full(whole, -1)
        places[tuple(slice(side) for side in canvas)] = torch.arange(num_tokens(canvas)).view(
            canvas
        )
        places = places.flatten()[torch.from_numpy(tiled_order(whole, tile))]
    return [part[part >= 0].to(device) for part in places.split(volume)]


def _seen(canvas: Shape, tile: Shape, window: Shape) -> list[list[int]]:
    return visible_tiles(whole_tiles(canvas, tile), tile, window).tolist()


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Queries ``[B, H, M, D]`` against keys ``[B, H_kv, N, D]``: output and log-sum-exp."""
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(heads_per_kv_head, dim=1) for x in (k, v))
    scores = scale * q @ k.transpose(-1, -2)
    lse = scores.logsumexp(dim=-1, keepdim=True)
    return (scores - lse).exp() @ v, lse.squeeze(-1)
