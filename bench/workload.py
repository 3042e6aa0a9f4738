"""What a contender hands to the harness: something callable, its tensors and its truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.case import Case
from bench.cost import cost
from bench.outcome import Incorrect

AFFORDABLE_FLOPS = {"cuda": 3e12, "cpu": 2e10}
"""Largest forward, in useful FLOPs, that is repeated in float64 at full size: about a second."""
AFFORDABLE_TOKENS = 4096
"""The same for a contender whose FLOPs are unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpotCheck:
    """Agreement with float64 on a part of a full-size output.

    Args:
        error: Relative error of that part.
        part: What was compared: "full", "sampled" (rows or heads of the output) or "blocks" (rows
            of every block, each from its actual input).
    """

    error: float
    part: str


SpotChecking = Callable[[Tensor], SpotCheck | None]


@dataclass(kw_only=True)
class Workload:
    """A case made callable.

    Args:
        forward: Called with the tensors of `inputs` in order; returns the output tensor.
        inputs: Named leaf tensors, on the case's device, seeded, never zeros. Those that ask for
            a gradient are differentiated in the modes `bwd`, `fwdbwd` and `step`.
        parameters: Named leaf tensors that the forward reads besides its inputs, such as weights.
        reference: The same function in float64: takes all leaves (inputs and parameters) by name as
            float64 tensors and returns the output, differentiable.
        spot_check: Compares a full-size output with float64 on sampled rows or heads; returns None
            where the size forbids it. Memory that it lacks is not held against the contender.
    """

    forward: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    reference: Callable[[Mapping[str, Tensor]], Tensor]
    parameters: dict[str, Tensor] = field(default_factory=dict)
    spot_check: SpotChecking | None = None

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Inputs and parameters by name."""
        return {**self.inputs, **self.parameters}

    @property
    def trainable(self) -> dict[str, Tensor]:
        """The leaves that ask for a gradient."""
        return {name: leaf for name, leaf in self.leaves.items() if leaf.requires_grad}

    def run(self) -> Tensor:
        """One forward on the stored inputs."""
        return self.forward(*self.inputs.values())


def module_workload(
    case: Case,
    make: Callable[[], nn.Module],
    *,
    exact: Callable[[], nn.Module] | None = None,
    exact_at_full_size: Callable[[], nn.Module] | None = None,
    sampled: Callable[[nn.Module, Tensor, Tensor], SpotCheck] | None = None,
) -> Workload:
    """A module on hidden states ``[B, L, model_dim]``, with its weights in the case's dtype.

    Args:
        make: Builds the module; on the case's device and then in its dtype.
        exact: Builds a module with the same parameters that computes the same function plainly; it
            runs in float64 and is the truth. Default: `make`, which checks rounding only.
        exact_at_full_size: The same for long sequences. Default: `exact`.
        sampled: Compares the module, its input and its output with float64 in part, where a full
            repetition takes too long. Default: such sizes are not compared.
    """
    with torch.device(case.device):
        module = make().to(case.device, dtype_of(case))
    x = normal(case, case.batch, case.seq_len, case.model_dim)
    exact = exact or make

    def reference(leaves: Mapping[str, Tensor]) -> Tensor:
        weights = {name: leaf for name, leaf in leaves.items() if name != "x"}
        twin = _in_float64(exact, case)
        output: Tensor = functional_call(twin, weights, (leaves["x"],))
        return output

    def spot_check(output: Tensor) -> SpotCheck | None:
        if not _is_affordable(case):
            return None if sampled is None else sampled(module, x.detach(), output)
        twin = _in_float64(exact_at_full_size or exact, case)
        twin.load_state_dict(module.state_dict())
        with torch.no_grad():
            return SpotCheck(error=relative_error(output, twin(x.double())), part="full")

    return Workload(
        forward=module,
        inputs={"x": x},
        parameters=dict(module.named_parameters()),
        reference=reference,
        spot_check=spot_check,
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """``||actual - expected|| / ||expected||`` in float64; NaN wherever `actual` is not finite.

    Raises:
        Incorrect: the shapes differ; broadcasting would hide it.
    """
    if actual.shape != expected.shape:
        shapes = tuple(actual.shape), tuple(expected.shape)
        raise Incorrect(f"output has shape {shapes[0]}, float64 has {shapes[1]}")
    difference = (actual.detach().double() - expected.detach().double()).norm()
    return float(difference / expected.detach().double().norm().clamp_min(1e-30))


def normal(case: Case, *shape: int) -> Tensor:
    """Standard normal values on the case's device, in its dtype, asking for their gradient."""
    return torch.randn(shape, device=case.device, dtype=dtype_of(case)).requires_grad_()


def dtype_of(case: Case) -> torch.dtype:
    """The torch dtype that the case names."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    return dtype


def _in_float64(make: Callable[[], nn.Module], case: Case) -> nn.Module:
    """Build a module without drawing from the generators that its forward may draw from."""
    gpus = [torch.cuda.current_device()] if case.device == "cuda" else []
    with torch.random.fork_rng(devices=gpus), torch.device(case.device):
        return make().to(case.device, torch.float64)


def _is_affordable(case: Case) -> bool:
    forward = cost(case.with_(mode="fwd"))
    if forward is None:
        return case.batch * case.seq_len <= AFFORDABLE_TOKENS
    return forward.flops <= AFFORDABLE_FLOPS[case.device]
