"""Triton's scans and short convolution in bfloat16 on CUDA: values, graphs, more than 2^31."""

import pytest
import torch

from ena_kernels.scans.api import scan_merge, scan_split
from ena_kernels.short_conv import short_conv

pytestmark = pytest.mark.gpu
CROSS = {"scan": "cross", "impl": "triton"}


@pytest.mark.parametrize("shape", [(2, 1000, 96), (1, 333, 2304), (3, 5, 42)])
def test_the_convolution_and_its_gradients_agree_with_float64(shape):
    B, L, C = shape
    x = torch.randn(B, L, 3 * C, device="cuda", dtype=torch.bfloat16)[..., C : 2 * C]
    weight = torch.randn(C, 1, 4, device="cuda", dtype=torch.bfloat16)
    grads = torch.randn(3, B, L, C // 3, device="cuda", dtype=torch.bfloat16)
    results = []
    for dtype, impl in ((torch.bfloat16, "triton"), (torch.float64, "eager")):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight)]
        parts = short_conv(*leaves, impl=impl)
        results.append((*parts, *torch.autograd.grad(parts, leaves, [*grads.to(dtype)])))
    for found, expected in zip(*results, strict=True):
        assert (found.double() - expected).norm() < 4e-3 * expected.norm()


@pytest.mark.parametrize("canvas", [(33, 65), (5, 12, 7)])
def test_a_merge_in_bfloat16_rounds_once(canvas):
    L = torch.Size(canvas).numel()
    y = torch.randn(8, L, 96, device="cuda", dtype=torch.bfloat16)
    exact = scan_merge(y.double(), scan="cross", canvas=canvas)
    merged = scan_merge(y, **CROSS, canvas=canvas)
    torch.testing.assert_close(merged, exact.bfloat16(), rtol=8e-3, atol=1e-6)


def test_a_captured_split_merge_and_convolution_replay():
    x = torch.randn(2, 63, 192, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(192, 1, 4, device="cuda", dtype=torch.bfloat16)

    def call(x):
        q, k, v = short_conv(scan_split(x, **CROSS, canvas=(9, 7)), weight, impl="triton")
        return scan_merge(q + k * v, **CROSS, canvas=(9, 7))

    expected, held, graph = call(x), torch.zeros_like(x), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(held)
    held.copy_(x)
    graph.replay()
    assert torch.equal(found, expected)


def test_more_than_two_to_the_31_elements_are_addressed():
    canvas, C = (2048, 1100), 256
    x = torch.randn(1, 2048 * 1100, C, device="cuda", dtype=torch.bfloat16)
    y = scan_split(x, **CROSS, canvas=canvas)
    assert y.numel() > 2**31
    assert torch.equal(y[2, :1000], x[0, -1000:].flip(0))
    assert torch.equal(scan_merge(y, **CROSS, canvas=canvas), 4 * x)
