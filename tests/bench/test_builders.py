"""Every contender of ours that runs on a CPU agrees with float64, at sizes that hide nothing."""

from itertools import groupby

import pytest
import torch

from bench import builders, verify
from bench.case import Case
from bench.catalog import contenders
from bench.outcome import Incorrect
from ena_kernels.scans.catalog import SCANS, scan_reason

TILES = {1: (3,), 2: (2, 3), 3: (2, 1, 3)}
GRIDS = {1: (5,), 2: (4, 3), 3: (2, 3, 2)}
ON_CPU = {
    f"{c.level}-{c.name}-{c.impl}": c
    for c in contenders()
    if "cpu" in c.devices and not c.missing_libraries()
}


def case_of(contender, ndim, **changes):
    tile = TILES[ndim]
    values = {
        "level": contender.level,
        "contender": contender.name,
        "impl": contender.impl,
        "mode": "fwdbwd",
        "canvas": tuple(g * t for g, t in zip(GRIDS[ndim], tile, strict=True)),
        "batch": 2,
        "heads": 3,
        "head_dim": 4,
        "depth": 1 if contender.level == "op" else 2,
    }
    if "tile" in contender.axes:
        values |= {"tile": tile, "sparsity_target": 0.5}
    elif "sparsity" in contender.axes:
        values |= {"sparsity_target": 0.0}
    if "scan" in contender.axes:
        scan = "cross" if (contender.level, ndim) == ("op", 2) else "uni"
        values |= {"scan": scan, "scan_variant": "fixed"}
    if "interleave" in contender.axes:
        values |= {"interleave": "linear-first"}
    if "permute" in contender.axes:
        values |= {"permute": "io"}
    return Case(**values | changes)


def assert_agrees(contender, case, seed=0):
    """The case is its own twin; the full size is checked as `measure` does."""
    assert contender.why_not(case) is None
    verify.check_twin(contender, case, seed).require(case.case_path)
    torch.manual_seed(seed)
    built = contender.workload(case)
    verify.check_full(built, case, verify.seeded_output(built, seed), seed)


def test_there_are_contenders_of_every_kind_on_a_cpu():
    kinds = {name.rpartition("-")[0] for name in ON_CPU}
    operators = {f"op-{name}" for name in ("sliding_tile", "attention", "delta_rule", "scan")}
    assert kinds == operators | {
        f"{level}-{name}"
        for level in ("layer", "model")
        for name in ("ena", "transformer", "linear")
    }


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", [n for n in ON_CPU if not n.startswith("model")])
def test_a_contender_agrees_with_float64(name, ndim):
    assert_agrees(ON_CPU[name], case_of(ON_CPU[name], ndim))


@pytest.mark.parametrize("name", [n for n in ON_CPU if n.startswith("model")])
def test_a_model_agrees_with_float64(name):
    assert_agrees(ON_CPU[name], case_of(ON_CPU[name], 2))


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_agrees_with_float64_at_the_operator_and_in_a_layer(scan):
    canvas, heads = ((2, 2, 2), 12) if scan == "mh3d" else ((6, 6), 4)
    assert scan_reason(scan, canvas, heads) is None
    for name in ("op-scan-eager", "layer-linear-eager"):
        contender = ON_CPU[name]
        assert_agrees(
            contender, case_of(contender, 2, scan=scan, canvas=canvas, heads=heads, batch=1)
        )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ON_CPU)
def test_a_contender_agrees_in_every_dtype_interleaving_and_permutation(name, dtype):
    contender = ON_CPU[name]
    if dtype not in contender.dtypes:
        pytest.skip(f"{name} does not run {dtype}")
    changes = [{}]
    if "interleave" in contender.axes:
        changes += [{"interleave": "attention-first"}, {"interleave": "stacked"}]
    if "permute" in contender.axes:
        changes += [{"permute": "qkvo"}]
    for ndim in (1, 2, 3):
        for change in changes:
            case = case_of(contender, ndim, dtype=dtype, head_dim=16, **change)
            for seed in (0, 1):
                assert_agrees(contender, case, seed)


@pytest.mark.parametrize("name", ["sliding_tile", "attention", "delta_rule"])
def test_an_operator_gets_its_tensors_by_name(name):
    contender = ON_CPU[f"op-{name}-eager"]
    built = contender.workload(case_of(contender, 2))
    names = ["q", "k", "v"] + ["beta"] * (name == "delta_rule")
    assert list(built.inputs) == list(built.trainable) == names
    assert built.inputs["q"].shape == built.run().shape == (2, 3, 72, 4)
    assert built.parameters == {}
    if name == "delta_rule":
        beta = built.inputs["beta"]
        assert beta.shape == (2, 3, 72)
        assert beta.is_leaf
        assert bool(((beta > 0) & (beta < 1)).all())


