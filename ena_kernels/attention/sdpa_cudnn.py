"""Softmax attention by PyTorch's cuDNN kernel."""

from torch import Tensor
from torch.nn.attention import SDPBackend

from ena_kernels.attention import sdpa


def forward(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """``[B, H, L, D]``; raises UnsupportedError where PyTorch has no such kernel for this."""
    return sdpa.run(q, k, v, scale=scale, kernel=SDPBackend.CUDNN_ATTENTION, impl="sdpa_cudnn")
