"""Scopes follow components forward and backward, and leave a module as they found it."""

import json

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from bench.attribution import attributed
from bench.scopes import scopes


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * torch.sinh(x) * gradient


class Custom(nn.Module):
    component = "recurrence"

    def forward(self, x):
        return Square.apply(x)


class Plain(nn.Module):
    """Takes and returns tensors in tuples, dicts and keywords."""

    component = "attention"

    def forward(self, pair, *, more):
        first, second = pair
        return {"sum": first.tanh() + second, "none": None, "more": [more["x"].tanh()]}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.custom, self.plain = Custom(), Plain()

    def forward(self, x):
        y = x.sigmoid()
        out = self.plain((self.custom(y), y), more={"x": y})
        return (out["sum"] + out["more"][0]).exp()


class Outer(nn.Module):
    component = "projections"

    def __init__(self):
        super().__init__()
        self.custom = Custom()

    def forward(self, x):
        return self.custom(x.sigmoid()).tanh()


class Failing(nn.Module):
    component = "mlp"

    def forward(self, x):
        raise RuntimeError("no forward")


def components(call, tmp_path):
    """Operator names and the components they count to."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    path = tmp_path / "trace.json"
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    return {(e.name, e.component) for e in attributed(events, "cpu", outside="other")}


def num_hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_forward_and_backward_run_in_the_scope_of_their_component(tmp_path):
    model, x = Two(), torch.randn(3, 5, requires_grad=True)
    with scopes(model):
        found = components(lambda: model(x).sum().backward(), tmp_path)
    assert {
        ("aten::sigmoid", "other"),
        ("Square", "recurrence"),
        ("aten::tanh", "attention"),
        ("aten::exp", "other"),
        ("ExpBackward0", "other"),
        ("aten::tanh_backward", "attention"),
        ("SquareBackward", "recurrence"),
        ("aten::sinh", "recurrence"),
        ("SigmoidBackward0", "other"),
    } <= found
    assert not found & {("aten::exp", "attention"), ("aten::sigmoid", "recurrence")}


def test_backward_finds_its_scope_when_the_forward_ran_before_the_profiler(tmp_path):
    model, x = Two(), torch.randn(3, 5, requires_grad=True)
    with scopes(model):
        output = model(x).sum()
    found = components(output.backward, tmp_path)
    assert {("aten::sinh", "recurrence"), ("aten::tanh_backward", "attention")} <= found


def test_a_component_inside_another_keeps_its_own_time(tmp_path):
    model, x = Outer(), torch.randn(3, 5, requires_grad=True)
    with scopes(model):
        found = components(lambda: model(x).sum().backward(), tmp_path)
    assert {c for name, c in found if name in ("Square", "aten::sinh")} == {"recurrence"}
    assert {c for name, c in found if name.startswith("aten::tanh")} == {"projections"}


def test_a_kept_graph_can_be_run_twice(tmp_path):
    model, x = Two(), torch.randn(3, 5, requires_grad=True)
    with scopes(model):
        output = model(x).sum()
    output.backward(retain_graph=True)
    assert ("aten::sinh", "recurrence") in components(
        lambda: output.backward(retain_graph=True), tmp_path
    )


def test_gradients_are_those_without_scopes():
    model, x = Two(), torch.randn(3, 5, requires_grad=True)
    (plain,) = torch.autograd.grad(model(x).sum(), x)
    with scopes(model):
        (scoped,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.equal(plain, scoped)


def test_no_hook_is_left_behind():
    model = nn.Sequential(Two(), Custom())
    with scopes(model):
        assert num_hooks(model) == 6
    assert num_hooks(model) == 0
    failing = nn.Sequential(Failing())
    with pytest.raises(RuntimeError, match="no forward"), scopes(failing):
        failing(torch.ones(2))
    assert num_hooks(failing) == 0


def test_a_forward_that_fails_closes_its_scope(tmp_path):
    model, x = nn.Sequential(Failing()), torch.randn(3, 5)

    def call():
        with pytest.raises(RuntimeError, match="no forward"):
            model(x)
        x.cosh()

    with scopes(model):
        assert ("aten::cosh", "other") in components(call, tmp_path)


def test_unknown_components_and_plain_functions_are_left_alone():
    stranger = Custom()
    stranger.component = "sorcery"
    with scopes(stranger), scopes(lambda x: x), scopes(None):
        assert num_hooks(stranger) == 0
