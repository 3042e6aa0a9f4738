"""The sum of many rows in Triton: gradients of biases, and shares that programs left in memory.

Reads x once, in float32 adds without atomics, so it repeats bit for bit. Many rows take two steps:
runs of rows first, then the sums of the runs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.operands import dense, on_its_device, require_kernels

# Legend: R rows of D channels.

RUNS = 128
LEAST_RUN = 64
BLOCK_R = 32
BLOCK_D = {2: 128, 4: 64}
"""By the bytes of an element: half a warp reads 256 bytes of a row."""


@triton.jit
def column_sum_kernel(x_ptr, y_ptr, R, D, x_row, run, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """One block of columns of one run of rows."""
    num_c = tl.cdiv(D, BLOCK_D)
    first = (tl.program_id(0) // num_c).to(tl.int64) * run
    cols = (tl.program_id(0) % num_c) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(0, run, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R)
        mask = (rows < tl.minimum(run, R - first))[:, None] & (cols < D)[None, :]
        x = tl.load(x_ptr + (first + rows)[:, None] * x_row + cols[None, :], mask=mask, other=0.0)
        total += x.to(tl.float32)
    y = tl.sum(total, 0).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + (tl.program_id(0) // num_c) * D + cols, y, mask=cols < D)


def bias_gradient(grad: Tensor) -> Tensor:
    """``[..., D]`` to ``[D]`` in its dtype, as one operator."""
    return torch.ops.ena_kernels.column_sum(grad.reshape(-1, grad.shape[-1]))


def column_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``[R, D]`` of any row stride, float16, bfloat16 or float32, to its sum ``[D]``."""
    R = x.shape[0]
    if R > 2 * LEAST_RUN:
        x = _sums_of_runs(dense(x), max(LEAST_RUN, triton.cdiv(R, RUNS)), torch.float32)
    return _sums_of_runs(dense(x), x.shape[0], dtype)[0]


def _sums_of_runs(x: Tensor, run: int, dtype: torch.dtype) -> Tensor:
    R, D = x.shape
    block_d = BLOCK_D[x.element_size()]
    y = x.new_empty(triton.cdiv(R, run), D, dtype=dtype)
    grid = (y.shape[0] * triton.cdiv(D, block_d),)
    column_sum_kernel[grid](x, y, R, D, x.stride(0), run, BLOCK_R=BLOCK_R, BLOCK_D=block_d)
    return y


def _column_sum_op(x):
    require_kernels(x)
    if x.numel() == 0:
        return x.new_zeros(x.shape[1])
    return column_sum(x, x.dtype)


def _column_sum_fake(x):
    return x.new_empty(x.shape[1])


def _keep_shape(ctx, inputs, output):
    ctx.shape = inputs[0].shape


def _backward(ctx, grad):
    return grad.expand(ctx.shape)


torch.library.define("ena_kernels::column_sum", "(Tensor x) -> Tensor")
torch.library.impl("ena_kernels::column_sum", ("cuda", "cpu"), on_its_device(_column_sum_op))
torch.library.register_fake("ena_kernels::column_sum", _column_sum_fake)
torch.library.register_autograd("ena_kernels::column_sum", _backward, setup_context=_keep_shape)
