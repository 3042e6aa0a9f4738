"""Cost formulas against numbers worked out by hand, explicit loops and PyTorch's own counter."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.case import Case
from bench.cost import (
    FLEX_BLOCK,
    Dims,
    attention_bytes,
    attention_flops,
    attention_layer_flops,
    cost,
    delta_net_flops,
    delta_rule_bytes,
    delta_rule_flops,
    head_flops,
    linear_bytes,
    linear_flops,
    mlp_flops,
    num_parameters,
    projection_flops,
    scan_bytes,
    scan_flops,
    visited_fraction,
)
from ena_kernels.models import build
from ena_kernels.sliding_tile.flex import BLOCK

DIMS = Dims(batch=2, heads=3, seq_len=40, head_dim=5)
TILED = {"canvas": (8, 20), "tile": (4, 5), "window": (8, 10)}


def make_case(contender, level="op", **settings):
    defaults = {"impl": "eager", "mode": "fwd", "canvas": (8, 20), "batch": 2, "heads": 3}
    defaults |= {"head_dim": 16, "depth": 2, "dtype": "bfloat16"}
    if contender == "ena":
        defaults |= TILED | {"interleave": "linear-first", "permute": "io"}
    if contender in ("ena", "linear"):
        defaults |= {"scan": "uni", "scan_variant": "fixed"}
    return Case(level=level, contender=contender, **defaults | settings)


# head dim: forward and both directions in chunks of 64, forward in chunks of 32 and of 16, in FLOPs
# per token over its width; worked out from docs/maths.md, "Cost", apart from this code
HAND_COUNTED_FLOPS = {
    16: (821, 3893, 437, 261),
    32: (875, 3691, 523, 355),
    64: (1045, 4117, 709, 545),
    128: (1419, 5387, 1091, 929),
    256: (2181, 8133, 1857, 1696),
}


@pytest.mark.parametrize("head_dim", HAND_COUNTED_FLOPS)
def test_the_delta_rule_costs_what_was_worked_out_by_hand(head_dim):
    dims = Dims(batch=3, heads=2, seq_len=512, head_dim=head_dim)
    unit = dims.tokens * dims.model_dim
    at_64, at_32, at_16 = (delta_rule_flops(dims, chunk) for chunk in (64, 32, 16))
    counted = (at_64.forward, at_64.of("fwdbwd"), at_32.forward, at_16.forward)
    assert tuple(round(flops / unit) for flops in counted) == HAND_COUNTED_FLOPS[head_dim]


# tokens: FLOPs of a Transformer of 12 heads of 64 over those of ENA with full attention, of ENA at
# 70%, and of the recurrence alone in 1, 2 and 4 passes; forward, then both directions. Worked out
# likewise, without beta and the convolutions, which are three in a thousand
HAND_COUNTED_RATIOS = {
    1024: ("1.07 1.15 1.16 0.84 0.55", "1.08 1.17 1.17 .85 .55"),
    2048: ("1.16 1.32 1.37 1.00 0.65", "1.17 1.36 1.41 1.02 .66"),
    4096: ("1.28 1.63 1.79 1.31 0.85", "1.31 1.71 1.90 1.37 .89"),
    8192: ("1.45 2.14 2.63 1.92 1.25", "1.48 2.28 2.86 2.07 1.34"),
    16384: ("1.62 2.92 4.31 3.15 2.05", "1.65 3.10 4.79 3.47 2.24"),
    32768: ("1.77 3.87 7.68 5.61 3.64", "1.79 4.07 8.65 6.27 4.05"),
    65536: ("1.87 4.81 14.4 10.5 6.84", "1.88 4.99 16.4 11.9 7.66"),
    131072: ("1.93 5.56 27.9 20.4 13.2", "1.94 5.68 31.8 23.1 14.9"),
}


@pytest.mark.parametrize("seq_len", HAND_COUNTED_RATIOS)
@pytest.mark.parametrize("mode", ["fwd", "fwdbwd"])
def test_the_predicted_ratios_are_those_worked_out_by_hand(seq_len, mode):
    dims = Dims(batch=1, heads=12, seq_len=seq_len, head_dim=64)
    recurrence = projection_flops(dims) + delta_rule_flops(dims)
    mlp = mlp_flops(dims)

    def ena(attended):
        return mlp + (attention_layer_flops(dims, attended) + recurrence) * 0.5

    transformer = mlp + attention_layer_flops(dims)
    contenders = [ena(1.0), ena(0.3), *(mlp + recurrence * passes for passes in (1, 2, 4))]
    for contender, text in zip(
        contenders, HAND_COUNTED_RATIOS[seq_len][mode == "fwdbwd"].split(), strict=True
    ):
        digits = len(text.partition(".")[2])
        assert (
            f"{transformer.of(mode) / contender.of(mode):.{digits}f}" == f"{float(text):.{digits}f}"
        )


def test_the_whole_layer_adds_beta_and_convolutions_to_recurrence_and_projections():
    added = delta_net_flops(DIMS).forward
    added -= (projection_flops(DIMS) + delta_rule_flops(DIMS)).forward
    per_token = 2 * DIMS.model_dim * DIMS.heads + 24 * DIMS.model_dim
    assert added == pytest.approx(DIMS.tokens * per_token)


@pytest.mark.parametrize(
    ("canvas", "tile", "window"),
    [((6, 8), (2, 2), (4, 6)), ((4, 4, 6), (2, 1, 3), (2, 3, 3)), ((12,), (2,), (20,))],
)
def test_attention_counts_the_pairs_that_loops_find(canvas, tile, window):
    pairs = sum(
        _sees(query, key, canvas, tile, window)
        for query, key in itertools.product(_coordinates(canvas), repeat=2)
    )
    case = make_case("sliding_tile", canvas=canvas, tile=tile, window=window, batch=1, heads=1)
    assert cost(case).flops == 4 * pairs * 16
    assert cost(case.with_(mode="bwd")).flops == 10 * pairs * 16
    assert cost(case.with_(mode="fwdbwd")).flops == 14 * pairs * 16
    assert cost(case).flops_computed == cost(case).flops
    assert cost(case).flops_dense == 4 * case.seq_len**2 * 16


def _coordinates(canvas):
    return itertools.product(*(range(side) for side in canvas))


def _sees(query, key, canvas, tile, window):
    """The official rule: clamp the window's centre, then reach to both sides."""
    for n, t, w, q, k in zip(canvas, tile, window, query, key, strict=True):
        num_tiles, num_seen = n // t, w // t
        left, right = num_seen // 2, num_seen // 2 + num_seen % 2 - 1
        centre = min(max(q // t, left), num_tiles - 1 - right)
        if num_seen < num_tiles and not centre - left <= k // t <= centre + right:
            return False
    return True


def test_the_delta_rule_counts_the_products_that_a_chunk_makes():
    C, D, E = 8, 5, 5
    product = _Counter()
    product.many([(C, D, C), (C, C, D), (C, C, E)])  # K K^T, W, U
    product.triangular_inverse(C)
    product.many([(C, D, E), (C, D, C), (C, D, E), (C, C, E), (D, C, E)])  # W S, Q K^T, Q S, P R, S
    dims = Dims(batch=2, heads=3, seq_len=5 * C, head_dim=D)
    num_chunks = dims.batch * dims.heads * 5
    counted = num_chunks * 2 * product.multiply_adds
    # the inverse skips what is above the diagonal, to leading order C^3 / 3 operations
    skipped = num_chunks * C / 3
    assert delta_rule_flops(dims, C).forward == pytest.approx(counted + skipped)


def test_the_delta_rule_backward_counts_the_products_that_a_chunk_makes():
    C, D, E = 8, 5, 5
    product = _Counter()
    product.many([(C, D, C), (C, C, D), (C, C, E), (C, D, C), (C, D, E), (D, C, E)])  # again
    product.many([(C, C, E), (C, D, E)])  # dR = P^T dO + K G
    product.many([(C, E, C), (C, E, D), (C, C, D)])  # dP, dQ
    product.many([(C, C, D), (C, E, D), (C, E, D)])  # dK first part, dW
    product.many([(D, C, E), (D, C, E)])  # G of the chunk before
    product.many([(C, D, C), (C, E, C), (C, C, D), (C, C, E)])  # dA, dKb, dVb
    product.many([(C, C, C), (C, C, C), (C, C, D), (C, C, D)])  # dL, M K, M^T K
    dims = Dims(batch=2, heads=3, seq_len=5 * C, head_dim=D)
    counted = dims.batch * dims.heads * 5 * 2 * product.multiply_adds
    assert delta_rule_flops(dims, C).backward == pytest.approx(counted)


class _Counter:
    """Multiply-adds, one at a time."""

    def __init__(self):
        self.multiply_adds = 0

    def many(self, products):
        for rows, inner, columns in products:
            for _ in itertools.product(range(rows), range(inner), range(columns)):
                self.multiply_adds += 1

    def triangular_inverse(self, size):
        for row in range(size):
            for earlier in range(row):
                for _ in range(earlier + 1):
                    self.multiply_adds += 1


def test_a_sequence_shorter_than_a_chunk_pays_for_its_own_length():
    short = Dims(batch=1, heads=1, seq_len=20, head_dim=5)
    assert delta_rule_flops(short) == delta_rule_flops(short, chunk=20)


@pytest.mark.parametrize(
    ("canvas", "seen", "tile", "computed"),
    [
        ((128, 128), (2, 2), (8, 8), 0.0293),
        ((128, 128), (9, 9), (8, 8), 0.3516),
        ((64, 64), (3, 3), (8, 8), 0.2344),
        ((64, 64), (5, 4), (8, 8), 0.3906),
        ((32, 32), (2, 2), (8, 8), 0.3750),
        ((24, 24, 24), (3, 3, 3), (4, 4, 4), 0.1944),
        ((128, 128), (5, 9), (16, 8), 0.3516),
        ((32, 16, 16), (3, 2, 2), (2, 8, 8), 0.1875),
    ],
)
def test_blocks_visited_are_those_of_the_official_mask(canvas, seen, tile, computed):
    window = tuple(k * t for k, t in zip(seen, tile, strict=True))
    assert round(visited_fraction(canvas, tile, window, 128), 4) == computed


@pytest.mark.parametrize("block", [1, 3, 4, 5, 8, 16, 50])
def test_blocks_visited_are_those_that_loops_find(block):
    canvas, tile, window = (4, 12), (2, 3), (2, 6)
    order = [
        tuple(c * t + r for c, t, r in zip(corner, tile, inside, strict=True))
        for corner in _coordinates((2, 4))
        for inside in _coordinates(tile)
    ]
    touched = set()
    for (i, query), (j, key) in itertools.product(enumerate(order), repeat=2):
        if _sees(query, key, canvas, tile, window):
            touched.add((i // block, j // block))

    def size(number):
        return min((number + 1) * block, 48) - number * block

    pairs = sum(size(i) * size(j) for i, j in touched)
    assert visited_fraction(canvas, tile, window, block) == pytest.approx(pairs / 48**2)


def test_flex_computes_more_where_blocks_straddle_tiles():
    narrow = make_case("sliding_tile", impl="flex", canvas=(64, 64), tile=(8, 8), window=(24, 24))
    wide = narrow.with_(tile=(8, 16), window=(24, 48))
    assert cost(narrow).flops_computed == pytest.approx(cost(narrow).flops * 0.234375 / 0.140625)
    assert cost(wide).flops_computed == cost(wide).flops


def test_flex_visits_blocks_of_the_size_counted_here():
    assert FLEX_BLOCK == BLOCK


def test_computed_flops_are_unknown_where_a_library_chooses_its_blocks():
    assert cost(make_case("sliding_tile", impl="natten", **TILED)).flops_computed is None
    assert cost(make_case("ena", "layer", impl="natten+fla")).flops_computed is None
    assert cost(make_case("linear", "layer", impl="reference")).flops_computed is None
    full = make_case("ena", "layer", impl="sdpa_flash+fla", tile=None, window=None)
    assert cost(full).flops_computed == cost(full).flops == cost(full).flops_dense


@pytest.mark.parametrize("mode", ["fwd", "fwdbwd"])
def test_linear_maps_of_a_block_match_what_pytorch_counts(mode):
    dims = Dims(batch=2, heads=3, seq_len=16, head_dim=4)
    shape = {"canvas": (16,), "heads": 3, "head_dim": 4, "depth": 1}
    beta = linear_flops(dims.tokens, dims.model_dim, dims.heads)
    shared = projection_flops(dims) + mlp_flops(dims)
    for contender, expected in (("transformer", shared), ("linear", shared + beta)):
        (block,) = build(contender, level="layer", **shape)
        x = torch.randn(2, 16, 12, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            mixed = block.mixer.qkv(x)[..., :12]
            y = block.mlp(block.mixer.out(mixed)).sum()
            if contender == "linear":
                y = y + block.mixer.beta(x).sum()
            if mode == "fwdbwd":
                y.backward()
        assert counter.get_total_flops() == expected.of(mode)


def test_pytorch_counts_as_much_for_dense_attention():
    dims = Dims(batch=2, heads=3, seq_len=16, head_dim=4)
    q, k, v = (torch.randn(2, 3, 16, 4) for _ in range(3))
    with FlopCounterMode(display=False) as counter:
        (q @ k.mT).softmax(-1) @ v
    assert counter.get_total_flops() == attention_flops(dims).forward


@pytest.mark.parametrize("level", ["layer", "model"])
@pytest.mark.parametrize("contender", ["ena", "transformer", "linear"])
@pytest.mark.parametrize("scan", ["uni", "learnable"])
def test_parameters_are_counted_as_built(level, contender, scan):
    changes = {} if contender == "transformer" else {"scan": scan}
    case = make_case(contender, level, depth=3, **changes)
    settings = {"tile": case.tile, "window": case.window, "scan": case.scan or "uni"}
    shape = {"canvas": case.canvas, "heads": 3, "head_dim": 16, "depth": 3}
    module = build(contender, level=level, **shape, **settings)
    assert num_parameters(case) == sum(p.numel() for p in module.parameters())


def test_an_operator_has_no_parameters():
    assert num_parameters(make_case("attention")) == 0


def test_a_layer_of_ena_is_one_block_of_each_kind():
    case = make_case("ena", "layer", mode="fwdbwd")
    dims = Dims(batch=2, heads=3, seq_len=160, head_dim=16)
    attends = mlp_flops(dims) + attention_layer_flops(dims, 0.5)
    recurs = mlp_flops(dims) + delta_net_flops(dims)
    assert cost(case).flops == (attends + recurs).of("fwdbwd")
    assert cost(case.with_(interleave="attention-first")).flops == cost(case).flops
    odd = case.with_(depth=3)
    assert cost(odd).flops == (attends + recurs * 2).of("fwdbwd")
    assert cost(odd.with_(interleave="attention-first")).flops == (attends * 2 + recurs).of(
        "fwdbwd"
    )


def test_a_model_adds_its_head_to_its_blocks():
    for contender in ("ena", "transformer", "linear"):
        model = make_case(contender, "model", depth=4)
        head = head_flops(Dims(batch=2, heads=3, seq_len=160, head_dim=16)).forward
        assert head == 2 * (2 * 48 * 48 + 2 * 48 * 1000)
        layer = cost(model.with_(level="layer"))
        assert cost(model).flops == layer.flops + head
        assert cost(model).bytes > layer.bytes


def test_scans_repeat_the_mixer_but_not_the_mlp():
    uni = make_case("linear", "layer", depth=1)
    mlp = mlp_flops(Dims(batch=2, heads=3, seq_len=160, head_dim=16)).forward
    mixing = cost(uni).flops - mlp
    assert cost(uni.with_(scan="bi")).flops == pytest.approx(mlp + 2 * mixing)
    assert cost(uni.with_(scan="cross")).flops == pytest.approx(mlp + 4 * mixing)
    assert cost(uni.with_(scan="flip")).flops == cost(uni).flops
    assert cost(uni.with_(scan="cross")).bytes > cost(uni.with_(scan="bi")).bytes


def test_a_learnable_scan_multiplies_by_its_matrix():
    product = 2 * DIMS.batch * DIMS.seq_len**2 * DIMS.model_dim
    assert scan_flops(DIMS, "learnable", "official").of("fwdbwd") == 3 * product
    assert scan_flops(DIMS, "learnable", "fixed").forward == 2 * product
    assert scan_flops(DIMS, "cross", "fixed").forward == 0


def test_an_operator_gets_its_order_and_makes_no_gradient_of_it():
    case = make_case("scan", "op", scan="learnable", scan_variant="official")
    x = torch.randn(case.batch, case.seq_len, case.model_dim, requires_grad=True)
    order = torch.randn(case.seq_len, case.seq_len)
    with FlopCounterMode(display=False) as counter:
        torch.matmul(order, x).sum().backward()
    assert cost(case.with_(mode="fwdbwd")).flops == counter.get_total_flops()
    assert cost(case.with_(mode="bwd")).bytes == cost(case).bytes


def test_sliding_tile_at_sparsity_zero_costs_what_attention_costs():
    tiled = make_case("sliding_tile", canvas=(8, 20), tile=(4, 5), window=(8, 20))
    assert cost(tiled) == cost(make_case("attention"))


def test_bytes_are_tensors_read_and_written_once():
    tensor, rows = 2 * 3 * 40 * 5, 2 * 3 * 40
    forward, backward = attention_bytes(DIMS, 2).forward, attention_bytes(DIMS, 2).backward
    assert (forward, backward) == (8 * tensor + 4 * rows, 16 * tensor + 12 * rows)
    forward, backward = delta_rule_bytes(DIMS, 2).forward, delta_rule_bytes(DIMS, 2).backward
    assert (forward, backward) == (8 * tensor + 2 * rows, 14 * tensor + 4 * rows)
    assert linear_bytes(7, 3, 5, 4).forward == 4 * (21 + 35 + 15)
    assert linear_bytes(7, 3, 5, 4).backward == 4 * (21 + 35 + 15 + 21 + 15)


@pytest.mark.parametrize(
    ("scan", "variant", "tensors"),
    [
        ("uni", "fixed", 0),
        ("flip", "official", 2),
        ("flip", "fixed", 4),
        ("bi", "fixed", 6),
        ("bi", "official", 6),
        ("cross", "fixed", 10),
        ("switch", "official", 2),
        ("mh2d", "fixed", 4),
    ],
)
def test_scans_read_and_write_each_of_their_tensors_once(scan, variant, tensors):
    tensor = 2 * 3 * 40 * 5
    moved = scan_bytes(DIMS, scan, variant, 2)
    assert moved.forward == moved.backward == tensors * 2 * tensor


def test_a_random_scan_also_reads_its_order_and_a_learnable_one_its_matrix():
    tensor = 2 * 3 * 40 * 5
    assert scan_bytes(DIMS, "random", "official", 2).forward == 4 * tensor + 8 * 2 * 40
    learnable = scan_bytes(DIMS, "learnable", "official", 2)
    assert learnable.forward == learnable.backward == 4 * tensor + 2 * 40**2


def test_the_bytes_of_a_block_are_those_of_its_operators():
    case = make_case("transformer", "layer", depth=1, dtype="float32")
    x, width, rows = 2 * 160 * 48, 48, 2 * 160 * 3
    weights = 12 * width**2
    tensors = (1 + 3) + 4 + (1 + 1) + (1 + 4) + (4 + 1)  # qkv, attention, out, up, down
    assert cost(case).bytes == 4 * (tensors * x + weights) + 4 * rows


def test_a_step_also_pays_for_the_optimizer():
    case = make_case("ena", "model", mode="step")
    both = cost(case.with_(mode="fwdbwd"))
    assert cost(case).flops == both.flops
    assert cost(case).bytes == both.bytes + 7 * 2 * num_parameters(case)


def test_every_operator_has_a_cost_in_every_mode():
    for contender, settings in (
        ("attention", {}),
        ("sliding_tile", TILED),
        ("delta_rule", {}),
        ("scan", {"scan": "bi", "scan_variant": "official"}),
    ):
        counted = {
            mode: cost(make_case(contender, mode=mode, **settings))
            for mode in ("fwd", "bwd", "fwdbwd")
        }
        assert counted["fwd"].bytes > 0
        for name in ("flops", "flops_dense", "bytes"):
            parts = getattr(counted["fwd"], name) + getattr(counted["bwd"], name)
            assert getattr(counted["fwdbwd"], name) == pytest.approx(parts)


def test_counting_needs_no_torch():
    program = "import sys, bench.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_contender_of_someone_else_has_no_cost():
    assert cost(make_case("mamba", "layer")) is None


def test_a_sparse_model_of_16k_tokens_needs_a_third_of_the_flops():
    ena, transformer = (
        cost(make_case(name, "model", canvas=(128, 128), depth=12, heads=12, head_dim=64, **more))
        for name, more in (("ena", {"tile": (8, 16), "window": (72, 64)}), ("transformer", {}))
    )
    assert transformer.flops / ena.flops == pytest.approx(2.98, abs=0.01)
