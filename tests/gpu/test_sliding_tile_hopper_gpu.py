"""Sliding Tile Attention on a Hopper GPU, forward and backward, against float64."""

import math
import threading
from importlib import import_module
from unittest import mock

import pytest
import torch

from ena_kernels import sliding_tile
from ena_kernels.sliding_tile.hopper import backward, forward
from tests.gpu.attending import results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
        reason="needs a Hopper GPU",
    ),
]

# output and log-sum-exp, gradients: relative error in the 2-norm
LIMITS = (5e-3, 5e-3, 1e-2, 1e-2, 1e-2)
# canvas, tile, window in tokens; head dim, order
GEOMETRIES = {
    "1d": ((1280,), (128,), (384,), 128, "raster"),
    "2d-even-window": ((32, 96), (8, 16), (16, 64), 64, "raster"),
    "2d-odd-window": ((48, 40), (16, 8), (48, 24), 128, "raster"),
    "2d-window-wider-than-half": ((40, 48), (8, 16), (32, 32), 64, "raster"),
    "3d": ((8, 12, 24), (4, 4, 8), (4, 12, 8), 64, "raster"),
    "3d-tile-of-384": ((12, 16, 8), (6, 8, 8), (6, 8, 8), 128, "raster"),
    "tiled-tile-of-256": ((32, 96), (16, 16), (32, 64), 64, "tiled"),
    "one-box": ((8, 16), (8, 16), (8, 16), 64, "raster"),
}
SHAPES = {"canvas": (32, 96), "tile": (8, 16), "window": (24, 48)}


def packed(B, H, L, D, dtype):
    generator = torch.Generator("cuda").manual_seed(L + D)
    x = torch.randn(B, L, 3 * H * D, generator=generator, device="cuda").to(dtype)
    parts = [part.unflatten(-1, (H, D)).transpose(1, 2) for part in x.chunk(3, -1)]
    return [part.detach().requires_grad_() for part in parts]


def separate(num_heads, num_kv_heads, *, dtype=torch.bfloat16, head_dim=64):
    generator = torch.Generator("cuda").manual_seed(num_heads)
    return [
        torch.randn(2, n, 3072, head_dim, generator=generator, device="cuda")
        .to(dtype)
        .requires_grad_()
        for n in (num_heads, num_kv_heads, num_kv_heads)
    ]


def assert_agrees_with_float64(tensors, **options):
    geometry = [options[name] for name in ("canvas", "tile", "window")]
    geometry.append(options.get("order", "raster"))
    assert forward.planned(*tensors, *geometry, flipped=False) is not None
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = results(wide, "reference", **options)
    actual = results(tensors, "triton", **options)
    for i, (got, want, limit) in enumerate(zip(actual, expected, LIMITS, strict=True)):
        error = ((got.double() - want).norm() / want.norm()).item()
        assert error <= limit, f"tensor {i}: {error:.1e}"
    # elsewhere in memory, by the kernels that the first call compiled
    copies = [torch.empty_like(x).copy_(x).detach().requires_grad_() for x in tensors]
    for first, second in zip(actual, results(copies, "triton", **options), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("canvas", "tile", "window", "head_dim", "order"), GEOMETRIES.values(), ids=GEOMETRIES.keys()
)
def test_packed_inputs_agree_with_float64(canvas, tile, window, head_dim, order, dtype):
    shapes = {"canvas": canvas, "tile": tile, "window": window, "order": order}
    tensors = packed(2, 3, math.prod(canvas), head_dim, dtype)
    assert_agrees_with_float64(tensors, scale=0.2, has_grad_lse=dtype == torch.float16, **shapes)


@pytest.mark.parametrize("scale", [0.3, -0.3])
def test_grouped_heads_and_either_sign_of_the_scale_agree_with_float64(scale):
    assert_agrees_with_float64(separate(4, 2), scale=scale, **SHAPES)


def test_both_backward_kernels_and_the_forward_are_taken():
    tensors = separate(3, 3, head_dim=128)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        results(tensors, "triton", has_grad_lse=False, **SHAPES)
        torch.cuda.synchronize()
    names = {event.name for event in profiler.events()}
    for kernel in ("fwd", "bwd_dq", "bwd_dkdv"):
        assert f"sliding_tile_hopper_{kernel}_kernel" in names


@pytest.mark.parametrize("step", [1, 2])
def test_gradients_with_and_without_a_tensor_map_agree_with_float64(step):
    tensors = separate(3, 3)
    grad_out = torch.randn(2 * step, 3, 3072, 64, device="cuda", dtype=torch.bfloat16)[::step]
    geometry = SHAPES["canvas"], SHAPES["tile"], SHAPES["window"], "raster"
    out, lse = sliding_tile(*tensors, impl="triton", return_lse=True, **SHAPES)
    planned = backward.planned(grad_out, None, *tensors, out, lse, *geometry)
    assert (planned is not None) == (step == 1)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = sliding_tile(*wide, impl="reference", **SHAPES)
    grads = torch.autograd.grad(out, tensors, grad_out)
    wanted = torch.autograd.grad(expected, wide, grad_out.double())
    for got, want in zip(grads, wanted, strict=True):
        assert (got.double() - want).norm() <= 1e-2 * want.norm()


def test_a_thread_of_its_own_needs_no_cuda_context():
    tensors = separate(3, 3)
    expected = results(tensors, "triton", **SHAPES)
    actual = []
    thread = threading.Thread(target=lambda: actual.extend(results(tensors, "triton", **SHAPES)))
    thread.start()
    thread.join()
    for got, want in zip(actual, expected, strict=True):
        assert torch.equal(got, want)


def test_a_captured_graph_replays_the_same_results():
    tensors = packed(2, 3, 1920, 64, torch.bfloat16)
    shapes = {"canvas": (48, 40), "tile": (16, 8), "window": (48, 24)}

    def call():
        return results(tensors, "triton", **shapes)

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


@pytest.mark.parametrize("is_portable", [False, True])
def test_more_than_two_to_the_31_elements(is_portable):
    (height, width), heads, head_dim = (2**10, 2**9), 34, 128
    x = torch.randn(1, height * width, 3 * heads * head_dim, device="cuda", dtype=torch.bfloat16)
    tensors = [
        part.unflatten(-1, (heads, head_dim)).transpose(1, 2).detach().requires_grad_()
        for part in x.chunk(3, dim=-1)
    ]
    assert tensors[0].numel() > 2**31
    shapes = {"canvas": (height, width), "tile": (16, 8), "window": (16, 8)}
    module = import_module("ena_kernels.sliding_tile.triton")
    taken = (lambda *_: False) if is_portable else module.supports
    with mock.patch.object(module, "supports", taken):
        out = sliding_tile(*tensors, impl="triton", **shapes)
        grad_out = torch.randn_like(out)
        grads = torch.autograd.grad(out, tensors, grad_out)
    # every tile is alone with itself: the last tile of the last head
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(8), indexing="ij")
    tokens = ((height - 16 + rows) * width + width - 8 + columns).flatten()
    q, k, v = (part.detach()[0, -1, tokens].double().requires_grad_() for part in tensors)
    expected = torch.softmax(head_dim**-0.5 * q @ k.T, -1) @ v
    wanted = torch.autograd.grad(expected, (q, k, v), grad_out[0, -1, tokens].double())
    for got, want in zip((out.detach(), *grads), (expected, *wanted), strict=True):
        assert (got[0, -1, tokens].double() - want).norm() <= 1e-2 * want.norm()
