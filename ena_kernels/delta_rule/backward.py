"""The delta rule's backward in Triton: launches of `backward_kernels`.

Any strides in B, H and L, unit stride in D. The gradients of q, k and v are stored as
``[B, L, H, D]``, that of beta as ``[B, L, H]``. No atomics: it repeats bit for bit. Nothing waits
for the device.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim, C chunk, Z = B * H * chunks.

from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.delta_rule.backward_kernels import rebuild_kernel, scan_kernel, token_kernel
from ena_kernels.delta_rule.forward import (
    BLOCK_R,
    CHAIN_ROWS,
    CHUNK,
    padded,
    precision,
    segment_chunks_of,
)
from ena_kernels.delta_rule.forward_kernels import chain_kernel

WHOLE_VALUE_DIMS = (64, 128)
"""Padded value dims that the token kernel takes at once, others in blocks of BLOCK_R."""


class Gradients(NamedTuple):
    """Of q, k, v and beta in their dtypes and shapes, and of the initial state in float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    initial_state: Tensor


def backward(
    grad_o: Tensor,
    grad_final: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    n: Tensor,
    scalars: Tensor,
    transfer: Tensor,
    *,
    scale: float,
    qk_l2norm: bool,
    segment_chunks: int | None = None,
) -> Gradients:
    """Gradients from what `forward.forward` was given and gave, cut into the same segments."""
    B, H, L, D = q.shape
    E = v.shape[-1]
    DP, EP = padded(D, E)
    num_chunks = -(-L // CHUNK)
    segment_chunks = segment_chunks or segment_chunks_of(B * H, num_chunks)
    num_segments = -(-num_chunks // segment_chunks)
    dq, dk, dv = (x.new_empty(B, L, H, x.shape[-1]).transpose(1, 2) for x in (q, k, v))
    dbeta = beta.new_empty(B, L, H).transpose(1, 2)
    dinitial = q.new_empty(B, H, D, E, dtype=torch.float32)
    states, grads = (q.new_empty(B * H * num_chunks, EP, DP) for _ in range(2))
    y = q.new_empty(B * H, L, E)
    links = q.new_empty(B * H, num_segments - 1, EP, DP, dtype=torch.float32)
    initial, last = (None if x is None else x.contiguous() for x in (initial_state, grad_final))
    q_, k_, v_, do_, dq_, dv_ = (x.stride()[:3] for x in (q, k, v, grad_o, dq, dv))
    cut = (H, L, num_chunks, num_segments, segment_chunks, B * H * L)
    sizes = {
        "D": D,
        "DP": DP,
        "E": E,
        "EP": EP,
        "C": CHUNK,
        "PRECISION": precision(q.dtype),
    }
    row_blocks = EP // BLOCK_R
    rebuild_kernel[(B * H * num_segments * row_blocks,)](
        *(k, v, n, scalars, initial, transfer, states, y, *cut, *k_, *v_),
        BLOCK_R=BLOCK_R,
        num_stages=2,
        **sizes,
    )
    for is_local in (True, False) if num_segments > 1 else (False,):
        scanned = num_segments - 1 if is_local else num_segments
        scan_kernel[(B * H * scanned * row_blocks,)](
            *(q, k, n, scalars, grad_o, last, links, grads, dv, dinitial),
            *(*cut, *q_, *k_, *do_, *dv_),
            BLOCK_R=BLOCK_R,
            LOCAL=is_local,
            num_stages=2,
            **sizes,
        )
        if is_local and num_segments > 2:
            chain_kernel[(B * H * (EP // CHAIN_ROWS),)](
                *(links, transfer.view(-1)[EP * DP :], num_segments - 1),
                *(EP * DP, (EP + DP) * DP),
                EP=EP,
                DP=DP,
                BLOCK_R=CHAIN_ROWS,
                BACKWARDS=True,
                PRECISION="tf32x3",
                num_warps=8,
            )
    token_kernel[(B * H * num_chunks,)](
        *(q, k, scalars, grad_o, states, grads, y, dq, dk, dv, dbeta),
        *(0.0 if scale == 0 else 1 / scale, H, L, num_chunks, B * H * L),
        *(*q_, *k_, *do_, *dq_, *dv_),
        BLOCK_E=EP if EP in WHOLE_VALUE_DIMS else BLOCK_R,
        L2NORM=qk_l2norm,
        num_warps=8 if max(DP, EP) > 64 else 4,
        **sizes,
    )
    return Gradients(dq, dk, dv, dbeta, dinitial)
