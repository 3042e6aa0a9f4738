"""Sliding Tile Attention against a loop over token pairs, on shapes that break every symmetry."""

import itertools
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ena_kernels.attention import checks
from ena_kernels.canvas import attended_fraction, tiled_order, visible_tiles
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.sliding_tile import api, eager, flex, flex_flash, natten
from ena_kernels.sliding_tile.api import sliding_tile
from ena_kernels.sliding_tile.reference import reference_rows
from ena_kernels.sliding_tile.tiling import tile, untile
from tests.ena_kernels import sliding_tile_oracle as oracle
from tests.ena_kernels.sliding_tile_oracle import dense_mask, output_and_grads

# canvas, tile, window in tokens, heads, key heads
GEOMETRIES = {
    "1d-even": ((15,), (3,), (6,), 2, 2),
    "2d-odd-and-even-shared-heads": ((6, 20), (2, 4), (6, 8), 4, 2),
    "2d-wider-than-the-canvas": ((6, 12), (2, 4), (10, 4), 3, 3),
    "2d-one-tile": ((4, 9), (2, 3), (2, 3), 2, 1),
    "3d": ((4, 6, 10), (2, 3, 2), (2, 6, 6), 3, 1),
    "4d": ((2, 3, 4, 6), (1, 3, 2, 2), (2, 3, 4, 2), 2, 2),
}
D = 5
BATCH = 2
EXACT = {"atol": 1e-12, "rtol": 1e-12}


def inputs(canvas, num_heads, num_kv_heads, dtype=torch.float64, head_dim=D):
    tensors = oracle.inputs(math.prod(canvas), num_heads, num_kv_heads, dtype, head_dim=head_dim)
    assert len(tensors[0]) == BATCH
    return tensors


def masked_softmax(q, k, v, mask, scale):
    return oracle.masked_softmax(q, k, v, mask, scale)[0]


@pytest.fixture(params=GEOMETRIES.values(), ids=GEOMETRIES.keys())
def geometry(request):
    canvas, tile_, window, num_heads, num_kv_heads = request.param
    shapes = {"canvas": canvas, "tile": tile_, "window": window}
    return SimpleNamespace(shapes=shapes, heads=(num_heads, num_kv_heads), **shapes)


@pytest.mark.parametrize("impl", ["reference", "eager"])
def test_output_and_every_gradient_equal_the_loop_over_token_pairs(geometry, impl):
    tensors = inputs(geometry.canvas, *geometry.heads)
    mask = dense_mask(geometry.canvas, geometry.tile, geometry.window)
    expected = output_and_grads(lambda q, k, v: masked_softmax(q, k, v, mask, 0.3), tensors)
    actual = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, scale=0.3, impl=impl, **geometry.shapes), tensors
    )
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize("impl", ["reference", "eager"])
def test_tiled_order_gives_the_same_result_permuted(geometry, impl):
    tensors = inputs(geometry.canvas, *geometry.heads)
    expected = sliding_tile(*tensors, impl="reference", **geometry.shapes)
    order = torch.from_numpy(tiled_order(geometry.canvas, geometry.tile))
    tiled = [x[:, :, order] for x in tensors]
    actual = sliding_tile(*tiled, order="tiled", impl=impl, **geometry.shapes)
    torch.testing.assert_close(actual, expected[:, :, order], **EXACT)


@pytest.mark.parametrize("impl", ["reference", "eager"])
def test_default_scale_is_one_over_root_head_dim(impl):
    canvas, shapes = (6, 20), {"canvas": (6, 20), "tile": (2, 4), "window": (6, 8)}
    tensors = inputs(canvas, 2, 2)
    explicit = sliding_tile(*tensors, scale=D**-0.5, impl=impl, **shapes)
    assert torch.equal(sliding_tile(*tensors, impl=impl, **shapes), explicit)


