"""The delta rule's backward on Hopper: what it takes, and its launches."""

from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ena_kernels.delta_rule.configs import CHUNK, HopperConfig
from ena_kernels.delta_rule.tensor_maps import row_map, runs_on_hopper, token_map

REBUILD = {
    (64, 64): HopperConfig(1, 3),
    (64, 128): HopperConfig(2, 3),
    (128, 64): HopperConfig(1, 2),
    (128, 128): HopperConfig(2, 2),
}
SCAN = {
    (64, 64): HopperConfig(1, 2),
    (64, 128): HopperConfig(2, 2),
    (128, 64): HopperConfig(1, 2),
    (128, 128): HopperConfig(2, 2),
}
TOKEN_STAGES = {(64, 64): 3, (64, 128): 3, (128, 64): 2, (128, 128): 2}
"""(DP, EP) to the launch."""


def supports(q: Tensor, k: Tensor, v: Tensor, grad_o: Tensor, DP: int, EP: int) -> bool:
    """Whether `rebuild`, `scan` and `tokens` can run these checked arguments here."""
    return (
        (DP, EP) in SCAN
        # the gradients have maps too, and are as wide as q and v
        and q.shape[-1] % 8 == 0
        and v.shape[-1] % 8 == 0
        and runs_on_hopper(q, k, v, grad_o)
    )


def rebuild(k, v, n, scalars, initial, transfer, states, y, cut, sizes):
    """Launch in the place of `delta_rule_rebuild_kernel`; `cut` and `sizes` as there."""
    B, H, L, _ = k.shape
    DP, EP = sizes["DP"], sizes["EP"]
    warpgroups, stages, registers = REBUILD[DP, EP]
    maps = (token_map(k, DP), token_map(v, CHUNK), row_map(n), row_map(states))
    _kernel("rebuild")[(B * H * cut[3] * (EP // (64 * warpgroups)),)](
        *(*maps, token_map(y.view(B, H, L, -1), CHUNK)),
        *(scalars, initial, transfer, *cut, sizes["D"], DP, sizes["E"], EP),
        WARPGROUPS=warpgroups,
        STAGES=stages,
        num_warps=4,
        maxnreg=registers,
    )


def scan(q, k, n, scalars, grad_o, last, links, grads, z, dinitial, cut, sizes, *, is_local):
    """Launch in the place of `delta_rule_scan_kernel`; `cut` and `sizes` as there."""
    B, H = q.shape[:2]
    DP, EP = sizes["DP"], sizes["EP"]
    warpgroups, stages, registers = SCAN[DP, EP]
    scanned = cut[3] - 1 if is_local else cut[3]
    maps = (token_map(q, DP), token_map(k, DP), token_map(grad_o, CHUNK), row_map(n))
    _kernel("scan")[(B * H * scanned * (EP // (64 * warpgroups)),)](
        *(*maps, row_map(grads), token_map(z, CHUNK)),
        *(scalars, last, links, dinitial, *cut, sizes["D"], DP, sizes["E"], EP),
        WARPGROUPS=warpgroups,
        STAGES=stages,
        LOCAL=is_local,
        num_warps=4,
        maxnreg=registers,
    )


def tokens(q, k, scalars, grad_o, states, grads, y, dq, dk, dv, dbeta, inverse_scale, *, l2norm):
    """Launch in the place of `delta_rule_token_kernel`."""
    B, H, L, _ = q.shape
    num_items, EP, DP = states.shape
    maps = (token_map(q, DP), token_map(k, DP), token_map(grad_o, CHUNK))
    maps += (token_map(y.view(B, H, L, -1), CHUNK), token_map(dv, CHUNK))
    maps += (row_map(states), row_map(grads), token_map(dq, DP), token_map(dk, DP))
    _kernel("token")[(min(num_items, _num_sms(q.device)),)](
        *(*maps, scalars, dbeta, inverse_scale),
        *(H, L, num_items // (B * H), num_items, B * H * L),
        DP=DP,
        EP=EP,
        STAGES=TOKEN_STAGES[DP, EP],
        L2NORM=l2norm,
        num_warps=4,
    )


@cache
def _kernel(name: str):
    module = import_module(f"ena_kernels.delta_rule.hopper_{name}_kernel")
    return getattr(module, f"delta_rule_{name}_hopper_kernel")


@cache
def _num_sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
