"""One call of each mode does exactly its own work, and leaves nothing for the next to add to."""

import pytest
import torch

from bench.modes import forget_gradients, timed_call
from bench.workload import Workload


class Scaled:
    """``x @ weight`` on ``x [3, 5]`` and ``weight [5, 2]``; counts its calls."""

    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(3, 5, generator=generator).requires_grad_()
        self.weight = torch.randn(5, 2, generator=generator).requires_grad_()
        self.num_forwards = 0
        self.num_backwards = 0
        self.built_graph = None

    def forward(self, x):
        self.num_forwards += 1
        output = x @ self.weight
        self.built_graph = output.requires_grad
        if output.requires_grad:
            output.register_hook(self.count_backward)
        return output

    def count_backward(self, gradient):
        self.num_backwards += 1
        self.gradient = gradient

    def workload(self):
        return Workload(
            forward=self.forward,
            inputs={"x": self.x},
            parameters={"weight": self.weight},
            reference=lambda leaves: leaves["x"] @ leaves["weight"],
        )


@pytest.fixture
def scaled():
    return Scaled()


def calls_of(scaled, mode, num):
    """Prepare a mode, forget what preparing counted, and call it as the clock does."""
    timed = timed_call(scaled.workload(), mode)
    scaled.num_forwards = scaled.num_backwards = 0
    for _ in range(num):
        timed.reset()
        timed.run()
    return timed


@pytest.mark.parametrize(
    ("mode", "forwards", "backwards"),
    [("fwd", 4, 0), ("bwd", 0, 4), ("fwdbwd", 4, 4), ("step", 4, 4)],
)
def test_a_mode_runs_its_own_part_once_per_call(scaled, mode, forwards, backwards):
    calls_of(scaled, mode, 4)
    assert (scaled.num_forwards, scaled.num_backwards) == (forwards, backwards)


def test_a_forward_builds_no_graph_and_no_gradient(scaled):
    timed = calls_of(scaled, "fwd", 1)
    assert scaled.built_graph is False
    assert not timed.run().requires_grad
    assert scaled.x.grad is scaled.weight.grad is None


@pytest.mark.parametrize("mode", ["bwd", "fwdbwd", "step"])
def test_gradients_are_those_of_one_backward_however_often_it_ran(scaled, mode):
    calls_of(scaled, mode, 3)
    gradient = scaled.gradient
    assert torch.allclose(scaled.x.grad, gradient @ scaled.weight.detach().T)
    assert torch.allclose(scaled.weight.grad, scaled.x.detach().T @ gradient)


@pytest.mark.parametrize("mode", ["bwd", "fwdbwd", "step"])
def test_reset_drops_every_gradient(scaled, mode):
    timed = calls_of(scaled, mode, 1)
    assert scaled.x.grad is not None
    assert scaled.weight.grad is not None
    timed.reset()
    assert scaled.x.grad is scaled.weight.grad is None


@pytest.mark.parametrize("mode", ["bwd", "fwdbwd", "step"])
def test_the_gradient_of_the_output_is_drawn_once_and_is_not_zero(scaled, mode):
    timed = calls_of(scaled, mode, 1)
    first = scaled.gradient.clone()
    timed.run()
    assert torch.equal(scaled.gradient, first)
    assert first.unique().numel() == first.numel() == 6


def test_a_step_moves_the_state_of_the_optimizer_but_not_the_weights(scaled, monkeypatch):
    made = []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda *args, **kw: made.append(adamw(*args, **kw)) or made[-1]
    )
    weight, x = scaled.weight.detach().clone(), scaled.x.detach().clone()
    calls_of(scaled, "step", 2)
    (optimizer,) = made
    assert list(optimizer.state) == [scaled.weight]
    state = optimizer.state[scaled.weight]
    assert state["step"] == 2
    assert bool((state["exp_avg"] != 0).all())
    assert torch.equal(scaled.weight, weight)
    assert torch.equal(scaled.x, x)
    assert optimizer.defaults["fused"]


def test_leaves_that_ask_for_no_gradient_are_left_alone(scaled):
    scaled.x.requires_grad_(False)
    workload = scaled.workload()
    assert list(workload.trainable) == ["weight"]
    workload.run().sum().backward()
    forget_gradients(workload)
    assert scaled.weight.grad is None


def test_an_unknown_mode_has_no_call(scaled):
    with pytest.raises(KeyError, match="sideways"):
        timed_call(scaled.workload(), "sideways")
