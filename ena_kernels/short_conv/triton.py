"""The short convolution with its SiLU in Triton, forward and backward.

A program walks a chunk of tokens of BLOCK_C channels and keeps the last inputs in registers:

    forward, in order:   y_t = silu(sum_j w_j x_{t-3+j})
    backward, reversed:  g_t = dy_t silu'(sum_j w_j x_{t-3+j});  dx_t = sum_j w_j g_{t+3-j}

Forward reads x and writes y once; backward reads x and dy and writes dx once, and a sum over the
chunks' float32 shares gives the gradient of the weights: no atomics, so it repeats bit for bit.
y is three tensors, q, k and v, and so is dy: nothing is cut apart or put together around it.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.column_sum_kernel import column_sum
from ena_kernels.operands import dense, on_its_device, refuse_derivative, require_kernels

# Legend: B batch, L tokens, C channels of x, W = C / 3 channels of q, of k and of v; width 4 is
# written out.


class Config(NamedTuple):
    """Tokens of a program, tokens it loads at a time, and bytes that a thread takes of each."""

    chunk: int
    unroll: int
    num_bytes: int


FORWARD = Config(chunk=16, unroll=16, num_bytes=8)
BACKWARD = Config(chunk=64, unroll=8, num_bytes=8)


@triton.jit
def short_conv_fwd_kernel(
    x_ptr,
    weight_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    x_batch,
    x_token,
    L,
    W,
    CHUNK: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One chunk of tokens of BLOCK_C channels."""
    b, start, part, cols, mask = _place(L, W, CHUNK, BLOCK_C)
    w0, w1, w2, w3 = _weights(weight_ptr + part * W * 4, cols, mask)
    x_ptr += b * x_batch + part * W + cols
    y_ptr = _chosen(part, q_ptr, k_ptr, v_ptr) + b * L * W + cols
    x0 = _token(x_ptr, start - 3, x_token, L, cols, W)
    x1 = _token(x_ptr, start - 2, x_token, L, cols, W)
    x2 = _token(x_ptr, start - 1, x_token, L, cols, W)
    for step in range(start, start + CHUNK, UNROLL):
        # loads do not overtake stores, so all of a step come first
        xs = ()
        for i in tl.static_range(UNROLL):
            xs += (_token(x_ptr, step + i, x_token, L, cols, W),)
        for i in tl.static_range(UNROLL):
            x3 = xs[i]
            pre = w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3
            y = (pre * _sigmoid(pre)).to(y_ptr.dtype.element_ty)
            tl.store(y_ptr + (step + i) * W, y, mask=_inside(step + i, L, cols, W))
            x0 = x1
            x1 = x2
            x2 = x3


