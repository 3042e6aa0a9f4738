"""Tensor maps: how Hopper's tensor memory accelerator (TMA) finds chunks of tokens and states."""

from functools import lru_cache

import torch
from torch import Tensor

from ena_kernels.hopper import DTYPES, can_import, is_hopper, shared_layout

ROWS = 64
"""Tokens, or rows of a state or a chunk matrix, in a box."""


def runs_on_hopper(*tensors: Tensor) -> bool:
    """Whether Gluon's kernels for Hopper can read these ``[B, H, L, D]``, the first one q.

    And write results as wide as them, whose heads are stored side by side.
    """
    q = tensors[0]
    return (
        q.is_cuda
        and q.dtype in DTYPES
        and is_hopper(q.device)
        and all(x.dtype == q.dtype and x.data_ptr() % 16 == 0 for x in tensors)
        and all(_has_map(x.shape, x.stride()) for x in tensors)
        and can_import("ena_kernels.delta_rule.hopper_scan_kernel")
    )


@lru_cache(maxsize=4096)
def _has_map(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether every step is a multiple of 16 bytes, and would be in a packed copy."""
    steps = zip(shape[:3], strides[:3], strict=True)
    is_wide = shape[3] % 8 == 0 and strides[3] == 1
    return is_wide and all(n == 1 or (s > 0 and s % 8 == 0) for n, s in steps)


def token_box(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, width: int):
    """How boxes of a chunk of one head and `width` of X lie in ``[B, H, L, X]``.

    What `hopper.tensor_map` takes beside the tensor.
    """
    # the step along an axis of one does not matter, but it has to be one the TMA takes
    steps = [s if n > 1 else 8 for n, s in zip(shape[:3], strides[:3], strict=True)]
    block = (1, 1, ROWS, width)
    return list(shape), [*steps, 1], list(block), shared_layout(block, dtype)


def row_box(shape: tuple[int, ...], dtype: torch.dtype):
    """How boxes of 64 rows lie in contiguous ``[Z, R, W]``."""
    Z, R, W = shape
    return [Z * R, W], [W, 1], [ROWS, W], shared_layout((ROWS, W), dtype)
