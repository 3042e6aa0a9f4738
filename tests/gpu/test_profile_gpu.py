"""On CUDA every kernel finds its component, whoever launched it: torch, a library, or Triton."""

import pytest
import torch
import triton
import triton.language as tl
from torch import nn

from bench import profile as profiling
from bench.case import Case
from bench.contenders import Contender, is_installed
from bench.profile import profile
from bench.workload import module_workload
from ena_kernels.components import COMPONENTS

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
SIZE = 2560


@triton.jit
def _spin_kernel(x_ptr, steps, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    for _ in range(steps):
        x = x * 0.999 + 0.001
    tl.store(x_ptr + offs, x)


def spin(weight):
    """A slow kernel that no operator of torch encloses."""
    out = weight.detach().clone()
    _spin_kernel[(out.numel() // 1024,)](out, 2000, BLOCK=1024)
    return out


class Spin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return spin(weight)

    @staticmethod
    def backward(ctx, gradient):
        return spin(gradient)


def sines(weight):
    for _ in range(24):
        weight = (weight * 0.99).sin()
    return weight


def compiled(weight):
    return torch.compile(sines)(weight)


def product(weight):
    return weight @ weight @ weight


class Slow(nn.Module):
    component = "recurrence"

    def __init__(self, work):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE) / SIZE)
        self.work = work

    def forward(self, x):
        return x + self.work(self.weight)[0, 0]


class Quick(nn.Module):
    component = "mlp"

    def forward(self, x):
        return x * 0.5


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
