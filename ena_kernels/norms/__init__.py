"""Norms over the last axis: of whole tokens, and of each head of a token."""

import torch.nn.functional as F
from torch import Tensor

from ena_kernels.errors import ShapeError, check_impl

IMPLS = ("eager", "triton")


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, eps: float, impl: str = "eager"
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the channels of each token.

    Args:
        x: ``[..., C]``, any floating dtype.
        weight, bias: ``[C]``.
        eps: Added to the variance, which is that of the channels, divided by C.
        impl: ``"eager"``, or ``"triton"``: one kernel each way.
    Returns:
        ``[..., C]`` in ``x.dtype``.
    Raises:
        ShapeError: a weight or bias of another length than the rows.
        UnsupportedError: an unknown `impl`, or one that cannot run on this device or dtype.
    """
    _check(x, impl, "layer_norm", weight=weight, bias=bias)
    if impl == "triton":
        return _kernels().forward(x, weight, bias, eps)
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def head_norm(x: Tensor, weight: Tensor, *, eps: float, impl: str = "eager") -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the channels of each head, heads side by side.

    Args:
        x: ``[..., H, D]``, any floating dtype.
        weight: ``[D]``, shared by the heads.
        eps: Added to the mean square.
        impl: ``"eager"``, or ``"triton"``: one kernel each way for many short heads at once.
    Returns:
        ``[..., H * D]`` in ``x.dtype``.
    Raises:
        ShapeError: a weight of another length than the heads.
        UnsupportedError: an unknown `impl`, or one that cannot run on this device or dtype.
    """
    _check(x, impl, "head_norm", weight=weight)
    if impl == "triton":
        return _kernels().forward(x, weight, None, eps).flatten(-2)
    return F.rms_norm(x, weight.shape, weight, eps).flatten(-2)


def _kernels():
    from ena_kernels.norms import triton

    return triton


def _check(x: Tensor, impl: str, operator: str, **parameters: Tensor) -> None:
    check_impl(impl, IMPLS, operator)
    for name, parameter in parameters.items():
        if parameter.shape != x.shape[-1:]:
            raise ShapeError(
                f"the {name} has shape {tuple(parameter.shape)} beside rows of {x.shape[-1]}",
                expected="one number for each channel of a row",
                try_=f"a {name} of shape ({x.shape[-1]},)",
            )
