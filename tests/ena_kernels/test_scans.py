"""Every scan against explicit index loops: what it reads, and that merging undoes splitting."""

import subprocess
import sys
from itertools import product

import pytest
import torch

from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.scans import orders
from ena_kernels.scans.api import scan_merge, scan_split
from ena_kernels.scans.catalog import SCANS, VARIANTS, scan_passes, scan_reason
from ena_kernels.scans.orders import learnable_logits, learnable_order, random_order

CANVASES = [(2, 3), (3, 5), (2, 3, 4)]
HEADS = {"mh2d": 8, "mh3d": 13}
BATCH = 2


def num_tokens(canvas):
    return torch.Size(canvas).numel()


def runnable(*, canvases=CANVASES):
    """Each scan on each canvas it can read, layers 0 to 5 where the layer matters."""
    return [
        pytest.param(scan, canvas, layer, id=f"{scan}-{'x'.join(map(str, canvas))}-layer{layer}")
        for scan, canvas in product(SCANS, canvases)
        if scan_reason(scan, canvas, HEADS.get(scan, 1)) is None
        for layer in (range(6) if "shift" in scan or scan == "switch" else [3])
    ]


def make_case(scan, canvas, layer, *, dtype=torch.float64):
    """Tokens that are all different, and the keywords of both functions."""
    heads, seq_len = HEADS.get(scan, 1), num_tokens(canvas)
    x = torch.randn(BATCH, seq_len, 2 * heads, dtype=torch.float64).to(dtype)
    order = None
    if scan == "random":
        order = random_order(BATCH, seq_len)
    if scan == "learnable":
        order = torch.eye(seq_len, dtype=torch.float64)[torch.randperm(seq_len)]
    keywords = {"scan": scan, "canvas": canvas, "layer": layer, "heads": heads, "order": order}
    return x, keywords


def walk(canvas, axes):
    """Raster index of each token, walking `axes` from slowest to fastest; explicit loops."""
    found = []
    for steps in product(*(range(canvas[a]) for a in axes)):
        coordinate = dict(zip(axes, steps, strict=True))
        index = 0
        for axis, side in enumerate(canvas):
            index = index * side + coordinate[axis]
        found.append(index)
    return found


def rolled(canvas, steps):
    """Source of each token after rolling every axis forward."""
    sources = []
    for coordinate in product(*map(range, canvas)):
        index = 0
        for place, side, step in zip(coordinate, canvas, steps, strict=True):
            index = index * side + (place - step) % side
        sources.append(index)
    return sources


def head_order(scan, canvas, head):
    """The order of one channel slice; 8 heads of mh2d, 13 heads of mh3d."""
    if scan == "mh2d":
        axes, is_reversed = [((0, 1), 0), ((1, 0), 0), ((0, 1), 1), ((1, 0), 1)][head // 2]
    elif head == 12:
        axes, is_reversed = (0, 1, 2), 0
    else:
        six = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        axes, is_reversed = six[head % 6], head // 6
    order = walk(canvas, axes)
    return order[::-1] if is_reversed else order


def sources(scan, canvas, layer, order):
    """Per pass, sample and channel slice: which token stands at each position after the split."""
    tokens, axes = list(range(num_tokens(canvas))), tuple(range(len(canvas)))
    transposed = walk(canvas, axes[::-1])
    single = {
        "uni": tokens,
        "flip": tokens[::-1],
        "1d-shift": rolled((len(tokens),), (layer,)),
        "2d-shift": rolled(canvas, ([0, 1, 1, 1, 2, 2][layer],) * len(axes)),
        "switch": transposed if layer % 2 else tokens[::-1],
    }
    if scan == "bi":
        return [[[tokens]] * BATCH, [[tokens[::-1]]] * BATCH]
    if scan == "cross":
        four = [tokens, transposed, tokens[::-1], transposed[::-1]]
        return [[[one]] * BATCH for one in four]
    if scan in HEADS:
        return [[[head_order(scan, canvas, h) for h in range(HEADS[scan])]] * BATCH]
    if scan == "random":
        return [[[row.tolist()] for row in order]]
    if scan == "learnable":
        return [[[order.argmax(1).tolist()]] * BATCH]
    return [[[single[scan]]] * BATCH]


def split_by_loops(x, scan, canvas, layer, heads, order):
    passes = sources(scan, canvas, layer, order)
    out = torch.empty(len(passes) * BATCH, *x.shape[1:], dtype=x.dtype)
    width = x.shape[2] // heads
    for k, samples in enumerate(passes):
        for b, slices in enumerate(samples):
            row = b * 4 + k if scan == "cross" else k * BATCH + b
            for h, source in enumerate(slices):
                channels = slice(h * width, (h + 1) * width)
                for position, token in enumerate(source):
                    out[row, position, channels] = x[b, token, channels]
    return out


@pytest.mark.parametrize(("scan", "canvas", "layer"), runnable())
def test_fixed_split_reads_tokens_in_the_order_of_explicit_loops(scan, canvas, layer):
    x, keywords = make_case(scan, canvas, layer)
    assert torch.equal(scan_split(x, **keywords), split_by_loops(x, **keywords))


@pytest.mark.parametrize(("scan", "canvas", "layer"), runnable(canvases=[*CANVASES, (7,)]))
def test_fixed_merge_returns_every_token_once_per_pass(scan, canvas, layer):
    x, keywords = make_case(scan, canvas, layer)
    merged = scan_merge(scan_split(x, **keywords), **keywords)
    torch.testing.assert_close(merged, scan_passes(scan) * x)


@pytest.mark.parametrize(("scan", "canvas", "layer"), runnable())
def test_gradient_of_split_is_merge_and_of_merge_is_split(scan, canvas, layer):
    x, keywords = make_case(scan, canvas, layer)
    x.requires_grad_()
    y = scan_split(x, **keywords)
    weight = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, weight)
    torch.testing.assert_close(dx, scan_merge(weight, **keywords))
    leaf = y.detach().requires_grad_()
    merged = scan_merge(leaf, **keywords)
    (dy,) = torch.autograd.grad(merged, leaf, x.detach())
    torch.testing.assert_close(dy, y.detach())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("scan", "canvas", "layer"), runnable(canvases=[(2, 3), (2, 1, 3)]))
