"""The short convolution against explicit loops, whole and piece by piece."""

import math

import pytest
import torch

from ena_kernels.errors import ShapeError
from ena_kernels.short_conv import by_convolution, by_taps, short_conv

B, L, C = 2, 7, 15


@pytest.fixture
def x_and_weight():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, L, C, dtype=torch.float64, generator=generator)
    return x, torch.randn(C, 1, 4, dtype=torch.float64, generator=generator)


def test_it_weighs_the_last_four_tokens_of_each_channel(x_and_weight):
    x, weight = x_and_weight
    parts = short_conv(x, weight)
    assert {(tuple(part.shape), part.is_contiguous()) for part in parts} == {((B, L, C // 3), True)}
    y = torch.cat(parts, dim=-1)
    for b in range(B):
        for t in range(L):
            for c in range(C):
                taps = [
                    float(weight[c, 0, j]) * float(x[b, t - 3 + j, c])
                    for j in range(4)
                    if t - 3 + j >= 0
                ]
                total = sum(taps)
                assert float(y[b, t, c]) == pytest.approx(total / (1 + math.exp(-total)), 1e-12)


def test_both_ways_to_convolve_agree_in_value_and_gradient(x_and_weight):
    x, weight = x_and_weight
    results = []
    for convolve in (by_taps, by_convolution):
        padded, w = x.mT.clone().requires_grad_(), weight.clone().requires_grad_()
        y = convolve(padded, w)
        y.square().sum().backward()
        results.append((y, padded.grad, w.grad))
    for taps, convolution in zip(*results, strict=True):
        torch.testing.assert_close(taps, convolution, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_sequence_can_be_convolved_in_two_pieces(x_and_weight, cut):
    x, weight = x_and_weight
    zeros = torch.zeros(B, 3, C, dtype=torch.float64)
    past = torch.cat([zeros, x[:, :cut]], dim=1)[:, -3:]
    first, second = short_conv(x[:, :cut], weight), short_conv(x[:, cut:], weight, past)
    for *pieces, whole in zip(first, second, short_conv(x, weight), strict=True):
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


def test_channels_that_are_not_three_of_a_kind_are_refused():
    with pytest.raises(ShapeError, match=r"10 channels cannot be cut.*\nExpected: .*\nTry: "):
        short_conv(torch.ones(B, L, 10), torch.ones(10, 1, 4))
