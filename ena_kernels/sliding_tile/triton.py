"""Sliding Tile Attention in Triton, forward and backward, as operators of PyTorch.

Tokens are read and written in place in either order, whatever the strides of batch, heads and
tokens; results are stored as ``[B, L, H, D]``, so that merging heads copies nothing. Grouped key
heads are not repeated. The operators trace, and capture into CUDA graphs.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ena_kernels.autograd import call, differentiable
from ena_kernels.canvas import Shape, num_tokens
from ena_kernels.errors import UnsupportedError
from ena_kernels.launches import Launch, alignment
from ena_kernels.operands import dense, on_its_device, refuse_derivative, require_kernels
from ena_kernels.sliding_tile.backward_kernel import (
    sliding_tile_bwd_dkdv_kernel,
    sliding_tile_bwd_dq_kernel,
)
from ena_kernels.sliding_tile.configs import config, is_box, layout, padded_head_dim
from ena_kernels.sliding_tile.forward_kernel import sliding_tile_fwd_kernel
from ena_kernels.sliding_tile.hopper import backward as hopper_backward
from ena_kernels.sliding_tile.hopper import forward as hopper_forward
from ena_kernels.sliding_tile.hopper.boxes import supports

ORDERS = ("raster", "tiled")
EXTRAS = ("text_tokens", "pad", "return_lse")
MOST_HEAD_DIM = 128
FAR = 2**31


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
    """``[B, H, L, D]`` in ``q.dtype``, and float32 ``[B, H, L]`` if asked; differentiable, once.

    Tokens beyond the canvas are text; tiles that do not fit are cut.

    Raises:
        UnsupportedError: a device without Triton kernels, float64, or a head dim above 128.
    """
    out, lse = _sliding_tile(q, k, v, canvas, window, tile, scale, order)
    return (out, lse) if return_lse else out


def _forward_op(q, k, v, canvas, window, tile, scale, order):
    require_kernels(q)
    if q.shape[-1] > MOST_HEAD_DIM:
        raise UnsupportedError(
            f"impl 'triton' has no kernel for head dim {q.shape[-1]}",
            expected=f"a head dim of at most {MOST_HEAD_DIM}",
            try_="impl='eager'",
        )
    canvas, window, tile = tuple(canvas), tuple(window), tuple(tile)
    if supports(q):
        geometry = canvas, tile, window, order
        on_hopper = hopper_forward.planned(q, k, v, *geometry, flipped=scale < 0)
        if on_hopper is not None:
            return on_hopper(q, k, v, scale)
    B, H, L, _ = q.shape
    out = _heads_last(q)
    lse = q.new_empty(B, H, L, dtype=torch.float32)
    geometry = canvas, window, tile, order
    arguments = (q, k, v, out, lse, scale, H, L)
    own = {"FLIPPED": scale < 0, "GROUP": H // k.shape[1]}
    _launch(sliding_tile_fwd_kernel, "fwd", arguments, (q, k, v, out), (k, v), geometry, own)
    return out, lse


def _backward_op(grad_out, grad_lse, q, k, v, out, lse, canvas, window, tile, scale, order):
    canvas, window, tile = tuple(canvas), tuple(window), tuple(tile)
    grad_out = dense(grad_out)
    if grad_lse is not None:
        grad_lse = grad_lse.contiguous()
    if supports(q):
        tensors = grad_out, grad_lse, q, k, v, out, lse
        on_hopper = hopper_backward.planned(*tensors, canvas, tile, window, order)
        if on_hopper is not None:
            return on_hopper(*tensors, scale)
    B, H, L, _ = q.shape
    grad_q, grad_k, grad_v = (_heads_last(x) for x in (q, k, v))
    geometry = canvas, window, tile, order
    num_rows = num_tokens(layout(*geometry).grid) * num_tokens(tile) + L - num_tokens(canvas)
    base_2_lse, delta = (lse.new_empty(B, H, num_rows) for _ in range(2))
    own = {"GROUP": H // k.shape[1], "num_rows": num_rows}
    arguments = (
        *(q, k, v, out, grad_out, lse),
        *(lse if grad_lse is None else grad_lse, base_2_lse, delta, grad_q),
        *(scale, H, L),
    )
    strided = (q, k, v, out, grad_out, grad_q)
    own_dq = own | {"HAS_DLSE": grad_lse is not None}
    _launch(sliding_tile_bwd_dq_kernel, "dq", arguments, strided, (k, v), geometry, own_dq)
    arguments = (q, k, v, grad_out, base_2_lse, delta, grad_k, grad_v, scale, k.shape[1], L)
    strided = (q, k, v, grad_out, grad_k, grad_v)
    streamed = (q, grad_out)
    _launch(sliding_tile_bwd_dkdv_kernel, "dkdv", arguments, strided, streamed, geometry, own)
    return grad_q, grad_k, grad_v


def _launch(kernel, name, arguments, strided, streamed, geometry, own):
    """Launch a kernel for the tiles and, where there is text, once more for the text.

    Args:
        arguments: What the kernel takes up to the number of tokens; the last but one is the
            number of heads it has programs for.
        strided: The tensors whose strides it takes, q first.
        streamed: The two of them that its loop reads.
        geometry: Canvas, window, tile, order.
        own: Arguments that this kernel alone has.
    """
    q = strided[0]
    strides = tuple(x.stride()[:3] for x in strided)
    # what Triton compiles for, beside shapes and strides
    tensors = [x for x in arguments if isinstance(x, Tensor)]
    pointers = *(x.dtype for x in tensors), *alignment(*tensors)
    is_alike = streamed[0].stride(2) == streamed[1].stride(2)
    options = tuple(own.items()), is_alike, pointers
    num_heads = q.shape[0] * arguments[-2]
    for launch, numbers in _planned(
        kernel, name, q.device, q.dtype, q.shape, num_heads, strides, geometry, options
    ):
        launch(*arguments, *numbers)


# Python's time at a launch is seen where sequences are short, so what repeats is kept.


@lru_cache(maxsize=1024)
def _planned(kernel, name, _device, dtype, shape, num_heads, strides, geometry, options):
    """Launches for tiles and for text, each with the numbers after the first arguments."""
    canvas, _, tile, _ = geometry
    grid, seen, steps, rows, sides, is_cut = layout(*geometry)
    volume, canvas_len, (_, _, L, D) = num_tokens(tile), num_tokens(canvas), shape
    own, is_alike, _ = options
    reach = sum((t - 1) * row for t, row in zip(tile, rows, strict=True))
    widest = max(stride[2] for stride in strides)
    shared = {
        "TILE": tile,
        "NDIM": len(canvas),
        "VOLUME": volume,
        "CUT": is_cut,
        "HAS_TEXT": canvas_len < L,
        "D": D,
        "BLOCK_D": padded_head_dim(D),
        "ALIKE": is_alike,
        "OFFSET": tl.int64 if max(reach, 128) * widest >= FAR else tl.int32,
        **dict(own),
    }
    launches = []
    for is_text in (False, True) if canvas_len < L else (False,):
        sizes = config(name, D, dtype.itemsize, None if is_text else volume)
        own_rows = sizes.block_n if name == "dkdv" else sizes.block_m
        if is_text:
            num_blocks = triton.cdiv(L - canvas_len, own_rows)
        else:
            num_blocks = num_tokens(grid) * triton.cdiv(volume, own_rows)
        constants = shared | {
            "IS_TEXT": is_text,
            "BLOCK_M": sizes.block_m,
            "BLOCK_N": sizes.block_n,
            "SPLIT_M": is_box(sizes.block_m, tile),
            "SPLIT_N": is_box(sizes.block_n, tile),
        }
        launch = Launch(
            *(kernel, num_blocks * num_heads, constants),
            num_warps=sizes.num_warps,
            num_stages=sizes.num_stages,
        )
        where = grid, grid if is_text else seen, steps, rows, sides
        launches.append((launch, (canvas_len, num_blocks, *strides, *where)))
    return launches


def _heads_last(x: Tensor) -> Tensor:
    """Empty ``[B, H, L, D]``, stored as ``[B, L, H, D]``."""
    B, H, L, D = x.shape
    return x.new_empty(B, L, H, D).transpose(1, 2)


def _setup_context(ctx, inputs, output):
    q, k, v, *ctx.geometry = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse)
    ctx.set_materialize_grads(False)


def _autograd(ctx, grad_out, grad_lse):
    q, k, v, out, lse = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    inputs = grad_out, grad_lse, q, k, v, out, lse, *ctx.geometry
    grads = call(torch.ops.ena_kernels.sliding_tile_backward.default, *inputs)
    return *grads, None, None, None, None, None


GEOMETRY = "int[] canvas, int[] window, int[] tile, float scale, str order"
torch.library.define(
    "ena_kernels::sliding_tile", f"(Tensor q, Tensor k, Tensor v, {GEOMETRY}) -> (Tensor, Tensor)"
)
torch.library.define(
    "ena_kernels::sliding_tile_backward",
    "(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{GEOMETRY}) -> (Tensor, Tensor, Tensor)",
)
torch.library.impl("ena_kernels::sliding_tile", ("cpu", "cuda"), on_its_device(_forward_op))
torch.library.impl(
    "ena_kernels::sliding_tile_backward", ("cpu", "cuda"), on_its_device(_backward_op)
)


@torch.library.register_fake("ena_kernels::sliding_tile")
def _forward_fake(q, k, v, canvas, window, tile, scale, order):
    return _heads_last(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.register_fake("ena_kernels::sliding_tile_backward")
def _backward_fake(grad_out, grad_lse, q, k, v, out, lse, canvas, window, tile, scale, order):
    return _heads_last(q), _heads_last(k), _heads_last(v)


_sliding_tile = differentiable("ena_kernels::sliding_tile", _autograd, _setup_context)
refuse_derivative("ena_kernels::sliding_tile_backward", try_="impl='reference'")
