"""Softmax attention by the library flash-attn-4 (`flash_attn.cute`), for Hopper and newer."""

import torch
from torch import Tensor

from ena_kernels.attention.checks import require_cuda
from ena_kernels.attention.flash_attn import run
from ena_kernels.autograd import is_tracked
from ena_kernels.errors import UnsupportedError

MODULE, PACKAGE = "flash_attn.cute", "flash-attn-4"
GRADIENT_HEAD_DIM = 64


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``; the first call for a head dim and dtype compiles.

    Raises:
        UnsupportedError: a device older than Hopper, gradients at a head dim that is not a
            multiple of 64, and as `flash_attn.run`.
    """
    require_hopper(q, impl="flash_attn_4")
    require_right_gradients(q, k, v, impl="flash_attn_4")
    return run(q, k, v, scale=scale, impl="flash_attn_4", module=MODULE, install=PACKAGE)


def require_hopper(q: Tensor, *, impl: str) -> None:
    """Raise UnsupportedError for tensors that are not on a CUDA device of Hopper or newer."""
    require_cuda(q, impl=impl)
    if torch.cuda.get_device_capability(q.device) < (9, 0):
        raise UnsupportedError(
            f"impl {impl!r} has no kernel for {torch.cuda.get_device_name(q.device)}",
            expected="a GPU of compute capability 9.0 or newer",
            try_="impl='flash_attn'",
        )


def require_right_gradients(q: Tensor, k: Tensor, v: Tensor, *, impl: str) -> None:
    """Raise UnsupportedError where gradients are asked for that may be wrong.

    At head dim 40 flash-attn-4 4.0.0b36 gives a dq without likeness to the right one; at 64 and
    128 it agrees with float64.
    """
    if is_tracked(q, k, v) and q.shape[-1] % GRADIENT_HEAD_DIM:
        raise UnsupportedError(
            f"impl {impl!r} has no gradients to rely on for head dim {q.shape[-1]}",
            expected=f"a multiple of {GRADIENT_HEAD_DIM}, or inputs without gradients",
            try_="impl='sdpa_cudnn'",
        )
