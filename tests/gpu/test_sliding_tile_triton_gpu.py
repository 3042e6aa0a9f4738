"""The Triton kernels of Sliding Tile Attention on CUDA: what no other implementation is asked."""

import math

import pytest
import torch

from ena_kernels import sliding_tile
from ena_kernels.sliding_tile.configs import CONFIGS
from ena_kernels.sliding_tile.reference import reference_rows

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

SHAPES = {"canvas": (32, 48), "tile": (16, 8), "window": (32, 24)}
# output, gradients: relative error in the 2-norm (SPEC 2.7)
LIMITS = {2: (5e-3, 1e-2), 4: (1e-5, 1e-5)}


def inputs(length, dtype, *, heads=(2, 1), head_dim=64):
    generator = torch.Generator("cuda").manual_seed(length)
    return [
        torch.randn(2, n, length, head_dim, generator=generator, device="cuda")
        .to(dtype)
        .requires_grad_()
        for n in (heads[0], heads[1], heads[1])
    ]


def results(tensors, impl, **options):
    outs = sliding_tile(*tensors, impl=impl, return_lse=True, **options)
    weights = [
        torch.linspace(-1, 2, x.numel(), device="cuda").view_as(x).mul(7).sin() for x in outs
    ]
    weights = [w.to(x.dtype) for w, x in zip(weights, outs, strict=True)]
    return [*outs, *torch.autograd.grad(outs, tensors, weights)]


def assert_agrees_with_float64(tensors, **options):
    forward, gradient = LIMITS[tensors[0].element_size()]
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = results(wide, "reference", **options)
    for i, (got, want) in enumerate(
        zip(results(tensors, "triton", **options), expected, strict=True)
    ):
        error = ((got.double() - want).norm() / want.norm()).item()
        assert error <= (forward if i < 2 else gradient), f"tensor {i}: {error:.1e}"


@pytest.mark.parametrize("tile", [(16, 8), (8, 8), (4, 12), (32, 16)])
@pytest.mark.parametrize(("head_dim", "size"), sorted({(dim, size) for _, dim, size in CONFIGS}))
def test_every_shipped_configuration_agrees_with_float64(head_dim, size, tile):
    dtype = {2: torch.bfloat16, 4: torch.float32}[size]
    tensors = inputs(32 * 48, dtype, head_dim=head_dim)
    window = (tile[0], 3 * tile[1])
    assert_agrees_with_float64(tensors, canvas=(32, 48), tile=tile, window=window)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("text_tokens", [0, 77])
def test_cut_tiles_and_text_agree_with_float64(dtype, text_tokens):
    tensors = inputs(30 * 45 + text_tokens, dtype, head_dim=40)
    shapes = {**SHAPES, "canvas": (30, 45), "pad": "zero", "text_tokens": text_tokens}
    assert_agrees_with_float64(tensors, **shapes)


def test_packed_projections_agree_with_float64_in_both_orders():
    packed = torch.randn(2, 32 * 48, 3 * 3 * 64, device="cuda", dtype=torch.bfloat16)
    views = [x.unflatten(-1, (3, 64)).transpose(1, 2) for x in packed.chunk(3, dim=-1)]
    for order in ("raster", "tiled"):
        tensors = [x.detach().requires_grad_() for x in views]
        assert_agrees_with_float64(tensors, order=order, **SHAPES)


def test_forward_and_backward_replay_from_a_cuda_graph():
    tensors = inputs(32 * 48, torch.bfloat16)
    grad_out = torch.randn(2, 2, 32 * 48, 64, device="cuda", dtype=torch.bfloat16)

    def call():
        out = sliding_tile(*tensors, impl="triton", **SHAPES)
        return [out, *torch.autograd.grad(out, tensors, grad_out)]

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


def test_more_than_two_to_the_31_elements():
    canvas, heads, head_dim = (2**10, 2**9), 34, 128
    q, k, v = torch.randn(
        1, math.prod(canvas), 3 * heads * head_dim, device="cuda", dtype=torch.bfloat16
    ).chunk(3, dim=-1)
    tensors = [x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (q, k, v)]
    assert math.prod(tensors[0].shape) > 2**31
    shapes = {"canvas": canvas, "tile": (16, 8), "window": (16, 8)}
    tile_ids = [0, 4095]
    out = sliding_tile(*tensors, impl="triton", **shapes)
    last = [x[:, -1:] for x in tensors]
    tokens, expected = reference_rows(*last, tile_ids, **shapes)
    error = (out[:, -1:, tokens].double() - expected).norm() / expected.norm()
    assert error <= LIMITS[2][0]
