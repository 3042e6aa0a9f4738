"""Sliding Tile Attention on CUDA: every impl against float64, and the kernels that run."""

import math

import pytest
import torch

from ena_kernels import UnsupportedError, sliding_tile
from ena_kernels.sliding_tile.reference import reference_rows
from tests.gpu.attending import assert_agrees_with_float64, kernels_of, output_and_grads

# Compilers and libraries warn about things that are no concern of these tests.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

# canvas, tile, window in tokens
GEOMETRIES = {
    "1d-full-blocks": ((1280,), (128,), (384,)),
    "2d-full-blocks": ((32, 48), (8, 16), (24, 16)),
    "2d-mixed-blocks": ((40, 24), (8, 8), (24, 8)),
    "3d-full-blocks": ((8, 12, 24), (4, 4, 8), (4, 12, 8)),
    "3d-tile-of-384": ((12, 16, 8), (6, 8, 8), (6, 8, 8)),
    "2d-not-a-multiple-of-a-block": ((18, 25), (6, 5), (6, 15)),
}
LIBRARIES = {"natten": "natten", "flex_flash": "flash_attn.cute"}
EVEN = {"canvas": (32, 96), "tile": (8, 16), "window": (16, 64)}


def inputs(canvas, dtype, *, num_heads=3, num_kv_heads=3, head_dim=64):
    generator = torch.Generator("cuda").manual_seed(sum(canvas))
    seq_len = math.prod(canvas)
    return [
        torch.randn(2, heads, seq_len, head_dim, generator=generator, device="cuda")
        .to(dtype)
        .requires_grad_()
        for heads in (num_heads, num_kv_heads, num_kv_heads)
    ]


def skip_if_absent(impl):
    if impl in LIBRARIES:
        pytest.importorskip(LIBRARIES[impl])


@pytest.mark.parametrize("impl", ["eager", "triton", "flex", "natten"])
@pytest.mark.parametrize(("canvas", "tile", "window"), GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_output_and_every_gradient_agree_with_float64(impl, canvas, tile, window):
    skip_if_absent(impl)
    tensors = inputs(canvas, torch.bfloat16)
    shapes = {"canvas": canvas, "tile": tile, "window": window}
    assert_agrees_with_float64(sliding_tile, impl, tensors, torch.bfloat16, **shapes)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flex_flash_agrees_with_float64_where_every_block_is_seen_whole(dtype, head_dim):
    skip_if_absent("flex_flash")
    tensors = inputs(EVEN["canvas"], dtype, head_dim=head_dim)
    assert_agrees_with_float64(sliding_tile, "flex_flash", tensors, dtype, **EVEN)
    kernels = kernels_of(lambda: sliding_tile(*tensors, impl="flex_flash", **EVEN))
    assert any("flash" in name for name in kernels), kernels
    assert not any("triton_tem" in name for name in kernels), kernels


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_and_even_windows_agree_with_float64(impl, dtype):
    assert_agrees_with_float64(sliding_tile, impl, inputs(EVEN["canvas"], dtype), dtype, **EVEN)


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
@pytest.mark.parametrize("head_dim", [16, 40, 128])
def test_other_head_dims_agree_with_float64(impl, head_dim):
    tensors = inputs(EVEN["canvas"], torch.bfloat16, head_dim=head_dim)
    assert_agrees_with_float64(sliding_tile, impl, tensors, torch.bfloat16, **EVEN)


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
def test_query_heads_that_share_a_key_head_agree_with_float64(impl):
    tensors = inputs(EVEN["canvas"], torch.bfloat16, num_heads=4, num_kv_heads=1)
    assert_agrees_with_float64(sliding_tile, impl, tensors, torch.bfloat16, order="tiled", **EVEN)


def test_eager_runs_in_float64():
    tensors = inputs((18, 25), torch.float64, head_dim=24)
    shapes = {"canvas": (18, 25), "tile": (6, 5), "window": (12, 15)}
    expected = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="reference", **shapes), tensors
    )
    actual = output_and_grads(lambda q, k, v: sliding_tile(q, k, v, **shapes), tensors)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
@pytest.mark.parametrize(
    ("canvas", "tile", "window"),
    [((128, 128), (8, 16), (72, 64)), ((30, 48, 80), (6, 8, 8), (18, 24, 24))],
)
def test_a_large_canvas_agrees_with_float64_on_sampled_tiles(impl, canvas, tile, window):
    q, k, v = inputs(canvas, torch.bfloat16)
    shapes = {"canvas": canvas, "tile": tile, "window": window}
    num_tiles = math.prod(canvas) // math.prod(tile)
    with torch.no_grad():
        out = sliding_tile(q, k, v, impl=impl, **shapes)
        tile_ids = [0, 1, num_tiles // 2, num_tiles - 1]
        tokens, expected = reference_rows(q, k, v, tile_ids, **shapes)
    assert (out[:, :, tokens].double() - expected).norm() <= 5e-3 * expected.norm()


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
def test_backward_runs_twice_through_a_kept_graph(impl):
    q, k, v = inputs(EVEN["canvas"], torch.bfloat16)
    out = sliding_tile(q, k, v, impl=impl, **EVEN)
    grad_out = torch.randn_like(out)
    grads = [torch.autograd.grad(out, (q, k, v), grad_out, retain_graph=True) for _ in range(2)]
    for first, second in zip(*grads, strict=True):
        assert (first - second).norm() <= 1e-2 * first.norm()


@pytest.mark.parametrize(
    ("impl", "wanted"),
    [("flex", "flex"), ("eager", "index"), ("natten", "natten"), ("triton", "bwd_dkdv")],
)
def test_the_kernels_that_run_are_those_the_impl_is_named_after(impl, wanted):
    skip_if_absent(impl)
    q, k, v = inputs((32, 96), torch.bfloat16)
    shapes = {"canvas": (32, 96), "tile": (8, 16), "window": (24, 48)}

    def forward_and_backward():
        out = sliding_tile(q, k, v, impl=impl, **shapes)
        torch.autograd.grad(out.sum(), (q, k, v))

    kernels = kernels_of(forward_and_backward)
    assert any(wanted in name for name in kernels), kernels


def test_one_compiled_flex_kernel_serves_all_windows_of_one_length():
    from torch._dynamo.utils import counters

    q, k, v = inputs((64, 64), torch.bfloat16)
    graphs = []
    for window in [(24, 32), (40, 16), (64, 48)]:
        sliding_tile(q, k, v, canvas=(64, 64), tile=(8, 16), window=window, impl="flex")
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2]


def test_flex_refuses_a_head_dim_without_a_kernel():
    q, k, v = inputs(EVEN["canvas"], torch.bfloat16, head_dim=8)
    with pytest.raises(UnsupportedError, match="no kernel for head dim 8"):
        sliding_tile(q, k, v, impl="flex", **EVEN)


@pytest.mark.parametrize("impl", ["eager", "triton", "flex"])
def test_memory_is_linear_in_tokens_for_a_window_fixed_in_tokens(impl):
    peaks = []
    for seq_len in (16384, 32768):
        q, k, v = inputs((seq_len,), torch.bfloat16, num_heads=8, num_kv_heads=8)
        shapes = {"canvas": (seq_len,), "tile": (128,), "window": (1152,)}
        for _ in range(2):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            out = sliding_tile(q, k, v, impl=impl, **shapes)
            torch.autograd.grad(out.sum(), (q, k, v))
            peak = torch.cuda.max_memory_allocated() - before
            del out
        peaks.append(peak)
    assert peaks[1] < 2.3 * peaks[0]