def test_gradients_pass_gradcheck(scan, canvas, layer, variant):
    x, keywords = make_case(scan, canvas, layer)
    y = torch.randn(scan_passes(scan) * BATCH, *x.shape[1:], dtype=torch.float64)
    for function, leaf in ((scan_split, x), (scan_merge, y)):
        leaf.requires_grad_()

        def call(tokens, function=function):
            return function(tokens, **keywords, variant=variant)

        assert torch.autograd.gradcheck(call, leaf, fast_mode=True)


@pytest.mark.parametrize("scan", ["flip", "random", "learnable"])
def test_official_leaves_the_output_where_the_split_put_it(scan):
    x, keywords = make_case(scan, (3, 5), 0)
    split = scan_split(x, **keywords, variant="official")
    assert torch.equal(split, split_by_loops(x, **keywords))
    assert torch.equal(scan_merge(split, **keywords, variant="official"), split)


@pytest.mark.parametrize("canvas", CANVASES)
def test_official_flip_returns_the_tokens_reversed(canvas):
    x, keywords = make_case("flip", canvas, 0)
    merged = scan_merge(
        scan_split(x, **keywords, variant="official"), **keywords, variant="official"
    )
    for i in range(num_tokens(canvas)):
        assert torch.equal(merged[:, i], x[:, num_tokens(canvas) - 1 - i])


@pytest.mark.parametrize("canvas", [*CANVASES, (7,)])
def test_official_bi_adds_the_backward_pass_still_reversed(canvas):
    x, keywords = make_case("bi", canvas, 0)
    split = scan_split(x, **keywords, variant="official")
    assert torch.equal(split[:BATCH], x)
    merged = scan_merge(split, **keywords, variant="official")
    for i in range(num_tokens(canvas)):
        assert torch.equal(merged[:, i], x[:, i] + x[:, num_tokens(canvas) - 1 - i])


@pytest.mark.parametrize("layer", range(6))
@pytest.mark.parametrize("scan", ["1d-shift", "2d-shift", "switch"])
@pytest.mark.parametrize("canvas", [(2, 3), (3, 5)])
def test_official_shifts_and_switch_move_the_output_only(scan, canvas, layer):
    y, keywords = make_case(scan, canvas, layer)
    assert scan_split(y, **keywords, variant="official") is y
    merged = scan_merge(y, **keywords, variant="official")
    assert torch.equal(merged, split_by_loops(y, **keywords))


@pytest.mark.parametrize("scan", ["uni", "cross", "mh2d"])
def test_official_equals_fixed_where_the_official_inverse_is_right(scan):
    x, keywords = make_case(scan, (3, 5), 1)
    fixed, official = (scan_split(x, **keywords, variant=v) for v in VARIANTS)
    assert torch.equal(fixed, official)
    merged_fixed, merged_official = (scan_merge(fixed, **keywords, variant=v) for v in VARIANTS)
    assert torch.equal(merged_fixed, merged_official)


def starts(scan, canvas, heads):
    """Which tokens each channel slice of the split begins with."""
    tokens = torch.arange(num_tokens(canvas), dtype=torch.float64)
    x = tokens[None, :, None].expand(1, -1, heads)
    return scan_split(x, scan=scan, canvas=canvas, heads=heads)[0].long().T.tolist()


