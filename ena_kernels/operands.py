"""What every Triton operator asks of its operands, and of the machine they are on."""

import threading
from collections.abc import Callable, Sequence
from functools import wraps

import torch
from torch import Tensor

from ena_kernels.attention.checks import require_dtype
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_THREAD = threading.local()


def require_kernels(x: Tensor, dtypes: Sequence[torch.dtype] = DTYPES) -> None:
    """Raise UnsupportedError where Triton kernels cannot run on `x`.

    For the body of an operator, which nothing traces: the compiler cannot read Triton's settings.
    """
    if x.device.type != "cuda" and not _is_interpreted():
        raise UnsupportedError(
            f"impl 'triton' has no kernel for {x.device.type} tensors",
            expected="tensors on a CUDA device, or Triton's interpreter (TRITON_INTERPRET=1)",
            try_="impl='eager'",
        )
    require_dtype(x, dtypes, impl="triton")


def dense(x: Tensor) -> Tensor:
    """`x` itself where its last axis lies side by side, as it does but in expanded gradients."""
    return x if x.stride(-1) == 1 else x.contiguous()


def heads_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of ``[B, H, L, X]`` stored as ``[B, L, H, X]``."""
    _, H, L, X = shape
    return L * H * X, X, H * X, 1


def on_its_device(op: Callable) -> Callable:
    """The body of an operator while its first tensor's device is current: Triton launches there."""

    @wraps(op)
    def on_device(x, *others):
        if not x.is_cuda or x.device.index == torch.cuda.current_device():
            return op(x, *others)
        with torch.cuda.device(x.device):
            return op(x, *others)

    return on_device


def bind_context(x: Tensor) -> None:
    """Give this thread a CUDA context, without which a launch cannot encode a tensor map.

    A thread of autograd has none before the first kernel or allocation of its own.
    """
    if not hasattr(_THREAD, "is_bound"):
        x.new_zeros(1)
        _THREAD.is_bound = True


def refuse_derivative(operator: str, *, try_: str) -> None:
    """Let the derivative of an operator that computes gradients raise: PyTorch's would be zero."""

    def refuse(ctx, *grads):
        raise UnsupportedError(
            "impl 'triton' has no second derivative",
            expected="gradients that are not differentiated again",
            try_=try_,
        )

    torch.library.register_autograd(operator, refuse)


def _is_interpreted() -> bool:
    import triton

    return triton.knobs.runtime.interpret
