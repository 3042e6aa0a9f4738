"""The Triton kernels, interpreted, against a loop over token pairs in float64."""

import math

import pytest
import torch

from ena_kernels import operands
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.sliding_tile import configs
from ena_kernels.sliding_tile.api import sliding_tile
from tests.ena_kernels import sliding_tile_oracle as oracle

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here")
pytestmark = interpreted

# canvas, tile, window in tokens, heads, key heads, head dim
GEOMETRIES = {
    "1d-even": ((64,), (16,), (32,), 2, 1, 16),
    "1d-tile-of-24-tokens": ((72,), (24,), (72,), 1, 1, 24),
    "2d-even-and-odd": ((8, 30), (4, 10), (8, 10), 1, 1, 32),
    "2d-odd-shared-heads": ((12, 8), (4, 4), (12, 4), 4, 2, 16),
    "2d-wider-than-the-canvas": ((8, 24), (2, 8), (10, 8), 1, 1, 16),
    "2d-one-tile": ((4, 9), (4, 9), (4, 9), 2, 2, 5),
    "3d": ((4, 4, 12), (2, 4, 4), (2, 4, 8), 2, 1, 16),
    "4d": ((2, 4, 4, 6), (1, 4, 2, 3), (2, 4, 4, 3), 1, 1, 16),
}
# canvas, tile, window, tokens of text
CUT_OR_TEXT = {
    "text": ((8, 12), (4, 6), (4, 6), 7),
    "one-token-of-text": ((48,), (16,), (16,), 1),
    "cut-2d": ((7, 13), (4, 6), (4, 12), 0),
    "cut-to-less-than-a-block": ((130,), (128,), (128,), 0),
    "cut-3d-with-text": ((3, 5, 4), (2, 2, 4), (2, 4, 8), 18),
}
SHAPES = {"canvas": (8, 12), "tile": (4, 6), "window": (8, 6)}


def assert_close(actual, expected, limit=2e-6):
    for i, (got, want) in enumerate(zip(actual, expected, strict=True)):
        assert got.isfinite().all(), f"tensor {i}"
        error = (got.double() - want.double()).norm() / want.double().norm()
        assert error <= limit, f"tensor {i}: {error:.1e}"


def expected_of(tensors, scale, *, canvas, tile, window, text_tokens=0, return_lse=False):
    mask = oracle.dense_mask(canvas, tile, window, text_tokens)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    outs = slice(None) if return_lse else 0
    return oracle.output_and_grads(
        lambda q, k, v: oracle.masked_softmax(q, k, v, mask, scale)[outs], wide
    )


