"""Scans on CUDA give bit for bit what they give on the CPU, without waiting for the device."""

import pytest
import torch

from ena_kernels.scans.api import scan_merge, scan_split
from ena_kernels.scans.catalog import SCANS, VARIANTS, scan_passes, scan_reason
from ena_kernels.scans.orders import learnable_logits, learnable_order, random_order

pytestmark = pytest.mark.gpu


def make_case(scan, canvas, variant):
    heads, seq_len = {"mh2d": 4, "mh3d": 13}.get(scan, 1), torch.Size(canvas).numel()
    x = torch.randn(2, seq_len, 4 * heads)
    order = {"random": lambda: random_order(2, seq_len), "learnable": lambda: torch.eye(seq_len)}
    keywords = {"scan": scan, "canvas": canvas, "variant": variant, "layer": 5, "heads": heads}
    return x, {**keywords, "order": order[scan]() if scan in order else None}


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("canvas", [(3, 5), (2, 3, 4)])
@pytest.mark.parametrize("scan", SCANS)
def test_cuda_equals_cpu_forward_and_backward(scan, canvas, variant):
    x, keywords = make_case(scan, canvas, variant)
    if scan_reason(scan, canvas, keywords["heads"]) is not None:
        pytest.skip(f"{scan} does not read {canvas}")
    results = []
    for device in ("cpu", "cuda", "cuda"):
        is_repeat = len(results) == 2
        leaf = x.to(device).requires_grad_()
        order = keywords["order"]
        options = {**keywords, "order": None if order is None else order.to(device)}
        weight = torch.arange(x.numel(), dtype=x.dtype).view_as(x).to(device)
        if is_repeat:
            torch.cuda.set_sync_debug_mode("error")
        try:
            split = scan_split(leaf, **options)
            merged = scan_merge(split, **options)
            (dx,) = torch.autograd.grad(merged, leaf, weight)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results.append([t.detach().cpu() for t in (split, merged, dx)])
    for cpu, cuda, repeat in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-6, atol=1e-6)
        assert torch.equal(cuda, repeat)


def test_orders_are_drawn_on_the_device():
    order = random_order(3, 17, device="cuda")
    assert torch.equal(order.sort(1).values.cpu(), torch.arange(17).expand(3, 17))
    learned = learnable_order(learnable_logits(15, device="cuda"))
    torch.testing.assert_close(learned.cpu(), torch.eye(15))


def test_a_cross_scan_in_half_precision_sums_in_float32():
    x = torch.randn(2, 15, 8, device="cuda", dtype=torch.bfloat16)
    y = torch.randn(8, 15, 8, device="cuda", dtype=torch.bfloat16)
    keywords = {"scan": "cross", "canvas": (3, 5)}
    assert torch.equal(scan_merge(scan_split(x, **keywords), **keywords), scan_passes("cross") * x)
    exact = scan_merge(y.double(), **keywords).to(torch.bfloat16)
    torch.testing.assert_close(scan_merge(y, **keywords), exact, rtol=8e-3, atol=1e-6)