@pytest.mark.parametrize(
    ("dtype", "forward_limit", "gradient_limit"),
    [
        (torch.float32, 1e-5, 1e-5),
        (torch.bfloat16, 5e-3, 1e-2),
        (torch.float16, 5e-3, 1e-2),
    ],
)
def test_low_precision_stays_within_the_error_budget(
    geometry, dtype, forward_limit, gradient_limit
):
    tensors = inputs(geometry.canvas, *geometry.heads, dtype, head_dim=16)
    wide = [x.detach().double().requires_grad_() for x in tensors]
    expected = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="reference", **geometry.shapes).double(), wide
    )
    actual = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="eager", **geometry.shapes), tensors
    )
    assert actual[0].dtype == dtype
    limits = [forward_limit, *[gradient_limit] * 3]
    for got, want, limit in zip(actual, expected, limits, strict=True):
        assert (got.double() - want).norm() <= limit * want.norm()


def test_reference_computes_in_float32_and_rounds_once(geometry):
    tensors = inputs(geometry.canvas, *geometry.heads, torch.bfloat16, head_dim=16)
    wide = [x.double() for x in tensors]
    expected = sliding_tile(*wide, impl="reference", **geometry.shapes)
    actual = sliding_tile(*tensors, impl="reference", **geometry.shapes)
    assert actual.dtype == torch.bfloat16
    assert (actual - expected).norm() <= 2e-3 * expected.norm()


def test_window_of_one_tile_is_attention_inside_each_tile():
    tensors = inputs((4, 9), 2, 2)
    tiled = [tile(x, (4, 9), (2, 3)).unflatten(2, (6, 6)) for x in tensors]
    expected = torch.nn.functional.scaled_dot_product_attention(*tiled).flatten(2, 3)
    actual = sliding_tile(*tensors, canvas=(4, 9), tile=(2, 3), window=(2, 3))
    torch.testing.assert_close(actual, untile(expected, (4, 9), (2, 3)), **EXACT)


def test_window_as_wide_as_the_canvas_is_full_attention():
    tensors = inputs((6, 20), 3, 3)
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors)
    for window in [(6, 20), (8, 40)]:
        actual = sliding_tile(*tensors, canvas=(6, 20), tile=(2, 4), window=window)
        torch.testing.assert_close(actual, expected, **EXACT)


def flipped(x, canvas):
    """The canvas mirrored along its last axis."""
    return x.unflatten(2, canvas).flip(1 + len(canvas)).flatten(2, 1 + len(canvas))


def test_odd_windows_commute_with_a_flip_and_even_ones_do_not():
    canvas = (4, 21)
    tensors = inputs(canvas, 2, 2)
    mirrored = [flipped(x, canvas) for x in tensors]
    for window, commutes in [((4, 9), True), ((4, 6), False)]:
        shapes = {"canvas": canvas, "tile": (2, 3), "window": window}
        straight = flipped(sliding_tile(*tensors, **shapes), canvas)
        assert torch.allclose(sliding_tile(*mirrored, **shapes), straight, **EXACT) == commutes


def test_shuffling_tokens_inside_tiles_shuffles_the_output():
    shapes = {"canvas": (6, 20), "tile": (2, 4), "window": (6, 8)}
    tensors = inputs((6, 20), 2, 2)
    shuffle = torch.cat([8 * t + torch.randperm(8) for t in range(15)])
    out = sliding_tile(*tensors, order="tiled", **shapes)
    shuffled = sliding_tile(*(x[:, :, shuffle] for x in tensors), order="tiled", **shapes)
    torch.testing.assert_close(shuffled, out[:, :, shuffle], **EXACT)


def test_keys_that_a_query_cannot_see_get_exactly_no_gradient(geometry):
    q, k, v = inputs(geometry.canvas, *geometry.heads)
    mask = dense_mask(geometry.canvas, geometry.tile, geometry.window)
    query = len(mask) // 2
    out = sliding_tile(q, k, v, **geometry.shapes)
    grads = torch.autograd.grad(out[:, :, query].sum(), (k, v))
    for grad in grads:
        seen = grad.abs().sum(dim=(0, 1, 3)) > 0
        assert torch.equal(seen, mask[query])
    assert int(mask[query].sum()) == attended_fraction(**geometry.shapes) * len(mask)


