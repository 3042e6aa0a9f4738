"""Whatever is wrong with a contender is found before a number of it is believed."""

import math
from dataclasses import replace

import pytest
import torch

from bench import verify
from bench.case import Case
from bench.contenders import Contender, registry
from bench.outcome import Incorrect
from bench.verify import FORWARD_BUDGET, GRADIENT_BUDGET, LEVEL_FACTOR
from bench.workload import SpotCheck, Workload, normal, relative_error

CASE = Case(
    level="op",
    contender="product",
    impl="eager",
    mode="fwdbwd",
    canvas=(7,),
    batch=3,
    heads=2,
    head_dim=5,
)
ENA = Case(
    level="layer",
    contender="ena",
    impl="eager",
    mode="bwd",
    canvas=(24, 64),
    batch=5,
    heads=3,
    head_dim=16,
    depth=4,
    tile=(4, 8),
    sparsity_target=0.5,
    scan="cross",
    scan_variant="fixed",
    interleave="stacked",
    permute="io",
)
TILED = ENA.with_(
    level="op",
    contender="sliding_tile",
    scan=None,
    scan_variant=None,
    interleave=None,
    permute=None,
)


def product(a, b):
    """``a * mean(b)`` of ``a, b [B, L, D]``, the mean over tokens."""
    return a * b.mean(dim=1, keepdim=True)


def with_gradient_times(factor, x):
    """`x`, but its gradient is `factor` times too large."""
    return x.detach() + factor * (x - x.detach())


FAULTS = {
    "none": product,
    "output": lambda a, b: 1.25 * product(a, b),
    "gradient of a": lambda a, b: product(with_gradient_times(1.5, a), b),
    "gradient of b": lambda a, b: product(a, with_gradient_times(-1, b)),
    "no gradient of b": lambda a, b: product(a, b.detach()),
    "NaN": lambda a, b: product(a, b) / torch.zeros_like(a) * 0,
    "NaN gradient of a": lambda a, b: product(with_gradient_times(math.nan, a), b).nan_to_num(1.0),
    "one token": lambda a, b: product(a, b)[:, :1],
    "transposed": lambda a, b: product(a, b).transpose(1, 2).contiguous(),
}


def contender_of(forward, *, exact=product, modes=("fwd", "bwd", "fwdbwd"), spot=None):
    def build(case):
        inputs = {name: normal(case, case.batch, case.seq_len, case.head_dim) for name in "ab"}
        return Workload(
            forward=forward,
            inputs=inputs,
            reference=lambda leaves: exact(leaves["a"], leaves["b"]),
            spot_check=spot(inputs) if spot else None,
        )

    return Contender(level="op", name="product", impl="eager", build=build, modes=modes)


def test_a_right_contender_is_within_its_budget():
    agreement = verify.check_twin(contender_of(FAULTS["none"]), CASE, 0)
    agreement.require("twin")
    assert 0 < agreement.forward < 1e-6
    assert 0 < agreement.gradient < 1e-6
    assert 0 < agreement.budget_used < 0.1
    assert agreement.worst_gradient in ("a", "b")


@pytest.mark.parametrize(
    ("fault", "what", "how_much"),
    [
        ("output", "output", 0.25),
        ("gradient of a", "gradient of a", 0.5),
        ("gradient of b", "gradient of b", 2.0),
        ("no gradient of b", "gradient of b", math.nan),
        ("NaN", "output", math.nan),
    ],
)
def test_what_is_wrong_is_named_with_its_size(fault, what, how_much):
    agreement = verify.check_twin(contender_of(FAULTS[fault]), CASE, 0)
    with pytest.raises(Incorrect, match=rf"^{what} differs from float64 by") as caught:
        agreement.require("twin there")
    assert f"by {how_much:.2e}, " in caught.value.reason
    assert caught.value.reason.endswith(f"{'1e-05' if what == 'output' else '1e-04'} is allowed"
                                        " (twin there)")  # fmt: skip
    known = caught.value.values
    error = known["error_forward" if what == "output" else "error_gradient"]
    assert error == pytest.approx(how_much, rel=1e-4, nan_ok=True)
    assert known["error_budget_used"] > 1


def test_a_gradient_that_is_nan_is_worse_than_any_number():
    agreement = verify.check_twin(
        contender_of(lambda a, b: product(with_gradient_times(9, a), b.detach())), CASE, 0
    )
    assert agreement.worst_gradient == "b"
    assert math.isnan(agreement.gradient)
    assert agreement.budget_used == math.inf


