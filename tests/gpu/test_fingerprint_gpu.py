"""On CUDA one profiled call tells the time of each component, whoever launched its kernels."""

import pytest
import torch
import triton
import triton.language as tl
from torch import nn

from bench.fingerprint import take
from bench.scopes import scopes

pytestmark = pytest.mark.gpu

SIZE = 2560


@triton.jit
def _wait_kernel(x_ptr, steps, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    for _ in range(steps):
        x = x * 0.999 + 0.001
    tl.store(x_ptr + offs, x)


def wait(weight):
    """A slow kernel that no operator of torch encloses."""
    out = weight.detach().clone()
    _wait_kernel[(out.numel() // 1024,)](out, 2000, BLOCK=1024)
    return out


class Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return wait(weight)

    @staticmethod
    def backward(ctx, gradient):
        return wait(gradient)


def product(weight):
    return weight @ weight @ weight


class Slow(nn.Module):
    component = "recurrence"

    def __init__(self, work):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SIZE, SIZE, device="cuda") / SIZE)
        self.work = work

    def forward(self, x):
        return x + self.work(self.weight)[0, 0]


class Quick(nn.Module):
    component = "mlp"

    def forward(self, x):
        return x * 0.5


@pytest.mark.parametrize("has_backward", [False, True])
@pytest.mark.parametrize("work", [product, Wait.apply])
def test_a_slow_part_gets_most_of_the_time(work, has_backward):
    block = nn.Sequential(Slow(work), Quick())
    x = torch.randn(96, 48, device="cuda")

    def call():
        with torch.set_grad_enabled(has_backward):
            output = block(x)
        if has_backward:
            output.sum().backward()

    call()
    with scopes(block):
        ran = take(call, "cuda")
    total_us = sum(ran.component_us.values())
    assert total_us == pytest.approx(sum(k.total_us for k in ran.by_time))
    assert ran.component_us["recurrence"] > 0.8 * total_us
    assert ran.component_us["mlp"] > 0
    assert not [name for name in ran.kernels if name.startswith("ena::")]


def test_without_scopes_everything_counts_to_what_was_named():
    a = torch.randn(SIZE, SIZE, device="cuda")
    ran = take(lambda: a @ a, "cuda", outside="attention")
    assert set(ran.component_us) == {"attention"}
    assert set(take(lambda: a @ a, "cuda").component_us) == {"other"}
