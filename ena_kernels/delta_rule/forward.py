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
from ena_kernels.delta_rule.configs import (
    BLOCK_R,
    CHAIN_ROWS,
    CHUNK,
    HOPPER_OUTPUT,
    HOPPER_TRANSFER,
    config,
    padded,
    segment_chunks_of,
)
from ena_kernels.delta_rule.forward_kernels import (
    delta_rule_chain_kernel,
    delta_rule_output_kernel,
    delta_rule_transfer_kernel,
)
from ena_kernels.delta_rule.inverse_kernel import delta_rule_matrices_kernel

__all__ = ["BLOCK_R", "CHUNK", "Forward", "forward", "padded", "precision", "segment_chunks_of"]


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


def cut_of(
    q: Tensor, v: Tensor, segment_chunks: int | None
) -> tuple[tuple[int, ...], dict[str, int]]:
    """How tokens are cut, as kernels take it, and the sizes of a state.

    Returns:
        H, L, chunks, segments, chunks in a segment, tokens of all heads; and D, DP, E, EP.
    """
    B, H, L, D = q.shape
    E = v.shape[-1]
    DP, EP = padded(D, E)
    num_chunks = -(-L // CHUNK)
    segment_chunks = segment_chunks or segment_chunks_of(B * H, num_chunks, D)
    num_segments = -(-num_chunks // segment_chunks)
    cut = (H, L, num_chunks, num_segments, segment_chunks, B * H * L)
    return cut, {"D": D, "DP": DP, "E": E, "EP": EP}


def chain(values: Tensor, transfer: Tensor, *, is_backwards: bool, precision: str) -> None:
    """Turn what segments add into what holds behind them, in place.

    values ``[B * H, segments - 1, EP or more, DP]``; transfer has the maps below EP rows.
    """
    num_heads, num_links, rows, DP = transfer.shape
    if num_links < 2:
        return
    EP = rows - DP
    delta_rule_chain_kernel[(num_heads * (EP // CHAIN_ROWS),)](
        *(values, transfer.view(-1)[EP * DP :], num_links, values.stride(1), transfer.stride(1)),
        EP=EP,
        DP=DP,
        BLOCK_R=CHAIN_ROWS,
        BACKWARDS=is_backwards,
        PRECISION=precision,
        num_warps=8,
    )


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
    cut, sizes = cut_of(q, v, segment_chunks)
    _, _, num_chunks, num_segments, *_ = cut
    DP, EP = sizes["DP"], sizes["EP"]
    run = Forward(
        o=q.new_empty(B, L, H, E).transpose(1, 2),
        final_state=q.new_empty(B, H, D, E, dtype=torch.float32),
        n=q.new_empty(B * H * num_chunks, CHUNK, CHUNK),
        scalars=q.new_empty(3, B * H, L, dtype=torch.float32),
        transfer=q.new_empty(B * H, num_segments - 1, EP + DP, DP, dtype=torch.float32),
    )
    initial = None if initial_state is None else initial_state.contiguous()
    launch = _on_hopper if hopper.supports(q, k, v, DP, EP) else _anywhere
    launch(run, q, k, v, beta, initial, scale, qk_l2norm, cut, sizes)
    return run


def _on_hopper(run, q, k, v, beta, initial, scale, qk_l2norm, cut, sizes):
    DP, EP, num_segments = sizes["DP"], sizes["EP"], cut[3]
    maps = hopper.maps_of(q, k, v, run.n, run.o, DP)
    hopper.chunk_matrices(*(maps, q, beta, run.n, run.scalars, scale, qk_l2norm, sizes["D"], DP))
    state = (run.scalars, initial, run.transfer)
    if num_segments > 1:
        hopper.transfer(maps, *state, cut, sizes, HOPPER_TRANSFER[DP])
        chain(run.transfer, run.transfer, is_backwards=False, precision="tf32")
    hopper.output(maps, *state, run.final_state, cut, sizes, HOPPER_OUTPUT[EP])


def _anywhere(run, q, k, v, beta, initial, scale, qk_l2norm, cut, sizes):
    H, L, num_chunks, num_segments, _, plane = cut
    DP, EP = sizes["DP"], sizes["EP"]
    num_heads = q.shape[0] * H
    p = torch.empty_like(run.n)
    q_, k_, v_, o_ = (x.stride()[:3] for x in (q, k, v, run.o))
    shared = {"C": CHUNK, "PRECISION": precision(q.dtype)}
    delta_rule_matrices_kernel[(num_heads * num_chunks,)](
        *(q, k, beta, run.n, p, run.scalars, scale, H, L, num_chunks, plane),
        *(*q_, *k_, *beta.stride()),
        D=sizes["D"],
        DP=DP,
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        MERGE_PRECISION="tf32x3",
        **shared,
    )
    rows, num_warps, num_stages = config(q.element_size(), DP)
    options = {**sizes, **shared, "BLOCK_R": rows, "num_warps": num_warps, "num_stages": num_stages}
    state = (run.scalars, initial, run.transfer)
    if num_segments > 1:
        blocks = EP // rows + -(-DP // rows)
        delta_rule_transfer_kernel[(num_heads * (num_segments - 1) * blocks,)](
            k, v, run.n, *state, *cut, *k_, *v_, **options
        )
        chain(run.transfer, run.transfer, is_backwards=False, precision="tf32x3")
    delta_rule_output_kernel[(num_heads * num_segments * (EP // rows),)](
        *(q, k, v, run.n, p, *state, run.o, run.final_state),
        *(*cut, *q_, *k_, *v_, *o_),
        **options,
    )
