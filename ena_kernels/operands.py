"""What every Triton operator asks of its operands, and of the machine they are on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ena_kernels.attention.checks import require_dtype
from ena_kernels.errors import UnsupportedError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


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


def _is_interpreted() -> bool:
    import triton

    return triton.knobs.runtime.interpret
