"""The delta rule's backward in Triton: states once more, the scan of segments, all tokens.

Kernels: on Hopper in half precision those of `hopper_backward`, else `backward_kernels`. Any
strides in B, H and L, unit stride in D. The gradients of q, k and v are stored as ``[B, L, H, D]``,
that of beta as ``[B, L, H]``. No atomics: it repeats bit for bit. Nothing waits for the device.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim, C chunk, Z = B * H * chunks.

from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.delta_rule import hopper_backward
from ena_kernels.delta_rule.backward_kernels import (
    delta_rule_rebuild_kernel,
    delta_rule_scan_kernel,
    delta_rule_token_kernel,
)
from ena_kernels.delta_rule.configs import (
    BLOCK_R,
    CHAIN_ROWS,
    CHUNK,
    Config,
    padded,
    segment_chunks_of,
)
from ena_kernels.delta_rule.forward import precision
from ena_kernels.delta_rule.forward_kernels import chain_kernel

REBUILD = {64: Config(64, 4, 2), 128: Config(64, 4, 2), 256: Config(64, 4, 2)}
SCAN = {64: Config(64, 4, 2), 128: Config(64, 4, 2), 256: Config(64, 4, 2)}
TOKEN = {64: Config(64, 4, 1), 128: Config(64, 4, 1), 256: Config(64, 8, 1)}
"""Configurations by the wider of the padded head dims, in half precision."""

SINGLE_REBUILD = SINGLE_SCAN = {64: Config(64, 4, 1), 128: Config(64, 4, 1)}
SINGLE_TOKEN = {64: Config(32, 8, 1), 128: Config(32, 8, 1)}
"""And in float32."""


class Gradients(NamedTuple):
    """Of q, k, v and beta in their dtypes and shapes, and of the initial state in float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    initial_state: Tensor

    @classmethod
    def empty_for(cls, q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> "Gradients":
        """Not yet written."""
        B, H, L, D = q.shape
        return cls(
            *(x.new_empty(B, L, H, x.shape[-1]).transpose(1, 2) for x in (q, k, v)),
            beta.new_empty(B, L, H).transpose(1, 2),
            q.new_empty(B, H, D, v.shape[-1], dtype=torch.float32),
        )


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
    segment_chunks = segment_chunks or segment_chunks_of(B * H, num_chunks, D)
    num_segments = -(-num_chunks // segment_chunks)
    result = Gradients.empty_for(q, k, v, beta)
    dq, dk, dv, dbeta, dinitial = result
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
    rebuild, scan, token = _configs(q, DP, EP)
    on_hopper = hopper_backward.supports(q, k, v, grad_o, DP, EP)
    inverse_scale = 0.0 if scale == 0 else 1 / scale
    operands = (k, v, n, scalars, initial, transfer, states, y)
    if on_hopper:
        hopper_backward.rebuild(*operands, cut, sizes)
    else:
        delta_rule_rebuild_kernel[(B * H * num_segments * (EP // rebuild.rows),)](
            *(*operands, *cut, *k_, *v_),
            BLOCK_R=rebuild.rows,
            num_warps=rebuild.num_warps,
            num_stages=rebuild.num_stages,
            **sizes,
        )
    for is_local in (True, False) if num_segments > 1 else (False,):
        operands = (q, k, n, scalars, grad_o, last, links, grads, dv, dinitial)
        if on_hopper:
            hopper_backward.scan(*operands, cut, sizes, is_local=is_local)
        else:
            scanned = num_segments - 1 if is_local else num_segments
            delta_rule_scan_kernel[(B * H * scanned * (EP // scan.rows),)](
                *(*operands, *cut, *q_, *k_, *do_, *dv_),
                BLOCK_R=scan.rows,
                LOCAL=is_local,
                num_warps=scan.num_warps,
                num_stages=scan.num_stages,
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
                PRECISION="tf32x3" if q.dtype == torch.float32 else "tf32",
                num_warps=8,
            )
    operands = (q, k, scalars, grad_o, states, grads, y, dq, dk, dv, dbeta, inverse_scale)
    if on_hopper:
        hopper_backward.tokens(*operands, l2norm=qk_l2norm)
        return result
    delta_rule_token_kernel[(B * H * num_chunks,)](
        *(*operands, H, L, num_chunks, B * H * L),
        *(*q_, *k_, *do_, *dq_, *dv_),
        BLOCK_E=token.rows if EP % token.rows == 0 else BLOCK_R,
        L2NORM=qk_l2norm,
        num_warps=token.num_warps,
        num_stages=token.num_stages,
        **sizes,
    )
    return result


def _configs(q: Tensor, DP: int, EP: int) -> tuple[Config, Config, Config]:
    """Configurations of rebuild, scan and token."""
    width = 64 if max(DP, EP) <= 64 else 128 if max(DP, EP) <= 128 else 256
    is_single = q.dtype == torch.float32
    tables = (SINGLE_REBUILD, SINGLE_SCAN, SINGLE_TOKEN) if is_single else (REBUILD, SCAN, TOKEN)
    rebuild, scan, token = (table[width] for table in tables)
    return rebuild, scan, token
