"""Every scan as two Triton kernels, each the gradient of the other.

    spread:  y[copy c, position[c, r]] = x[r]               reads x once, writes p copies
    collect: x[r] = sum over c of y[copy c, position[c, r]]  reads p copies once, writes x

Rows are tokens, or the channel slices of tokens for mh2d and mh3d. Rows are cut into vectors of at
most 16 bytes, and a program takes BLOCK of them in a row, whatever rows they belong to. Positions
of flips and transpositions are computed, others read from a table. The sum is taken in float32 in
the order of the copies and stored once: no atomics, so it repeats bit for bit.
"""

import math
from itertools import accumulate
from operator import mul

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.operands import dense, on_its_device, require_kernels
from ena_kernels.scans.catalog import scan_passes
from ena_kernels.scans.orders import Shape, position_table

# Legend: B batch, p passes, R rows of W channels in each sample and pass; a row is VECS vectors of
# VEC channels.

BLOCK = 256
NUM_WARPS = 4
FAR = 2**31
_READINGS = {"flip": (2,), "bi": (0, 2), "cross": (0, 1, 2, 3)}
_LISTED = -1
"""How each copy reads the canvas: 1 transposed, 2 reversed, 3 both, -1 as the table says."""


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
    R,
    READINGS: tl.constexpr,
    AXES: tl.constexpr,
    HEADS: tl.constexpr,
    VECS: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """A run of vectors to its place in every copy."""
    b, row, vec, mask = _vectors(R, VECS, BLOCK, OFFSET)
    lanes = tl.arange(0, VEC)[None, :]
    x_ptr += b * x_batch
    x = tl.load(x_ptr + _starts(row, vec, x_token, HEADS, VECS, VEC) + lanes, mask=mask)
    for c in tl.static_range(len(READINGS)):
        place = _place(row, c, position_ptr + b * position_batch, R, READINGS[c], AXES)
        copy = y_ptr + b * y_batch + tl.full((), c, tl.int64) * y_copy
        tl.store(copy + _starts(place, vec, y_token, HEADS, VECS, VEC) + lanes, x, mask=mask)


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
    R,
    READINGS: tl.constexpr,
    AXES: tl.constexpr,
    HEADS: tl.constexpr,
    VECS: tl.constexpr,
    VEC: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """A run of vectors as the sum of its copies."""
    b, row, vec, mask = _vectors(R, VECS, BLOCK, OFFSET)
    lanes = tl.arange(0, VEC)[None, :]
    total = tl.zeros((BLOCK, VEC), tl.float32)
    for c in tl.static_range(len(READINGS)):
        place = _place(row, c, position_ptr + b * position_batch, R, READINGS[c], AXES)
        copy = y_ptr + b * y_batch + tl.full((), c, tl.int64) * y_copy
        y = tl.load(
            copy + _starts(place, vec, y_token, HEADS, VECS, VEC) + lanes,
            mask=mask,
            other=0.0,
        )
        total += y.to(tl.float32)
    x = x_ptr + b * x_batch + _starts(row, vec, x_token, HEADS, VECS, VEC) + lanes
    tl.store(x, total.to(x_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _vectors(R, VECS: tl.constexpr, BLOCK: tl.constexpr, OFFSET: tl.constexpr):
    """Sample, row [BLOCK] and number in the row [BLOCK] of the vectors of this program."""
    num_blocks = tl.cdiv(tl.cast(R, OFFSET) * VECS, BLOCK)
    program = tl.program_id(0)
    vectors = (program % num_blocks).to(OFFSET) * BLOCK + tl.arange(0, BLOCK)
    row = vectors // VECS
    return (program // num_blocks).to(tl.int64), row, vectors % VECS, (row < R)[:, None]


@triton.jit
def _place(row, c: tl.constexpr, position_ptr, R, READING: tl.constexpr, AXES: tl.constexpr):
    """Where rows [BLOCK] stand in copy c.

    AXES: the sides of the canvas, last axis first, each before its weight in transposed order.
    """
    if READING < 0:
        return tl.load(position_ptr + c * tl.cast(R, tl.int64) + row, mask=row < R, other=0).to(
            row.dtype
        )
    place = row
    if READING % 2 == 1:
        place = tl.zeros_like(row)
        for i in tl.static_range(len(AXES) // 2):
            place += (row % AXES[2 * i]) * AXES[2 * i + 1]
            row = row // AXES[2 * i]
    if READING // 2 == 1:
        place = R - 1 - place
    return place


@triton.jit
def _starts(row, vec, token_stride, HEADS: tl.constexpr, VECS: tl.constexpr, VEC: tl.constexpr):
    """Offsets [BLOCK, 1] of vectors of rows, which are slice ``row % HEADS`` of a token."""
    slices = (row % HEADS) * VECS + vec
    return ((row // HEADS) * token_stride + slices * VEC)[:, None]


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
    if order is None:
        _launch(scan_spread_kernel, dense(x), y, None, scan, canvas, layer, heads)
    else:
        # an order says where the rows of y stand in x: the other kernel, the other way round
        _launch(scan_collect_kernel, y, dense(x), order, scan, canvas, layer, heads)
    return y


def _collect_op(y, order, scan, canvas, layer, heads):
    require_kernels(y)
    p = scan_passes(scan)
    x = y.new_empty(y.shape[0] // p, *y.shape[1:])
    if order is None:
        _launch(scan_collect_kernel, x, dense(y), None, scan, canvas, layer, heads)
    else:
        _launch(scan_spread_kernel, dense(y), x, order, scan, canvas, layer, heads)
    return x


def _launch(kernel, x, y, order, scan, canvas, layer, heads):
    B, L, C = x.shape
    if x.numel() == 0:
        return
    heads = heads if scan in ("mh2d", "mh3d") else 1
    p, R, W = scan_passes(scan), L * heads, C // heads
    readings, position, position_batch = _readings(scan, layer), x, 0
    if order is not None:
        position, position_batch = order.contiguous(), L
    elif readings is None:
        position = position_table(scan, tuple(canvas), layer, heads, x.device)
    y_batch, y_copy = (1, B) if scan == "bi" else (p, 1)
    VEC = math.gcd(W, 16 // x.element_size())
    kernel[(B * triton.cdiv(R * W // VEC, BLOCK),)](
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
        READINGS=readings or (_LISTED,) * p,
        AXES=_axes(canvas) if readings and any(reading % 2 for reading in readings) else (),
        HEADS=heads,
        VECS=W // VEC,
        VEC=VEC,
        BLOCK=BLOCK,
        OFFSET=tl.int64 if max(_extent(x), _extent(y)) >= FAR else tl.int32,
        num_warps=NUM_WARPS,
    )


def _readings(scan: str, layer: int) -> tuple[int, ...] | None:
    """How each copy reads the canvas, for the scans that need no table."""
    if scan == "switch":
        return (2,) if layer % 2 == 0 else (1,)
    return _READINGS.get(scan)


def _axes(canvas: Shape) -> tuple[int, ...]:
    """The sides of a canvas, last axis first, each before its weight in transposed order."""
    weights = accumulate((1, *canvas[:-1]), mul)
    return tuple(n for pair in reversed([*zip(canvas, weights, strict=True)]) for n in pair)


def _extent(x: Tensor) -> int:
    """Elements from the first of a sample of `x` to its last."""
    return (x.shape[1] - 1) * x.stride(1) + x.shape[2]


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
    torch.library.impl(_qualified, ("cuda", "cpu"), on_its_device(_op))
    torch.library.register_fake(_qualified, _fake)
    torch.library.register_autograd(_qualified, _backward, setup_context=_keep_settings)
