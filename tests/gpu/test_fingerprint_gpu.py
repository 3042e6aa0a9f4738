"""On CUDA one profiled call tells the time of each component, whoever launched its kernels."""

import pytest
import torch
from torch import nn

from bench.fingerprint import take
from bench.scopes import scopes
from tests.gpu.slow_parts import SIZE, Quick, Slow, Spin, product

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("has_backward", [False, True])
@pytest.mark.parametrize("work", [product, Spin.apply])
def test_a_slow_part_gets_most_of_the_time(work, has_backward):
    block = nn.Sequential(Slow(work, "cuda"), Quick())
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