@pytest.mark.parametrize(
    ("fault", "shape"), [("one token", r"\(3, 1, 5\)"), ("transposed", r"\(3, 5, 7\)")]
)
def test_an_output_of_another_shape_is_incorrect(fault, shape):
    with pytest.raises(Incorrect, match=rf"shape {shape}, float64 has \(3, 7, 5\)"):
        verify.check_twin(contender_of(FAULTS[fault]), CASE, 0)


def test_a_contender_without_backward_is_compared_by_its_output():
    def forward(a, b):
        return product(a.detach(), b.detach())

    for factor, is_right in ((1.0, True), (1.5, False)):
        one_way = contender_of(lambda a, b, factor=factor: factor * forward(a, b), modes=("fwd",))
        twin = verify.twin_of(CASE.with_(mode="fwd"), one_way)
        agreement = verify.check_twin(one_way, twin, 0)
        assert agreement.gradient is agreement.worst_gradient is None
        assert (agreement.budget_used <= 1) is is_right


@pytest.mark.parametrize(("budget", "gradients"), [(0.5, 2.0), (2.0, 0.5)])
def test_the_budget_is_used_by_whichever_error_is_relatively_larger(budget, gradients):
    agreement = verify.Agreement(
        forward=budget * 1e-3,
        gradient=gradients * 1e-2,
        worst_gradient="q",
        forward_budget=1e-3,
        gradient_budget=1e-2,
    )
    assert agreement.budget_used == pytest.approx(2.0)
    with pytest.raises(Incorrect, match="^output" if budget > 1 else "^gradient of q"):
        agreement.require("twin")


def test_budgets_grow_with_the_level_and_with_coarser_dtypes():
    for table in (FORWARD_BUDGET, GRADIENT_BUDGET):
        budgets = [table[d] for d in ("float64", "float32", "float16", "bfloat16")]
        assert budgets == sorted(set(budgets))
    for dtype in FORWARD_BUDGET:
        allowed = [
            verify.forward_budget(CASE.with_(level=level, dtype=dtype))
            for level in ("op", "layer", "model")
        ]
        assert allowed == sorted(set(allowed))
        assert allowed[0] == FORWARD_BUDGET[dtype]
    layer = verify.check_twin(contender_of(product), CASE.with_(level="layer"), 0)
    assert layer.forward_budget == LEVEL_FACTOR["layer"] * 1e-5
    assert layer.gradient_budget == LEVEL_FACTOR["layer"] * 1e-4


def test_the_twin_keeps_what_decides_the_path_and_changes_the_sizes():
    contender = registry()[("layer", "ena", "eager")]
    twin = verify.twin_of(ENA.with_(dtype="bfloat16"), contender)
    kept = ("level", "contender", "impl", "tile", "sparsity_target", "scan", "scan_variant")
    kept += ("interleave", "permute", "head_dim", "device")
    assert all(getattr(twin, name) == getattr(ENA, name) for name in kept)
    assert twin.dtype == "bfloat16"
    assert (twin.mode, twin.batch, twin.heads, twin.depth) == ("fwdbwd", 2, 2, 2)
    assert twin.canvas == (16, 24)
    assert 0.2 < twin.sparsity < 0.8
    assert len(set(twin.canvas)) == len(twin.canvas)


@pytest.mark.parametrize("impl", ["flash_attn_4", "flex_flash"])
def test_a_case_without_gradients_to_rely_on_has_a_twin_of_its_output(impl):
    contender = registry()[("op", "attention", impl)]
    rules = {"needs": (), "rules": tuple(r for r in contender.rules if "hopper" not in r.__name__)}
    installed = replace(contender, **rules)
    case = CASE.with_(
        contender="attention", impl=impl, dtype="bfloat16", device="cuda", head_dim=32, mode="fwd"
    )
    assert verify.twin_of(case, installed).mode == "fwd"
    assert verify.twin_of(case.with_(head_dim=64), installed).mode == "fwdbwd"


def test_one_twin_serves_every_length():
    contender = registry()[("layer", "ena", "eager")]
    other = ENA.with_(canvas=(64, 24), batch=1, mode="fwd")
    assert verify.twin_of(ENA, contender) == verify.twin_of(other, contender)


@pytest.mark.parametrize(
    ("canvas", "twin"),
    [((96,), (373,)), ((6, 10), (12, 31)), ((4, 6, 8), (5, 7, 11)), ((2, 3, 4, 5), (3, 4, 5, 6))],
)
def test_an_untiled_twin_has_odd_sides_of_its_rank(canvas, twin):
    contender = registry()[("layer", "linear", "eager")]
    case = CASE.with_(level="layer", contender="linear", scan="uni", canvas=canvas)
    assert verify.twin_of(case, contender).canvas == twin


