"""A stack is compared block by block: a right one agrees, damage to any block is seen."""

import math

import pytest
import torch
from torch import nn

from bench import builders, spot, workload
from bench.case import Case
from bench.outcome import Incorrect
from bench.spot import check_blocks, spread
from ena_kernels.layers import Block

TILES = {"tile": (2, 3), "sparsity_target": 0.5}
CASE = Case(
    level="layer",
    contender="ena",
    impl="eager",
    mode="fwd",
    canvas=(8, 9),
    batch=2,
    heads=3,
    head_dim=4,
    depth=2,
    scan="uni",
    scan_variant="fixed",
    interleave="linear-first",
    permute="io",
    dtype="float64",
)
STACKS = {
    "ena-tiled-around-the-layer": TILES,
    "ena-tiled-around-the-operator": {**TILES, "permute": "qkvo"},
    "ena-attention-first": {**TILES, "interleave": "attention-first", "depth": 3},
    "ena-without-tiles": {},
    "ena-random-scan": {**TILES, "scan": "random"},
    "transformer": {"contender": "transformer"},
    "linear": {"contender": "linear", "depth": 3},
    "linear-cross": {"contender": "linear", "scan": "cross"},
    "linear-bi-as-published": {"contender": "linear", "scan": "bi", "scan_variant": "official"},
    "linear-random": {"contender": "linear", "scan": "random"},
    "linear-learnable": {"contender": "linear", "scan": "learnable"},
    "model-ena": {**TILES, "level": "model", "depth": 3},
    "model-transformer": {"level": "model", "contender": "transformer"},
    "model-linear": {"level": "model", "contender": "linear", "scan": "cross"},
}
TOLERANCE = 1e-10


class Built:
    """A module in float64 with weights large enough to tell mixers apart, and its plain twin."""

    def __init__(self, **changes):
        self.case = CASE.with_(**changes)
        torch.manual_seed(5)
        self.module = builders._module(self.case, self.case.impl).double()
        for parameter in self.module.parameters():
            if parameter.ndim > 1 and parameter.shape[0] != self.case.seq_len:
                nn.init.normal_(parameter, std=0.4)
        with torch.device("meta"):
            self.plain = builders._module(self.case, "eager")
        shape = (self.case.batch, self.case.seq_len, self.case.model_dim)
        self.x = torch.randn(shape, dtype=torch.float64)

    def output(self):
        torch.manual_seed(9)
        with torch.no_grad():
            return self.module(self.x)

    def error(self, output=None):
        output = self.output() if output is None else output
        torch.manual_seed(9)
        return check_blocks(self.module, self.plain, self.x, output).error

    def blocks(self):
        return [part for part in self.module.modules() if isinstance(part, Block)]


@pytest.mark.parametrize("changes", STACKS.values(), ids=STACKS.keys())
def test_a_right_stack_agrees_to_the_last_digits(changes):
    built = Built(**changes)
    assert built.error() < TOLERANCE