def test_mh2d_groups_start_as_in_the_official_code():
    groups = [head[:4] for head in starts("mh2d", (4, 4), 8)]
    official = [[0, 1, 2, 3], [0, 4, 8, 12], [15, 14, 13, 12], [15, 11, 7, 3]]
    assert groups == [group for group in official for _ in range(2)]


def test_mh3d_groups_start_as_in_the_official_code():
    heads = starts("mh3d", (2, 3, 4), 12)
    assert heads[0][:4] == [0, 1, 2, 3]
    assert heads[1][:4] == [0, 4, 8, 1]
    assert heads[2][:6] == [0, 1, 2, 3, 12, 13]
    assert heads[5][:4] == [0, 12, 4, 16]
    assert [head[::-1] for head in heads[:6]] == heads[6:]


def test_mh3d_leaves_the_heads_beyond_a_multiple_of_twelve_alone():
    heads = starts("mh3d", (2, 3, 4), 29)
    assert heads[2] == heads[3] == starts("mh3d", (2, 3, 4), 12)[1]
    assert heads[24:] == [list(range(24))] * 5


def test_cross_on_three_axes_walks_x_slowest_and_t_fastest():
    x = torch.arange(24.0)[None, :, None]
    copies = scan_split(x, scan="cross", canvas=(2, 3, 4)).squeeze(-1).long().tolist()
    assert copies[1][:7] == [0, 12, 4, 16, 8, 20, 1]
    assert copies[3] == copies[1][::-1]


def test_scans_keep_half_precision_and_read_views():
    for scan in ("flip", "bi", "cross", "random", "mh2d", "2d-shift"):
        x, keywords = make_case(scan, (3, 5), 4, dtype=torch.bfloat16)
        view = x.transpose(1, 2).contiguous().transpose(1, 2)
        split = scan_split(view, **keywords)
        assert torch.equal(split, scan_split(x, **keywords))
        assert split.dtype == torch.bfloat16
        assert torch.equal(scan_merge(split, **keywords), scan_passes(scan) * x)


def test_tables_made_in_inference_mode_serve_a_later_backward():
    orders.cross_table.cache_clear()
    orders.multi_head_table.cache_clear()
    for scan, canvas in (("cross", (3, 5)), ("mh2d", (3, 5)), ("mh3d", (2, 3, 4))):
        x, keywords = make_case(scan, canvas, 0)
        with torch.inference_mode():
            scan_split(x.clone(), **keywords)
        x.requires_grad_()
        scan_split(x, **keywords).sum().backward()
        torch.testing.assert_close(x.grad, torch.full_like(x, scan_passes(scan)))


def test_random_orders_are_permutations_that_differ_between_samples():
    order = random_order(5, 31, generator=torch.Generator().manual_seed(1))
    assert torch.equal(order.sort(1).values, torch.arange(31).expand(5, 31))
    assert len({tuple(row) for row in order.tolist()}) == 5
    assert torch.equal(order, random_order(5, 31, generator=torch.Generator().manual_seed(1)))


