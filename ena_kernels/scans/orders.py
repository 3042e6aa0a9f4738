"""Orders of the tokens of a canvas: index tables of the fixed scans, drawn orders of the others."""

import math
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.scans.moves import move_back

Shape = tuple[int, ...]


class Table(NamedTuple):
    """Where each row of p copies of R rows comes from, and where each of the R rows went.

    `gather[j]`, ``[p * R]``: the source row of output row j. `scatter[c, i]`, ``[p, R]``: the
    output row that copy c made of source row i.
    """

    gather: Tensor
    scatter: Tensor


def axis_order(canvas: Shape, axes: Shape, device: torch.device | str = "cpu") -> Tensor:
    """Raster index of each token when `axes[0]` is walked slowest and `axes[-1]` fastest, [L]."""
    raster = torch.arange(math.prod(canvas), device=device)
    return raster.view(canvas).permute(axes).flatten()


@lru_cache(maxsize=32)
def cross_table(canvas: Shape, device: torch.device) -> Table:
    """Raster, transposed, reversed raster, reversed transposed; 4 L rows of tokens.

    The transposed order walks the axes from last to first: column-major on a (y, x) canvas, and on
    a (t, y, x) canvas x slowest and t fastest.
    """
    # a table made in inference mode could never serve a backward
    with torch.inference_mode(False):
        orders = _cross_orders(canvas, device)
        shift = torch.arange(4, device=device)[:, None] * orders.shape[1]
        return Table(orders.flatten(), orders.argsort(1) + shift)


@lru_cache(maxsize=32)
def multi_head_table(scan: str, canvas: Shape, heads: int, device: torch.device) -> Table:
    """One order per channel slice; L * heads rows of one slice of one token.

    mh2d gives a quarter of the slices each: raster, transposed, and the reverse of both. mh3d gives
    ``heads // 12`` slices each of the six axis orders and their reverses; slices left over at the
    end stay in raster order.
    """
    with torch.inference_mode(False):
        orders = torch.stack([_head_order(scan, canvas, heads, h, device) for h in range(heads)], 1)
        head = torch.arange(heads, device=device)
        gather, scatter = (x * heads + head for x in (orders, orders.argsort(0)))
        return Table(gather.flatten(), scatter.view(1, -1))


@lru_cache(maxsize=64)
def position_table(
    scan: str, canvas: Shape, layer: int, heads: int, device: torch.device
) -> Tensor:
    """Where each of R rows stands in each of p copies, int32 ``[p, R]``; every scan of a table.

    Rows are tokens, for mh2d and mh3d the `heads` channel slices of tokens.
    """
    with torch.inference_mode(False):
        raster = torch.arange(math.prod(canvas), device=device)[None]
        if scan == "cross":
            positions = torch.stack([order.argsort() for order in _cross_orders(canvas, device)])
        elif scan in ("mh2d", "mh3d"):
            positions = multi_head_table(scan, canvas, heads, device).scatter
        elif scan == "bi":
            positions = torch.cat([raster, raster.flip(1)])
        else:
            positions = move_back(raster, scan, canvas, layer)
        return positions.to(torch.int32).contiguous()


def random_order(
    batch: int,
    seq_len: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One uniform random permutation per sample for scan ``random``, int64 ``[batch, seq_len]``."""
    return torch.rand(batch, seq_len, generator=generator, device=device).argsort(1)


def learnable_logits(seq_len: int, *, device: torch.device | str = "cpu") -> Tensor:
    """The official start of scan ``learnable``: +10 on the diagonal, -10 elsewhere, ``[L, L]``."""
    return torch.full((seq_len, seq_len), -10.0, device=device).fill_diagonal_(10.0)


def learnable_order(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """A hard Gumbel-softmax sample of each row for scan ``learnable``, temperature 1.

    Each row holds one 1 and zeros; the gradient is that of the softmax (straight through). Rows
    pick on their own, so two may pick one token and the result need not be a permutation.

    Args:
        logits: ``[L, L]``, floating point.
    """
    noise = torch.empty_like(logits).exponential_(generator=generator).log_().neg_()
    soft = torch.softmax(logits + noise, dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard - soft.detach() + soft


def sample_table(order: Tensor) -> Table:
    """One order per sample, int64 ``[B, L]``, as a table of the B * L tokens of the batch."""
    B, L = order.shape
    position = torch.arange(L, device=order.device).expand_as(order)
    inverse = torch.empty_like(order).scatter_(1, order, position)
    first = torch.arange(B, device=order.device)[:, None] * L
    return Table((order + first).flatten(), (inverse + first).view(1, -1))


def _cross_orders(canvas: Shape, device: torch.device) -> Tensor:
    axes = tuple(range(len(canvas)))
    raster, transposed = (axis_order(canvas, a, device) for a in (axes, axes[::-1]))
    return torch.stack([raster, transposed, raster.flip(0), transposed.flip(0)])


def _head_order(scan: str, canvas: Shape, heads: int, head: int, device: torch.device) -> Tensor:
    all_axes = ((0, 1), (1, 0)) if scan == "mh2d" else tuple(permutations(range(3)))
    group = head // (heads // (2 * len(all_axes)))
    if group >= 2 * len(all_axes):
        return axis_order(canvas, tuple(range(len(canvas))), device)
    order = axis_order(canvas, all_axes[group % len(all_axes)], device)
    return order.flip(0) if group >= len(all_axes) else order
