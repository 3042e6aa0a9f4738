"""Stacks and models: which layers attend, what they share, and what they refuse."""

import math

import pytest
import torch

from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.layers import Attention, DeltaNet, SlidingTileAttention
from ena_kernels.models import Model, build, ena_stack, linear_stack, transformer_stack
from ena_kernels.sizes import SIZES, attention_layers

CANVAS, TILE, WINDOW = (4, 9), (2, 3), (4, 3)
HEADS, HEAD_DIM = 2, 5
SHAPE = {"depth": 2, "model_dim": HEADS * HEAD_DIM, "heads": HEADS}
CONTENDERS = {
    "ena": {"tile": TILE, "window": WINDOW},
    "ena-full": {},
    "transformer": {},
    "linear": {},
}


def make(name, *, level="layer", **settings):
    defaults = {"canvas": CANVAS, "heads": HEADS, "head_dim": HEAD_DIM, "depth": 2}
    return build(name.split("-")[0], level=level, **defaults | CONTENDERS[name] | settings)


def tokens(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    shape = (3, math.prod(CANVAS), HEADS * HEAD_DIM)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def kinds(stack):
    return "".join("L" if isinstance(block.mixer, DeltaNet) else "A" for block in stack)


@pytest.mark.parametrize(
    ("interleave", "depth", "expected"),
    [
        ("linear-first", 6, "LALALA"),
        ("linear-first", 3, "LAL"),
        ("linear-first", 1, "L"),
        ("attention-first", 5, "ALALA"),
        ("attention-first", 2, "AL"),
        ("stacked", 6, "LLLAAA"),
        ("stacked", 5, "LLLAA"),
        ("stacked", 2, "LA"),
    ],
)
def test_interleaving_decides_which_layers_attend(interleave, depth, expected):
    assert kinds(make("ena", depth=depth, interleave=interleave)) == expected
    pattern = attention_layers(depth, interleave)
    assert "".join("A" if attends else "L" for attends in pattern) == expected


def test_an_unknown_interleaving_is_refused():
    with pytest.raises(ShapeError, match="interleave 'random' is unknown"):
        attention_layers(4, "random")


def test_the_attention_of_ena_is_on_tiles_if_there_are_any_and_full_otherwise():
    tiled, full = make("ena")[1].mixer, make("ena-full", attention_impl="sdpa_flash")[1].mixer
    assert isinstance(tiled, SlidingTileAttention)
    assert tiled.attend.geometry | {"order": None} == {
        "canvas": CANVAS,
        "window": WINDOW,
        "tile": TILE,
        "order": None,
    }
    assert isinstance(full, Attention)
    assert full.attend.impl == "sdpa_flash"


def test_the_other_contenders_have_one_kind_of_layer():
    assert kinds(make("transformer", depth=3)) == "AAA"
    assert kinds(make("linear", depth=3)) == "LLL"
    attending = make("transformer", attention_impl="sdpa_math", recurrence_impl="fla")
    assert {(type(b.mixer), b.mixer.attend.impl) for b in attending} == {(Attention, "sdpa_math")}


def test_every_layer_knows_its_place_and_its_settings():
    settings = {"scan": "1d-shift", "scan_variant": "official", "recurrence_impl": "reference"}
    for name, places in (("linear", [0, 1, 2]), ("ena", [0, 2])):
        mixers = [b.mixer for b in make(name, depth=3, **settings)]
        recurrent = [m for m in mixers if isinstance(m, DeltaNet)]
        assert [m.split.scan["layer"] for m in recurrent] == places
        assert {m.split.scan["variant"] for m in recurrent} == {"official"}
        assert {m.merge.scan["scan"] for m in recurrent} == {"1d-shift"}
        assert {m.recurrence.impl for m in recurrent} == {"reference"}
    assert make("ena", permute="qkvo")[1].mixer.permute == "qkvo"


def test_named_stacks_equal_what_build_makes():
    x = tokens()
    geometry = {"canvas": CANVAS, "tile": TILE, "window": WINDOW}
    for stack, name in (
        (ena_stack(**SHAPE, **geometry), "ena"),
        (transformer_stack(**SHAPE), "transformer"),
        (linear_stack(**SHAPE, canvas=CANVAS), "linear"),
    ):
        built = make(name)
        built.load_state_dict(stack.state_dict())
        assert torch.equal(built(x), stack(x))


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("level", ["layer", "model"])
def test_built_twice_they_agree_across_implementations_and_dtypes(name, level):
    torch.manual_seed(0)
    fast = make(name, level=level)
    exact = make(name, level=level, attention_impl="reference", recurrence_impl="reference")
    exact = exact.double()
    exact.load_state_dict(fast.state_dict())
    x = tokens()
    y, expected = fast(x), exact(x.double())
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient.double())
    assert (y.double() - expected).norm() < 1e-5 * expected.norm()
    pairs = zip(fast.named_parameters(), exact.parameters(), strict=True)
    errors = {n: (p.grad.double() - q.grad).norm() / q.grad.norm() for (n, p), q in pairs}
    assert max(errors.values()) < 1e-4


