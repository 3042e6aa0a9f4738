"""Operators with a gradient, called plainly, traced, transformed and differentiated."""

import pytest
import torch

from ena_kernels.autograd import call, differentiable

NAME = "ena_kernels_tests::product_and_sum"
torch.library.define(NAME, "(Tensor x, Tensor y, float scale) -> (Tensor, Tensor)")


@torch.library.impl(NAME, "cpu")
def _compute(x, y, scale):
    return scale * x * y, x + y


@torch.library.register_fake(NAME)
def _fake(x, y, scale):
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _setup_context(ctx, inputs, output):
    x, y, ctx.scale = inputs
    ctx.save_for_backward(x, y)
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_product, grad_sum):
    x, y = ctx.saved_tensors
    grad_sum = 0 if grad_sum is None else grad_sum
    scaled = 0 if grad_product is None else ctx.scale * grad_product
    return grad_sum + scaled * y, grad_sum + scaled * x, None


product_and_sum = differentiable(NAME, _backward, _setup_context)
OPERATOR = torch.ops.ena_kernels_tests.product_and_sum.default


def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, generator=generator, requires_grad=True) for _ in range(2)]


def total(x, y, function=product_and_sum):
    product, added = function(x, y, 2.5)
    return (product * added).sum()


@pytest.mark.parametrize("function", [product_and_sum, OPERATOR], ids=["plain", "registered"])
def test_gradients_are_those_of_the_formula(function):
    x, y = inputs()
    grads = torch.autograd.grad(total(x, y, function), (x, y))
    expected = torch.autograd.grad((2.5 * x * y * (x + y)).sum(), (x, y))
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_an_output_that_nobody_uses_has_no_gradient():
    x, y = inputs()
    (grad,) = torch.autograd.grad(product_and_sum(x, y, 2.5)[1].sum(), x)
    assert torch.equal(grad, torch.ones_like(x))


def test_without_gradients_outputs_have_none():
    x, y = inputs()
    with torch.no_grad():
        assert not product_and_sum(x, y, 2.5)[0].requires_grad
    assert not product_and_sum(x.detach(), y.detach(), 2.5)[0].requires_grad
    assert product_and_sum(x.detach(), y, 2.5)[0].requires_grad


def test_a_compiler_sees_the_operator_in_one_graph():
    x, y = inputs()
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    compiled = torch.compile(total, fullgraph=True, backend=backend)
    grads = torch.autograd.grad(compiled(x, y), (x, y))
    assert any("product_and_sum" in name for name in seen)
    expected = torch.autograd.grad(total(x, y), (x, y))
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore")
def test_a_tracer_sees_the_operator():
    x, y = inputs()
    traced = torch.jit.trace(lambda x, y: product_and_sum(x, y, 2.0)[0], (x, y), check_trace=False)
    assert "product_and_sum" in str(traced.graph)
    assert torch.equal(traced(x, y), product_and_sum(x, y, 2.0)[0])


def test_transformations_see_the_operator():
    x, y = (x.detach() for x in inputs())
    product, _ = torch.func.vmap(lambda x, y: product_and_sum(x, y, 2.5))(x, y)
    torch.testing.assert_close(product, 2.5 * x * y)


def test_fake_tensors_reach_the_fake():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        x, y = (mode.from_tensor(x.detach()) for x in inputs())
        product, _ = product_and_sum(x, y, 2.5)
    assert type(product) is type(x)
    assert product.shape == x.shape


def test_profiles_name_the_operator():
    x, y = inputs()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        product_and_sum(x, y, 2.5)
    assert NAME in {event.name for event in profiler.events()}


def test_a_call_records_the_layer_for_gradients_only_where_one_is_asked_for():
    x, y = inputs()
    assert call(OPERATOR, x, y, 2.5)[0].requires_grad
    assert not call(OPERATOR, x.detach(), y.detach(), 2.5)[0].requires_grad
    with torch.no_grad():
        assert not call(OPERATOR, x, y, 2.5)[0].requires_grad
