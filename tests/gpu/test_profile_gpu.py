"""On CUDA every kernel finds its component, whoever launched it: torch, a library, or Triton."""

import pytest
import torch
from torch import nn

from bench import profile as profiling
from bench.case import Case
from bench.contenders import Contender, is_installed
from bench.profile import profile
from bench.workload import module_workload
from ena_kernels.components import COMPONENTS
from tests.gpu.slow_parts import Quick, Slow, Spin, product, spin

pytestmark = pytest.mark.gpu

CASE = Case(
    level="layer",
    contender="planted",
    impl="eager",
    mode="fwd",
    canvas=(96,),
    heads=3,
    head_dim=16,
    device="cuda",
)


def sines(weight):
    for _ in range(24):
        weight = (weight * 0.99).sin()
    return weight


def compiled(weight):
    return torch.compile(sines)(weight)


class Planted(nn.Module):
    def __init__(self, work):
        super().__init__()
        self.slow, self.quick = Slow(work), Quick()

    def forward(self, x):
        return x + self.quick(self.slow(x))


# the compiler warns of its own imports
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["fwd", "bwd", "fwdbwd"])
@pytest.mark.parametrize("work", [product, Spin.apply, compiled])
def test_a_slow_part_gets_most_of_the_time(monkeypatch, tmp_path, mode, work):
    contender = Contender(
        level="layer",
        name="planted",
        impl="eager",
        build=lambda case: module_workload(case, lambda: Planted(work)),
    )
    monkeypatch.setattr(profiling, "lookup", lambda case: contender)
    found = profile(CASE.with_(mode=mode), tmp_path, num_calls=3)
    assert found.shares["recurrence"] > 0.8
    assert found.shares["mlp"] > 0
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_triton_kernel_outside_autograd_is_counted_once_a_call(monkeypatch, tmp_path):
    contender = Contender(
        level="layer",
        name="planted",
        impl="eager",
        build=lambda case: module_workload(case, lambda: Planted(spin)),
    )
    monkeypatch.setattr(profiling, "lookup", lambda case: contender)
    found = profile(CASE, tmp_path, num_calls=4)
    launches = {(k.component, k.launches) for k in found.kernels if k.name == "_spin_kernel"}
    assert launches == {("recurrence", 1)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["fwd", "fwdbwd"])
@pytest.mark.parametrize(
    "recurrence",
    [
        "eager",
        pytest.param(
            "fla", marks=pytest.mark.skipif(not is_installed("fla"), reason="fla is not installed")
        ),
    ],
)
def test_a_block_of_ena_has_all_components_and_little_else(tmp_path, recurrence, mode):
    case = Case(
        level="layer",
        contender="ena",
        impl=f"flex+{recurrence}",
        mode=mode,
        canvas=(32, 96),
        tile=(8, 16),
        window=(24, 48),
        heads=6,
        head_dim=64,
        depth=2,
        scan="flip",
        scan_variant="fixed",
        permute="io",
        dtype="bfloat16",
        device="cuda",
    )
    shares = profile(case, tmp_path, num_calls=3).shares
    assert all(shares[component] > 0 for component in COMPONENTS)
    assert shares["other"] < 0.25
