"""Every scan as two Triton kernels, each the gradient of the other.

    spread:  y[copy c, position[c, r]] = x[r]               reads x once, writes p copies
    collect: x[r] = sum over c of y[copy c, position[c, r]]  reads p copies once, writes x

Rows are tokens, or the channel slices of tokens for mh2d and mh3d. The sum is taken in float32 in
the order of the copies and stored once: no atomics, so it repeats bit for bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.operands import dense, require_kernels
from ena_kernels.scans.catalog import scan_passes
from ena_kernels.scans.orders import Shape, position_table, random_positions

# Legend: B batch, p passes, R rows of W channels in each sample and pass.

TILE_BYTES = 8192
NUM_WARPS = 4


@triton.jit
def scan_spread_kernel(
    x_ptr,
    y_ptr,
    position_ptr,
    x_batch,
    x_token,
    y_batch,
    y_copy,
    y_token,
    position_batch,
    position_copy,
    R,
    HEADS: tl.constexpr,
    W: tl.constexpr,
    PASSES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One tile of rows to its place in every copy."""
    b, rows, cols, mask = _tile(R, W, BLOCK_R, BLOCK_W)
    x = tl.load(x_ptr + b * x_batch + _offsets(rows, cols, x_token, HEADS, W), mask=mask)
    for c in tl.static_range(PASSES):
        places = position_ptr + b * position_batch + c * position_copy + rows
        position = tl.load(places, mask=rows < R, other=0).to(tl.int64)
        copy = y_ptr + b * y_batch + tl.full((), c, tl.int64) * y_copy
        tl.store(copy + _offsets(position, cols, y_token, HEADS, W), x, mask=mask)