def triton_of(tensors, **options):
    return oracle.output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="triton", **options), tensors
    )


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(monkeypatch):
    """Kernels cannot count on what memory holds."""
    new_empty = torch.Tensor.new_empty

    def filled(self, *size, **options):
        tensor = new_empty(self, *size, **options)
        return tensor.fill_(math.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", filled)


@pytest.mark.parametrize("order", ["raster", "tiled"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_output_and_every_gradient_equal_the_loop_over_token_pairs(name, order):
    canvas, tile, window, num_heads, num_kv_heads, head_dim = GEOMETRIES[name]
    shapes = {"canvas": canvas, "tile": tile, "window": window}
    heads = num_heads, num_kv_heads
    tensors = oracle.inputs(
        math.prod(canvas), *heads, torch.float32, head_dim=head_dim, batch=len(canvas) % 2 + 1
    )
    expected = expected_of(tensors, 0.3, **shapes)
    if order == "raster":
        assert_close(triton_of(tensors, scale=0.3, **shapes), expected)
        return
    from ena_kernels.sliding_tile.tiling import tile as tile_tokens
    from ena_kernels.sliding_tile.tiling import untile

    def through_tiled_order(q, k, v):
        tiled = (tile_tokens(x, canvas, tile) for x in (q, k, v))
        out = sliding_tile(*tiled, scale=0.3, order="tiled", impl="triton", **shapes)
        return untile(out, canvas, tile)

    assert_close(oracle.output_and_grads(through_tiled_order, tensors), expected)


@pytest.mark.parametrize("impl", ["triton", "reference"])
@pytest.mark.parametrize("name", CUT_OR_TEXT)
def test_cut_tiles_text_and_log_sum_exp_equal_the_loop_over_token_pairs(name, impl):
    canvas, tile, window, text_tokens = CUT_OR_TEXT[name]
    length = oracle.num_tokens(canvas, text_tokens)
    shapes = {"canvas": canvas, "tile": tile, "window": window}
    dtype = torch.float64 if impl == "reference" else torch.float32
    tensors = oracle.inputs(length, 2, 1, dtype, head_dim=16, batch=1)
    options = {"text_tokens": text_tokens, "return_lse": True}
    expected = expected_of(tensors, 0.25, **shapes, **options)
    actual = oracle.output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, pad="zero", impl=impl, **shapes, **options), tensors
    )
    assert actual[1].dtype == dtype
    assert_close(actual, expected, 2e-6 if impl == "triton" else 1e-13)


def test_text_follows_the_canvas_in_tiled_order_too():
    from ena_kernels.sliding_tile.tiling import tile as tile_tokens

    tensors = [x.detach() for x in oracle.inputs(96 + 20, 2, 2, torch.float32, head_dim=16)]
    whole = sliding_tile(*tensors, text_tokens=20, impl="reference", **SHAPES)

    def tiled(x):
        canvas = tile_tokens(x[:, :, :96], SHAPES["canvas"], SHAPES["tile"])
        return torch.cat([canvas, x[:, :, 96:]], dim=2)

    for impl in ("triton", "reference"):
        out = sliding_tile(*map(tiled, tensors), order="tiled", text_tokens=20, impl=impl, **SHAPES)
        assert_close([out], [tiled(whole)])


@pytest.mark.parametrize("scale", [-0.4, 0.0])
def test_a_scale_may_be_negative_or_zero(scale):
    for shapes in (SHAPES, {"canvas": (40,), "tile": (20,), "window": (20,)}):
        length = math.prod(shapes["canvas"])
        tensors = oracle.inputs(length, 1, 1, torch.float32, head_dim=16, batch=1)
        actual, expected = (
            triton_of(tensors, scale=scale, **shapes),
            expected_of(tensors, scale, **shapes),
        )
        compared = slice(None) if scale else slice(0, 1)
        assert_close(actual[compared], expected[compared])


def test_scores_far_from_zero_neither_overflow_nor_vanish():
    tensors = oracle.inputs(96, 1, 1, torch.float32, head_dim=16, batch=1)
    for scale in (40.0, -40.0):
        expected = expected_of(tensors, scale, **SHAPES)
        assert_close(triton_of(tensors, scale=scale, **SHAPES), expected, 1e-4)


def test_half_precision_stays_within_the_error_budget():
    tensors = oracle.inputs(96, 2, 1, torch.float16, head_dim=16, batch=1)
    actual, expected = triton_of(tensors, **SHAPES), expected_of(tensors, 0.25, **SHAPES)
    assert {x.dtype for x in actual} == {torch.float16}
    assert_close(actual[:1], expected[:1], 5e-3)
    assert_close(actual[1:], expected[1:], 1e-2)


def test_packed_projections_are_read_and_written_without_a_copy():
    packed = torch.randn(2, 96, 3 * 2 * 16, generator=torch.Generator().manual_seed(0))
    views = [x.unflatten(-1, (2, 16)).transpose(1, 2) for x in packed.chunk(3, dim=-1)]
    tensors = [x.detach().requires_grad_() for x in views]
    assert tensors[0].stride() == (96 * 96, 16, 96, 1)
    actual = triton_of(tensors, **SHAPES)
    assert_close(actual, expected_of(tensors, 0.25, **SHAPES))
    out = sliding_tile(*tensors, impl="triton", **SHAPES)
    assert out.transpose(1, 2).is_contiguous()
    assert all(grad.transpose(1, 2).is_contiguous() for grad in actual[1:])


@pytest.mark.parametrize("make", [torch.Tensor.sum, lambda x: x.mT.contiguous().mT.sum()])
def test_a_gradient_may_have_any_strides(make):
    tensors = oracle.inputs(96, 1, 1, torch.float32, head_dim=16, batch=1)
    out = sliding_tile(*tensors, impl="triton", **SHAPES)
    actual = torch.autograd.grad(make(out), tensors)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    mask = oracle.dense_mask(**SHAPES)
    expected = oracle.masked_softmax(*wide, mask, 0.25)[0].sum()
    assert_close(actual, torch.autograd.grad(expected, wide))


def test_the_log_sum_exp_alone_may_be_differentiated():
    tensors = oracle.inputs(96, 1, 1, torch.float32, head_dim=16, batch=1)[:2]
    v = torch.zeros_like(tensors[0])
    weights = torch.linspace(-1, 2, 96).sin()
    _, lse = sliding_tile(*tensors, v, return_lse=True, impl="triton", **SHAPES)
    actual = torch.autograd.grad((lse * weights).sum(), tensors)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    _, lse = oracle.masked_softmax(*wide, v.double(), oracle.dense_mask(**SHAPES), 0.25)
    assert_close(actual, torch.autograd.grad((lse * weights).sum(), wide))


def test_keys_that_a_query_cannot_see_get_exactly_no_gradient():
    q, k, v = oracle.inputs(96, 1, 1, torch.float32, head_dim=16, batch=1)
    out = sliding_tile(q, k, v, impl="triton", **{**SHAPES, "window": (4, 6)})
    seen = oracle.dense_mask(SHAPES["canvas"], SHAPES["tile"], (4, 6))[50]
    for grad in torch.autograd.grad(out[:, :, 50].sum(), (k, v)):
        assert torch.equal(grad.abs().sum(dim=(0, 1, 3)) > 0, seen)


def test_runs_are_repeated_bit_by_bit():
    tensors = oracle.inputs(96, 2, 1, torch.float32, head_dim=16, batch=1)
    first, second = (triton_of(tensors, **SHAPES) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_odd_windows_commute_with_a_flip_and_even_ones_do_not():
    canvas = (4, 20)
    tensors = [x.detach() for x in oracle.inputs(80, 1, 1, torch.float32, head_dim=16, batch=1)]

    def flipped(x):
        return x.unflatten(2, canvas).flip(3).flatten(2, 3)

    for window, commutes in [((4, 12), True), ((4, 8), False)]:
        shapes = {"canvas": canvas, "tile": (4, 4), "window": window}
        straight = flipped(sliding_tile(*tensors, impl="triton", **shapes))
        mirrored = sliding_tile(*map(flipped, tensors), impl="triton", **shapes)
        assert torch.allclose(mirrored, straight, atol=1e-5) == commutes


def test_the_operators_keep_the_contract_of_pytorch():
    shapes = {"canvas": (8, 6), "window": (4, 6), "tile": (4, 6)}
    for heads, requires_grad in [((2, 1), True), ((1, 1), False)]:
        tensors = oracle.inputs(48, *heads, torch.float32, head_dim=16, batch=1)
        tensors = [x.detach().requires_grad_(requires_grad) for x in tensors]
        sliding_tile(*tensors, impl="triton", **shapes)
        arguments = (*tensors, *shapes.values(), 0.25, "raster")
        torch.library.opcheck(torch.ops.ena_kernels.sliding_tile.default, arguments)
        out, lse = (x.detach() for x in torch.ops.ena_kernels.sliding_tile(*arguments))
        inputs = [x.detach() for x in tensors]
        grad_lse = torch.randn_like(lse) if requires_grad else None
        backward = (torch.randn_like(out), grad_lse, *inputs, out, lse, *arguments[3:])
        torch.library.opcheck(torch.ops.ena_kernels.sliding_tile_backward.default, backward)


def test_compiles_into_one_graph():
    tensors = oracle.inputs(96, 2, 1, torch.float32, head_dim=16, batch=1)

    def function(q, k, v):
        return 2 * sliding_tile(q, k, v, impl="triton", **SHAPES)

    expected = oracle.output_and_grads(function, tensors)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_close(oracle.output_and_grads(compiled, tensors), expected)


def test_differentiating_twice_is_refused():
    q, k, v = oracle.inputs(96, 1, 1, torch.float32, head_dim=16, batch=1)
    out = sliding_tile(q, k, v, impl="triton", **SHAPES)
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(UnsupportedError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), k)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(1, 1, 96, 16, dtype=torch.float64), "no kernel for torch.float64"),
        (torch.zeros(1, 1, 96, 160), "no kernel for head dim 160"),
    ],
)
def test_arguments_without_a_kernel_are_refused(tensor, words):
    with pytest.raises(UnsupportedError, match=words) as caught:
        sliding_tile(tensor, tensor, tensor, impl="triton", **SHAPES)
    assert "Try: impl='eager'" in str(caught.value)


