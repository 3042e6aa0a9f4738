"""The Hopper forward on a GPU against float64."""

import math

import pytest
import torch

from ena_kernels import sliding_tile
from ena_kernels.sliding_tile import hopper

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
        reason="needs a Hopper GPU",
    ),
]

LIMIT = 5e-3
# canvas, tile, window in tokens; head dim, order
GEOMETRIES = {
    "1d": ((1280,), (128,), (384,), 128, "raster"),
    "2d-even-window": ((32, 96), (8, 16), (16, 64), 64, "raster"),
    "2d-odd-window": ((48, 40), (16, 8), (48, 24), 128, "raster"),
    "3d": ((8, 12, 24), (4, 4, 8), (4, 12, 8), 64, "raster"),
    "3d-tile-of-384": ((12, 16, 8), (6, 8, 8), (6, 8, 8), 128, "raster"),
    "tiled-tile-of-256": ((32, 96), (16, 16), (32, 64), 64, "tiled"),
    "one-box": ((8, 16), (8, 16), (8, 16), 64, "raster"),
}


def packed(B, H, L, D, dtype):
    generator = torch.Generator("cuda").manual_seed(L + D)
    x = torch.randn(B, L, 3 * H * D, generator=generator, device="cuda").to(dtype)
    return [part.unflatten(-1, (H, D)).transpose(1, 2) for part in x.chunk(3, -1)]


def relative_error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


def expected_of(q, k, v, canvas, tile, window, order, scale):
    wide = [x.double() for x in (q, k, v)]
    shapes = {"canvas": canvas, "tile": tile, "window": window, "order": order}
    return sliding_tile(*wide, scale=scale, impl="reference", **shapes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("canvas", "tile", "window", "head_dim", "order"), GEOMETRIES.values(), ids=GEOMETRIES.keys()
)
def test_packed_inputs_agree_with_float64(canvas, tile, window, head_dim, order, dtype):
    q, k, v = packed(2, 3, math.prod(canvas), head_dim, dtype)
    assert hopper.supports(q, k, v, canvas, tile, window, order)
    out, lse = hopper.forward(q, k, v, canvas, tile, window, 0.2, order)
    expected = expected_of(q, k, v, canvas, tile, window, order, 0.2)
    assert relative_error(out, expected) <= LIMIT
    assert lse.isfinite().all()
    again = hopper.forward(q, k, v, canvas, tile, window, 0.2, order)
    assert torch.equal(again[0], out)
    assert torch.equal(again[1], lse)


@pytest.mark.parametrize("scale", [0.3, -0.3])
def test_grouped_heads_and_either_sign_of_the_scale_agree_with_float64(scale):
    canvas, tile, window = (32, 96), (8, 16), (24, 48)
    q = torch.randn(2, 4, 3072, 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(2, 2, 3072, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out, _ = hopper.forward(q, k, v, canvas, tile, window, scale, "raster")
    expected = expected_of(q, k, v, canvas, tile, window, "raster", scale)
    assert relative_error(out, expected) <= LIMIT


@pytest.mark.parametrize("canvas", [(48, 40), (8, 12, 16)])
def test_the_log_sum_exp_is_in_the_order_of_the_tokens(canvas):
    tile = (16, 8) if len(canvas) == 2 else (4, 4, 8)
    q, k, v = packed(2, 3, math.prod(canvas), 64, torch.bfloat16)
    _, lse = hopper.forward(q, k, v, canvas, tile, canvas, 0.2, "raster")
    expected = (0.2 * q.double() @ k.double().mT).logsumexp(-1)
    torch.testing.assert_close(lse.double(), expected, atol=1e-4, rtol=1e-5)


def test_a_captured_graph_replays_the_same_result():
    geometry = ((48, 40), (16, 8), (48, 24))
    q, k, v = packed(2, 3, 1920, 64, torch.bfloat16)
    expected, _ = hopper.forward(q, k, v, *geometry, 0.2, "raster")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, _ = hopper.forward(q, k, v, *geometry, 0.2, "raster")
    out.fill_(float("nan"))
    graph.replay()
    assert torch.equal(out, expected)
