"""The delta rule's forward in Triton: chunk matrices, segments, their chain, outputs.

Kernels: on Hopper in half precision those of `hopper`, else `inverse_kernel` and `forward_kernels`.
Any strides in B, H and L, unit stride in D. The output is stored as ``[B, L, H, E]``. Nothing waits
for the device.
"""

# Legend: B batch, H heads, L tokens, D key dim, E value dim, C chunk, Z = B * H * chunks.

from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.delta_rule import hopper
from ena_kernels.delta_rule.common import L2_EPS
from ena_kernels.delta_rule.configs import CHUNK, config
from ena_kernels.delta_rule.forward_kernels import (
    delta_rule_output_kernel,
    delta_rule_transfer_kernel,
)
from ena_kernels.delta_rule.inverse_kernel import delta_rule_matrices_kernel
from ena_kernels.delta_rule.segments import Chain, cut_of
from ena_kernels.operands import heads_last


class Forward(NamedTuple):
    """What the forward computes and what the backward takes from it.

    o: ``[B, H, L, E]``, stored as ``[B, L, H, E]``. final_state: ``[B, H, D, E]`` float32.
    n: ``[Z, C, C]`` (`inverse_kernel`), dtype of q. scalars: ``[3, B * H, L]`` float32, beta, the
    inverse norm of k and scale times that of q. transfer: ``[B * H, segments - 1, EP + DP, DP]``
    float32, of segment i the state behind it (rows 0 to EP, transposed) and its map (rows behind,
    zeros for the first segment); empty without segments.
    """

    o: Tensor
    final_state: Tensor
    n: Tensor
    scalars: Tensor
    transfer: Tensor


def precision(dtype: torch.dtype) -> str:
    """How products of tensors of `dtype` are computed."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


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
    cut = cut_of(q, v, segment_chunks)
    B, H, L, D, E, rows = cut.B, cut.H, cut.L, cut.D, cut.E, cut.EP + cut.DP
    run = Forward(
        o=q.new_empty_strided((B, H, L, E), heads_last((B, H, L, E))),
        final_state=q.new_empty((B, H, D, E), dtype=torch.float32),
        n=q.new_empty((cut.num_items, CHUNK, CHUNK)),
        scalars=q.new_empty((3, B * H, L), dtype=torch.float32),
        transfer=q.new_empty((B * H, cut.num_segments - 1, rows, cut.DP), dtype=torch.float32),
    )
    initial = None if initial_state is None else initial_state.contiguous()
    if hopper.supports(q, k, v, cut.DP, cut.EP):
        launch = hopper.planned(q, k, v, beta, initial, cut, qk_l2norm=qk_l2norm)
        launch(run, q, k, v, beta, initial, scale)
    else:
        _anywhere(run, q, k, v, beta, initial, scale, qk_l2norm, cut)
    return run


def _anywhere(run, q, k, v, beta, initial, scale, qk_l2norm, cut):
    p = torch.empty_like(run.n)
    q_, k_, v_, o_ = (x.stride()[:3] for x in (q, k, v, run.o))
    shared = {"C": CHUNK, "PRECISION": precision(q.dtype)}
    delta_rule_matrices_kernel[(cut.num_items,)](
        *(q, k, beta, run.n, p, run.scalars, scale, cut.H, cut.L, cut.num_chunks, cut.plane),
        *(*q_, *k_, *beta.stride()),
        D=cut.D,
        DP=cut.DP,
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        MERGE_PRECISION="tf32x3",
        **shared,
    )
    rows, num_warps, num_stages = config(q.element_size(), cut.DP)
    options = {**cut.constants, **shared, "BLOCK_R": rows}
    options |= {"num_warps": num_warps, "num_stages": num_stages}
    state = (run.scalars, initial, run.transfer)
    if cut.num_segments > 1:
        blocks = cut.EP // rows + -(-cut.DP // rows)
        delta_rule_transfer_kernel[(cut.num_heads * (cut.num_segments - 1) * blocks,)](
            k, v, run.n, *state, *cut.sizes, *k_, *v_, **options
        )
        Chain(cut, is_backwards=False, precision="tf32x3")(run.transfer, run.transfer)
    delta_rule_output_kernel[(cut.num_heads * cut.num_segments * (cut.EP // rows),)](
        *(q, k, v, run.n, p, *state, run.o, run.final_state),
        *(*cut.sizes, *q_, *k_, *v_, *o_),
        **options,
    )
