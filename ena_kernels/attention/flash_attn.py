"""Softmax attention by the library flash-attn 2."""

import torch
from torch import Tensor

from ena_kernels.attention.checks import library, require_cuda, require_dtype
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``, a transposed view of what the library returns as ``[B, L, H, D]``.

    Raises:
        UnsupportedError: as `run`.
    """
    return run(q, k, v, scale=scale, impl="flash_attn", module="flash_attn", install="flash-attn")


def run(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, impl: str, module: str, install: str
) -> Tensor:
    """`flash_attn_func` of a module of either flash-attn, ``[B, H, L, D]`` in and out.

    Raises:
        UnsupportedError: tensors that are not float16 or bfloat16 on CUDA, a head dim that is not
            a multiple of 8 up to 256, or the library is not installed.
    """
    require_cuda(q, impl=impl)
    require_dtype(q, DTYPES, impl=impl)
    if q.shape[-1] % 8 or q.shape[-1] > MAX_HEAD_DIM:
        raise UnsupportedError(
            f"impl {impl!r} has no kernel for head dim {q.shape[-1]}",
            expected=f"a multiple of 8, at most {MAX_HEAD_DIM}",
            try_="impl='eager'",
        )
    function = library(module, impl=impl, install=install).flash_attn_func
    out = function(*(x.transpose(1, 2) for x in (q, k, v)), softmax_scale=scale)
    # some releases of flash-attn-4 return (out, lse)
    out = out[0] if isinstance(out, tuple) else out
    return out.transpose(1, 2)
