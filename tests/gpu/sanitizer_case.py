"""A small run of every kernel of Sliding Tile Attention, for NVIDIA's compute-sanitizer:

    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    compute-sanitizer --tool memcheck python -m tests.gpu.sanitizer_case
    compute-sanitizer --tool racecheck python -m tests.gpu.sanitizer_case

Names on the command line (portable, hopper) choose; without any, all that this GPU has run.
"""

import math
import sys
from importlib import import_module
from unittest import mock

import torch

from ena_kernels import sliding_tile

# canvas, tile, window in tokens, tokens of text; only the portable kernels cut tiles and take text
CASES = {
    "portable": [((16, 24), (8, 8), (8, 24), 0), ((13, 21), (8, 8), (8, 24), 9)],
    "hopper": [((16, 48), (8, 16), (16, 32), 0), ((8, 8, 16), (4, 4, 8), (4, 8, 16), 0)],
}


def run(canvas, tile, window, text_tokens, head_dim):
    """Forward and backward, with a gradient of the log-sum-exp."""
    length = math.prod(canvas) + text_tokens
    tensors = [
        torch.randn(1, n, length, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for n in (2, 1, 1)
    ]
    shapes = {"canvas": canvas, "tile": tile, "window": window, "pad": "zero"}
    outs = sliding_tile(*tensors, impl="triton", text_tokens=text_tokens, return_lse=True, **shapes)
    grads = torch.autograd.grad(outs, tensors, [torch.randn_like(x) for x in outs])
    torch.cuda.synchronize()
    assert all(x.isfinite().all() for x in (*outs, *grads))


def main(names):
    """Run the cases of these names."""
    module = import_module("ena_kernels.sliding_tile.triton")
    for name in names:
        taken = (lambda *_: False) if name == "portable" else module.supports
        with mock.patch.object(module, "supports", taken):
            for case in CASES[name]:
                for head_dim in (64, 128):
                    run(*case, head_dim)
        print(f"{name}: ran")


if __name__ == "__main__":
    main(sys.argv[1:] or CASES)
