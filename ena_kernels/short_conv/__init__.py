"""The short depthwise causal convolution in front of a recurrence, with its SiLU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ena_kernels.errors import ShapeError, check_impl

WIDTH = 4
IMPLS = ("eager", "triton")


def short_conv(
    qkv: Tensor, weight: Tensor, past: Tensor | None = None, *, impl: str = "eager"
) -> tuple[Tensor, ...]:
    """``silu(y)`` with ``y_t = sum_j weight_j x_{t-3+j}``, channel by channel, cut into q, k, v.

    Args:
        qkv: ``[B, L, 3 C]``, any floating dtype: queries, keys and values side by side.
        weight: ``[3 C, 1, 4]``; the last tap meets the token itself.
        past: ``[B, 3, 3 C]``, the inputs before `qkv`. Default: zeros.
        impl: ``"eager"``, or ``"triton"``: one kernel each way that reads tokens as they lie.
    Returns:
        q, k and v, each ``[B, L, C]`` in ``qkv.dtype``, tokens one after another.
    Raises:
        ShapeError: channels that are no multiple of 3.
        UnsupportedError: an unknown `impl`, or one that cannot run on this device or dtype.
    """
    check_impl(impl, IMPLS, "short_conv")
    if qkv.shape[-1] % 3:
        raise ShapeError(
            f"{qkv.shape[-1]} channels cannot be cut into queries, keys and values",
            expected="channels that are a multiple of 3",
            try_="torch.cat([q, k, v], dim=-1)",
        )
    if past is not None:
        past = past.to(qkv.dtype)
    if impl == "triton":
        from ena_kernels.short_conv import triton

        return triton.forward(qkv, weight, past)
    if past is None:
        pad = F.pad(qkv.mT, (WIDTH - 1, 0)) if qkv.is_cuda else F.pad(qkv, (0, 0, WIDTH - 1, 0)).mT
    else:
        pad = torch.cat([past, qkv], dim=1).mT
    y = F.silu(by_convolution(pad, weight) if qkv.is_cuda else by_taps(pad, weight)).mT
    return tuple(part.to(qkv.dtype).contiguous() for part in y.chunk(3, dim=-1))


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
