"""The delta rule in Triton, forward only: checks, then the launches of `forward`.

Head dims 16 to 256, float16, bfloat16 and float32, any strides in B, H and L. There is no backward
yet: arguments that ask for a gradient are refused.
"""

import torch
import triton
from torch import Tensor

from ena_kernels.delta_rule.forward import forward as launch
from ena_kernels.errors import UnsupportedError


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float,
    initial_state: Tensor | None,
    output_final_state: bool,
    qk_l2norm: bool,
    segment_chunks: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Output ``[B, H, L, E]`` and the last state; ``segment_chunks`` changes only the cost.

    Raises:
        UnsupportedError: a gradient is asked for, float64, or a head dim outside 16 to 256.
    """
    _check(q, k, v, beta, initial_state)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    run = launch(
        q,
        k,
        v,
        beta,
        initial_state,
        scale=scale,
        qk_l2norm=qk_l2norm,
        segment_chunks=segment_chunks,
    )
    return run.o, run.final_state if output_final_state else None


def _check(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, initial_state: Tensor | None) -> None:
    tensors = (q, k, v, beta, *(() if initial_state is None else (initial_state,)))
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        raise UnsupportedError(
            "a gradient is asked for, and the Triton delta rule has none",
            expected="a call without gradients for impl triton",
            try_='torch.no_grad(), or impl="eager"',
        )
    if q.dtype == torch.float64:
        raise UnsupportedError(
            "q is float64, which the Triton kernels do not compute in",
            expected="float16, bfloat16 or float32 for impl triton",
            try_='q.float() and the same for k, v and beta, or impl="eager"',
        )
    if not (16 <= q.shape[-1] <= 256 and 16 <= v.shape[-1] <= 256):
        raise UnsupportedError(
            f"head dims {q.shape[-1]} and {v.shape[-1]} are outside what the kernels are made for",
            expected="head dims of q and v from 16 to 256 for impl triton",
            try_='impl="eager"',
        )
    if q.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise UnsupportedError(
            f"q is on {q.device.type}, where Triton kernels do not run",
            expected="tensors on a CUDA device for impl triton",
            try_='impl="eager", or q.cuda() and the same for the other tensors',
        )
