"""What one call is in each mode, and what must be undone before the next."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.queued_events import no_reset
from bench.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedCall:
    """`run` is what the clock sees; `reset` runs before every call, outside the clock."""

    run: Callable[[], object]
    reset: Callable[[], None]


def timed_call(workload: Workload, mode: str) -> TimedCall:
    """Prepare a mode: `fwd` without gradients, `bwd`, `fwdbwd`, or `step` with fused AdamW.

    The gradient of the output is drawn here, once, from the seeded generator. For `bwd` the
    forward runs here, once, and its graph is kept.
    """
    return {"fwd": _forward, "bwd": _backward, "fwdbwd": _both, "step": _step}[mode](workload)


def _forward(workload: Workload) -> TimedCall:
    def run() -> Tensor:
        with torch.no_grad():
            return workload.run()

    return TimedCall(run=run, reset=no_reset)


def _backward(workload: Workload) -> TimedCall:
    output = workload.run()
    gradient = torch.randn_like(output)

    def run() -> None:
        torch.autograd.backward(output, gradient, retain_graph=True)

    return TimedCall(run=run, reset=lambda: forget_gradients(workload))


def _both(workload: Workload) -> TimedCall:
    with torch.no_grad():
        gradient = torch.randn_like(workload.run())

    def run() -> None:
        torch.autograd.backward(workload.run(), gradient)

    return TimedCall(run=run, reset=lambda: forget_gradients(workload))


def _step(workload: Workload) -> TimedCall:
    both = _both(workload)
    weights = list(workload.parameters.values())
    # a rate of zero does all the work and leaves the weights as they were verified
    optimizer = torch.optim.AdamW(weights, lr=0.0, fused=True, capturable=weights[0].is_cuda)

    def run() -> None:
        both.run()
        optimizer.step()

    return TimedCall(run=run, reset=both.reset)


def forget_gradients(workload: Workload) -> None:
    """Drop every gradient, so that the next backward writes instead of adding."""
    for leaf in workload.trainable.values():
        leaf.grad = None