@pytest.mark.parametrize("name", ["ena-tiled-around-the-layer", "ena-random-scan", "transformer"])
def test_the_rows_expected_are_those_of_the_whole_block_in_float64(name):
    built = Built(**STACKS[name])
    x = built.x
    for block in built.blocks():
        torch.manual_seed(3)
        tokens, mixed, added, out = spot._expected(block, x)
        torch.manual_seed(3)
        whole = block(x)
        torch.manual_seed(3)
        mixer = block.mixer(block.mixer_norm(x))
        assert mixed.shape == added.shape == out.shape == (1, len(tokens), built.case.model_dim)
        torch.testing.assert_close(out, whole[-1:, tokens], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(mixed, mixer[-1:, tokens], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(added, out - x[-1:, tokens] - mixed, atol=1e-12, rtol=1e-12)


def test_tiles_are_the_first_and_the_middle_one_whatever_heads_fit(monkeypatch):
    built = Built(**TILES)
    block, x = built.blocks()[1], built.x
    tokens, *rows = spot._expected(block, x)
    assert len(tokens) == 2 * 6
    assert {0, 1, 2, 9, 10, 11} < set(tokens.tolist())
    monkeypatch.setattr(spot, "SCORE_BYTES", 1)
    monkeypatch.setattr(spot, "TOKENS_PER_CHUNK", 7)
    for part, whole in zip(spot._expected(block, x)[1:], rows, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("changes", [TILES, {}, {"contender": "transformer"}])
def test_an_attention_that_skips_keys_in_the_second_block_only_is_seen(changes, monkeypatch):
    built = Built(**changes)
    core = built.blocks()[1].mixer.attend
    forward = core.forward

    def without_some_keys(qkv):
        kept = qkv.clone()
        kept[:, 6:12, qkv.shape[2] // 3 :] = 0
        return forward(kept)

    monkeypatch.setattr(core, "forward", without_some_keys)
    assert built.error() > 1e-3


def test_a_recurrence_that_forgets_one_token_in_the_first_block_only_is_seen(monkeypatch):
    built = Built(**TILES)
    recurrence = built.blocks()[0].mixer.recurrence
    forward = recurrence.forward

    def forgetful(q, k, v, strength):
        strength = strength.clone()
        strength[:, 40] = -50
        return forward(q, k, v, strength)

    monkeypatch.setattr(recurrence, "forward", forgetful)
    assert built.error() > 1e-3


@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_mlp_is_seen(place, monkeypatch):
    built = Built(**TILES)
    mlp = built.blocks()[place].mlp
    monkeypatch.setattr(mlp, "gelu", nn.GELU(approximate="tanh"))
    assert built.error() > 1e-6


def test_an_attention_that_adds_nothing_is_seen_beside_a_large_stream(monkeypatch):
    built = Built(contender="transformer")
    built.x *= 1e4
    core = built.blocks()[1].mixer.attend
    monkeypatch.setattr(core, "forward", lambda qkv: 0 * qkv[..., : built.case.model_dim])
    assert built.error() > 0.9


def test_a_scan_in_another_order_is_seen():
    built = Built(contender="linear", scan="flip")
    with torch.device("meta"):
        built.plain = builders._module(built.case.with_(scan="uni"), "eager")
    assert built.error() > 1e-2


@pytest.mark.parametrize("level", ["layer", "model"])
def test_an_output_that_is_not_what_the_blocks_gave_is_seen(level):
    built = Built(**TILES, level=level)
    output = built.output()
    output.view(-1)[1] += 1.0
    assert built.error(output) > 1e-4


def test_a_block_that_is_skipped_is_seen(monkeypatch):
    built = Built(**TILES)
    monkeypatch.setattr(built.module, "forward", lambda x: built.module[1](x))
    assert math.isnan(built.error())


@pytest.mark.parametrize("part", ["norm", "hidden", "classes"])
def test_a_wrong_head_of_a_model_is_seen(part, monkeypatch):
    built = Built(level="model", contender="transformer")
    right = getattr(built.module, part).forward
    monkeypatch.setattr(getattr(built.module, part), "forward", lambda x: 1.01 * right(x))
    assert built.error() > 1e-3


def test_a_model_that_forgets_its_positions_is_seen(monkeypatch):
    built = Built(level="model", contender="transformer")
    nn.init.normal_(built.module.positions)
    assert built.error() < TOLERANCE
    forward = type(built.module.stack).forward
    monkeypatch.setattr(
        built.module.stack, "forward", lambda x: forward(built.module.stack, built.x)
    )
    assert built.error() > 0.1


def test_nothing_is_left_on_the_module_and_the_generator_goes_on_as_after_one_forward():
    built = Built(**STACKS["linear-random"])
    output = built.output()
    expected = torch.rand(3)
    assert built.error(output) < TOLERANCE
    assert torch.equal(torch.rand(3), expected)
    hooks = [
        hook
        for part in built.module.modules()
        for hook in (*part._forward_hooks, *part._forward_pre_hooks)
    ]
    assert hooks == []
    assert {p.device.type for p in built.plain.parameters()} <= {"meta", "cpu"}


def test_an_output_of_another_shape_is_refused():
    built = Built(**TILES)
    with pytest.raises(Incorrect, match="output has shape"):
        built.error(built.output()[:1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ena-tiled-around-the-layer", "model-ena", "linear-cross"])
def test_a_workload_too_dear_for_all_of_float64_is_compared_by_blocks(name, dtype, monkeypatch):
    monkeypatch.setitem(workload.AFFORDABLE_FLOPS, "cpu", 1.0)
    case = CASE.with_(**STACKS[name], dtype=dtype)
    torch.manual_seed(0)
    built = builders.stack(case)
    with torch.no_grad():
        output = built.run()
    found = built.spot_check(output)
    assert found.part == "blocks"
    assert 0 < found.error < {"float32": 4e-5, "bfloat16": 2e-2}[dtype]


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(9, 4, [0, 3, 5, 8]), (3, 64, [0, 1, 2]), (1, 4, [0]), (7, 1, [0])],
)
def test_sampled_rows_reach_from_first_to_last(count, wanted, chosen):
    assert spread(count, wanted) == chosen
