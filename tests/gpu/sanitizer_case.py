"""A small run of every kernel of `ena_kernels`, for NVIDIA's compute-sanitizer:

    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    compute-sanitizer --tool memcheck python -m tests.gpu.sanitizer_case
    compute-sanitizer --tool racecheck python -m tests.gpu.sanitizer_case

Names of `CASES` on the command line choose; without any, all run.

What to expect (compute-sanitizer 2025.3.1, Triton 3.6, H200): memcheck finds nothing. racecheck
finds nothing in kernels of plain Triton, and one error in every kernel with specialized warps: a
read near the entry against two writes, all of them where `gl.warp_specialize` stands. The addresses
that ``--racecheck-report hazard`` prints are those of eight bytes of Triton's own, by which the
first warps tell each other warp which part to run, and in the end that none is left. The machine
code orders them: the one read (``LDS.U8``) follows ``BAR.SYNC 1``, a barrier of all warps, and two
more of these come before the bytes are written again; each write (``STS.64``) precedes one.

``control`` shows that this is no race of ours: its warps share no data, and the error is the same.
It is gone from a control that has no barrier of a part of the warps (``bar.sync 0, 128``), and one
such barrier before `gl.warp_specialize` brings it back. So an error of this kind is to be ignored,
and any other to be looked into.
"""

import math
import sys
from contextlib import ExitStack
from importlib import import_module
from unittest import mock

import torch

from ena_kernels import delta_rule, delta_rule_step, scan_merge, scan_split, sliding_tile
from ena_kernels.norms import head_norm, layer_norm
from ena_kernels.short_conv import short_conv

DECISIONS = (
    "ena_kernels.sliding_tile.triton:supports",
    "ena_kernels.delta_rule.hopper:supports",
    "ena_kernels.delta_rule.hopper_backward:supports",
)


def normal(*shape, dtype=torch.bfloat16):
    """A leaf of unit normal numbers."""
    return torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True)


def back(outs, *leaves):
    """Gradients of all outputs; everything must be finite."""
    grads = torch.autograd.grad(outs, leaves, [torch.randn_like(x) for x in outs])
    torch.cuda.synchronize()
    assert all(x.isfinite().all() for x in (*outs, *grads))


def attend(canvas, tile, window, text_tokens=0):
    """Sliding Tile Attention, with a gradient of the log-sum-exp."""
    length = math.prod(canvas) + text_tokens
    shapes = {"canvas": canvas, "tile": tile, "window": window, "pad": "zero"}
    for head_dim in (64, 128):
        q, k, v = (normal(1, heads, length, head_dim) for heads in (2, 1, 1))
        run = {"impl": "triton", "text_tokens": text_tokens, "return_lse": True}
        back(sliding_tile(q, k, v, **shapes, **run), q, k, v)


def recur(length):
    """The delta rule over several segments, from a state to a state."""
    for head_dim in (64, 128):
        q, k, v = (normal(1, 2, length, head_dim) for _ in range(3))
        beta = torch.rand(1, 2, length, device="cuda", dtype=q.dtype, requires_grad=True)
        state = normal(1, 2, head_dim, head_dim, dtype=torch.float32)
        run = {"initial_state": state, "output_final_state": True, "qk_l2norm": True}
        back(delta_rule(q, k, v, beta, impl="triton", **run), q, k, v, beta, state)


def step():
    """One token of the delta rule."""
    q, k, v = (normal(2, 3, 64).detach() for _ in range(3))
    beta = torch.rand(2, 3, device="cuda", dtype=q.dtype)
    state = torch.zeros(2, 3, 64, 64, device="cuda")
    delta_rule_step(q, k, v, beta, state, impl="triton")
    torch.cuda.synchronize()


def scan():
    """Scans that gather through a table and scans that compute where tokens go."""
    for name in ("bi", "cross", "2d-shift", "mh2d"):
        x = normal(2, 6 * 10, 48)
        where = {"scan": name, "canvas": (6, 10), "heads": 4, "impl": "triton", "layer": 1}
        back([scan_merge(scan_split(x, **where), **where)], x)


def mix():
    """The convolution and the norms around a recurrence."""
    qkv, weight = normal(2, 77, 3 * 64), normal(3 * 64, 1, 4)
    back(short_conv(qkv, weight, impl="triton"), qkv, weight)
    x, w, b = normal(2, 77, 192), normal(192), normal(192)
    back([layer_norm(x, w, b, eps=1e-5, impl="triton")], x, w, b)
    heads, w = normal(2, 77, 3, 64), normal(64)
    back([head_norm(heads, w, eps=1e-5, impl="triton")], heads, w)


def control():
    """Warps that share no data, in the frame of the kernels for Hopper."""
    module = import_module("tests.gpu.control_kernel")
    out = torch.zeros(3, 2, 128, device="cuda", dtype=torch.int32)
    module.two_kinds_kernel[(3,)](out, 3, 5, num_warps=4)
    assert out.tolist() == [[[3] * 128, [5] * 128]] * 3


CASES = {
    "sliding_tile": [
        (attend, (16, 24), (8, 8), (8, 24)),
        (attend, (13, 21), (8, 8), (8, 24), 9),
    ],
    "sliding_tile_hopper": [
        (attend, (16, 48), (8, 16), (16, 32)),
        (attend, (8, 8, 16), (4, 4, 8), (4, 8, 16)),
    ],
    "delta_rule": [(recur, 2100), (step,)],
    "delta_rule_hopper": [(recur, 2100)],
    "scans": [(scan,)],
    "parts": [(mix,)],
    "control": [(control,)],
}


def main(names):
    """Run the cases of these names."""
    for name in names:
        with ExitStack() as stack:
            if not name.endswith("hopper"):
                for decision in DECISIONS:
                    module, function = decision.split(":")
                    refusal = mock.patch.object(import_module(module), function, return_value=False)
                    stack.enter_context(refusal)
            for work, *arguments in CASES[name]:
                work(*arguments)
        print(f"{name}: ran", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or CASES)