def test_learnable_order_starts_as_the_identity():
    order = learnable_order(learnable_logits(15), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(order, torch.eye(15))


def test_learnable_order_is_hard_forward_and_soft_backward():
    logits = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    order = learnable_order(logits, generator=torch.Generator().manual_seed(4))
    assert set(order.detach().round(decimals=12).flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(order.sum(1), torch.ones(6, dtype=torch.float64))
    noise = torch.empty(6, 6, dtype=torch.float64)
    noise.exponential_(generator=torch.Generator().manual_seed(4))
    soft = torch.softmax(logits - noise.log(), dim=1)
    assert torch.equal(order.argmax(1), soft.argmax(1))
    weight = torch.randn(6, 6, dtype=torch.float64)
    (hard_grad,) = torch.autograd.grad(order, logits, weight)
    (soft_grad,) = torch.autograd.grad(soft, logits, weight)
    torch.testing.assert_close(hard_grad, soft_grad)


def test_learnable_logits_are_trained_through_split_and_merge():
    logits = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)
    x = torch.randn(BATCH, 6, 4, dtype=torch.float64)
    keywords = {"scan": "learnable", "canvas": (2, 3), "order": learnable_order(logits)}
    weight = torch.randn_like(x)
    (scan_merge(scan_split(x, **keywords).cumsum(1), **keywords) * weight).sum().backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("heads", [1, 4, 12])
@pytest.mark.parametrize("canvas", [(6,), (2, 3), (2, 3, 4), (2, 3, 1, 5), (5000,)])
@pytest.mark.parametrize("scan", SCANS)
def test_what_the_catalog_refuses_is_refused_with_the_same_text(scan, canvas, heads):
    reason = scan_reason(scan, canvas, heads)
    x = torch.ones(4, num_tokens(canvas), heads)
    order = None
    if scan == "random":
        order = random_order(4, num_tokens(canvas))
    if scan == "learnable" and reason is None:
        order = learnable_order(learnable_logits(num_tokens(canvas)))
    keywords = {"scan": scan, "canvas": canvas, "heads": heads, "order": order}
    for function in (scan_split, scan_merge):
        if reason is None:
            function(x, **keywords)
            continue
        with pytest.raises(UnsupportedError) as error:
            function(x, **keywords)
        assert str(error.value) == reason
        _, expected, try_ = reason.split("\n")
        assert expected.startswith("Expected: ")
        assert try_.startswith("Try: ")


@pytest.mark.parametrize(
    ("scan", "canvas", "heads", "text"),
    [
        ("cross", (6,), 4, "no transposed order on canvas 6"),
        ("2d-shift", (2, 3, 4), 4, "2x3x4, which has 3 axes"),
        ("switch", (6,), 4, "6, which has 1 axis"),
        ("mh2d", (2, 3, 4), 4, "3 axes"),
        ("mh2d", (2, 3), 6, "6 heads into its 4 orders"),
        ("mh3d", (2, 3), 12, "2 axes"),
        ("mh3d", (2, 3, 4), 11, "none of 11 heads"),
        ("learnable", (64, 65), 4, "4160 x 4160 matrix"),
    ],
)
def test_each_refusal_says_why(scan, canvas, heads, text):
    assert text in scan_reason(scan, canvas, heads).split("\n")[0]


def test_every_scan_that_needs_no_axes_reads_any_canvas():
    for scan in ("uni", "flip", "bi", "random", "learnable", "1d-shift"):
        for canvas in ((7,), (2, 3), (2, 3, 4)):
            assert scan_reason(scan, canvas, 1) is None


def test_passes_are_one_two_for_bi_and_four_for_cross():
    passes = {scan: scan_passes(scan) for scan in SCANS}
    assert passes.pop("bi") == 2
    assert passes.pop("cross") == 4
    assert set(passes.values()) == {1}


@pytest.mark.parametrize(
    "call",
    [
        lambda: scan_passes("hilbert"),
        lambda: scan_reason("hilbert", (2, 3), 1),
        lambda: scan_split(torch.ones(1, 6, 2), scan="hilbert", canvas=(2, 3)),
        lambda: scan_merge(torch.ones(1, 6, 2), scan="hilbert", canvas=(2, 3)),
    ],
)
def test_an_unknown_scan_is_rejected_with_the_known_ones(call):
    with pytest.raises(ShapeError, match="'hilbert' is unknown\nExpected: one of uni, flip"):
        call()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"variant": "broken"}, "scan variant 'broken' is unknown"),
        ({"layer": -1}, "layer=-1, heads=1"),
        ({"heads": 0}, "layer=0, heads=0"),
        ({"canvas": (2, 4)}, "shape (2, 6, 10) on canvas (2, 4)"),
        ({"scan": "mh2d", "heads": 4}, "10 channels do not divide into 4 heads"),
        ({"scan": "random"}, "the order of scan random is None"),
        ({"scan": "random", "order": torch.zeros(6).long()}, "(6,) torch.int64"),
        ({"scan": "random", "order": torch.zeros(2, 6)}, "(2, 6) torch.float32"),
        ({"scan": "random", "order": torch.zeros(2, 6).long().to("meta")}, "on meta"),
        ({"scan": "learnable"}, "the order of scan learnable is None"),
        ({"scan": "learnable", "order": torch.eye(6).long()}, "(6, 6) torch.int64"),
        ({"scan": "learnable", "order": torch.zeros(2, 6)}, "(2, 6) torch.float32"),
        ({"scan": "bi", "order": torch.zeros(2, 6)}, "scan bi takes no order"),
    ],
)
def test_unsound_arguments_are_refused_with_the_rule_and_a_way_out(changes, text):
    x = torch.ones(2, 6, 10)
    for function in (scan_split, scan_merge):
        with pytest.raises(ShapeError) as error:
            function(x, **{"scan": "uni", "canvas": (2, 3), **changes})
        wrong, expected, try_ = str(error.value).split("\n")
        assert text in wrong
        assert expected.startswith("Expected: ")
        assert try_.startswith("Try: ")


@pytest.mark.parametrize(("scan", "batch"), [("bi", 3), ("cross", 6)])
def test_merge_refuses_a_batch_that_split_cannot_have_made(scan, batch):
    with pytest.raises(ShapeError, match=f"a batch of {batch} cannot hold the .* passes"):
        scan_merge(torch.ones(batch, 6, 2), scan=scan, canvas=(2, 3))


def test_the_catalog_needs_no_torch():
    code = "import sys, ena_kernels.scans.catalog; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
