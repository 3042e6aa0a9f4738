"""What kernels for Hopper share on the host: whether they can run, and tensor maps for its TMA.

Python's time at a launch is seen where sequences are short, so what repeats is kept, and maps are
made without the checks of their constructor: who asks for one has made them.
"""

from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ena_kernels.operands import bind_context

DTYPES = (torch.float16, torch.bfloat16)


def tensor_map(x: Tensor, shape: list[int], strides: list[int], block: list[int], layout):
    """How the tensor memory accelerator (TMA) finds boxes of `block` in x, seen as `shape`."""
    bind_context(x)
    made = object.__new__(_descriptor())
    made.base, made.shape, made.strides = x, shape, strides
    made.block_shape, made.layout = block, layout
    return made


@cache
def shared_layout(block: tuple[int, ...], dtype: torch.dtype):
    """The layout in shared memory of boxes of half or single precision."""
    from triton.experimental.gluon import language as gl

    elements = {torch.float16: gl.float16, torch.bfloat16: gl.bfloat16, torch.float32: gl.float32}
    return gl.NVMMASharedLayout.get_default_for(list(block), elements[dtype])


@cache
def is_hopper(device: torch.device) -> bool:
    """Whether a CUDA device has the instructions of these kernels."""
    return torch.cuda.get_device_capability(device) == (9, 0)


@cache
def num_multiprocessors(device: torch.device) -> int:
    """Of a CUDA device."""
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def can_import(module: str) -> bool:
    """Whether this Triton has what a module of Gluon kernels needs."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


@cache
def _descriptor():
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor
