"""The recurrence of the delta rule on Hopper: what it takes, and its launches, planned once."""

from functools import lru_cache

import torch
from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS
from ena_kernels.delta_rule.configs import CHUNK, HOPPER_OUTPUT, HOPPER_TRANSFER
from ena_kernels.delta_rule.segments import Chain, Cut
from ena_kernels.delta_rule.tensor_maps import row_box, runs_on_hopper, token_box
from ena_kernels.hopper import tensor_map
from ena_kernels.launches import Launch, alignment
from ena_kernels.operands import heads_last

SIZES = (64, 128)
MATRICES_REGISTERS = 168
"""Per thread of `delta_rule_hopper_matrices_kernel`: three of its programs on a multiprocessor."""


def supports(q: Tensor, k: Tensor, v: Tensor, DP: int, EP: int) -> bool:
    """Whether `Forward` can run these checked arguments here."""
    return DP in SIZES and EP in SIZES and runs_on_hopper(q, k, v)


class Forward:
    """The launches for tensors of one shape, dtype and layout on one device."""

    __slots__ = ("_boxes", "_chain", "_matrices", "_numbers", "_output", "_sizes", "_transfer")

    def __init__(self, cut: Cut, dtype: torch.dtype, strides: tuple, *, qk_l2norm: bool):
        """Of q, k, v and beta."""
        from ena_kernels.delta_rule.hopper_inverse_kernel import delta_rule_hopper_matrices_kernel

        B, H, L, D, DP, E, EP = cut.B, cut.H, cut.L, cut.D, cut.DP, cut.E, cut.EP
        q_strides, k_strides, v_strides, beta_strides = strides
        o_shape = (B, H, L, E)
        self._boxes = (
            token_box((B, H, L, D), q_strides, dtype, DP),
            token_box((B, H, L, D), k_strides, dtype, DP),
            token_box(o_shape, v_strides, dtype, CHUNK),
            row_box((cut.num_items, CHUNK, CHUNK), dtype),
            token_box(o_shape, heads_last(o_shape), dtype, CHUNK),
        )
        self._numbers = (H, L, cut.num_chunks, cut.num_items, cut.plane)
        self._numbers += (*q_strides[:3], *beta_strides)
        self._sizes = cut.sizes
        self._matrices = Launch(
            *(delta_rule_hopper_matrices_kernel, -(-cut.num_items // 4)),
            {"D": D, "DP": DP, "L2NORM": qk_l2norm, "EPS": L2_EPS},
            num_warps=4,
            maxnreg=MATRICES_REGISTERS,
        )
        self._transfer = self._chain = None
        if cut.num_segments > 1:
            self._transfer = _recurrence(cut, HOPPER_TRANSFER[DP], has_output=False)
            # tf32 is as coarse as float16, and the chain is long
            precision = "tf32x3" if dtype == torch.float16 else "tf32"
            self._chain = Chain(cut, is_backwards=False, precision=precision)
        self._output = _recurrence(cut, HOPPER_OUTPUT[EP], has_output=True)

    def __call__(self, run, q, k, v, beta, initial, scale: float) -> None:
        """Fill a `forward.Forward`."""
        q_map, k_map, v_map, n_map, o_map = [
            tensor_map(x, *box) for x, box in zip((q, k, v, run.n, run.o), self._boxes, strict=True)
        ]
        n, scalars, transfer = run.n, run.scalars, run.transfer
        self._matrices(q, k_map, beta, n, scalars, scale, *self._numbers)
        if self._transfer is not None:
            maps = (None, k_map, v_map, n_map, None)
            self._transfer(*maps, scalars, initial, transfer, None, *self._sizes)
            self._chain(transfer, transfer)
        maps = (q_map, k_map, v_map, n_map, o_map)
        self._output(*maps, scalars, initial, transfer, run.final_state, *self._sizes)


def planned(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    initial: Tensor | None,
    cut: Cut,
    *,
    qk_l2norm: bool,
) -> Forward:
    """The launches for arguments that are supported."""
    strides = q.stride(), k.stride(), v.stride(), beta.stride()
    kind = q.device, q.dtype, beta.dtype, alignment(beta, initial)
    return _planned(cut, kind, strides, qk_l2norm)


@lru_cache(maxsize=1024)
def _planned(cut: Cut, kind: tuple, strides: tuple, qk_l2norm: bool) -> Forward:
    return Forward(cut, kind[1], strides, qk_l2norm=qk_l2norm)


def _recurrence(cut: Cut, config, *, has_output: bool) -> Launch:
    from ena_kernels.delta_rule.hopper_kernel import delta_rule_recurrence_kernel

    num_segments = cut.num_segments if has_output else cut.num_segments - 1
    rows = cut.EP if has_output else cut.EP + cut.DP
    constants = cut.constants | {"WARPGROUPS": config.warpgroups, "STAGES": config.stages}
    return Launch(
        delta_rule_recurrence_kernel,
        cut.num_heads * num_segments * -(-rows // (64 * config.warpgroups)),
        constants | {"HAS_OUTPUT": has_output},
        num_warps=4,
        maxnreg=config.registers,
    )
