"""The norms of rows in Triton, forward and backward: root mean square, or centred with a bias.

    forward:   y = z w + bias  with  z = (x - m) r,  r = 1 / sqrt(mean((x - m)^2) + eps)
    backward:  dx = r (g - mean(g) - z mean(g z))  with  g = dy w;
               dw = sum over the rows of dy z,  dbias = sum of dy

Without a bias m is 0, and so is mean(g) in dx. Forward reads x and writes y once. Backward reads x
and dy, writes dx once, and finds m and r anew; a sum over the programs' float32 shares gives the
gradients of weight and bias: no atomics, so they repeat bit for bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.column_sum_kernel import column_sum
from ena_kernels.operands import on_its_device, refuse_derivative, require_kernels

# Legend: R rows (tokens, or heads of tokens) of D channels.

TILE = 2048
SHARES = 528
"""At most so many programs share a backward: 4 on each processor of an H100 or H200."""


@triton.jit
def norm_fwd_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    R,
    D: tl.constexpr,
    EPS: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One block of rows."""
    cols = tl.arange(0, BLOCK_D)
    offsets, mask = _rows(tl.program_id(0), cols, R, D, BLOCK_R)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    z, _ = _normed(x, mask, D, EPS, CENTRED)
    y = z * tl.load(weight_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)[None, :]
    if CENTRED:
        y += tl.load(bias_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def norm_bwd_kernel(
    x_ptr,
    weight_ptr,
    dy_ptr,
    dx_ptr,
    share_ptr,
    R,
    num_blocks,
    D: tl.constexpr,
    EPS: tl.constexpr,
    CENTRED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Every so many blocks of rows, and their share ``[1 or 2, D]`` of the gradients."""
    cols = tl.arange(0, BLOCK_D)
    weight = tl.load(weight_ptr + cols, mask=cols < D, other=0.0).to(tl.float32)[None, :]
    dweight = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    dbias = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
        offsets, mask = _rows(block, cols, R, D, BLOCK_R)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        z, rate = _normed(x, mask, D, EPS, CENTRED)
        g = dy * weight
        dx = g - z * (tl.sum(g * z, 1) / D)[:, None]
        if CENTRED:
            dx -= (tl.sum(g, 1) / D)[:, None]
            dbias += dy
        dweight += dy * z
        tl.store(dx_ptr + offsets, (dx * rate).to(dx_ptr.dtype.element_ty), mask=mask)
    share = share_ptr + tl.program_id(0) * (2 if CENTRED else 1) * D + cols
    tl.store(share, tl.sum(dweight, 0), mask=cols < D)
    if CENTRED:
        tl.store(share + D, tl.sum(dbias, 0), mask=cols < D)


@triton.jit
def _rows(block, cols, R, D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Offsets and mask [BLOCK_R, BLOCK_D] of a block of rows."""
    rows = tl.cast(block, tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    return rows[:, None] * D + cols[None, :], (rows < R)[:, None] & (cols < D)[None, :]


@triton.jit
def _normed(x, mask, D: tl.constexpr, EPS: tl.constexpr, CENTRED: tl.constexpr):
    """Rows [BLOCK_R, BLOCK_D] without weight and bias, and what they were multiplied by."""
    if CENTRED:
        x = tl.where(mask, x - (tl.sum(x, 1) / D)[:, None], 0.0)
    rate = tl.rsqrt(tl.sum(x * x, 1) / D + EPS)[:, None]
    return x * rate, rate


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """``[..., D]`` to the same, contiguous; with a bias rows are centred; differentiable.

    Raises:
        UnsupportedError: a device without Triton kernels, or float64.
    """
    return torch.ops.ena_kernels.norm(x, weight, bias, eps)


def _forward_op(x, weight, bias, eps):
    require_kernels(x)
    x, weight = x.contiguous(), weight.contiguous()
    y = torch.empty_like(x)
    if y.numel():
        R, blocks = _launch_shape(x, bias is not None)
        grid = (triton.cdiv(R, blocks["BLOCK_R"]),)
        bias = weight if bias is None else bias.contiguous()
        norm_fwd_kernel[grid](x, weight, bias, y, R, EPS=eps, **blocks)
    return y


def _backward_op(x, weight, dy, eps, is_centred):
    require_kernels(x)
    x, flat, dy = x.contiguous(), weight.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    if not dx.numel():
        return dx, torch.zeros_like(_parameters_fake(weight, is_centred))
    R, blocks = _launch_shape(x, is_centred)
    num_blocks = triton.cdiv(R, blocks["BLOCK_R"])
    num_shares = min(num_blocks, SHARES)
    share = x.new_empty(num_shares, 1 + is_centred, x.shape[-1], dtype=torch.float32)
    norm_bwd_kernel[(num_shares,)](x, flat, dy, dx, share, R, num_blocks, EPS=eps, **blocks)
    return dx, column_sum(share.flatten(1), weight.dtype).view(share.shape[1:])


def _launch_shape(x: Tensor, is_centred: bool) -> tuple[int, dict]:
    """The number of rows, and what both kernels are compiled for."""
    D = x.shape[-1]
    BLOCK_D = triton.next_power_of_2(D)
    BLOCK_R = max(1, TILE // BLOCK_D)
    blocks = {"D": D, "CENTRED": is_centred, "BLOCK_R": BLOCK_R, "BLOCK_D": BLOCK_D}
    return x.numel() // D, blocks | {"num_warps": 4 if BLOCK_D <= TILE else 8}


def _parameters_fake(weight: Tensor, is_centred: bool) -> Tensor:
    return weight.new_empty(1 + is_centred, weight.shape[0])


def _forward_fake(x, weight, bias, eps):
    return x.new_empty(x.shape)


def _backward_fake(x, weight, dy, eps, is_centred):
    return x.new_empty(x.shape), _parameters_fake(weight, is_centred)


def _keep_inputs(ctx, inputs, output):
    x, weight, bias, ctx.eps = inputs
    ctx.is_centred = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    settings = ctx.eps, ctx.is_centred
    dx, shares = torch.ops.ena_kernels.norm_backward(*ctx.saved_tensors, grad, *settings)
    return dx, shares[0], shares[1] if ctx.is_centred else None, None


_OPERATORS = (
    (
        "norm",
        "(Tensor x, Tensor weight, Tensor? bias, float eps) -> Tensor",
        _forward_op,
        _forward_fake,
    ),
    (
        "norm_backward",
        "(Tensor x, Tensor weight, Tensor dy, float eps, bool is_centred) -> (Tensor, Tensor)",
        _backward_op,
        _backward_fake,
    ),
)
for _name, _schema, _op, _fake in _OPERATORS:
    torch.library.define(f"ena_kernels::{_name}", _schema)
    torch.library.impl(f"ena_kernels::{_name}", ("cuda", "cpu"), on_its_device(_op))
    torch.library.register_fake(f"ena_kernels::{_name}", _fake)
torch.library.register_autograd("ena_kernels::norm", _backward, setup_context=_keep_inputs)
refuse_derivative("ena_kernels::norm_backward", try_="impl='eager'")
