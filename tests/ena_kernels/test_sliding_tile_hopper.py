"""The Hopper forward: how a canvas becomes boxes, which views it takes, what the compiler makes."""

import itertools
import math

import pytest
import torch

from ena_kernels.canvas import visible_tiles
from ena_kernels.sliding_tile import hopper
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
    cut = hopper.boxes(canvas, tile, window, "raster")
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


def test_boxes_of_the_tiled_order_follow_each_other():
    cut = hopper.boxes((64, 96), (16, 32), (32, 96), "tiled")
    assert cut.sides == (64 * 96,)
    assert cut.box == (1, 1, 128)
    assert (cut.counts, cut.seen, cut.per_tile) == ((1, 4, 12), (1, 2, 12), (1, 1, 4))


@pytest.mark.parametrize(
    ("canvas", "tile"),
    [((40, 24), (8, 8)), ((20, 25), (20, 25)), ((36, 40), (18, 8)), ((4, 4, 4, 8), (4, 4, 1, 8))],
)
def test_canvases_without_boxes_of_128_tokens_are_left_to_others(canvas, tile):
    assert hopper.boxes(canvas, tile, tile, "raster") is None


def test_both_halves_of_a_box_are_64_tokens():
    cut = hopper.boxes((8, 12, 24), (4, 4, 8), (4, 12, 8), "raster")
    assert cut.half_box == (2, 4, 8)
    assert cut.half == (2, 0, 0)


def test_the_batch_folds_into_the_heads_or_into_the_slowest_axis():
    B, H, L, D = 2, 3, 256, 64
    packed = torch.empty(B, L, 3 * H * D).chunk(3, -1)[1].unflatten(-1, (H, D)).transpose(1, 2)
    assert hopper._fold(torch.empty(B, H, L, D), 16) == (H, 0)
    assert hopper._fold(packed, 16) == (0, 16)
    assert hopper._fold(packed[:1], 16) == (0, 0)
    assert hopper._fold(packed[:, :1], 16) == (0, 16)


def test_tensors_without_a_view_of_five_axes_are_left_to_others():
    B, H, L, D = 4, 3, 256, 64
    assert hopper._fold(torch.empty(B, 2 * H, L, D)[:, :H], 16) is None
    assert hopper._fold(torch.empty(B, H, L, D + 4)[..., :D], 16) is None
    assert hopper._fold(torch.empty(B, H, L, 2 * D)[..., ::2], 16) is None
    assert hopper._fold(torch.empty(B, 1, L, D).expand(B, H, L, D), 16) is None


def test_tensors_on_the_cpu_are_left_to_others():
    x = torch.empty(1, 1, 256, 64, dtype=torch.bfloat16)
    assert not hopper.supports(x, x, x, (256,), (128,), (128,), "raster")


@pytest.mark.parametrize(
    ("head_dim", "dtype", "box", "half_box", "num_axes"),
    [
        (64, "bf16", (4, 4, 8), (2, 4, 8), 3),
        (128, "bf16", (1, 16, 8), (1, 8, 8), 2),
        (128, "fp16", (1, 1, 128), (1, 1, 64), 1),
    ],
)
def test_the_kernel_compiles_for_hopper_without_spilling(head_dim, dtype, box, half_box, num_axes):
    stages, in_turn = hopper.CONFIGS[head_dim]
    queries, keys = (
        f"tensordesc<{dtype}{[1, *x[3 - num_axes :], head_dim]}>" for x in (half_box, box)
    )
    binary = compiled(
        module="ena_kernels.sliding_tile.hopper_kernel",
        kernel="sliding_tile_hopper_fwd_kernel",
        signature={
            **{"q_desc": queries, "k_desc": keys, "v_desc": keys, "o_desc": queries},
            **{"lse_ptr": "*fp32", "scale_log2": "fp32"},
            **dict.fromkeys(("num_units", "num_heads", "group"), "i32"),
            **dict.fromkeys(("counts", "seen", "per_tile"), ("i32",) * 3),
            **dict.fromkeys(("sides", "q_fold", "k_fold", "v_fold", "o_fold"), ("i32",) * 2),
        },
        constexprs={
            "D": head_dim,
            "BOX": box,
            "HALF": tuple(h if h != b else 0 for h, b in zip(half_box, box, strict=True)),
            "HALF_BOX": half_box,
            "NUM_AXES": num_axes,
            "STAGES": stages,
            "IN_TURN": in_turn,
            "FLIPPED": False,
        },
    )
    assert binary.has_hgmma
    assert not binary.has_hmma
    assert binary.local_bytes == 0
    assert binary.shared_bytes <= 227 * 1024