def test_eager_cut_into_many_parts_gives_the_same_result(geometry, monkeypatch):
    tensors = inputs(geometry.canvas, *geometry.heads)

    def run(q, k, v):
        return sliding_tile(q, k, v, **geometry.shapes)

    whole = output_and_grads(run, tensors)
    monkeypatch.setitem(eager.GATHER_BYTES, "cpu", 1)
    for got, want in zip(output_and_grads(run, tensors), whole, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_eager_gathers_no_more_than_its_budget(monkeypatch):
    sizes = []
    gather = eager._gather

    def spy(x, ids):
        part = gather(x, ids)
        sizes.append(part.numel() * part.element_size())
        return part

    monkeypatch.setattr(eager, "_gather", spy)
    monkeypatch.setitem(eager.GATHER_BYTES, "cpu", 40_000)
    q, k, v = inputs((6, 80), 2, 2)
    out = sliding_tile(q, k, v, canvas=(6, 80), tile=(2, 4), window=(4, 16))
    torch.autograd.grad(out.sum(), (q, k, v))
    assert len(sizes) > 20
    assert max(sizes) <= 20_000


@pytest.mark.parametrize(("budget", "splits_heads"), [(90_000, False), (7_000, True)])
def test_eager_scores_in_float64_fit_the_budget(budget, splits_heads, monkeypatch):
    sizes, heads = [], set()
    attend = eager._attend

    def spy(q, k, v, scale):
        sizes.append(q.shape[:3].numel() * k.shape[2] * q.element_size())
        heads.add(q.shape[0])
        return attend(q, k, v, scale)

    monkeypatch.setattr(eager, "_attend", spy)
    monkeypatch.setitem(eager.GATHER_BYTES, "cpu", budget)
    shapes = {"canvas": (6, 80), "tile": (2, 4), "window": (4, 24)}
    q, k, v = inputs((6, 80), 3, 3)
    expected = sliding_tile(q, k, v, impl="reference", **shapes)
    out = sliding_tile(q, k, v, **shapes)
    torch.autograd.grad(out.sum(), (q, k, v))
    torch.testing.assert_close(out, expected, **EXACT)
    assert max(sizes) <= budget
    assert heads == ({1} if splits_heads else {6})


def test_eager_groups_hold_every_query_tile_once_with_its_own_window(geometry):
    visible_keys = visible_tiles(geometry.canvas, geometry.tile, geometry.window)
    groups = eager._groups(geometry.canvas, geometry.tile, geometry.window, torch.device("cpu"))
    seen = {}
    for queries, keys in groups:
        for members, window in zip(queries.tolist(), keys.tolist(), strict=True):
            for member in members:
                assert member not in seen
                seen[member] = window
    assert [seen[g] for g in range(len(visible_keys))] == visible_keys.tolist()


def test_backward_runs_twice_through_a_kept_graph():
    q, k, v = inputs((6, 20), 2, 1)
    out = sliding_tile(q, k, v, canvas=(6, 20), tile=(2, 4), window=(6, 8))
    grads = [torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True) for _ in range(2)]
    for first, second in zip(*grads, strict=True):
        assert torch.equal(first, second)


def test_transposed_inputs_are_read_through_their_strides():
    tensors = inputs((6, 20), 4, 2)
    shapes = {"canvas": (6, 20), "tile": (2, 4), "window": (6, 8)}
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors]
    torch.testing.assert_close(
        sliding_tile(*strided, **shapes), sliding_tile(*tensors, **shapes), **EXACT
    )


