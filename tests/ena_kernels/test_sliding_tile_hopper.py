"""The Hopper kernels: how a canvas becomes boxes, the views they take, what the compiler makes."""

import itertools
import math
from importlib import import_module

import pytest
import torch

from ena_kernels import hopper
from ena_kernels.canvas import visible_tiles
from ena_kernels.operands import heads_last
from ena_kernels.sliding_tile.hopper import backward, forward
from ena_kernels.sliding_tile.hopper.boxes import boxes, fold, supports, view
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


def folded(x, first=16):
    return fold(x.shape, x.stride(), first)


def packed(B, H, L, D, dtype=torch.bfloat16):
    parts = torch.empty(B, L, 3 * H * D, dtype=dtype).chunk(3, -1)
    return [part.unflatten(-1, (H, D)).transpose(1, 2) for part in parts]


def test_the_batch_folds_into_the_heads_or_into_the_slowest_axis():
    B, H, L, D = 2, 3, 256, 64
    x = packed(B, H, L, D)[1]
    assert folded(torch.empty(B, H, L, D)) == (H, 0)
    assert folded(x) == (0, 16)
    assert folded(x[:1]) == (0, 0)
    assert folded(x[:, :1]) == (0, 16)


def test_tensors_without_a_view_of_five_axes_are_left_to_others():
    B, H, L, D = 4, 3, 256, 64
    assert folded(torch.empty(B, 2 * H, L, D)[:, :H]) is None
    assert folded(torch.empty(B, H, L, D + 4)[..., :D]) is None
    assert folded(torch.empty(B, H, L, 2 * D)[..., ::2]) is None
    assert folded(torch.empty(B, 1, L, D).expand(B, H, L, D)) is None


def test_a_view_walks_the_canvas_of_every_head_of_a_packed_projection():
    B, H, L, D = 2, 3, 16 * 24, 64
    x = packed(B, H, L, D)[1]
    seen = view(x.shape, x.stride(), x.dtype, (16, 24), (1, 8, 8))
    shape, strides, block, _ = seen.map
    assert (shape, block) == ([H, B * 16, 24, D], [1, 8, 8, D])
    assert seen.fold == (0, 16)
    boxes_of_x = x.as_strided(shape, strides, x.storage_offset())
    expected = x.unflatten(2, (16, 24))
    assert boxes_of_x.stride() == expected[0].stride()
    assert boxes_of_x[2, 16 + 5, 7].data_ptr() == expected[1, 2, 5, 7].data_ptr()


@pytest.mark.parametrize(
    ("shape", "sides"), [((1, 2, 384, 96), (16, 24)), ((1, 2, 400, 64), (16, 24))]
)
def test_head_dims_and_text_without_a_kernel_have_no_view(shape, sides):
    assert view(shape, heads_last(shape), torch.bfloat16, sides, (1, 8, 8)) is None


GEOMETRY = (16, 24), (16, 8), (16, 24), "raster"


def plan(B=2, H=4, H_kv=2, D=64, geometry=GEOMETRY):
    """The forward of grouped heads, as if the CPU were a Hopper GPU."""
    q = torch.empty(B, H, 384, D, dtype=torch.bfloat16)
    k, v = (torch.empty(B, H_kv, 384, D, dtype=torch.bfloat16) for _ in range(2))
    return (q, k, v), forward.planned(q, k, v, *geometry, flipped=False)


class Kernel:
    """Stands for a compiled kernel, and keeps what it is launched with."""

    def __init__(self, monkeypatch, module, name):
        self.launches = []
        module = import_module(f"ena_kernels.sliding_tile.hopper.{module}")
        self.arg_names = getattr(module, name).arg_names
        monkeypatch.setattr(module, name, self)

    def __getitem__(self, grid):
        def launch(*arguments, num_warps=4, **constants):
            names = self.arg_names[: len(arguments)]
            given = dict(zip(names, arguments, strict=True)) | constants
            self.launches.append((grid, given))
            return self

        return launch


@pytest.fixture
def forward_kernel(monkeypatch):
    monkeypatch.setattr(forward, "num_multiprocessors", lambda _: 5)
    forward._planned.cache_clear()
    yield Kernel(monkeypatch, "forward_kernel", "sliding_tile_hopper_fwd_kernel")
    forward._planned.cache_clear()