def test_a_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setattr(operands, "_is_interpreted", lambda: False)
    tensor = torch.zeros(1, 1, 96, 16)
    with pytest.raises(UnsupportedError, match="no kernel for cpu tensors"):
        sliding_tile(tensor, tensor, tensor, impl="triton", **SHAPES)


@pytest.mark.parametrize("impl", ["eager", "flex", "natten"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("text_tokens", {"text_tokens": 4, "canvas": (4, 23)}),
        ("pad", {"pad": "zero", "canvas": (4, 24), "tile": (3, 6), "window": (3, 6)}),
        ("return_lse", {"return_lse": True}),
    ],
)
def test_what_an_implementation_lacks_is_said(impl, name, options):
    tensor = torch.zeros(1, 1, 96, 16)
    options = {**SHAPES, **options}
    if name == "text_tokens":
        options |= {"tile": (4, 23), "window": (4, 23)}
    with pytest.raises(UnsupportedError, match=f"impl '{impl}' does not know {name}") as caught:
        sliding_tile(tensor, tensor, tensor, impl=impl, **options)
    assert "Try: impl='triton'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pad": "reflect"}, ["pad 'reflect' is unknown", "one of error, zero"]),
        ({"text_tokens": -1}, ["text_tokens is -1", "Try: text_tokens=0"]),
        ({"text_tokens": 3}, ["96 tokens", "3 tokens of text follow", "Try: L = 99"]),
        ({"tile": (5, 6), "window": (5, 6)}, ["not divisible by tile 5x6 on axis 0"]),
        (
            {"tile": (5, 6), "window": (5, 6), "pad": "zero", "order": "tiled"},
            ["has no tiled order", "Try: order='raster'"],
        ),
    ],
)
def test_wrong_arguments_say_what_was_wrong_and_what_to_try(options, words):
    tensor = torch.zeros(1, 1, 96, 16)
    with pytest.raises(ShapeError) as caught:
        sliding_tile(tensor, tensor, tensor, **{**SHAPES, **options})
    for word in words:
        assert word in str(caught.value)


