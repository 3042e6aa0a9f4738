"""The Hopper kernels: how a canvas becomes boxes, the views they take, what the compiler makes."""

import itertools
import math

import pytest
import torch

from ena_kernels import hopper
from ena_kernels.canvas import visible_tiles
from ena_kernels.sliding_tile.hopper import backward, forward
from ena_kernels.sliding_tile.hopper import boxes as boxes_module
from ena_kernels.sliding_tile.hopper.boxes import boxes, fold, supports
from tests.ena_kernels.sm90 import compiled


def tile_of(coordinates, tile):
    return tuple(c // t for c, t in zip(coordinates, tile, strict=True))


@pytest.mark.parametrize(
    ("canvas", "tile", "window"),
    [
        ((1280,), (128,), (384,)),
        ((48, 40), (16, 8), (48, 24)),
        ((32, 96), (8, 16), (16, 64)),
        ((64, 96), (16, 32), (32, 96)),
        ((12, 32, 8), (6, 8, 8), (6, 24, 8)),
    ],
)
def test_boxes_in_a_window_are_the_tokens_of_the_visible_tiles(canvas, tile, window):
    cut = boxes(canvas, tile, window, "raster")
    ndim = len(canvas)
    counts, seen, per_tile, box = (
        x[3 - ndim :] for x in (cut.counts, cut.seen, cut.per_tile, cut.box)
    )
    assert math.prod(cut.box) == 128
    grid = [n // t for n, t in zip(canvas, tile, strict=True)]
    visible = visible_tiles(canvas, tile, window)
    for query in itertools.product(*map(range, counts)):
        first = [
            min(max(b // s - w // s // 2, 0), c // s - w // s) * s
            for b, c, w, s in zip(query, counts, seen, per_tile, strict=True)
        ]
        keys = itertools.product(*(range(f, f + w) for f, w in zip(first, seen, strict=True)))
        tiles = {tile_of([k * b for k, b in zip(key, box, strict=True)], tile) for key in keys}
        at = tile_of([b * t for b, t in zip(query, box, strict=True)], tile)
        flat = [sum(c * math.prod(grid[i + 1 :]) for i, c in enumerate(t)) for t in (at, *tiles)]
        assert sorted(flat[1:]) == visible[flat[0]].tolist()


@pytest.mark.parametrize("per_tile", [1, 3])
@pytest.mark.parametrize("num_tiles", [1, 2, 5, 6])
def test_query_boxes_that_see_a_key_box_are_an_interval(num_tiles, per_tile):
    from ena_kernels.sliding_tile.hopper.addresses import seeing

    for num_seen in range(1, num_tiles + 1):
        visible = visible_tiles((num_tiles,), (1,), (num_seen,)).tolist()
        for box in range(num_tiles * per_tile):
            queries = [i for i, keys in enumerate(visible) if box // per_tile in keys]
            first, count = seeing.fn(box, num_tiles * per_tile, num_seen * per_tile, per_tile)
            assert (first, count) == (queries[0] * per_tile, len(queries) * per_tile)


def test_boxes_of_the_tiled_order_follow_each_other():
    cut = boxes((64, 96), (16, 32), (32, 96), "tiled")
    assert cut.sides == (64 * 96,)
    assert cut.box == (1, 1, 128)
    assert (cut.counts, cut.seen, cut.per_tile) == ((1, 4, 12), (1, 2, 12), (1, 1, 4))


@pytest.mark.parametrize(
    ("canvas", "tile"),
    [((40, 24), (8, 8)), ((20, 25), (20, 25)), ((36, 40), (18, 8)), ((4, 4, 4, 8), (4, 4, 1, 8))],
)
def test_canvases_without_boxes_of_128_tokens_are_left_to_others(canvas, tile):
    assert boxes(canvas, tile, tile, "raster") is None


def test_both_halves_of_a_box_are_64_tokens():
    cut = boxes((8, 12, 24), (4, 4, 8), (4, 12, 8), "raster")
    assert cut.half_box == (2, 4, 8)
    assert cut.half == (2, 0, 0)


def test_the_batch_folds_into_the_heads_or_into_the_slowest_axis():
    B, H, L, D = 2, 3, 256, 64
    packed = torch.empty(B, L, 3 * H * D).chunk(3, -1)[1].unflatten(-1, (H, D)).transpose(1, 2)
    assert fold(torch.empty(B, H, L, D), 16) == (H, 0)
    assert fold(packed, 16) == (0, 16)
    assert fold(packed[:1], 16) == (0, 0)
    assert fold(packed[:, :1], 16) == (0, 16)


def test_tensors_without_a_view_of_five_axes_are_left_to_others():
    B, H, L, D = 4, 3, 256, 64
    assert fold(torch.empty(B, 2 * H, L, D)[:, :H], 16) is None
    assert fold(torch.empty(B, H, L, D + 4)[..., :D], 16) is None
    assert fold(torch.empty(B, H, L, 2 * D)[..., ::2], 16) is None
    assert fold(torch.empty(B, 1, L, D).expand(B, H, L, D), 16) is None


def test_a_tensor_map_is_made_in_a_thread_with_a_cuda_context(monkeypatch):
    bound = []
    monkeypatch.setattr(hopper, "bind_context", bound.append)
    x = torch.empty(1, 1, 256, 64, dtype=torch.bfloat16)
    boxes_module.view(x, (256,), (1, 1, 64))
    assert bound == [x]


def test_tensors_on_the_cpu_are_left_to_others():
    x = torch.empty(1, 1, 256, 64, dtype=torch.bfloat16)
    assert not supports((x, x, x), (256,), (128,), (128,), "raster")


# Triton 3.9 spills a few words of the largest kernels, 3.6 nothing
A_FEW_WORDS = 96
# half of a box of 128 tokens that is cut along its slowest side
BOXES = {3: ((4, 4, 8), (2, 4, 8)), 2: ((1, 16, 8), (1, 8, 8)), 1: ((1, 1, 128), (1, 1, 64))}


def signature(dtype, head_dim, num_axes, *, halves, wholes=(), floats=(), counts=(), folds=()):
    """Types of a kernel's arguments: maps of half boxes and of whole ones, the others by name."""
    whole, half = (
        f"tensordesc<{dtype}{[1, *box[3 - num_axes :], head_dim]}>" for box in BOXES[num_axes]
    )
    return {
        **dict.fromkeys((f"{name}_desc" for name in halves), half),
        **dict.fromkeys((f"{name}_desc" for name in wholes), whole),
        **dict.fromkeys(floats, "*fp32"),
        **dict.fromkeys(counts, "i32"),
        **dict.fromkeys(("counts", "seen", "per_tile"), ("i32",) * 3),
        **dict.fromkeys((f"{name}_fold" for name in folds), ("i32", "i32")),
    }


def constants(head_dim, num_axes, **own):
    box, half_box = BOXES[num_axes]
    half = tuple(h if h != b else 0 for h, b in zip(half_box, box, strict=True))
    return {"D": head_dim, "BOX": box, "HALF": half, "NUM_AXES": num_axes, **own}


def assert_runs_on_warpgroup_products(module, kernel, types, constexprs):
    binary = compiled(
        module=f"ena_kernels.sliding_tile.hopper.{module}",
        kernel=f"sliding_tile_hopper_{kernel}_kernel",
        signature=types,
        constexprs=constexprs,
    )
    assert binary.has_hgmma
    assert not binary.has_hmma
    assert binary.local_bytes <= A_FEW_WORDS
    assert binary.shared_bytes <= 227 * 1024


KINDS = pytest.mark.parametrize(
    ("head_dim", "dtype", "num_axes"), [(64, "bf16", 3), (128, "fp16", 1)]
)


@KINDS
def test_the_forward_compiles_for_hopper(head_dim, dtype, num_axes):
    types = signature(
        *(dtype, head_dim, num_axes),
        halves="qo",
        wholes="kv",
        floats=("lse_ptr",),
        counts=("num_units", "num_heads", "group"),
        folds="qkvo",
    ) | {"scale_log2": "fp32", "sides": ("i32", "i32")}
    own = {"STAGES": forward.STAGES, "HALF_BOX": BOXES[num_axes][1], "FLIPPED": False}
    constexprs = constants(head_dim, num_axes, **own)
    assert_runs_on_warpgroup_products("forward_kernel", "fwd", types, constexprs)


@KINDS
def test_the_gradient_of_queries_compiles_for_hopper(head_dim, dtype, num_axes):
    maps = ("q", "k", "v", "o", "do", "dq")
    types = signature(
        *(dtype, head_dim, num_axes),
        halves=maps,
        floats=("lse_ptr", "dlse_ptr", "base_2_lse_ptr", "delta_ptr"),
        counts=("num_heads", "group"),
        folds=maps,
    ) | {"scale": "fp32", "sides": ("i32", "i32")}
    own = {"STAGES": backward.STAGES, "HALF_BOX": BOXES[num_axes][1], "HAS_DLSE": True}
    constexprs = constants(head_dim, num_axes, **own)
    assert_runs_on_warpgroup_products("dq_kernel", "bwd_dq", types, constexprs)


@KINDS
def test_the_gradients_of_keys_compile_for_hopper(head_dim, dtype, num_axes):
    maps = ("q", "k", "v", "do", "dk", "dv")
    types = signature(
        *(dtype, head_dim, num_axes), halves=maps, counts=("num_kv_heads", "group"), folds=maps
    ) | {"scale": "fp32"}
    types |= dict.fromkeys(("lse_desc", "delta_desc"), "tensordesc<fp32[1, 64]>")
    constexprs = constants(head_dim, num_axes, STAGES=backward.STAGES)
    assert_runs_on_warpgroup_products("dkdv_kernel", "bwd_dkdv", types, constexprs)