def test_a_model_is_positions_stack_norm_mean_and_two_maps():
    model = make("transformer", level="model").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = tokens(torch.float64)
    hidden = model.stack(x + model.positions[None])
    centred = hidden - hidden.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-6)
    mean = (centred / deviation * model.norm.weight + model.norm.bias).mean(1)
    pooled = torch.tanh(mean @ model.hidden.weight.T + model.hidden.bias)
    expected = pooled @ model.classes.weight.T + model.classes.bias
    torch.testing.assert_close(model(x), expected)
    assert model(x).shape == (3, 1000)


def test_a_model_takes_another_number_of_classes():
    stack = make("linear")
    model = Model(stack, canvas=CANVAS, model_dim=HEADS * HEAD_DIM, num_classes=7)
    assert model(tokens()).shape == (3, 7)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_parameter_of_a_model_gets_a_gradient(name):
    torch.manual_seed(0)
    model = make(name, level="model", depth=3)
    model(tokens()).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_norms_and_mlps_follow_the_mixers_of_the_stack():
    for parts, expected in (
        ({}, "eager"),
        ({"attention_impl": "sdpa_flash"}, "triton"),
        ({"recurrence_impl": "triton"}, "triton"),
    ):
        model = make("ena-full", level="model", **parts)
        found = [block.mixer_norm.impl for block in model.stack]
        found += [block.mlp_norm.impl for block in model.stack]
        found += [part.impl for block in model.stack for part in (block.mlp.up, block.mlp.down)]
        assert {*found, model.norm.impl} == {expected}


def test_every_leaf_of_a_model_names_its_component():
    for module in make("ena", level="model").modules():
        assert list(module.children()) or hasattr(type(module), "component")


def test_the_sizes_are_those_of_vision_transformers():
    shapes = {name: (size.depth, size.model_dim, size.heads) for name, size in SIZES.items()}
    assert shapes == {
        "tiny": (12, 192, 3),
        "small": (12, 384, 6),
        "base": (12, 768, 12),
        "large": (24, 1024, 16),
    }


def test_unknown_contenders_and_levels_are_refused():
    shape = {"canvas": CANVAS, "heads": 1, "head_dim": 4, "depth": 1}
    with pytest.raises(ShapeError, match="contender 'mamba' is unknown"):
        build("mamba", level="layer", **shape)
    with pytest.raises(ShapeError, match="level 'op' is unknown"):
        build("ena", level="op", **shape)


def test_a_tile_without_a_window_is_refused():
    with pytest.raises(ShapeError, match=r"tile is \(2, 3\), window is None"):
        make("ena", window=None)


def test_a_scan_that_cannot_read_the_canvas_is_refused():
    with pytest.raises(UnsupportedError, match="heads"):
        make("linear", scan="mh2d")