def test_blocks_waste_little_of_a_tile():
    for volume in (16, 24, 30, 64, 96, 128, 256, 384, 512, 1000):
        block = configs.fitting_block(volume, 128)
        padded = -(-volume // block) * block
        assert padded < 2 * max(volume, 16)
        assert volume % 128 or block == 128
    assert configs.fitting_block(384, 64) == 64


@pytest.mark.parametrize(
    ("block", "tile", "expected"),
    [
        (128, (6, 8, 8), True),
        (64, (16, 16), True),
        (16, (4, 24), False),
        (8, (4, 24), True),
        (64, (5, 6), True),
        (32, (6, 10), False),
        (16, (16, 8), True),
        (48, (4, 24), True),
    ],
)
def test_a_block_is_a_box_where_rows_of_all_blocks_lie_alike(block, tile, expected):
    rows = range(math.prod(tile))
    places = configs._strides((1000, *[1000] * (len(tile) - 1)))
    tokens = []
    for row in rows:
        token = 0
        for side, place in zip(reversed(tile), reversed(places), strict=True):
            row, digit = divmod(row, side)
            token += digit * place
        tokens.append(token)
    blocks = [tokens[i : i + block] for i in range(0, len(tokens), block)]
    distances = {tuple(t - part[0] for t in part) for part in blocks if len(part) == block}
    assert configs.is_box(block, tile) == expected
    assert not expected or len(distances) <= 1