@pytest.mark.parametrize("order", ["raster", "tiled"])
def test_reference_rows_are_rows_of_the_whole_result(geometry, order):
    tensors = inputs(geometry.canvas, *geometry.heads, torch.float32)
    whole = sliding_tile(
        *(x.double() for x in tensors), scale=0.7, order=order, impl="reference", **geometry.shapes
    )
    num_tiles = math.prod(geometry.canvas) // math.prod(geometry.tile)
    tile_ids = [num_tiles - 1, 0, num_tiles // 2]
    tokens, rows = reference_rows(*tensors, tile_ids, scale=0.7, order=order, **geometry.shapes)
    assert rows.dtype == torch.float64
    assert len(tokens) == 3 * math.prod(geometry.tile)
    torch.testing.assert_close(rows, whole[:, :, tokens], **EXACT)


def test_reference_rows_scale_by_one_over_root_head_dim_unless_told():
    tensors = inputs((6, 20), 2, 2)
    shapes = {"canvas": (6, 20), "tile": (2, 4), "window": (6, 8)}
    tokens, rows = reference_rows(*tensors, [4], **shapes)
    torch.testing.assert_close(rows, sliding_tile(*tensors, **shapes)[:, :, tokens], **EXACT)


def test_tile_follows_the_tiled_order_and_untile_undoes_it(geometry):
    canvas, tile_ = geometry.canvas, geometry.tile
    x = torch.randn(3, math.prod(canvas), 2, requires_grad=True)
    tiled = tile(x, canvas, tile_)
    order = torch.from_numpy(tiled_order(canvas, tile_))
    assert torch.equal(tiled, x[:, order])
    assert torch.equal(untile(tiled, canvas, tile_), x)
    weights = torch.randn_like(tiled)
    (grad,) = torch.autograd.grad(tiled, x, weights)
    assert torch.equal(grad, untile(weights, canvas, tile_))


def test_tile_takes_any_number_of_leading_axes():
    x = torch.randn(2, 3, 5, 24, 7)
    assert torch.equal(tile(x, (4, 6), (2, 3))[1, 2, 4], tile(x[1, 2, 4], (4, 6), (2, 3)))


@pytest.mark.parametrize("function", [tile, untile])
def test_tile_and_untile_refuse_a_canvas_of_another_size(function):
    with pytest.raises(ShapeError, match=r"has 24 tokens") as caught:
        function(torch.zeros(2, 25, 3), (4, 6), (2, 3))
    assert "Try: x of shape [1, 24, 64]" in str(caught.value)


SHAPES = {"canvas": (6, 20), "tile": (2, 4), "window": (6, 8)}
GOOD = torch.zeros(1, 4, 120, 8)


@pytest.mark.parametrize(
    ("tensors", "options", "words"),
    [
        ((GOOD[0], GOOD, GOOD), {}, ["q is [4, 120, 8]", "[B, H, L, D]"]),
        ((GOOD, GOOD, GOOD[:0]), {}, ["v is [0, 4, 120, 8]", "none empty"]),
        ((GOOD, GOOD.double(), GOOD), {}, ["k is torch.float64, q is torch.float32"]),
        ((GOOD.int(),) * 3, {}, ["q is torch.int32", "float16, bfloat16, float32 or float64"]),
        ((GOOD, GOOD, GOOD.to("meta")), {}, ["v is on meta, q is on cpu", "Try: v.to('cpu')"]),
        ((GOOD, GOOD.mT.contiguous().mT, GOOD), {}, ["k has strides", "Try: k.contiguous()"]),
        ((GOOD, GOOD[:, :3], GOOD[:, :3]), {}, ["k is [1, 3, 120, 8]", "divide the heads of q"]),
        ((GOOD, GOOD, GOOD[:, :2]), {}, ["v is [1, 2, 120, 8]"]),
        ((GOOD, *[GOOD[..., :4].contiguous()] * 2), {}, ["k is [1, 4, 120, 4]"]),
        ((GOOD,) * 3, {"canvas": (6, 24)}, ["q has 120 tokens", "has 144"]),
        ((GOOD,) * 3, {"canvas": (5, 24)}, ["not divisible by tile 2x4 on axis 0"]),
        ((GOOD,) * 3, {"window": (6, 9)}, ["window 6x9 is not a multiple"]),
        ((GOOD,) * 3, {"tile": (8,)}, ["tile 8 has 1 axes"]),
        ((GOOD,) * 3, {"scale": math.inf}, ["scale is inf", "Try: scale=0.353553"]),
        ((GOOD,) * 3, {"order": "hilbert"}, ["order 'hilbert' is unknown", "raster, tiled"]),
    ],
)
def test_wrong_arguments_say_what_was_wrong_and_what_to_try(tensors, options, words):
    with pytest.raises(ShapeError) as caught:
        sliding_tile(*tensors, **{**SHAPES, **options})
    text = str(caught.value)
    assert [line.split(":")[0] for line in text.splitlines()[1:]] == ["Expected", "Try"]
    for word in words:
        assert word in text


ROW = torch.zeros(1, 4, 96, 8)


@pytest.mark.parametrize(
    ("tensors", "options", "words"),
    [
        ((ROW, ROW.mT.contiguous().mT, ROW), {}, "k has strides"),
        ((ROW, ROW, ROW.double()), {}, "v is torch.float64"),
        ((ROW, ROW.to("meta"), ROW), {}, "k is on meta"),
        ((ROW,) * 3, {"canvas": (True, 96)}, "is not a grid of tokens"),
        ((ROW,) * 3, {"tile": (1.0, 8)}, "is not a grid of tokens|not divisible"),
        ((ROW,) * 3, {"text_tokens": False}, "text_tokens is False"),
        ((ROW,) * 3, {"scale": math.nan}, "scale is nan"),
        ((ROW,) * 3, {"pad": "one"}, "pad 'one' is unknown"),
    ],
)
def test_a_valid_call_vouches_for_no_other(tensors, options, words):
    valid = {"canvas": (1, 96), "tile": (1, 8), "window": (1, 24), "text_tokens": 0}
    for _ in range(2):
        sliding_tile(ROW, ROW, ROW, **valid)
    with pytest.raises(ShapeError, match=words):
        sliding_tile(*tensors, **(valid | options))


def test_only_so_many_calls_are_kept(monkeypatch):
    monkeypatch.setattr(api, "_CALLS", {})
    monkeypatch.setattr(api, "MOST_CALLS", 3)
    for scale in range(8):
        sliding_tile(ROW, ROW, ROW, canvas=(96,), tile=(8,), window=(8,), scale=scale / 8)
        assert 0 < len(api._CALLS) <= 3


def test_calls_that_differ_in_one_option_are_told_apart():
    q, k, v = oracle.inputs(96, 2, 2, torch.float64, head_dim=8)
    options = {"canvas": (8, 12), "tile": (4, 3), "window": (4, 9)}
    others = {"window": (8, 9), "tile": (2, 3), "scale": 0.1, "order": "tiled"}
    outs = [sliding_tile(q, k, v, **(options | {name: x})) for name, x in others.items()]
    outs.append(sliding_tile(q, k, v, **options))
    for i, name in enumerate(others):
        expected = sliding_tile(q, k, v, impl="reference", **(options | {name: others[name]}))
        torch.testing.assert_close(outs[i], expected)
        assert not torch.allclose(outs[i], outs[-1])


# 128-token blocks in tiled order: canvas, tile, window, and whether some blocks are seen in part
BLOCK_GEOMETRIES = [
    ((16, 48), (8, 16), (8, 32), False),
    ((3 * 384,), (384,), (384,), False),
    ((24, 40), (4, 10), (12, 20), True),
    ((13 * 30,), (30,), (150,), True),
    ((8, 6, 20), (4, 3, 10), (8, 3, 20), True),
    ((40, 10), (4, 5), (40, 10), True),
]


@pytest.mark.parametrize(("canvas", "tile_", "window", "is_mixed"), BLOCK_GEOMETRIES)
def test_flex_blocks_and_mask_together_are_the_mask_token_by_token(canvas, tile_, window, is_mixed):
    seq_len = math.prod(canvas)
    block_mask = flex.block_mask_of(canvas, tile_, window, torch.device("cpu"))
    positions = torch.arange(seq_len)
    zero = torch.zeros((), dtype=torch.int64)
    by_rule = block_mask.mask_mod(zero, zero, positions[:, None], positions[None, :])
    by_rule = by_rule.expand(seq_len, seq_len)
    actual = torch.zeros(seq_len, seq_len, dtype=torch.bool)
    blocks = [
        (block_mask.full_kv_num_blocks, block_mask.full_kv_indices, torch.ones_like(actual)),
        (block_mask.kv_num_blocks, block_mask.kv_indices, by_rule),
    ]
    num_mixed = 0
    for counts, indices, content in blocks:
        for row, count in enumerate(counts[0, 0].tolist()):
            listed = indices[0, 0, row, :count].tolist()
            assert listed == sorted(set(listed))
            num_mixed += count if content is by_rule else 0
            for column in listed:
                rows = slice(128 * row, 128 * (row + 1))
                columns = slice(128 * column, 128 * (column + 1))
                assert not actual[rows, columns].any()
                actual[rows, columns] = content[rows, columns]
    volume = math.prod(tile_)
    expected = torch.zeros(seq_len // volume, seq_len // volume, dtype=torch.bool)
    for query_tile, keys in enumerate(visible_tiles(canvas, tile_, window).tolist()):
        expected[query_tile, keys] = True
    expected = expected.repeat_interleave(volume, 0).repeat_interleave(volume, 1)
    assert torch.equal(actual, expected)
    assert (num_mixed > 0) == is_mixed


def test_flex_lists_are_built_once_per_geometry():
    arguments = ((16, 48), (8, 16), (8, 32), torch.device("cpu"))
    assert flex.block_mask_of(*arguments) is flex.block_mask_of(*arguments)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (GOOD.double(), "no kernel for torch.float64"),
        (GOOD.clone().requires_grad_(), "no backward on a CPU"),
    ],
)
def test_flex_refuses_what_it_has_no_kernel_for(tensor, words):
    with pytest.raises(UnsupportedError, match=words):
        sliding_tile(tensor, tensor, tensor, impl="flex", **SHAPES)


