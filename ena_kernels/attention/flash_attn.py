"""Softmax attention by the libraries flash-attn-4 (`flash_attn.cute`) and flash-attn 2."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache

import torch
from torch import Tensor

from ena_kernels.attention.checks import library, require_cuda, require_dtype
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16)
MAX_HEAD_DIM = 256
INSTALL = "flash-attn-4 on Hopper and newer, pip install flash-attn elsewhere"


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``, a transposed view of what the library returns as ``[B, L, H, D]``.

    Raises:
        UnsupportedError: tensors that are not float16 or bfloat16 on CUDA, a head dim that is not
            a multiple of 8 up to 256, or neither library installed.
    """
    require_cuda(q, impl="flash_attn")
    require_dtype(q, DTYPES, impl="flash_attn")
    if q.shape[-1] % 8 or q.shape[-1] > MAX_HEAD_DIM:
        raise UnsupportedError(
            f"impl 'flash_attn' has no kernel for head dim {q.shape[-1]}",
            expected=f"a multiple of 8, at most {MAX_HEAD_DIM}",
            try_="impl='eager'",
        )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    function = _function(torch.cuda.get_device_capability(q.device))
    out = function(q, k, v, softmax_scale=scale)
    # some releases of flash-attn-4 return (out, lse)
    out = out[0] if isinstance(out, tuple) else out
    return out.transpose(1, 2)


@cache
def _function(capability: tuple[int, int]) -> Callable:
    """The newest of the two libraries that is made for this device and can be imported."""
    if capability >= (9, 0):
        with suppress(UnsupportedError):
            return library("flash_attn.cute", impl="flash_attn", install=INSTALL).flash_attn_func
    return library("flash_attn", impl="flash_attn", install=INSTALL).flash_attn_func
