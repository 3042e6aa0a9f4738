"""The delta rule on CUDA: eager and fla against the reference in float64."""

import pytest
import torch
from torch.nn.functional import normalize

from ena_kernels.delta_rule.api import delta_rule
from ena_kernels.errors import UnsupportedError

pytestmark = pytest.mark.gpu


def make_inputs(seq_len, *, dtype, dims=(2, 3, 64, 48), keys="random"):
    """q, k (unit norm), v, beta, initial state: leaves that ask for a gradient."""
    b, h, d, e = dims
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    k = draw(b, h, seq_len, d)
    if keys == "near parallel":
        k = draw(b, h, 1, d) + 1e-2 * k
    beta = 1 - 0.5 * torch.rand(b, h, seq_len, generator=generator)
    tokens = (draw(b, h, seq_len, d), normalize(k, dim=-1), draw(b, h, seq_len, e), beta)
    inputs = [x.to("cuda", dtype) for x in tokens] + [draw(b, h, d, e).cuda()]
    return [x.requires_grad_() for x in inputs]


def run(inputs, weights, **options):
    """Output, final state and the gradient of every input."""
    outputs = delta_rule(*inputs[:4], initial_state=inputs[4], output_final_state=True, **options)
    grads = torch.autograd.grad(
        outputs, inputs, [w.to(x) for w, x in zip(weights, outputs, strict=True)]
    )
    return outputs, grads


def errors(inputs, *, impl, qk_l2norm=False):
    """Worst relative error of the outputs and of the gradients against float64."""
    b, h, seq_len, d = inputs[0].shape
    e = inputs[2].shape[-1]
    generator = torch.Generator().manual_seed(6)
    weights = [
        torch.randn(*shape, generator=generator).to(inputs[0])
        for shape in ((b, h, seq_len, e), (b, h, d, e))
    ]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = run(exact, weights, impl="reference", qk_l2norm=qk_l2norm)
    actual = run(inputs, weights, impl=impl, qk_l2norm=qk_l2norm)
    return [
        max(((x.double() - y).norm() / y.norm()).item() for x, y in zip(found, wanted, strict=True))
        for found, wanted in zip(actual, expected, strict=True)
    ]


@pytest.mark.parametrize(("seq_len", "keys"), [(331, "random"), (197, "near parallel")])
@pytest.mark.parametrize(
    ("dtype", "forward_limit", "gradient_limit"),
    [(torch.bfloat16, 5e-3, 1e-2), (torch.float16, 1e-3, 2e-3), (torch.float32, 1e-5, 1e-5)],
    ids=["bfloat16", "float16", "float32"],
)
def test_eager_on_cuda_matches_the_reference(dtype, forward_limit, gradient_limit, seq_len, keys):
    forward_error, gradient_error = errors(
        make_inputs(seq_len, dtype=dtype, keys=keys), impl="eager", qk_l2norm=True
    )
    assert forward_error < forward_limit
    assert gradient_error < gradient_limit


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_eager_never_waits_for_the_device():
    inputs = make_inputs(331, dtype=torch.bfloat16)
    weights = [torch.ones((), device="cuda").expand(2, 3, n, 48) for n in (331, 64)]
    run(inputs, weights, impl="eager")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(inputs, weights, impl="eager")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_eager_can_be_captured_in_a_cuda_graph():
    inputs = [x.detach() for x in make_inputs(331, dtype=torch.bfloat16)[:4]]
    expected, _ = delta_rule(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, _ = delta_rule(*inputs)
    captured.zero_()
    graph.replay()
    torch.testing.assert_close(captured, expected)


# one head count and one head dim for all: fla tunes its kernels anew for every other, for minutes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("seq_len", "qk_l2norm"), [(331, True), (65, False), (40, True)])
def test_fla_matches_the_reference(seq_len, qk_l2norm):
    pytest.importorskip("fla.ops.delta_rule")
    inputs = make_inputs(seq_len, dtype=torch.bfloat16)
    forward_error, gradient_error = errors(inputs, impl="fla", qk_l2norm=qk_l2norm)
    # twice the bounds of eager: fla rounds W, U, R and the chunk states to bfloat16 on the way
    assert forward_error < 1e-2
    assert gradient_error < 2e-2


def test_fla_is_refused_in_float32_on_cuda():
    *tokens, _ = make_inputs(8, dtype=torch.float32)
    with pytest.raises(UnsupportedError, match="q is float32"):
        delta_rule(*tokens, impl="fla")
