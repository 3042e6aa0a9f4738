"""The norm of every head in Triton, forward and backward.

    forward:   y = x r w  with  r = 1 / sqrt(mean(x^2) + eps)
    backward:  dx = r (g - x r^2 mean(g x))  with  g = dy w;  dw = sum over the heads of dy x r

Forward reads x and writes y once. Backward reads x and dy, writes dx once, and finds r anew; a sum
over the programs' float32 shares gives the gradient of the weight: no atomics, so it repeats bit
for bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.operands import require_kernels

# Legend: R rows, one for each head of each token, of D channels.

TILE = 2048
BLOCKS_PER_SHARE = 8


@triton.jit
def head_norm_fwd_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    R,
    D: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One block of rows."""
    cols = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)
    offsets, mask = _rows(tl.program_id(0), cols, R, D, BLOCK_R)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y = x * _rate(x, D, EPS)[:, None] * weight[None, :]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def head_norm_bwd_kernel(
    x_ptr,
    weight_ptr,
    dy_ptr,
    dx_ptr,
    share_ptr,
    R,
    D: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """BLOCKS blocks of rows, and their share ``[D]`` of the gradient of the weight."""
    cols = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)
    dweight = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for i in range(BLOCKS):
        offsets, mask = _rows(tl.program_id(0) * BLOCKS + i, cols, R, D, BLOCK_R)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        rate = _rate(x, D, EPS)[:, None]
        x *= rate
        g = dy * weight[None, :]
        dx = rate * (g - x * (tl.sum(g * x, 1) / D)[:, None])
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        dweight += dy * x
    share = share_ptr + tl.program_id(0).to(tl.int64) * D
    tl.store(share + cols, tl.sum(dweight, 0), mask=cols < D)


@triton.jit
def _rows(block, cols, R, D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Offsets and mask [BLOCK_R, BLOCK_D] of a block of rows."""
    rows = block.to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    return rows[:, None] * D + cols[None, :], (rows < R)[:, None] & (cols < D)[None, :]


@triton.jit
def _rate(x, D: tl.constexpr, EPS: tl.constexpr):
    """One over the root mean square of each row [BLOCK_R]."""
    return tl.rsqrt(tl.sum(x * x, 1) / D + EPS)


def forward(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``[..., H, D]`` to a contiguous ``[..., H * D]``; differentiable.

    Raises:
        UnsupportedError: a device without Triton kernels, or float64.
    """
    return torch.ops.ena_kernels.head_norm(x, weight, eps).flatten(-2)


def _forward_op(x, weight, eps):
    require_kernels(x)
    x, weight = x.contiguous(), weight.contiguous()
    y = torch.empty_like(x)
    if y.numel():
        R, blocks = _blocks(x)
        grid = (triton.cdiv(R, blocks["BLOCK_R"]),)
        head_norm_fwd_kernel[grid](x, weight, y, R, EPS=eps, **blocks)
    return y


def _backward_op(x, weight, dy, eps):
    require_kernels(x)
    x, flat, dy = x.contiguous(), weight.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    if not dx.numel():
        return dx, torch.zeros_like(weight)
    R, blocks = _blocks(x)
    grid = (triton.cdiv(R, blocks["BLOCK_R"] * BLOCKS_PER_SHARE),)
    share = x.new_empty(grid[0], x.shape[-1], dtype=torch.float32)
    head_norm_bwd_kernel[grid](
        x, flat, dy, dx, share, R, EPS=eps, BLOCKS=BLOCKS_PER_SHARE, **blocks
    )
    return dx, share.sum(0).to(weight.dtype)


def _blocks(x: Tensor) -> tuple[int, dict]:
    """The number of rows, and what both kernels are compiled for."""
    D = x.shape[-1]
    BLOCK_D = triton.next_power_of_2(D)
    BLOCK_R = max(1, TILE // BLOCK_D)
    return x.numel() // D, {"D": D, "BLOCK_R": BLOCK_R, "BLOCK_D": BLOCK_D}


def _forward_fake(x, weight, eps):
    return x.new_empty(x.shape)


def _backward_fake(x, weight, dy, eps):
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep_inputs(ctx, inputs, output):
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    dx, dweight = torch.ops.ena_kernels.head_norm_backward(*ctx.saved_tensors, grad, ctx.eps)
    return dx, dweight, None


_OPERATORS = (
    ("head_norm", "(Tensor x, Tensor weight, float eps) -> Tensor", _forward_op, _forward_fake),
    (
        "head_norm_backward",
        "(Tensor x, Tensor weight, Tensor dy, float eps) -> (Tensor, Tensor)",
        _backward_op,
        _backward_fake,
    ),
)
for _name, _schema, _op, _fake in _OPERATORS:
    torch.library.define(f"ena_kernels::{_name}", _schema)
    torch.library.impl(f"ena_kernels::{_name}", ("cuda", "cpu"), _op)
    torch.library.register_fake(f"ena_kernels::{_name}", _fake)
torch.library.register_autograd("ena_kernels::head_norm", _backward, setup_context=_keep_inputs)