@triton.jit
def scan_collect_kernel(
    x_ptr,
    y_ptr,
    position_ptr,
    x_batch,
    x_token,
    y_batch,
    y_copy,
    y_token,
    position_batch,
    position_copy,
    R,
    HEADS: tl.constexpr,
    W: tl.constexpr,
    PASSES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One tile of rows as the sum of its copies."""
    b, rows, cols, mask = _tile(R, W, BLOCK_R, BLOCK_W)
    total = tl.zeros((BLOCK_R, BLOCK_W), tl.float32)
    for c in tl.static_range(PASSES):
        places = position_ptr + b * position_batch + c * position_copy + rows
        position = tl.load(places, mask=rows < R, other=0).to(tl.int64)
        copy = y_ptr + b * y_batch + tl.full((), c, tl.int64) * y_copy
        y = tl.load(copy + _offsets(position, cols, y_token, HEADS, W), mask=mask, other=0.0)
        total += y.to(tl.float32)
    x = x_ptr + b * x_batch + _offsets(rows, cols, x_token, HEADS, W)
    tl.store(x, total.to(x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _tile(R, W: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr):
    """Sample, rows [BLOCK_R], channels [BLOCK_W] and the mask of this program."""
    program = tl.program_id(0).to(tl.int64)
    num_w = tl.cdiv(W, BLOCK_W)
    num_r = tl.cdiv(R, BLOCK_R)
    cols = (program % num_w) * BLOCK_W + tl.arange(0, BLOCK_W)
    rows = (program // num_w % num_r) * BLOCK_R + tl.arange(0, BLOCK_R)
    return program // (num_w * num_r), rows, cols, (rows < R)[:, None] & (cols < W)[None, :]


@triton.jit
def _offsets(rows, cols, token_stride, HEADS: tl.constexpr, W: tl.constexpr):
    """Offsets [BLOCK_R, BLOCK_W] of rows, which are slice ``row % HEADS`` of a token."""
    start = (rows // HEADS) * token_stride + (rows % HEADS) * W
    return start[:, None] + cols[None, :]


def spread(
    x: Tensor, *, scan: str, canvas: Shape, layer: int, heads: int, order: Tensor | None
) -> Tensor:
    """``[B, L, C]`` to ``[p * B, L, C]``, differentiable; as `scans.api.scan_split`, fixed.

    Raises:
        UnsupportedError: a device without Triton kernels, or float64.
    """
    return torch.ops.ena_kernels.scan_spread(x, order, scan, canvas, layer, heads)


def collect(
    y: Tensor, *, scan: str, canvas: Shape, layer: int, heads: int, order: Tensor | None
) -> Tensor:
    """``[p * B, L, C]`` to ``[B, L, C]``, differentiable; as `scans.api.scan_merge`, fixed.

    Raises:
        UnsupportedError: a device without Triton kernels, or float64.
    """
    return torch.ops.ena_kernels.scan_collect(y, order, scan, canvas, layer, heads)


def _spread_op(x, order, scan, canvas, layer, heads):
    require_kernels(x)
    p = scan_passes(scan)
    y = x.new_empty(p * x.shape[0], *x.shape[1:])
    _launch(scan_spread_kernel, dense(x), y, order, scan, canvas, layer, heads)
    return y


def _collect_op(y, order, scan, canvas, layer, heads):
    require_kernels(y)
    p = scan_passes(scan)
    x = y.new_empty(y.shape[0] // p, *y.shape[1:])
    _launch(scan_collect_kernel, x, dense(y), order, scan, canvas, layer, heads)
    return x


def _launch(kernel, x, y, order, scan, canvas, layer, heads):
    B, L, C = x.shape
    if x.numel() == 0:
        return
    heads = heads if scan in ("mh2d", "mh3d") else 1
    p, R, W = scan_passes(scan), L * heads, C // heads
    if order is None:
        position, position_batch = position_table(scan, tuple(canvas), layer, heads, x.device), 0
    else:
        position, position_batch = random_positions(order), L
    y_batch, y_copy = (1, B) if scan == "bi" else (p, 1)
    BLOCK_W = min(1024, max(W & -W, min(64, triton.next_power_of_2(W))))
    BLOCK_R = max(1, TILE_BYTES // (BLOCK_W * x.element_size()))
    grid = (B * triton.cdiv(R, BLOCK_R) * triton.cdiv(W, BLOCK_W),)
    kernel[grid](
        x,
        y,
        position,
        x.stride(0),
        x.stride(1),
        y_batch * y.stride(0),
        y_copy * y.stride(0),
        y.stride(1),
        position_batch,
        R,
        R,
        HEADS=heads,
        W=W,
        PASSES=p,
        BLOCK_R=BLOCK_R,
        BLOCK_W=BLOCK_W,
        num_warps=NUM_WARPS,
    )


def _spread_fake(x, order, scan, canvas, layer, heads):
    return x.new_empty(scan_passes(scan) * x.shape[0], x.shape[1], x.shape[2])


def _collect_fake(y, order, scan, canvas, layer, heads):
    return y.new_empty(y.shape[0] // scan_passes(scan), y.shape[1], y.shape[2])


def _keep_settings(ctx, inputs, output):
    _, order, *ctx.settings = inputs
    ctx.save_for_backward(*([] if order is None else [order]))


def _spread_backward(ctx, grad):
    order = next(iter(ctx.saved_tensors), None)
    dx = torch.ops.ena_kernels.scan_collect(grad, order, *ctx.settings)
    return dx, None, None, None, None, None


def _collect_backward(ctx, grad):
    order = next(iter(ctx.saved_tensors), None)
    dy = torch.ops.ena_kernels.scan_spread(grad, order, *ctx.settings)
    return dy, None, None, None, None, None


_OPERATORS = (
    ("scan_spread", _spread_op, _spread_fake, _spread_backward),
    ("scan_collect", _collect_op, _collect_fake, _collect_backward),
)
for _name, _op, _fake, _backward in _OPERATORS:
    _qualified = f"ena_kernels::{_name}"
    torch.library.define(
        _qualified,
        "(Tensor x, Tensor? order, str scan, SymInt[] canvas, SymInt layer, SymInt heads)"
        " -> Tensor",
    )
    torch.library.impl(_qualified, ("cuda", "cpu"), _op)
    torch.library.register_fake(_qualified, _fake)
    torch.library.register_autograd(_qualified, _backward, setup_context=_keep_settings)