def test_flex_flash_hands_the_same_blocks_to_the_kernels_of_flash_attn_4(monkeypatch):
    asked = []
    monkeypatch.setattr(flex_flash, "run", lambda q, k, v, **options: asked.append(options) or q)
    shapes = {"canvas": (16, 48), "tile": (8, 16), "window": (8, 32)}
    x = torch.randn(1, 2, 16 * 48, 16)
    assert torch.equal(sliding_tile(x, x, x, scale=0.3, impl="flex_flash", **shapes), x)
    where = (*(shapes[k] for k in ("canvas", "tile", "window")), x.device)
    assert asked[0]["scale"] == 0.3
    assert asked[0]["block_mask"] is flex.block_mask_of(*where, has_rule=True)
    # without a rule PyTorch would attend everything, although every block is seen whole or not
    assert asked[0]["block_mask"].mask_mod is not flex.noop_mask
    assert flex.block_mask_of(*where).mask_mod is flex.noop_mask
    assert not asked[0]["block_mask"].kv_num_blocks.any()


def test_flex_flash_refuses_tensors_on_the_cpu():
    with pytest.raises(UnsupportedError, match="impl 'flex_flash' has no kernel for cpu tensors"):
        sliding_tile(GOOD, GOOD, GOOD, impl="flex_flash", **SHAPES)


