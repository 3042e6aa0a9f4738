"""What a contender hands to the harness: something callable, its tensors and its truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SpotCheck:
    """Agreement with float64 on a part of a full-size output."""

    error: float
    part: str


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
            where the size forbids it.
    """

    forward: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    reference: Callable[[Mapping[str, Tensor]], Tensor]
    parameters: dict[str, Tensor] = field(default_factory=dict)
    spot_check: Callable[[Tensor], SpotCheck | None] | None = None

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
