"""Agreement with float64: a small twin with every gradient, and the full size where it can be.

The error of a tensor is ``||x - ref|| / ||ref||``. What a dtype may lose grows with the
number of operators between input and output.
"""

import gc
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.case import Case
from bench.contenders import Contender
from bench.modes import forget_gradients
from bench.outcome import Incorrect, verdict
from bench.workload import SpotCheck, Workload, relative_error

# of bfloat16 its spacing, 2^-7: kernels that keep intermediates in it come to two thirds of that
FORWARD_BUDGET = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-3, "bfloat16": 8e-3}
GRADIENT_BUDGET = {"float64": 1e-9, "float32": 1e-4, "float16": 4e-3, "bfloat16": 1e-2}
LEVEL_FACTOR = {"op": 1.0, "layer": 4.0, "model": 8.0}
TWIN_TILES = {1: (12,), 2: (4, 3), 3: (2, 3, 2), 4: (2, 1, 3, 2)}
TWIN_CANVASES = {1: (373,), 2: (12, 31), 3: (5, 7, 11), 4: (3, 4, 5, 6)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far a contender is from float64, and how far it may be."""

    forward: float
    gradient: float | None
    worst_gradient: str | None
    forward_budget: float
    gradient_budget: float

    @property
    def budget_used(self) -> float:
        """The larger share of its budget that an error takes; above 1 is incorrect."""
        shares = [self.forward / self.forward_budget]
        if self.gradient is not None:
            shares.append(self.gradient / self.gradient_budget)
        return max(math.inf if math.isnan(share) else share for share in shares)

    def require(self, where: str) -> None:
        """Raise Incorrect unless every error is finite and within its budget."""
        if self.budget_used <= 1.0:
            return
        if not self.forward <= self.forward_budget:
            what, error, budget = "output", self.forward, self.forward_budget
        else:
            what, budget = f"gradient of {self.worst_gradient}", self.gradient_budget
            error = math.nan if self.gradient is None else self.gradient
        raise Incorrect(
            f"{what} differs from float64 by {error:.2e}, {budget:.0e} is allowed ({where})",
            error_forward=self.forward,
            error_gradient=self.gradient,
            worst_gradient=self.worst_gradient,
            error_budget_used=self.budget_used,
        )


def twin_of(case: Case, contender: Contender) -> Case:
    """A small case that takes the same path: same dtype, tile, sparsity and scan, odd sizes.

    The same twin serves every length, so a worker verifies it once. On CUDA it keeps the heads,
    on which kernels are tuned.
    """
    keeps_heads = case.device == "cuda" or (case.scan or "").startswith("mh")
    heads = case.heads if keeps_heads else min(case.heads, 2)
    mode = "fwd" if contender.modes == ("fwd",) else "fwdbwd"
    small = {"batch": 2, "heads": heads, "depth": min(case.depth, 2), "mode": mode}
    if case.tile is not None:
        grid = TWIN_TILES[case.ndim]
        canvas = tuple(g * t for g, t in zip(grid, case.tile, strict=True))
        candidates = [
            case.with_(canvas=canvas, **small),
            case.with_(canvas=canvas, window=case.tile, sparsity_target=None, **small),
        ]
    else:
        squares = [TWIN_CANVASES[case.ndim], (16,) * case.ndim]
        candidates = [case.with_(canvas=canvas, **small) for canvas in squares]
    if case.mode == "fwd":
        # what has an output to rely on may have no gradients
        candidates += [twin.with_(mode="fwd") for twin in candidates]
    return next((c for c in candidates if contender.why_not(c) is None), candidates[0])


def forward_budget(case: Case) -> float:
    """The relative error that an output of this case may have."""
    return LEVEL_FACTOR[case.level] * FORWARD_BUDGET[case.dtype]


def seeded_output(workload: Workload, seed: int) -> Tensor:
    """One forward without gradients; whatever it draws at random is drawn alike every time."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return workload.run()


def shuffle_inputs(workload: Workload) -> bool:
    """Give the inputs fresh values of the same distribution; return whether any changed."""
    is_changed = False
    with torch.no_grad():
        for leaf in workload.inputs.values():
            if leaf.is_floating_point():
                order = torch.randperm(leaf.shape[-1], device=leaf.device)
                is_changed = is_changed or bool((order.diff() != 1).any())
                leaf.copy_(leaf[..., order])
    return is_changed


def check_twin(contender: Contender, twin: Case, seed: int) -> Agreement:
    """Compare the output of a small case with float64, and every gradient unless it is `fwd`.

    Raises:
        Incorrect: the output has another shape.
    """
    torch.manual_seed(seed)
    workload = contender.workload(twin)
    if twin.mode == "fwd":
        for leaf in workload.leaves.values():
            leaf.requires_grad_(False)
    torch.manual_seed(seed)
    output = workload.run()
    gradient = torch.randn_like(output)
    if workload.trainable:
        torch.autograd.backward(output, gradient)
    actual = {name: leaf.grad for name, leaf in workload.trainable.items()}
    forget_gradients(workload)
    exact = _as_float64(workload)
    torch.manual_seed(seed)
    expected = workload.reference(exact)
    forward = relative_error(output, expected)
    if workload.trainable:
        torch.autograd.backward(expected, gradient.double())
    errors = {
        name: math.nan if got is None else relative_error(got, _gradient(exact[name]))
        for name, got in actual.items()
    }
    worst = max(
        errors, key=lambda n: math.inf if math.isnan(errors[n]) else errors[n], default=None
    )
    return Agreement(
        forward=forward,
        gradient=None if worst is None else errors[worst],
        worst_gradient=worst,
        forward_budget=forward_budget(twin),
        gradient_budget=LEVEL_FACTOR[twin.level] * GRADIENT_BUDGET[twin.dtype],
    )


def check_full(workload: Workload, case: Case, output: Tensor, seed: int) -> SpotCheck | None:
    """Compare a full-size output with float64 where the workload and memory can; else None.

    Raises:
        Incorrect: the output has another shape, is not finite, or is too far from float64.
    """
    if not bool(torch.isfinite(output).all()):
        raise Incorrect("the output holds NaN or infinity (full size)")
    torch.manual_seed(seed)
    spot = _spot(workload, output)
    budget = forward_budget(case)
    if spot is not None and not spot.error <= budget:
        raise Incorrect(
            f"output differs from float64 by {spot.error:.2e}, {budget:.0e} is allowed"
            f" ({spot.part} of the full size)",
            error_forward=spot.error,
            error_budget_used=math.inf if math.isnan(spot.error) else spot.error / budget,
        )
    return spot


def _spot(workload: Workload, output: Tensor) -> SpotCheck | None:
    """The workload's own check; None if its float64 tensors do not fit into memory.

    The contender has run by then, so memory that is short for the truth is not the contender's.
    What the check held is given back.
    """
    if workload.spot_check is None:
        return None
    try:
        return workload.spot_check(output)
    except Exception as err:
        if verdict(err)[0] != "oom":
            raise
    # the exception, now gone, held the tensors of every frame it passed
    gc.collect()
    if output.is_cuda:
        torch.cuda.empty_cache()
    return None


def _as_float64(workload: Workload) -> Mapping[str, Tensor]:
    return {
        name: leaf.detach().double().requires_grad_(leaf.requires_grad)
        if leaf.is_floating_point()
        else leaf
        for name, leaf in workload.leaves.items()
    }


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
