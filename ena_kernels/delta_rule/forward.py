"""The delta rule's forward in Triton: chunk matrices, segments, their chain, outputs.

Kernels: `inverse_kernel` and `forward_kernels`. Any strides in B, H and L, unit stride in D. The
output is stored as ``[B, L, H, E]``. Nothing waits for the device.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim, C chunk, Z = B * H * chunks.

from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS
from ena_kernels.delta_rule.forward_kernels import chain_kernel, output_kernel, transfer_kernel
from ena_kernels.delta_rule.inverse_kernel import chunk_matrices_kernel

CHUNK = 64
BLOCK_R = 64
CHAIN_ROWS = 16
MOST_HEADS_IN_SEGMENTS = 64
"""With more heads (of all sequences) than this, heads alone fill the device."""


class Forward(NamedTuple):
    """What the forward computes and what the backward takes from it.

    o: ``[B, H, L, E]``, stored as ``[B, L, H, E]``. final_state: ``[B, H, D, E]`` float32.
    n: ``[Z, C, C]`` (`inverse_kernel`), dtype of q. scalars: ``[3, B * H, L]`` float32, beta, the
    inverse norm of k and scale times that of q. transfer: ``[B * H, segments - 1, EP + DP, DP]``
    float32, of segment i the state behind it (rows 0 to EP, transposed) and its map (rows behind,
    undefined for the first segment); empty without segments.
    """

    o: Tensor
    final_state: Tensor
    n: Tensor
    scalars: Tensor
    transfer: Tensor


def padded(D: int, E: int) -> tuple[int, int]:
    """``(DP, EP)``: the sizes that kernels give to states of ``[E, D]``."""
    return 1 << (D - 1).bit_length(), -(-E // BLOCK_R) * BLOCK_R


def precision(dtype: torch.dtype) -> str:
    """How products of tensors of `dtype` are computed."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def segment_chunks_of(num_heads: int, num_chunks: int) -> int:
    """Chunks in a segment, for ``B * H`` heads."""
    if num_heads > MOST_HEADS_IN_SEGMENTS or num_chunks < 16:
        return num_chunks
    return -(-num_chunks // 8)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    *,
    scale: float,
    qk_l2norm: bool,
    segment_chunks: int | None = None,
) -> Forward:
    """Launch the kernels on checked tensors; ``segment_chunks`` changes only cost and rounding."""
    B, H, L, D = q.shape
    E = v.shape[-1]
    DP, EP = padded(D, E)
    num_chunks = -(-L // CHUNK)
    segment_chunks = segment_chunks or segment_chunks_of(B * H, num_chunks)
    num_segments = -(-num_chunks // segment_chunks)
    plane = B * H * L
    n, p = (q.new_empty(B * H * num_chunks, CHUNK, CHUNK) for _ in range(2))
    scalars = q.new_empty(3, B * H, L, dtype=torch.float32)
    transfer = q.new_empty(B * H, num_segments - 1, EP + DP, DP, dtype=torch.float32)
    o = q.new_empty(B, L, H, E).transpose(1, 2)
    final = q.new_empty(B, H, D, E, dtype=torch.float32)
    initial = None if initial_state is None else initial_state.contiguous()
    sizes = {"D": D, "DP": DP, "C": CHUNK, "PRECISION": precision(q.dtype)}
    q_, k_, v_, o_ = (x.stride()[:3] for x in (q, k, v, o))
    cut = (H, L, num_chunks, num_segments, segment_chunks, plane)
    chunk_matrices_kernel[(B * H * num_chunks,)](
        *(q, k, beta, n, p, scalars, scale, H, L, num_chunks, plane),
        *(*q_, *k_, *beta.stride()),
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        MERGE_PRECISION="tf32x3",
        **sizes,
    )
    sizes |= {"E": E, "EP": EP, "BLOCK_R": BLOCK_R, "num_stages": 2}
    if num_segments > 1:
        blocks = EP // BLOCK_R + -(-DP // BLOCK_R)
        transfer_kernel[(B * H * (num_segments - 1) * blocks,)](
            k, v, n, scalars, initial, transfer, *cut, *k_, *v_, **sizes
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
        *(q, k, v, n, p, scalars, initial, transfer, o, final),
        *(*cut, *q_, *k_, *v_, *o_),
        **sizes,
    )
    return Forward(o, final, n, scalars, transfer)
