"""Spread rows into p copies in p orders, and collect the copies back: each other's transpose."""

import torch
from torch import Tensor

from ena_kernels.scans.orders import Table


def spread(x: Tensor, table: Table) -> Tensor:
    """``[B, R, X]`` to ``[B, p * R, X]``: row j is row ``table.gather[j]`` of x."""
    return _Spread.apply(x, *table)


def collect(y: Tensor, table: Table) -> Tensor:
    """``[B, p * R, X]`` to ``[B, R, X]``: each row is the sum of the p copies made of it."""
    return _Collect.apply(y, *table)


class _Spread(torch.autograd.Function):
    """The gradient of a gather by a table is a gather by the other: no atomics, deterministic."""

    @staticmethod
    def forward(ctx, x, gather, scatter):
        ctx.save_for_backward(gather, scatter)
        return x.index_select(1, gather)

    @staticmethod
    def backward(ctx, grad):
        return _Collect.apply(grad, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, gather, scatter):
        ctx.save_for_backward(gather, scatter)
        copies = y.index_select(1, scatter.flatten())
        return copies.unflatten(1, scatter.shape).sum(1) if len(scatter) > 1 else copies

    @staticmethod
    def backward(ctx, grad):
        return _Spread.apply(grad, *ctx.saved_tensors), None, None
