"""The delta rule's backward on Hopper: what it takes, and its launches, planned once."""

from functools import lru_cache, partial

from torch import Tensor

from ena_kernels.delta_rule.configs import CHUNK, HopperConfig, y_parts
from ena_kernels.delta_rule.segments import Chain, Cut
from ena_kernels.delta_rule.tensor_maps import row_box, runs_on_hopper, token_box
from ena_kernels.hopper import num_multiprocessors, tensor_map
from ena_kernels.launches import Launch, alignment
from ena_kernels.operands import heads_last

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
    """Whether `Backward` can run these checked arguments here."""
    has_both_parts = y_parts(q.element_size(), DP) == 2
    return has_both_parts and (DP, EP) in SCAN and runs_on_hopper(q, k, v, grad_o)


class Backward:
    """The launches for tensors of one shape, dtype and layout on one device."""

    __slots__ = ("_boxes", "_chain", "_local", "_numbers", "_rebuild", "_scan", "_sizes", "_tokens")

    def __init__(self, cut: Cut, kind: tuple, strides: tuple, *, qk_l2norm: bool):
        """Of q, k, v and the gradient of the output; kind starts with a device and a dtype."""
        from ena_kernels.delta_rule.hopper_rebuild_kernel import delta_rule_rebuild_hopper_kernel
        from ena_kernels.delta_rule.hopper_scan_kernel import delta_rule_scan_hopper_kernel
        from ena_kernels.delta_rule.hopper_token_kernel import delta_rule_token_hopper_kernel

        device, dtype, *_ = kind
        DP, EP = width = cut.DP, cut.EP
        tokens = cut.B, cut.H, cut.L
        keys, values, both_parts = (*tokens, cut.D), (*tokens, cut.E), (*tokens, 2 * EP)
        q_strides, k_strides, v_strides, grad_o_strides = strides
        states = row_box((cut.num_items, EP, DP), dtype)
        self._boxes = (
            token_box(keys, q_strides, dtype, DP),
            token_box(keys, k_strides, dtype, DP),
            token_box(values, v_strides, dtype, CHUNK),
            token_box(values, grad_o_strides, dtype, CHUNK),
            row_box((cut.num_items, CHUNK, CHUNK), dtype),
            *(states, states),
            token_box(both_parts, _packed(both_parts), dtype, CHUNK),
            token_box(keys, heads_last(keys), dtype, DP),
            token_box(keys, heads_last(keys), dtype, DP),
            token_box(values, heads_last(values), dtype, CHUNK),
        )
        self._sizes = cut.sizes
        self._rebuild = _over_segments(delta_rule_rebuild_hopper_kernel, cut, REBUILD[width])
        scan = partial(_over_segments, delta_rule_scan_hopper_kernel, cut, SCAN[width])
        self._local = self._chain = None
        if cut.num_segments > 1:
            self._local = scan(is_local=True)
            self._chain = Chain(cut, is_backwards=True, precision="tf32")
        self._scan = scan(is_local=False)
        self._numbers = cut.H, cut.L, cut.num_chunks, cut.num_items, cut.plane
        self._tokens = Launch(
            *(delta_rule_token_hopper_kernel, min(cut.num_items, num_multiprocessors(device))),
            {"DP": DP, "EP": EP, "STAGES": TOKEN_STAGES[width], "L2NORM": qk_l2norm},
            num_warps=4,
        )

    def __call__(self, work) -> None:
        """Fill the result of a `backward.Work`."""
        dq, dk, dv, dbeta, dinitial = work.result
        tensors = (work.q, work.k, work.v, work.grad_o, work.n, work.states, work.grads)
        tensors += (work.y, dq, dk, dv)
        q, k, v, grad_o, n, states, grads, y, dq, dk, z = [
            tensor_map(x, *box) for x, box in zip(tensors, self._boxes, strict=True)
        ]
        scalars, links = work.scalars, work.links
        self._rebuild(k, v, n, states, y, scalars, work.initial, work.transfer, *self._sizes)
        maps = q, k, grad_o, n, grads, z
        pointers = scalars, work.last, links, dinitial
        if self._local is not None:
            self._local(*maps, *pointers, *self._sizes)
            self._chain(links, work.transfer)
        self._scan(*maps, *pointers, *self._sizes)
        maps = q, k, grad_o, y, z, states, grads, dq, dk
        self._tokens(*maps, scalars, dbeta, work.inverse_scale, *self._numbers)


def planned(work) -> Backward:
    """The launches for a `backward.Work` that is supported."""
    strides = work.q.stride(), work.k.stride(), work.v.stride(), work.grad_o.stride()
    pointers = alignment(work.initial, work.last, work.scalars, work.transfer)
    kind = work.q.device, work.q.dtype, work.result.beta.dtype, pointers
    return _planned(work.cut, kind, strides, work.qk_l2norm)


@lru_cache(maxsize=1024)
def _planned(cut: Cut, kind: tuple, strides: tuple, qk_l2norm: bool) -> Backward:
    return Backward(cut, kind, strides, qk_l2norm=qk_l2norm)


def _over_segments(kernel, cut: Cut, config: HopperConfig, is_local: bool | None = None) -> Launch:
    """Of a scan, which is local or not, or of the kernel that rebuilds."""
    num_segments = cut.num_segments - bool(is_local)
    constants = cut.constants | {"WARPGROUPS": config.warpgroups}
    constants["STAGES"] = config.stages + bool(is_local)
    if is_local is not None:
        constants["LOCAL"] = is_local
    grid = cut.num_heads * num_segments * (cut.EP // (64 * config.warpgroups))
    return Launch(kernel, grid, constants, num_warps=4, maxnreg=config.registers)


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    _, H, L, E = shape
    return H * L * E, L * E, E, 1
