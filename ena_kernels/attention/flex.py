"""Softmax attention by FlexAttention, compiled by Inductor (Triton on CUDA, C++ on a CPU)."""

import os
import shutil
from contextlib import ExitStack
from functools import cache

import torch
from torch import Tensor

from ena_kernels.attention.checks import require_dtype
from ena_kernels.autograd import is_tracked
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MIN_HEAD_DIM = 16
MAX_COMPILED_VARIANTS = 4096


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``; the first call for a shape compiles. On a CPU without gradients only."""
    return run(q, k, v, scale=scale, block_mask=None)


def run(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, block_mask, backend: str = "TRITON"
) -> Tensor:
    """Compiled FlexAttention under a mask of blocks, or none.

    Args:
        backend: "TRITON", or "FLASH" for the kernels of flash-attn-4; ignored on a CPU.

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
    return _compiled()(
        q, k, v, block_mask=block_mask, scale=scale, enable_gqa=grouped, backend=backend
    )


class _Compiled:
    """FlexAttention compiled as one graph: a failure to compile raises, nothing runs eagerly."""

    def __init__(self) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self._function = torch.compile(flex_attention, dynamic=False, fullgraph=True)
        self._seen = set()

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, block_mask, scale, enable_gqa, backend="TRITON"
    ):
        options = {"block_mask": block_mask, "scale": scale, "enable_gqa": enable_gqa}
        if q.is_cuda:
            options["kernel_options"] = {"BACKEND": backend}
        mask_mod = None if block_mask is None else block_mask.mask_mod
        signature = (torch.is_grad_enabled(), scale, mask_mod, backend, *map(_layout, (q, k, v)))
        if signature in self._seen:
            return self._function(q, k, v, **options)
        # entering the settings takes longer than a small kernel, so only where it may compile
        with _compile_settings():
            out = self._function(q, k, v, **options)
        self._seen.add(signature)
        return out


@cache
def _compiled() -> _Compiled:
    return _Compiled()


def _layout(x: Tensor) -> tuple:
    """What the compiler specialises on, for one tensor."""
    return x.shape, x.stride(), x.dtype, x.device, x.requires_grad


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
    if is_tracked(q, k, v):
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
