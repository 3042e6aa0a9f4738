"""A module becomes a workload whose truth is what it was told to be, drawn alike on both sides."""

import math
import weakref

import pytest
import torch
from torch import nn

from bench import builders, verify, workload
from bench.case import Case
from bench.contenders import Contender
from bench.outcome import Incorrect
from bench.workload import (
    SpotCheck,
    Workload,
    dtype_of,
    module_workload,
    normal,
    relative_error,
)

CASE = Case(
    level="layer",
    contender="gated",
    impl="eager",
    mode="fwdbwd",
    canvas=(7,),
    batch=3,
    heads=2,
    head_dim=5,
)


class Gated(nn.Module):
    """``factor * x @ weight``, a little noise drawn in every forward if asked for."""

    def __init__(self, factor=1.0, noise=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 10))
        self.factor, self.noise = factor, noise

    def forward(self, x):
        keep = torch.rand(x.shape[-1]) < 0.5 if self.noise else 1.0
        return self.factor * (x * keep) @ self.weight


def contender_of(make, **exact):
    return Contender(
        level="layer",
        name="gated",
        impl="eager",
        build=lambda case: module_workload(case, make, **exact),
    )


def test_inputs_are_hidden_states_that_ask_for_gradients_in_the_dtype_of_the_case():
    built = module_workload(CASE.with_(dtype="bfloat16"), Gated)
    assert built.inputs["x"].shape == (3, 7, 10)
    assert {leaf.dtype for leaf in built.leaves.values()} == {torch.bfloat16}
    assert list(built.trainable) == ["x", "weight"]
    assert built.run().shape == (3, 7, 10)


def test_values_are_seeded_normal_and_never_constant():
    torch.manual_seed(3)
    first = normal(CASE, 40, 50)
    torch.manual_seed(3)
    again = normal(CASE, 40, 50)
    assert torch.equal(first, again)
    assert first.is_leaf
    assert abs(first.mean().item()) < 0.1
    assert abs(first.std().item() - 1) < 0.1
    assert dtype_of(CASE.with_(dtype="float16")) is torch.float16


def test_the_default_truth_is_the_module_itself_in_float64():
    agreement = verify.check_twin(contender_of(lambda: Gated(factor=3.0)), CASE, 0)
    assert agreement.budget_used < 1
    assert agreement.forward > 0


@pytest.mark.parametrize("factor", [1.5, -1.0])
def test_exact_is_the_truth_of_the_twin(factor):
    plain = contender_of(lambda: Gated(factor=factor), exact=Gated)
    agreement = verify.check_twin(plain, CASE, 0)
    assert agreement.forward == pytest.approx(abs(factor - 1), rel=1e-4)
    assert agreement.gradient == pytest.approx(abs(factor - 1), rel=1e-4)


def test_exact_is_the_truth_at_full_size_unless_another_is_named():
    for exact, error in (
        ({}, 0.0),
        ({"exact": lambda: Gated(factor=2.0)}, 0.5),
        ({"exact": Gated, "exact_at_full_size": lambda: Gated(factor=4.0)}, 0.75),
    ):
        built = module_workload(CASE, Gated, **exact)
        spot = built.spot_check(built.run())
        assert spot.error == pytest.approx(error, abs=1e-5)
        assert spot.part == "full"


def test_random_draws_of_a_forward_are_the_same_in_its_truth():
    noisy = contender_of(lambda: Gated(noise=1.0))
    for seed in range(5):
        assert verify.check_twin(noisy, CASE, seed).budget_used < 1
        built = noisy.workload(CASE)
        output = verify.seeded_output(built, seed)
        assert verify.check_full(built, CASE, output, seed).error < 1e-5


def test_a_forward_that_ignores_the_seed_is_far_from_its_truth():
    noisy = contender_of(lambda: Gated(noise=1.0)).workload(CASE)
    torch.manual_seed(1)
    output = noisy.run()
    torch.manual_seed(2)
    assert noisy.spot_check(output).error > 0.1


def test_a_full_size_that_would_take_minutes_is_not_repeated_in_float64(monkeypatch):
    dear = CASE.with_(contender="transformer", canvas=(17,))
    unknown = CASE.with_(canvas=(17,))
    for case in (dear, unknown):
        built = module_workload(case, Gated)
        assert built.spot_check(built.run()) is not None
    monkeypatch.setitem(workload.AFFORDABLE_FLOPS, "cpu", 1e3)
    monkeypatch.setattr(workload, "AFFORDABLE_TOKENS", 50)
    for case in (dear, unknown):
        built = module_workload(case, Gated)
        assert built.spot_check(built.run()) is None


def test_where_a_full_repetition_is_too_dear_a_part_is_compared_if_there_is_a_way(monkeypatch):
    seen = []

    def sampled(module, x, output):
        seen.append((module, x.requires_grad, output.shape))
        return SpotCheck(error=0.25, part="blocks")

    built = module_workload(CASE, Gated, sampled=sampled)
    assert built.spot_check(built.run()).part == "full"
    monkeypatch.setattr(workload, "AFFORDABLE_TOKENS", 20)
    assert built.spot_check(built.run()) == SpotCheck(error=0.25, part="blocks")
    assert seen == [(built.forward, False, (3, 7, 10))]


LACKS_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    MemoryError(),
]


def checked(spot_check):
    """What the harness makes of a spot check on a finished output."""
    workload = Workload(
        forward=torch.nn.Identity(),
        inputs={"x": torch.ones(5)},
        reference=lambda leaves: leaves["x"],
        spot_check=spot_check,
    )
    return verify.check_full(workload, CASE, workload.run(), 0)


@pytest.mark.parametrize("error", LACKS_MEMORY, ids=lambda error: type(error).__name__)
def test_a_truth_that_does_not_fit_into_memory_is_given_up_and_what_it_held_is_freed(error):
    held = []

    def spot_check(output):
        large = output.double()
        held.append(weakref.ref(large))
        failure = type(error)(*error.args)
        raise failure

    assert checked(spot_check) is None
    assert [ref() for ref in held] == [None]


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Incorrect("wrong shape")]
)
def test_no_other_error_of_a_spot_check_is_swallowed(error):
    def spot_check(output):
        raise error

    with pytest.raises(type(error)) as caught:
        checked(spot_check)
    assert caught.value is error


class Hungry(Gated):
    """Runs in float32 and finds no memory in float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")
        return super().forward(x)


def test_memory_that_the_truth_lacks_is_not_the_fault_of_the_contender(monkeypatch):
    built = module_workload(CASE, Hungry)
    assert verify.check_full(built, CASE, built.run(), 0) is None

    def unaffordable(*tensors):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")

    monkeypatch.setattr(builders, "attention_rows", unaffordable)
    case = CASE.with_(level="op", contender="attention", depth=1)
    built = builders.operator(case)
    assert verify.check_full(built, case, built.run(), 0) is None


def test_the_relative_error_of_a_tensor():
    expected = torch.tensor([3.0, 0.0, 4.0])
    assert relative_error(torch.tensor([3.0, 1.0, 4.0]), expected) == pytest.approx(0.2)
    assert relative_error(expected, expected) == 0
    assert math.isnan(relative_error(torch.tensor([3.0, math.nan, 4.0]), expected))
    small = relative_error(torch.tensor([1e-3, 0.0]), torch.zeros(2))
    assert small > 1, "a truth of zeros allows nothing"


def test_tensors_of_different_shapes_never_agree():
    with pytest.raises(Incorrect, match=r"output has shape \(1, 5\), float64 has \(3, 5\)"):
        relative_error(torch.ones(1, 5), torch.ones(3, 5))
