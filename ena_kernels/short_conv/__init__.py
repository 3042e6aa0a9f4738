"""The short depthwise causal convolution in front of a recurrence, with its SiLU (SPEC 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ena_kernels.errors import ShapeError

WIDTH = 4
IMPLS = ("eager", "triton")


def short_conv(
    x: Tensor, weight: Tensor, past: Tensor | None = None, *, impl: str = "eager"
) -> Tensor:
    """``silu(y)`` with ``y_t = sum_j weight_j x_{t-3+j}``, channel by channel.

    Args:
        x: ``[B, L, C]``, any floating dtype.
        weight: ``[C, 1, 4]``; the last tap meets the token itself.
        past: ``[B, 3, C]``, the inputs before `x`. Default: zeros.
        impl: ``"eager"``, or ``"triton"``: one kernel each way that reads tokens as they lie.
    Returns:
        ``[B, L, C]`` in ``x.dtype``; eager on CUDA gives a transposed view of ``[B, C, L]``,
        Triton tokens one after another.
    Raises:
        ShapeError: an unknown `impl`.
        UnsupportedError: `impl` cannot run on this device or dtype.
    """
    if impl not in IMPLS:
        raise ShapeError(
            f"short_conv impl {impl!r} is unknown",
            expected=f"one of {', '.join(IMPLS)}",
            try_='impl="eager"',
        )
    if impl == "triton":
        from ena_kernels.short_conv import triton

        return triton.forward(x, weight, past)
    if past is None:
        padded = F.pad(x.mT, (WIDTH - 1, 0)) if x.is_cuda else F.pad(x, (0, 0, WIDTH - 1, 0)).mT
    else:
        padded = torch.cat([past, x], dim=1).mT
    return F.silu(by_convolution(padded, weight) if x.is_cuda else by_taps(padded, weight)).mT


def by_convolution(padded: Tensor, weight: Tensor) -> Tensor:
    """``[B, C, L + 3]`` to ``[B, C, L]``, as a library convolution."""
    return F.conv1d(padded.contiguous(), weight, groups=weight.shape[0])


def by_taps(padded: Tensor, weight: Tensor) -> Tensor:
    """The same as one multiply-add per tap over the whole sequence."""
    # the library's backward on a CPU takes ten times as long
    L = padded.shape[-1] - WIDTH + 1
    y = padded[..., :L] * weight[..., 0]
    for tap in range(1, WIDTH):
        y = torch.addcmul(y, padded[..., tap : tap + L], weight[..., tap])
    return y