def test_flex_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnsupportedError, match="'no-such-compiler' on a CPU"):
        sliding_tile(GOOD, GOOD, GOOD, impl="flex", **SHAPES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("canvas", "tile_", "window", "num_kv_heads"),
    [((16, 48), (8, 16), (8, 32), 2), ((13 * 30,), (30,), (150,), 1)],
    ids=["full-blocks", "mixed-blocks"],
)
def test_flex_compiled_for_the_cpu_equals_the_reference(canvas, tile_, window, num_kv_heads):
    tensors = inputs(canvas, 2, num_kv_heads, torch.float32, head_dim=16)
    shapes = {"canvas": canvas, "tile": tile_, "window": window}
    with torch.no_grad():
        actual = sliding_tile(*tensors, impl="flex", **shapes)
    expected = sliding_tile(*(x.double() for x in tensors), impl="reference", **shapes)
    assert (actual.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_flex_kernel_serves_all_windows_of_one_length():
    from torch._dynamo.utils import counters

    tensors = [x.detach() for x in inputs((16, 64), 2, 2, torch.float32, head_dim=16)]
    graphs = []
    for window in [(8, 32), (16, 16), (16, 48)]:
        shapes = {"canvas": (16, 64), "tile": (8, 16), "window": window}
        actual = sliding_tile(*tensors, impl="flex", **shapes)
        torch.testing.assert_close(actual, sliding_tile(*tensors, impl="reference", **shapes))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2] > 0