def test_heads_stay_where_they_decide_what_runs():
    contender = registry()[("layer", "linear", "eager")]
    case = CASE.with_(level="layer", contender="linear", canvas=(6, 10), heads=8, scan="uni")
    assert verify.twin_of(case, contender).heads == 2
    assert verify.twin_of(case.with_(heads=1), contender).heads == 1
    assert verify.twin_of(case.with_(scan="mh2d"), contender).heads == 8
    assert verify.twin_of(case.with_(device="cuda"), contender).heads == 8


def test_a_twin_that_the_scan_cannot_read_is_square_instead():
    contender = registry()[("layer", "linear", "eager")]
    case = CASE.with_(level="layer", contender="linear", scan="switch", canvas=(8, 8))
    rules = (lambda c: "odd" if c.canvas == (12, 31) else None,)
    picky = Contender(level="layer", name="linear", impl="eager", build="a:b", rules=rules)
    assert verify.twin_of(case, contender).canvas == (12, 31)
    assert verify.twin_of(case, picky).canvas == (16, 16)


def test_a_twin_whose_window_a_library_refuses_attends_to_its_own_tile():
    narrow = (lambda c: "too wide" if c.window != c.tile else None,)
    picky = Contender(level="op", name="sliding_tile", impl="eager", build="a:b", rules=narrow)
    twin = verify.twin_of(TILED, picky)
    assert (twin.canvas, twin.window, twin.sparsity_target) == ((16, 24), (4, 8), None)
    nothing = Contender(
        level="op", name="sliding_tile", impl="eager", build="a:b", rules=(lambda c: "never",)
    )
    assert verify.twin_of(TILED, nothing).sparsity_target == 0.5


def test_shuffled_inputs_have_other_values_of_the_same_distribution():
    torch.manual_seed(0)
    workload = contender_of(product).workload(CASE.with_(canvas=(41,), head_dim=17))
    workload.inputs["index"] = torch.arange(9)
    before = {name: leaf.detach().clone() for name, leaf in workload.inputs.items()}
    parts = {name: leaf.data_ptr() for name, leaf in workload.inputs.items()}
    verify.shuffle_inputs(workload)
    for name in "ab":
        leaf = workload.inputs[name]
        assert relative_error(leaf, before[name]) > 0.5
        assert torch.equal(leaf.detach().sort().values, before[name].sort().values)
        assert leaf.data_ptr() == parts[name], "a captured graph reads the same memory"
    assert torch.equal(workload.inputs["index"], torch.arange(9))


def full_check(inputs):
    def spot(output):
        with torch.no_grad():
            exact = product(*(x.double() for x in inputs.values()))
        return SpotCheck(error=relative_error(output, exact), part="full")

    return spot


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda o: 1.25 * o, "output differs from float64 by 2.50e-01, 1e-05 is allowed (full"),
        (lambda o: o / (o != o[0, 0, 0]), "NaN or infinity"),
        (lambda o: o * math.nan, "NaN or infinity"),
        (lambda o: o[:1], "shape (1, 7, 5), float64 has (3, 7, 5)"),
    ],
)
def test_a_wrong_full_size_is_incorrect(change, reason):
    workload = contender_of(product, spot=full_check).workload(CASE)
    output = verify.seeded_output(workload, 0)
    assert not output.requires_grad
    assert verify.check_full(workload, CASE, output, 0).error < 1e-6
    with pytest.raises(Incorrect) as caught:
        verify.check_full(workload, CASE, change(output), 0)
    assert reason in caught.value.reason


def test_a_spot_check_that_is_nan_is_incorrect():
    workload = contender_of(
        product, spot=lambda inputs: lambda output: SpotCheck(error=math.nan, part="sampled")
    ).workload(CASE)
    with pytest.raises(Incorrect, match="by nan") as caught:
        verify.check_full(workload, CASE, workload.run(), 0)
    assert caught.value.values["error_budget_used"] == math.inf


def test_memory_that_float64_alone_lacks_is_not_held_against_the_contender():
    def spot(output):
        raise torch.OutOfMemoryError("float64 takes four times as much")

    workload = contender_of(product, spot=lambda inputs: spot).workload(CASE)
    assert verify.check_full(workload, CASE, workload.run(), 0) is None
    with pytest.raises(Incorrect, match="NaN or infinity"):
        verify.check_full(workload, CASE, workload.run() * math.nan, 0)


def test_without_a_spot_check_only_finiteness_is_checked_at_full_size():
    workload = contender_of(product).workload(CASE)
    assert verify.check_full(workload, CASE, workload.run(), 0) is None
