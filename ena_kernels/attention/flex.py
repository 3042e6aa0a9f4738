"""Softmax attention by FlexAttention, compiled by Inductor (Triton on CUDA, C++ on a CPU)."""

import os
import shutil
from contextlib import ExitStack
from functools import cache

import torch
from torch import Tensor

from ena_kernels.attention.checks import require_dtype
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MIN_HEAD_DIM = 16
MAX_COMPILED_VARIANTS = 4096


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``; the first call for a shape compiles. On a CPU without gradients only."""
    return run(q, k, v, scale=scale, block_mask=None)


def run(q: Tensor, k: Tensor, v: Tensor, *, scale: float, block_mask) -> Tensor:
    """Compiled FlexAttention under a mask of blocks, or none.

    Raises:
        UnsupportedError: float64, a head dim below 16 on CUDA, or gradients or no compiler on a
            CPU.
    """
    require_dtype(q, DTYPES, impl="flex")
    if q.device.type == "cpu":
        _check_cpu(q, k, v)
        q, k, v = q.detach(), k.detach(), v.detach()
    elif q.shape[-1] < MIN_HEAD_DIM:
        raise UnsupportedError(
            f"impl 'flex' has no kernel for head dim {q.shape[-1]}",
            expected=f"a head dim of at least {MIN_HEAD_DIM}",
            try_="impl='eager'",
        )
    grouped = q.shape[1] != k.shape[1]
    with _compile_settings():
        return _compiled()(q, k, v, block_mask=block_mask, scale=scale, enable_gqa=grouped)


@cache
def _compiled():
    """FlexAttention compiled as one graph: a failure to compile raises, nothing runs eagerly."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _compile_settings() -> ExitStack:
    """Settings of this process's compiler while FlexAttention may compile.

    Every shape is one compiled variant, so the usual limit of eight is soon hit. Donated buffers
    would forbid a second backward through the same graph.
    """
    import torch._dynamo
    import torch._functorch.config

    stack = ExitStack()
    stack.enter_context(
        torch._dynamo.config.patch(
            recompile_limit=MAX_COMPILED_VARIANTS,
            accumulated_recompile_limit=MAX_COMPILED_VARIANTS,
            fail_on_recompile_limit_hit=True,
        )
    )
    stack.enter_context(torch._functorch.config.patch(donated_buffer=False))
    return stack


def _check_cpu(q: Tensor, k: Tensor, v: Tensor) -> None:
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise UnsupportedError(
            "impl 'flex' has no backward on a CPU, and an input asks for a gradient",
            expected="inputs without gradients, or tensors on a CUDA device",
            try_="impl='eager'",
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UnsupportedError(
            f"impl 'flex' needs the C++ compiler {compiler!r} on a CPU, which is not on the PATH",
            expected="a C++ compiler, named by the environment variable CXX or called g++",
            try_="impl='eager'",
        )
