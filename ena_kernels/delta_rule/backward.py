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
from ena_kernels.delta_rule.configs import CHUNK, Config, y_parts
from ena_kernels.delta_rule.forward import precision
from ena_kernels.delta_rule.segments import Chain, Cut, cut_of
from ena_kernels.operands import heads_last

# rows of E a program takes at once, warps and stages, by DP
REBUILD = SCAN = {256: Config(64, 4, 2)}
SINGLE_REBUILD = SINGLE_SCAN = {128: Config(64, 4, 1)}
TOKEN = {128: Config(64, 4, 1), 256: Config(64, 8, 1)}
SINGLE_TOKEN = {128: Config(32, 8, 1)}


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
            *(x.new_empty_strided(x.shape, heads_last(x.shape)) for x in (q, k, v)),
            beta.new_empty_strided((B, H, L), (L * H, 1, H)),
            q.new_empty((B, H, D, v.shape[-1]), dtype=torch.float32),
        )


class Work(NamedTuple):
    """What the kernels of one backward read and write.

    initial, last: the initial state and the gradient of the final one, or None. n, scalars,
    transfer: of `forward.Forward`. states, grads: ``[Z, EP, DP]``, y: ``[B, H, L, parts * EP]``,
    links: ``[B * H, segments - 1, EP, DP]``, see `backward_kernels`; dv is -Z before it is dv.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grad_o: Tensor
    initial: Tensor | None
    last: Tensor | None
    n: Tensor
    scalars: Tensor
    transfer: Tensor
    states: Tensor
    grads: Tensor
    y: Tensor
    links: Tensor
    result: Gradients
    cut: Cut
    inverse_scale: float
    qk_l2norm: bool


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
    cut = cut_of(q, v, segment_chunks)
    states, links = (cut.num_items, cut.EP, cut.DP), (cut.num_heads, cut.num_segments - 1)
    work = Work(
        *(q, k, v, grad_o),
        *(None if x is None else x.contiguous() for x in (initial_state, grad_final)),
        *(n, scalars, transfer),
        states=q.new_empty(states),
        grads=q.new_empty(states),
        y=q.new_empty((cut.B, cut.H, cut.L, y_parts(q.element_size(), cut.DP) * cut.EP)),
        links=q.new_empty((*links, cut.EP, cut.DP), dtype=torch.float32),
        result=Gradients.empty_for(q, k, v, beta),
        cut=cut,
        inverse_scale=0.0 if scale == 0 else 1 / scale,
        qk_l2norm=qk_l2norm,
    )
    if hopper_backward.supports(q, k, v, grad_o, cut.DP, cut.EP):
        hopper_backward.planned(work)(work)
    else:
        _Anywhere(work).run()
    return work.result


class _Anywhere:
    """Launches of `backward_kernels`."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.sizes = {**work.cut.constants, "C": CHUNK, "PRECISION": precision(work.q.dtype)}
        self.y_parts = work.y.shape[-1] // work.cut.EP
        self.strides = [x.stride()[:3] for x in (work.q, work.k, work.v, work.grad_o)]

    def run(self) -> None:
        work = self.work
        self.rebuild()
        if work.cut.num_segments > 1:
            self.scan(is_local=True)
            fine = "tf32x3" if work.q.dtype == torch.float32 else "tf32"
            Chain(work.cut, is_backwards=True, precision=fine)(work.links, work.transfer)
        self.scan(is_local=False)
        self.tokens()

    def rebuild(self) -> None:
        work, (_, k_strides, v_strides, _) = self.work, self.strides
        rows, options = self._config(REBUILD, SINGLE_REBUILD)
        delta_rule_rebuild_kernel[(self._blocks(work.cut.num_segments, rows),)](
            *(work.k, work.v, work.n, work.scalars, work.initial, work.transfer),
            *(work.states, work.y, *work.cut.sizes, *k_strides, *v_strides),
            Y_PARTS=self.y_parts,
            BLOCK_R=rows,
            **options,
        )

    def scan(self, *, is_local: bool) -> None:
        work, (q_strides, k_strides, _, grad_o_strides) = self.work, self.strides
        rows, options = self._config(SCAN, SINGLE_SCAN)
        dv = work.result.v
        num_scanned = work.cut.num_segments - is_local
        delta_rule_scan_kernel[(self._blocks(num_scanned, rows),)](
            *(work.q, work.k, work.n, work.scalars, work.grad_o, work.last, work.links, work.grads),
            *(dv, work.result.initial_state, *work.cut.sizes),
            *(*q_strides, *k_strides, *grad_o_strides, *dv.stride()[:3]),
            BLOCK_R=rows,
            LOCAL=is_local,
            **options,
        )

    def tokens(self) -> None:
        work, (q_strides, k_strides, _, grad_o_strides) = self.work, self.strides
        rows, options = self._config(TOKEN, SINGLE_TOKEN)
        dq, dk, dv, dbeta, _ = work.result
        cut = work.cut
        delta_rule_token_kernel[(cut.num_items,)](
            *(work.q, work.k, work.scalars, work.grad_o, work.states, work.grads, work.y),
            *(dq, dk, dv, dbeta, work.inverse_scale),
            *(cut.H, cut.L, cut.num_chunks, cut.plane),
            *(*q_strides, *k_strides, *grad_o_strides, *dq.stride()[:3], *dv.stride()[:3]),
            Y_PARTS=self.y_parts,
            BLOCK_E=rows,
            L2NORM=work.qk_l2norm,
            **options,
        )

    def _config(self, half: dict[int, Config], single: dict[int, Config]) -> tuple[int, dict]:
        """Rows of E a program takes at once, and all options that kernels share."""
        table = single if self.work.q.dtype == torch.float32 else half
        rows, num_warps, num_stages = table[min(dp for dp in table if dp >= self.sizes["DP"])]
        return rows, {**self.sizes, "num_warps": num_warps, "num_stages": num_stages}

    def _blocks(self, num_segments: int, rows: int) -> int:
        return self.work.cut.num_heads * num_segments * (self.work.cut.EP // rows)