def neighborhood_attention(query, key, value, kernel_size, stride=1, dilation=1, scale=None):
    """What NATTEN documents, token by token: [B, *canvas, heads, D] in, the same out.

    Per axis, tokens in groups of `stride` share the window centred on the group's middle token,
    moved inside at the borders.
    """
    assert dilation == 1
    canvas = query.shape[1:-2]
    tokens = list(itertools.product(*map(range, canvas)))
    mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
    for axis, (n, size, step) in enumerate(zip(canvas, kernel_size, stride, strict=True)):
        assert step <= size <= n
        for i, token in enumerate(tokens):
            group = token[axis] // step * step
            leader = min(group + step // 2, n - 1)
            start = min(max(leader - size // 2, 0), n - size)
            for j, other in enumerate(tokens):
                mask[i, j] &= start <= other[axis] < start + size
    q, k, v = (x.flatten(1, len(canvas)).transpose(1, 2) for x in (query, key, value))
    out = masked_softmax(q, k, v, mask, scale)
    return out.transpose(1, 2).unflatten(1, canvas)


@pytest.fixture
def natten_on_cpu(monkeypatch):
    """A library with NATTEN's interface, and no demand for a GPU."""
    module = ModuleType("natten")
    for ndim in (1, 2, 3):
        setattr(module, f"na{ndim}d", expecting_ndim(ndim))
    monkeypatch.setitem(sys.modules, "natten", module)
    monkeypatch.setattr(natten, "require_cuda", lambda q, impl: None)
    return module


def expecting_ndim(ndim):
    def function(query, key, value, **options):
        assert query.dim() == ndim + 3
        return neighborhood_attention(query, key, value, **options)

    return function


@pytest.mark.parametrize(
    ("canvas", "tile_", "window"),
    [
        ((15,), (3,), (9,)),
        ((7,), (1,), (4,)),
        ((6, 20), (2, 4), (10, 12)),
        ((4, 15), (2, 3), (8, 3)),
        ((4, 6, 6), (2, 2, 3), (2, 6, 3)),
    ],
)
@pytest.mark.parametrize("order", ["raster", "tiled"])
def test_natten_adapter_equals_the_reference(natten_on_cpu, canvas, tile_, window, order):
    tensors = inputs(canvas, 3, 3)
    shapes = {"canvas": canvas, "tile": tile_, "window": window, "scale": 0.6, "order": order}
    expected = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="reference", **shapes), tensors
    )
    actual = output_and_grads(
        lambda q, k, v: sliding_tile(q, k, v, impl="natten", **shapes), tensors
    )
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


@pytest.mark.parametrize(
    ("canvas", "tile_", "window", "words"),
    [
        ((6, 20), (2, 4), (6, 8), ["window of 2 tiles on axis 1", "Try: a window of 12 tokens"]),
        ((6, 20), (1, 4), (1, 4), ["window of one token on axis 0"]),
        ((2, 3, 4, 5), (1, 1, 1, 1), (2, 3, 3, 3), ["canvas of 4 axes"]),
    ],
)
def test_natten_refuses_windows_it_cannot_place(natten_on_cpu, canvas, tile_, window, words):
    with pytest.raises(UnsupportedError) as caught:
        sliding_tile(GOOD, GOOD, GOOD, canvas=canvas, tile=tile_, window=window, impl="natten")
    for word in words:
        assert word in str(caught.value)


def test_natten_without_a_kernel_becomes_an_unsupported_error(natten_on_cpu, monkeypatch):
    def no_backend(*_, **__):
        raise NotImplementedError("no compatible backend\nsecond line")

    monkeypatch.setattr(natten_on_cpu, "na2d", no_backend)
    with pytest.raises(UnsupportedError, match="these arguments: no compatible backend\n"):
        sliding_tile(GOOD, GOOD, GOOD, impl="natten", **{**SHAPES, "window": (6, 12)})


def test_natten_that_is_not_installed_is_answered_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(natten, "require_cuda", lambda q, impl: None)
    monkeypatch.setitem(sys.modules, "natten", None)
    with pytest.raises(UnsupportedError, match="needs the library natten") as caught:
        sliding_tile(GOOD, GOOD, GOOD, impl="natten", **{**SHAPES, "window": (6, 12)})
    assert "Try: pip install natten" in str(caught.value)


def test_natten_refuses_tensors_on_the_cpu():
    with pytest.raises(UnsupportedError, match="impl 'natten' has no kernel for cpu tensors"):
        sliding_tile(GOOD, GOOD, GOOD, impl="natten", **{**SHAPES, "window": (6, 12)})


def test_require_cuda_lets_cuda_tensors_pass():
    checks.require_cuda(SimpleNamespace(device=torch.device("cuda")), impl="natten")


def test_a_window_that_is_no_tuple_is_answered_with_what_is():
    with pytest.raises(ShapeError, match=r"window 8, .*\nExpected: three tuples of tokens"):
        sliding_tile(GOOD, GOOD, GOOD, **SHAPES | {"window": 8})
