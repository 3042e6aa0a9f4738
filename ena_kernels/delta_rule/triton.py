"""The delta rule in Triton, forward only: chunk matrices, segments, their chain, outputs.

Kernels: `inverse_kernel` and `forward_kernels`. Head dims 16 to 256, float16, bfloat16 and float32,
any strides in B, H and L. The output is stored as ``[B, L, H, E]``. There is no backward yet:
arguments that ask for a gradient are refused.
"""

import torch
import triton
from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS
from ena_kernels.delta_rule.forward_kernels import chain_kernel, output_kernel, transfer_kernel
from ena_kernels.delta_rule.inverse_kernel import chunk_matrices_kernel
from ena_kernels.errors import UnsupportedError

CHUNK = 64
BLOCK_R = 64
CHAIN_ROWS = 16
MOST_HEADS_IN_SEGMENTS = 64
"""With more heads (of all sequences) than this, heads alone fill the device."""


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
    B, H, L, D = q.shape
    E = v.shape[-1]
    DP, EP = triton.next_power_of_2(D), triton.cdiv(E, BLOCK_R) * BLOCK_R
    num_chunks = triton.cdiv(L, CHUNK)
    segment_chunks = segment_chunks or _segment_chunks(B * H, num_chunks)
    num_segments = triton.cdiv(num_chunks, segment_chunks)
    plane = B * H * L
    n = q.new_empty(2, B * H * num_chunks, CHUNK, CHUNK)
    scalars = q.new_empty(3, B * H, L, dtype=torch.float32)
    transfer = q.new_empty(B * H, num_segments - 1, EP + DP, DP, dtype=torch.float32)
    o = q.new_empty(B, L, H, E).transpose(1, 2)
    final = q.new_empty(B, H, D, E, dtype=torch.float32)
    initial = None if initial_state is None else initial_state.contiguous()
    sizes = {"D": D, "DP": DP, "C": CHUNK, "PRECISION": _precision(q)}
    q_, k_, v_, o_ = (x.stride()[:3] for x in (q, k, v, o))
    cut = (H, L, num_chunks, num_segments, segment_chunks, plane)
    chunk_matrices_kernel[(B * H * num_chunks,)](
        *(q, k, beta, n[0], n[1], scalars, scale, H, L, num_chunks, plane),
        *(*q_, *k_, *beta.stride()),
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        MERGE_PRECISION="tf32x3",
        **sizes,
    )
    sizes |= {"E": E, "EP": EP, "BLOCK_R": BLOCK_R, "num_stages": 2}
    if num_segments > 1:
        blocks = EP // BLOCK_R + triton.cdiv(DP, BLOCK_R)
        transfer_kernel[(B * H * (num_segments - 1) * blocks,)](
            k, v, n[0], scalars, initial, transfer, *cut, *k_, *v_, **sizes
        )
    if num_segments > 2:
        link = (EP + DP) * DP
        chain_kernel[(B * H * (EP // CHAIN_ROWS),)](
            *(transfer, transfer.view(-1)[EP * DP :], num_segments - 1, link, link),
            EP=EP,
            DP=DP,
            BLOCK_R=CHAIN_ROWS,
            BACKWARDS=False,
            PRECISION="tf32x3",
            num_warps=8,
        )
    output_kernel[(B * H * num_segments * (EP // BLOCK_R),)](
        *(q, k, v, n[0], n[1], scalars, initial, transfer, o, final),
        *(*cut, *q_, *k_, *v_, *o_),
        **sizes,
    )
    return o, final if output_final_state else None


def _precision(q: Tensor) -> str:
    return "tf32x3" if q.dtype == torch.float32 else "ieee"


def _segment_chunks(num_heads: int, num_chunks: int) -> int:
    if num_heads > MOST_HEADS_IN_SEGMENTS or num_chunks < 16:
        return num_chunks
    return triton.cdiv(num_chunks, 8)


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
