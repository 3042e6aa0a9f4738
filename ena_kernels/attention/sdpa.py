"""torch.nn.functional.scaled_dot_product_attention, forced to exactly one of its kernels.

PyTorch picks a kernel by itself and may pick a slow one without a word; here a kernel that cannot
run these arguments is an error.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ena_kernels.attention.checks import require_cuda
from ena_kernels.errors import UnsupportedError

_CUDA_CHECKS = {
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.can_use_flash_attention,
    SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.can_use_cudnn_attention,
}


def run(q: Tensor, k: Tensor, v: Tensor, *, scale: float, kernel: SDPBackend, impl: str) -> Tensor:
    """``[B, H, L, D]`` by this kernel of PyTorch and no other.

    Raises:
        UnsupportedError: PyTorch says that the kernel cannot run these arguments here.
    """
    grouped = q.shape[1] != k.shape[1]
    if kernel is SDPBackend.CUDNN_ATTENTION:
        require_cuda(q, impl=impl)
    with sdpa_kernel(kernel):
        if q.device.type == "cuda" and kernel in _CUDA_CHECKS:
            _check_cuda(q, k, v, grouped, _CUDA_CHECKS[kernel], impl)
        return scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=grouped)


def _check_cuda(
    q: Tensor, k: Tensor, v: Tensor, grouped: bool, can_run: Callable, impl: str
) -> None:
    """Ask PyTorch first: its own failure would leave the reason in warnings."""
    params = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, grouped)
    if can_run(params, False):
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        can_run(params, True)
    reasons = " ".join(str(warning.message).partition(" (Triggered")[0] for warning in caught)
    reason = reasons or f"PyTorch {torch.__version__} does not say why"
    raise UnsupportedError(
        f"impl {impl!r} cannot run q {list(q.shape)} in {q.dtype}: {reason}",
        expected="shapes and dtypes that this kernel of PyTorch takes",
        try_="q, k and v in torch.bfloat16 with a head dim of 64, or impl='eager'",
    )
