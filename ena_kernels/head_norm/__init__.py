"""Each head divided by its root mean square and weighed, heads then side by side (SPEC 3.1)."""

import torch.nn.functional as F
from torch import Tensor

from ena_kernels.errors import ShapeError

IMPLS = ("eager", "triton")


def head_norm(x: Tensor, weight: Tensor, *, eps: float, impl: str = "eager") -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the channels of each head.

    Args:
        x: ``[..., H, D]``, any floating dtype.
        weight: ``[D]``, shared by the heads.
        eps: Added to the mean square.
        impl: ``"eager"``, or ``"triton"``: one kernel each way for many short heads at once.
    Returns:
        ``[..., H * D]`` in ``x.dtype``, contiguous.
    Raises:
        ShapeError: an unknown `impl`, or a weight of another length than the heads.
        UnsupportedError: `impl` cannot run on this device or dtype.
    """
    if impl not in IMPLS:
        raise ShapeError(
            f"head_norm impl {impl!r} is unknown",
            expected=f"one of {', '.join(IMPLS)}",
            try_='impl="eager"',
        )
    if weight.shape != x.shape[-1:]:
        raise ShapeError(
            f"the weight has shape {tuple(weight.shape)} beside heads of {x.shape[-1]} channels",
            expected="one weight for each channel of a head",
            try_=f"weight of shape ({x.shape[-1]},)",
        )
    if impl == "triton":
        from ena_kernels.head_norm import triton

        return triton.forward(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps).flatten(-2)
