"""The portable Triton kernels of Sliding Tile Attention on CUDA, where Hopper's own would be taken
as well: every shipped configuration, and what no other implementation is asked."""

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from unittest import mock

import pytest
import torch

from ena_kernels import sliding_tile
from ena_kernels.sliding_tile.configs import CONFIGS
from tests.gpu.attending import results

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

# output, gradients: relative error in the 2-norm
LIMITS = {2: (5e-3, 1e-2), 4: (1e-5, 1e-5)}
PLAIN = {"canvas": (32, 48), "tile": (16, 8), "window": (32, 24)}
CUT = {**PLAIN, "canvas": (30, 45), "pad": "zero"}
HALF, SINGLE = torch.bfloat16, torch.float32
# dtype, head dim, options
CASES = {
    f"D{dim}-{size}": ({2: HALF, 4: SINGLE}[size], dim, PLAIN)
    for dim, size in sorted({(dim, size) for _, dim, size in CONFIGS})
} | {
    "tile-of-64": (HALF, 128, {**PLAIN, "tile": (8, 8), "window": (24, 8)}),
    "tile-of-48": (SINGLE, 32, {**PLAIN, "tile": (4, 12), "window": (4, 36)}),
    "tile-of-512": (HALF, 64, {**PLAIN, "tile": (32, 16), "window": (32, 32)}),
    "float16": (torch.float16, 40, PLAIN),
    "1d": (HALF, 64, {"canvas": (1000,), "tile": (200,), "window": (600,)}),
    "3d": (SINGLE, 16, {"canvas": (8, 12, 8), "tile": (4, 4, 8), "window": (4, 12, 8)}),
    "4d": (HALF, 32, {"canvas": (2, 8, 12, 4), "tile": (1, 4, 4, 4), "window": (2, 4, 12, 4)}),
    "cut": (torch.float16, 40, CUT),
    "cut-with-text": (HALF, 64, {**CUT, "text_tokens": 77}),
    "text": (SINGLE, 40, {**PLAIN, "text_tokens": 77}),
}


def tensors_of(dtype, head_dim, options):
    """Two query heads and one key head for a case."""
    length = torch.Size(options["canvas"]).numel() + options.get("text_tokens", 0)
    generator = torch.Generator("cuda").manual_seed(length)
    return [
        torch.randn(2, n, length, head_dim, generator=generator, device="cuda")
        .to(dtype)
        .requires_grad_()
        for n in (2, 1, 1)
    ]


def without_hopper():
    module = import_module("ena_kernels.sliding_tile.triton")
    return mock.patch.object(module, "supports", return_value=False)


def compile_case(name):
    dtype, head_dim, options = CASES[name]
    with without_hopper():
        results(tensors_of(dtype, head_dim, options), "triton", **options)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """All kernels in Triton's cache, several compiled at a time."""
    with ProcessPoolExecutor(max_workers=8, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_case, CASES))


def assert_agrees_with_float64(tensors, **options):
    forward, gradient = LIMITS[tensors[0].element_size()]
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = results(wide, "reference", **options)
    # elsewhere in memory, by the kernels that the first call compiled
    copies = [torch.empty_like(x).copy_(x).detach().requires_grad_() for x in tensors]
    with without_hopper():
        actual = results(tensors, "triton", **options)
        for first, second in zip(actual, results(copies, "triton", **options), strict=True):
            assert torch.equal(first, second)
    for i, (got, want) in enumerate(zip(actual, expected, strict=True)):
        error = ((got.double() - want).norm() / want.norm()).item()
        assert error <= (forward if i < 2 else gradient), f"tensor {i}: {error:.1e}"


@pytest.mark.parametrize(("dtype", "head_dim", "options"), CASES.values(), ids=CASES.keys())
def test_results_agree_with_float64(dtype, head_dim, options):
    assert_agrees_with_float64(tensors_of(dtype, head_dim, options), **options)


@pytest.mark.parametrize("order", ["raster", "tiled"])
def test_packed_projections_agree_with_float64(order):
    packed = torch.randn(2, 32 * 48, 3 * 3 * 64, device="cuda", dtype=HALF)
    views = [x.unflatten(-1, (3, 64)).transpose(1, 2) for x in packed.chunk(3, dim=-1)]
    tensors = [x.detach().requires_grad_() for x in views]
    assert_agrees_with_float64(tensors, order=order, **PLAIN)


def test_forward_and_backward_replay_from_a_cuda_graph():
    tensors = tensors_of(HALF, 64, PLAIN)
    grad_out = torch.randn_like(tensors[0])

    def call():
        out = sliding_tile(*tensors, impl="triton", **PLAIN)
        return [out, *torch.autograd.grad(out, tensors, grad_out)]

    with without_hopper():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        with torch.no_grad():
            tensors[0].mul_(-1)
        graph.replay()
        for got, want in zip(captured, call(), strict=True):
            assert torch.equal(got, want)
