"""Tensor maps: how Hopper's tensor memory accelerator (TMA) finds chunks of tokens and states.

Python's time at a launch is seen where sequences are short, so what repeats is kept, and maps are
made without the checks of their constructor.
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

from ena_kernels.operands import bind_context

DTYPES = (torch.float16, torch.bfloat16)
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
        and _is_hopper(q.device)
        and all(x.data_ptr() % 16 == 0 and _has_map(x.shape, x.stride()) for x in tensors)
        and _has_gluon()
    )


def token_map(x: Tensor, width: int):
    """Of ``[B, H, L, X]`` in boxes of a chunk of one head and `width` of X."""
    return _mapped(x, *_of_tokens(x.shape, x.stride(), x.dtype, width))


def row_map(x: Tensor):
    """Of contiguous ``[Z, R, W]`` in boxes of 64 rows."""
    return _mapped(x, *_of_rows(x.shape, x.dtype))


@lru_cache(maxsize=4096)
def _has_map(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether every step is a multiple of 16 bytes, and would be in a packed copy."""
    steps = zip(shape[:3], strides[:3], strict=True)
    is_wide = shape[3] % 8 == 0 and strides[3] == 1
    return is_wide and all(n == 1 or (s > 0 and s % 8 == 0) for n, s in steps)


@lru_cache(maxsize=4096)
def _of_tokens(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, width: int):
    # the step along an axis of one does not matter, but it has to be one the TMA takes
    steps = [s if n > 1 else 8 for n, s in zip(shape[:3], strides[:3], strict=True)]
    block = (1, 1, ROWS, width)
    return list(shape), [*steps, 1], list(block), _layout(block, dtype)


@lru_cache(maxsize=4096)
def _of_rows(shape: tuple[int, ...], dtype: torch.dtype):
    Z, R, W = shape
    return [Z * R, W], [W, 1], [ROWS, W], _layout((ROWS, W), dtype)


def _mapped(x: Tensor, shape: list[int], strides: list[int], block: list[int], layout):
    bind_context(x)
    made = object.__new__(_descriptor())
    made.base, made.shape, made.strides = x, shape, strides
    made.block_shape, made.layout = block, layout
    return made


@cache
def _descriptor():
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor


@cache
def _layout(block: tuple[int, ...], dtype: torch.dtype):
    from triton.experimental.gluon import language as gl

    elements = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16}
    return gl.NVMMASharedLayout.get_default_for(list(block), elements[dtype])


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) == (9, 0)


@cache
def _has_gluon() -> bool:
    try:
        import ena_kernels.delta_rule.hopper_scan_kernel  # noqa: F401
    except ImportError:
        return False
    return True
