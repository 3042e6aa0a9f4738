"""How fast our operators are, in the storage of pytest-benchmark: `pytest tests/perf`.

Every operator in every implementation that this machine has; small and eager on a CPU. See
docs/pytest.md.
"""

import pytest
import torch

from bench.contenders import lookup
from bench.cost import cost
from bench.grid import expand, parse_grid
from bench.modes import timed_call

GRID = """
[[cases]]
when = "cpu"
level = "op"
contender = ["sliding_tile", "attention", "delta_rule", "scan"]
impl = "available"
mode = ["fwd", "fwdbwd"]
seq_len = 256
ndim = 2
tile = "4x8"
sparsity = 0.7
scan = "cross"
heads = 2
head_dim = 32

[[cases]]
when = "cuda"
level = "op"
contender = ["sliding_tile", "attention", "delta_rule", "scan"]
impl = "available"
mode = ["fwd", "fwdbwd"]
seq_len = 8192
ndim = 2
sparsity = 0.7
scan = "cross"
"""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLANNED = expand(parse_grid(GRID, name="perf"), device=DEVICE)


@pytest.mark.parametrize("planned", PLANNED, ids=lambda planned: planned.case.case_path)
def test_an_operator_is_as_fast_as_before(gpu_benchmark, planned):
    case = planned.case
    if planned.reason is not None:
        pytest.skip(planned.reason)
    torch.manual_seed(0)
    timed = timed_call(lookup(case).workload(case), case.mode)
    counted = cost(case)
    gpu_benchmark.measure(
        timed.run,
        reset=timed.reset,
        device=case.device,
        flops=counted and counted.flops,
        num_bytes=counted and counted.bytes,
    )
