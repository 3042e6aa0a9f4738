"""The recurrence of the delta rule on Hopper: what it takes, its tensor maps, its launches."""

from typing import NamedTuple

from torch import Tensor

from ena_kernels.delta_rule.common import L2_EPS
from ena_kernels.delta_rule.configs import CHUNK
from ena_kernels.delta_rule.tensor_maps import row_map, runs_on_hopper, token_map

SIZES = (64, 128)
MATRICES_REGISTERS = 168
"""Per thread of `delta_rule_hopper_matrices_kernel`: three of its programs on a multiprocessor."""


def supports(q: Tensor, k: Tensor, v: Tensor, DP: int, EP: int) -> bool:
    """Whether the launches below can run these checked arguments here."""
    return DP in SIZES and EP in SIZES and runs_on_hopper(q, k, v)


class Maps(NamedTuple):
    """Tensor maps, which tell the TMA where boxes are; None for what a launch does not need."""

    q: object
    k: object
    v: object
    n: object
    o: object


def maps_of(q: Tensor, k: Tensor, v: Tensor, n: Tensor, o: Tensor, DP: int) -> Maps:
    """Of the tensors of the forward."""
    tokens = (token_map(x, width) for x, width in ((q, DP), (k, DP), (v, CHUNK)))
    return Maps(*tokens, row_map(n), token_map(o, CHUNK))


def chunk_matrices(maps, q, beta, n, scalars, scale, qk_l2norm, D, DP) -> None:
    """Launch in the place of `delta_rule_matrices_kernel`, without P."""
    from ena_kernels.delta_rule.hopper_inverse_kernel import delta_rule_hopper_matrices_kernel

    H, L = q.shape[1:3]
    total = n.shape[0]
    delta_rule_hopper_matrices_kernel[(-(-total // 4),)](
        *(q, maps.k, beta, n, scalars, scale, H, L, -(-L // CHUNK), total, beta.numel()),
        *(*q.stride()[:3], *beta.stride()),
        D=D,
        DP=DP,
        L2NORM=qk_l2norm,
        EPS=L2_EPS,
        num_warps=4,
        maxnreg=MATRICES_REGISTERS,
    )


def transfer(maps, scalars, initial, transfer, cut, sizes, config) -> None:
    """Launch in the place of `delta_rule_transfer_kernel`."""
    rows = sizes["EP"] + sizes["DP"]
    maps = maps._replace(q=None, o=None)
    pointers = (scalars, initial, transfer, None)
    _launch(cut[3] - 1, rows, maps, pointers, cut, sizes, config, has_output=False)


def output(maps, scalars, initial, transfer, final, cut, sizes, config) -> None:
    """Launch in the place of `delta_rule_output_kernel`."""
    pointers = (scalars, initial, transfer, final)
    _launch(cut[3], sizes["EP"], maps, pointers, cut, sizes, config, has_output=True)


def _launch(num_segments, rows, maps, pointers, cut, sizes, config, *, has_output) -> None:
    from ena_kernels.delta_rule.hopper_kernel import delta_rule_recurrence_kernel

    # the last of a cut is B * H * L
    num_heads = cut[5] // cut[1]
    blocks = -(-rows // (64 * config.warpgroups))
    delta_rule_recurrence_kernel[(num_heads * num_segments * blocks,)](
        *maps,
        *pointers,
        *cut,
        **sizes,
        WARPGROUPS=config.warpgroups,
        STAGES=config.stages,
        HAS_OUTPUT=has_output,
        num_warps=4,
        maxnreg=config.registers,
    )