@triton.jit
def short_conv_bwd_kernel(
    x_ptr,
    weight_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dx_ptr,
    share_ptr,
    x_batch,
    x_token,
    dy_batch,
    dy_token,
    L,
    W,
    CHUNK: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One chunk backwards: dx, and the chunk's share ``[C, 4]`` of the gradient of the weights."""
    b, start, part, cols, mask = _place(L, W, CHUNK, BLOCK_C)
    w0, w1, w2, w3 = _weights(weight_ptr + part * W * 4, cols, mask)
    C = 3 * W
    x_ptr += b * x_batch + part * W + cols
    dy_ptr = _chosen(part, dq_ptr, dk_ptr, dv_ptr) + b * dy_batch + cols
    dx_ptr += b * L * C + part * W + cols
    end = start + CHUNK
    x3 = _token(x_ptr, end + 2, x_token, L, cols, W)
    x2 = _token(x_ptr, end + 1, x_token, L, cols, W)
    x1 = _token(x_ptr, end, x_token, L, cols, W)
    g1 = tl.zeros((BLOCK_C,), tl.float32)
    g2 = tl.zeros((BLOCK_C,), tl.float32)
    g3 = tl.zeros((BLOCK_C,), tl.float32)
    # tokens after the chunk belong to the next one; here they only reach back into dx
    for i in tl.static_range(3):
        t = end + 2 - i
        x0 = _token(x_ptr, t - 3, x_token, L, cols, W)
        dy = _token(dy_ptr, t, dy_token, L, cols, W)
        g3 = g2
        g2 = g1
        g1 = dy * _slope(w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3)
        x3 = x2
        x2 = x1
        x1 = x0
    dw0 = tl.zeros((BLOCK_C,), tl.float32)
    dw1 = tl.zeros((BLOCK_C,), tl.float32)
    dw2 = tl.zeros((BLOCK_C,), tl.float32)
    dw3 = tl.zeros((BLOCK_C,), tl.float32)
    for step in range(1, CHUNK + 1, UNROLL):
        xs = ()
        dys = ()
        for i in tl.static_range(UNROLL):
            xs += (_token(x_ptr, end - step - i - 3, x_token, L, cols, W),)
            dys += (_token(dy_ptr, end - step - i, dy_token, L, cols, W),)
        for i in tl.static_range(UNROLL):
            t = end - step - i
            x0 = xs[i]
            g0 = dys[i] * _slope(w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3)
            dx = w3 * g0 + w2 * g1 + w1 * g2 + w0 * g3
            tl.store(dx_ptr + t * C, dx.to(dx_ptr.dtype.element_ty), mask=_inside(t, L, cols, W))
            dw0 += g0 * x0
            dw1 += g0 * x1
            dw2 += g0 * x2
            dw3 += g0 * x3
            x3 = x2
            x2 = x1
            x1 = x0
            g3 = g2
            g2 = g1
            g1 = g0
    share_ptr += ((b * tl.cdiv(L, CHUNK) + start // CHUNK) * C + part * W + cols) * 4
    tl.store(share_ptr, dw0, mask=mask)
    tl.store(share_ptr + 1, dw1, mask=mask)
    tl.store(share_ptr + 2, dw2, mask=mask)
    tl.store(share_ptr + 3, dw3, mask=mask)


@triton.jit
def _place(L, W, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sample, first token, part, its channels [BLOCK_C] and their mask of this program."""
    program = tl.program_id(0).to(tl.int64)
    num_c = tl.cdiv(W, BLOCK_C)
    num_chunks = tl.cdiv(L, CHUNK)
    cols = (program % num_c) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = program // num_c % 3
    start = (program // (3 * num_c) % num_chunks) * CHUNK
    return program // (3 * num_c * num_chunks), start, part, cols, cols < W


@triton.jit
def _chosen(part, q_ptr, k_ptr, v_ptr):
    """The pointer of part 0, 1 or 2."""
    return tl.where(part == 0, q_ptr, tl.where(part == 1, k_ptr, v_ptr))


@triton.jit
def _weights(weight_ptr, cols, mask):
    """The four taps [BLOCK_C] in float32."""
    taps = weight_ptr + cols * 4
    w0 = tl.load(taps, mask=mask, other=0.0).to(tl.float32)
    w1 = tl.load(taps + 1, mask=mask, other=0.0).to(tl.float32)
    w2 = tl.load(taps + 2, mask=mask, other=0.0).to(tl.float32)
    w3 = tl.load(taps + 3, mask=mask, other=0.0).to(tl.float32)
    return w0, w1, w2, w3


@triton.jit
def _token(ptr, t, stride, L, cols, W):
    """Channels [BLOCK_C] of token t in float32, zeros before the first and after the last."""
    return tl.load(ptr + t * stride, mask=_inside(t, L, cols, W), other=0.0).to(tl.float32)


@triton.jit
def _inside(t, L, cols, W):
    """Mask [BLOCK_C] of the channels of token t, none of a token that is not."""
    # the interpreter cannot combine the mask of a vector with a scalar condition
    return cols < tl.where((t >= 0) & (t < L), W, 0)


@triton.jit
def _sigmoid(pre):
    """`tl.sigmoid` without its division, in half as many instructions."""
    root = tl.rsqrt(1 + tl.exp2(pre * -1.4426950408889634))
    return root * root


@triton.jit
def _slope(pre):
    """The derivative of SiLU."""
    gate = _sigmoid(pre)
    return gate * (1 + pre * (1 - gate))


def forward(x: Tensor, weight: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
    """``[B, L, C]``, strided as it likes in B and L, to three ``[B, L, C / 3]``; differentiable.

    Raises:
        UnsupportedError: a device without Triton kernels, or float64.
    """
    if past is None:
        return torch.ops.ena_kernels.short_conv(x, weight)
    parts = forward(torch.cat([past, x], dim=1), weight)
    return tuple(part[:, past.shape[1] :] for part in parts)


def _forward_op(x, weight):
    require_kernels(x)
    x, weight = dense(x), weight.contiguous()
    parts = _forward_fake(x, weight)
    if x.numel():
        grid, blocks = _launch_shape(x, FORWARD)
        arguments = (x, weight, *parts, *x.stride()[:2], x.shape[1], x.shape[2] // 3)
        short_conv_fwd_kernel[grid](*arguments, **blocks)
    return parts


def _backward_op(x, weight, dq, dk, dv):
    require_kernels(x)
    x, flat, *dy = dense(x), weight.contiguous(), *_alike(dq, dk, dv)
    B, L, C = x.shape
    dx = x.new_empty(B, L, C)
    if not dx.numel():
        return dx, torch.zeros_like(weight)
    share = x.new_empty(B * triton.cdiv(L, BACKWARD.chunk), *weight.shape, dtype=torch.float32)
    grid, blocks = _launch_shape(x, BACKWARD)
    strides = (*x.stride()[:2], *dy[0].stride()[:2])
    short_conv_bwd_kernel[grid](x, flat, *dy, dx, share, *strides, L, C // 3, **blocks)
    return dx, column_sum(share.flatten(1), weight.dtype).view(weight.shape)


def _alike(*grads: Tensor) -> tuple[Tensor, ...]:
    """The gradients themselves where they share strides and their channels lie side by side."""
    is_alike = len({grad.stride() for grad in grads}) == 1 and grads[0].stride(-1) == 1
    return grads if is_alike else tuple(grad.contiguous() for grad in grads)


def _launch_shape(x: Tensor, config: Config) -> tuple[tuple[int], dict]:
    """As many programs of one warp as it takes, and what the kernel is compiled for."""
    B, L, C = x.shape
    BLOCK_C = min(triton.next_power_of_2(C // 3), 32 * config.num_bytes // x.element_size())
    blocks = {"CHUNK": config.chunk, "UNROLL": config.unroll, "BLOCK_C": BLOCK_C, "num_warps": 1}
    return (B * triton.cdiv(L, config.chunk) * 3 * triton.cdiv(C // 3, BLOCK_C),), blocks


def _forward_fake(x, weight):
    B, L, C = x.shape
    return tuple(x.new_empty(B, L, C // 3) for _ in range(3))


def _backward_fake(x, weight, dq, dk, dv):
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


def _keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, *grads):
    return torch.ops.ena_kernels.short_conv_backward(*ctx.saved_tensors, *grads)


_OPERATORS = (
    (
        "short_conv",
        "(Tensor x, Tensor weight) -> (Tensor, Tensor, Tensor)",
        _forward_op,
        _forward_fake,
    ),
    (
        "short_conv_backward",
        "(Tensor x, Tensor weight, Tensor dq, Tensor dk, Tensor dv) -> (Tensor, Tensor)",
        _backward_op,
        _backward_fake,
    ),
)
for _name, _schema, _op, _fake in _OPERATORS:
    torch.library.define(f"ena_kernels::{_name}", _schema)
    torch.library.impl(f"ena_kernels::{_name}", ("cuda", "cpu"), on_its_device(_op))
    torch.library.register_fake(f"ena_kernels::{_name}", _fake)
torch.library.register_autograd("ena_kernels::short_conv", _backward, setup_context=_keep_inputs)
refuse_derivative("ena_kernels::short_conv_backward", try_="impl='eager'")