def damaged(output, head, tokens):
    """The output with something added to some tokens of one head of the last sequence."""
    wrong = output.detach().clone()
    wrong[-1, head, tokens] += 1.0
    return wrong


@pytest.mark.parametrize("name", ["sliding_tile", "attention", "delta_rule"])
def test_a_spot_check_sees_damage_at_either_end_of_the_sequence(name):
    contender = ON_CPU[f"op-{name}-eager"]
    case = case_of(contender, 2)
    built = contender.workload(case)
    output = built.run()
    assert built.spot_check(output.detach()).part == "sampled"
    for tokens in (0, -1):
        with pytest.raises(Incorrect, match="sampled of the full size"):
            verify.check_full(built, case, damaged(output, -1, tokens), 0)


def test_the_spot_check_of_a_module_sees_damage_anywhere():
    contender = ON_CPU["layer-ena-eager"]
    case = case_of(contender, 3)
    built = contender.workload(case)
    output = built.run().detach()
    output[0, 17, 3] += 1.0
    with pytest.raises(Incorrect, match="full of the full size"):
        verify.check_full(built, case, output, 0)


@pytest.mark.parametrize("name", ["sliding_tile", "attention", "delta_rule"])
def test_the_truth_of_an_operator_is_the_reference_on_the_same_geometry(name, monkeypatch):
    calls = []
    operator = getattr(builders, name)

    def recorded(*tensors, **keywords):
        calls.append(keywords)
        return operator(*tensors, **keywords)

    monkeypatch.setattr(builders, name, recorded)
    contender = ON_CPU[f"op-{name}-eager"]
    case = case_of(contender, 2)
    verify.check_twin(contender, case, 0)
    assert [keywords.pop("impl") for keywords in calls] == ["eager", "reference"]
    expected = {
        "sliding_tile": {"canvas": case.canvas, "window": case.window, "tile": case.tile},
        "attention": {},
        "delta_rule": {"qk_l2norm": True},
    }
    assert calls == [expected[name]] * 2


def test_the_truth_of_a_stack_is_the_reference_and_not_itself(monkeypatch):
    built = []
    module = builders._module
    monkeypatch.setattr(
        builders, "_module", lambda case, impl: built.append(impl) or module(case, impl)
    )
    contender = ON_CPU["layer-ena-sdpa_flash+eager"]
    case = case_of(contender, 2)
    assert_agrees(contender, case)
    assert built == ["sdpa_flash+eager", "reference", "sdpa_flash+eager", "eager"]


@pytest.mark.parametrize(
    ("interleave", "kinds"),
    [
        ("linear-first", ["recurrence", "attention"] * 2),
        ("attention-first", ["attention", "recurrence"] * 2),
        ("stacked", ["recurrence", "attention"]),
    ],
)
def test_a_stack_has_its_layers_in_the_order_that_the_case_names(interleave, kinds):
    contender = ON_CPU["layer-ena-eager"]
    case = case_of(contender, 2, depth=4, interleave=interleave)
    module = contender.workload(case).forward
    components = [getattr(part, "component", None) for part in module.modules()]
    mixers = [kind for kind in components if kind in ("attention", "recurrence")]
    assert [kind for kind, _ in groupby(mixers)] == kinds


def test_a_stack_scans_as_the_case_says():
    contender = ON_CPU["layer-linear-eager"]
    outputs = []
    for variant in ("official", "fixed"):
        built = contender.workload(case_of(contender, 2, scan="flip", scan_variant=variant))
        built.forward.load_state_dict({n: torch.ones_like(p) for n, p in built.parameters.items()})
        with torch.no_grad():
            built.inputs["x"].copy_(torch.linspace(-1, 1, 2 * 72 * 12).sin().reshape(2, 72, 12))
        outputs.append(built.run())
    assert not torch.allclose(*outputs)


def test_a_scan_as_published_leaves_its_order_and_the_fixed_one_restores_it():
    official = case_of(ON_CPU["op-scan-eager"], 2, scan="flip", scan_variant="official")
    fixed = official.with_(scan_variant="fixed")
    outputs = []
    for variant in (official, fixed):
        torch.manual_seed(0)
        built = ON_CPU["op-scan-eager"].workload(variant)
        outputs.append((built.run(), built.inputs["x"]))
    assert torch.equal(outputs[0][0], outputs[0][1].flip(1))
    assert torch.equal(*outputs[1])