@pytest.mark.parametrize("num_calls", [1, 2, 3])
def test_every_call_launches_with_its_own_tensors_and_all_the_kernel_asks_for(
    forward_kernel, num_calls
):
    for call in range(num_calls):
        (q, k, v), run = plan()
        out, lse = run(q, k, v, 0.5 + call)
        grid, given = forward_kernel.launches[call]
        assert grid[0] == 5
        assert set(given) == set(forward_kernel.arg_names)
        maps = [given[f"{name}_desc"].base.data_ptr() for name in "qkvo"]
        assert maps == [x.data_ptr() for x in (q, k, v, out)]
        assert given["scale_log2"] == pytest.approx((0.5 + call) / math.log(2))
        assert given["lse_ptr"] is lse
        assert (given["num_heads"], given["group"], given["D"]) == (4, 2, 64)
        assert given["num_units"] == 2 * 4 * 3
        assert out.transpose(1, 2).is_contiguous()
        assert lse.shape == (2, 4, 384)


def test_one_plan_serves_tensors_that_are_alike_and_no_others(forward_kernel):
    (q, k, v), run = plan()
    assert plan()[1] is run
    assert plan(H_kv=4)[1] is not run
    assert plan(D=128)[1] is not run
    assert forward.planned(q, v.transpose(0, 1), v, *GEOMETRY, flipped=False) is not run
    assert forward.planned(q, k, v, *GEOMETRY, flipped=True) is not run
    assert plan(geometry=((16, 24), (16, 8), (16, 8), "raster"))[1] is not run


def test_there_is_no_plan_for_unaligned_or_mixed_tensors_and_odd_tiles(forward_kernel):
    (q, k, v), _ = plan()
    assert forward.planned(q, k, v.half(), *GEOMETRY, flipped=False) is None
    unaligned = torch.empty(k.numel() + 8, dtype=k.dtype)[4:-4].view(k.shape)
    assert forward.planned(q, unaligned, v, *GEOMETRY, flipped=False) is None
    assert plan(geometry=((16, 24), (8, 8), (8, 24), "raster"))[1] is None


@pytest.mark.parametrize("has_dlse", [False, True])
def test_the_backward_launches_with_its_tensors_and_all_its_kernels_ask_for(monkeypatch, has_dlse):
    backward._planned.cache_clear()
    dq = Kernel(monkeypatch, "dq_kernel", "sliding_tile_hopper_bwd_dq_kernel")
    dkdv = Kernel(monkeypatch, "dkdv_kernel", "sliding_tile_hopper_bwd_dkdv_kernel")
    shapes = {"q": (2, 4, 384, 64), "k": (2, 2, 384, 64)}
    q, k, v = (torch.empty(shapes[n], dtype=torch.bfloat16) for n in "qkk")
    out, do = torch.empty_like(q), torch.empty_like(q)
    lse, grad_lse = torch.empty(2, 4, 384), torch.empty(2, 4, 384)
    grad_lse = grad_lse if has_dlse else None
    tensors = (do, grad_lse, q, k, v, out, lse)
    for call in range(2):
        grads = backward.planned(*tensors, *GEOMETRY)(*tensors, 0.5)
        assert [g.shape for g in grads] == [q.shape, k.shape, v.shape]
        assert all(g.transpose(1, 2).is_contiguous() for g in grads)
        named = dict(zip(("q", "k", "v", "o", "do"), (q, k, v, out, do), strict=True))
        named |= dict(zip(("dq", "dk", "dv"), grads, strict=True))
        for kernel, programs in ((dq, 2 * 4 * 3), (dkdv, 2 * 2 * 3)):
            grid, given = kernel.launches[call]
            assert grid[0] == programs
            assert set(given) == set(kernel.arg_names)
            for name, x in named.items():
                if f"{name}_desc" in given:
                    assert given[f"{name}_desc"].base.data_ptr() == x.data_ptr(), name
        first, second = dq.launches[call][1], dkdv.launches[call][1]
        assert first["lse_ptr"] is lse
        assert first["dlse_ptr"] is (grad_lse if has_dlse else lse)
        assert first["HAS_DLSE"] == has_dlse
        assert second["lse_desc"].base is first["base_2_lse_ptr"]
        assert second["delta_desc"].base is first["delta_ptr"]
    backward._planned.cache_clear()


def test_a_tensor_map_is_made_in_a_thread_with_a_cuda_context(monkeypatch):
    bound = []
    monkeypatch.setattr(hopper, "bind_context", bound.append)
    x = torch.empty(1, 1, 256, 64, dtype=torch.bfloat16)
    seen = view(x.shape, x.stride(), x.dtype, (256,), (1, 1, 64))
    hopper.tensor_map(x, *seen.map)
    assert bound == [x]


def test_tensors_on_the_cpu_are_left_to_others():
    assert not supports(torch.empty(1, 1, 256, 64, dtype=torch.bfloat16))


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
