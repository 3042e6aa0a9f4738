"""Softmax attention by FlexAttention on the kernels of flash-attn-4, for Hopper and newer.

Where PyTorch cannot use those kernels it raises: it never falls back to its Triton ones.
"""

from torch import Tensor

from ena_kernels.attention import flex
from ena_kernels.attention.checks import library, require_dtype
from ena_kernels.attention.flash_attn import DTYPES
from ena_kernels.attention.flash_attn_4 import (
    MODULE,
    PACKAGE,
    require_hopper,
    require_right_gradients,
)
from ena_kernels.errors import UnsupportedError

MOST_HEAD_DIM = 128


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``; the first call for a shape compiles. Raises as `run`."""
    return run(q, k, v, scale=scale, block_mask=None)


def run(q: Tensor, k: Tensor, v: Tensor, *, scale: float, block_mask) -> Tensor:
    """Compiled FlexAttention with the backend FLASH, under a mask of blocks of 128, or none.

    Raises:
        UnsupportedError: a device older than Hopper, a dtype other than float16 and bfloat16, a
            head dim that is not a multiple of 8 from 16 to 128 (for gradients: of 64), or
            flash-attn-4 is not installed.
    """
    require_hopper(q, impl="flex_flash")
    require_right_gradients(q, k, v, impl="flex_flash")
    require_dtype(q, DTYPES, impl="flex_flash")
    if q.shape[-1] % 8 or not flex.MIN_HEAD_DIM <= q.shape[-1] <= MOST_HEAD_DIM:
        raise UnsupportedError(
            f"impl 'flex_flash' has no kernel for head dim {q.shape[-1]}",
            expected=f"a multiple of 8 from {flex.MIN_HEAD_DIM} to {MOST_HEAD_DIM}",
            try_="impl='eager'",
        )
    library(MODULE, impl="flex_flash", install=PACKAGE)
    return flex.run(q, k, v, scale=scale, block_mask=block_mask, backend="FLASH")
