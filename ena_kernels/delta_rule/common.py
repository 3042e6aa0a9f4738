"""The two pieces of arithmetic that every implementation of the delta rule shares."""

import torch
from torch import Tensor

L2_EPS = 1e-6
"""Added to the sum of squares, inside the root, as flash-linear-attention does."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the state and of every product: float64 for float64 inputs, else float32."""
    return torch.promote_types(dtype, torch.float32)


def inverse_norm(x: Tensor) -> Tensor:
    """``1 / sqrt(|x|^2 + L2_EPS)`` over the last axis, which stays as an axis of length 1."""
    return torch.rsqrt(x.square().sum(-1, keepdim=True) + L2_EPS)
