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
# a scan that writes nothing has room for one more stage
SCAN = {
    (64, 64): HopperConfig(1, 4),
    (64, 128): HopperConfig(2, 3),
    (128, 64): HopperConfig(1, 3),
    (128, 128): HopperConfig(2, 2),
}
TOKEN_STAGES = {(64, 64): 3, (64, 128): 3, (128, 64): 2, (128, 128): 2}
"""(DP, EP) to the launch."""


def supports(q: Tensor, k: Tensor, v: Tensor, grad_o: Tensor, DP: int, EP: int) -> bool:
    """Whether `OnHopper` can run these checked arguments here."""
    return (DP, EP) in SCAN and runs_on_hopper(q, k, v, grad_o)


class OnHopper:
    """Launches of the kernels of a `backward.Work`."""

    def __init__(self, work) -> None:
        self.work = work
        self.width, self.rows = DP, EP = work.sizes["DP"], work.sizes["EP"]
        self.sizes = (*work.cut, work.sizes["D"], DP, work.sizes["E"], EP)
        self.q, self.k = token_map(work.q, DP), token_map(work.k, DP)
        self.grad_o, self.z = token_map(work.grad_o, CHUNK), token_map(work.result.v, CHUNK)
        self.y, self.n = token_map(work.y, CHUNK), row_map(work.n)
        self.states, self.grads = row_map(work.states), row_map(work.grads)

    def rebuild(self) -> None:
        work = self.work
        self._launch(
            *("rebuild", REBUILD[self.width, self.rows], work.cut[3]),
            *(self.k, token_map(work.v, CHUNK), self.n, self.states, self.y),
            *(work.scalars, work.initial, work.transfer),
        )

    def scan(self, *, is_local: bool) -> None:
        work = self.work
        self._launch(
            *("scan", SCAN[self.width, self.rows], work.cut[3] - is_local),
            *(self.q, self.k, self.grad_o, self.n, self.grads, self.z),
            *(work.scalars, work.last, work.links, work.result.initial_state),
            LOCAL=is_local,
            more_stages=int(is_local),
        )

    def tokens(self) -> None:
        work = self.work
        dq, dk, _, dbeta, _ = work.result
        H, L, num_chunks, *_, plane = work.cut
        num_items = work.states.shape[0]
        _kernel("token")[(min(num_items, _num_sms(dq.device)),)](
            *(self.q, self.k, self.grad_o, self.y, self.z, self.states, self.grads),
            *(token_map(dq, self.width), token_map(dk, self.width)),
            *(work.scalars, dbeta, work.inverse_scale, H, L, num_chunks, num_items, plane),
            DP=self.width,
            EP=self.rows,
            STAGES=TOKEN_STAGES[self.width, self.rows],
            L2NORM=work.qk_l2norm,
            num_warps=4,
        )

    def _launch(self, name, config, num_segments, *operands, more_stages=0, **options) -> None:
        warpgroups, stages, registers = config
        num_heads = self.work.q.shape[0] * self.work.cut[0]
        _kernel(name)[(num_heads * num_segments * (self.rows // (64 * warpgroups)),)](
            *(*operands, *self.sizes),
            WARPGROUPS=warpgroups,
            STAGES=stages + more_stages,
            **options,
            num_warps=4,
            maxnreg=registers,
        )


@cache
def _kernel(name: str):
    module = import_module(f"ena_kernels.delta_rule.hopper_{name}_kernel")
    return getattr(module, f"delta_rule_{name}_hopper_kernel")


@cache
def _num_sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
