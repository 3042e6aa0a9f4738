"""Softmax attention as defined, any device and dtype; the other implementations must agree."""

from collections.abc import Sequence

import torch
from torch import Tensor


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]`` in ``q.dtype``; computed in float32, or float64 for float64 inputs.

    Holds all scores at once, and autograd keeps them: O(L^2) memory.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    k, v = (_one_per_query_head(x.to(wide), q.shape[1]) for x in (k, v))
    return _attend(q.to(wide), k, v, scale).to(q.dtype)


def reference_rows(
    q: Tensor, k: Tensor, v: Tensor, row_indices: Sequence[int], *, scale: float | None = None
) -> Tensor:
    """Some queries only, in float64, head by head: to check a result too large to compute in full.

    Args:
        row_indices: Tokens whose output is wanted.
        The others: as in `attention`.

    Returns:
        float64 ``[B, H, len(row_indices), D]``: what ``result[:, :, row_indices]`` should be.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    B, H, _, D = q.shape
    heads_per_kv_head = H // k.shape[1]
    rows = torch.empty(B, H, len(row_indices), D, dtype=torch.float64, device=q.device)
    for b in range(B):
        for h in range(H):
            k_head, v_head = (x[b, h // heads_per_kv_head].double() for x in (k, v))
            q_head = q[b, h, list(row_indices)].double()
            rows[b, h] = _attend(q_head, k_head, v_head, scale)
    return rows


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return torch.softmax(scale * q @ k.transpose(-1, -2), dim=-1) @ v


def _one_per_query_head(x: Tensor, num_heads: int) -> Tensor:
    """``[B, H_kv, L, D]`` to ``[B, H, L, D]``; query head h uses key head ``h // (H / H_kv)``."""
    return x.repeat_interleave(num_heads // x.shape[1], dim=1)
