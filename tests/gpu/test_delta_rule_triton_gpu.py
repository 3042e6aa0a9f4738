"""The Triton delta rule on CUDA, forward and backward, against eager in float64, and fla."""

import threading

import pytest
import torch
from torch.nn.functional import normalize

from ena_kernels.delta_rule import hopper_backward
from ena_kernels.delta_rule.api import delta_rule, delta_rule_step
from ena_kernels.delta_rule.configs import segment_chunks_of

pytestmark = pytest.mark.gpu

LIMITS = {
    torch.bfloat16: (8e-3, 1.2e-2),
    torch.float16: (1e-3, 2e-3),
    torch.float32: (1e-5, 1e-5),
}
HALVES = (torch.bfloat16, torch.float16)


def make_inputs(seq_len, dims, *, dtype=torch.bfloat16, keys="random", seed=5):
    """q, k, v, beta in (0.5, 1), initial state: leaves; tokens stored as [B, L, H, D]."""
    b, h, d, e = dims
    generator = torch.Generator("cuda").manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, device="cuda")

    q, k, v = (draw(b, seq_len, h, x).transpose(1, 2) for x in (d, d, e))
    base = draw(b, h, 1, d)
    if keys == "near parallel":
        k = normalize(base, dim=-1) + 1e-2 * normalize(k, dim=-1)
    elif keys == "alternating":
        k = base * (1 - 2 * (torch.arange(seq_len, device="cuda") % 2))[:, None]
    elif keys == "equal":
        k = base.expand_as(k)
    beta = 1 - 0.5 * torch.rand(b, h, seq_len, generator=generator, device="cuda")
    if keys != "random":
        beta = 1 - 2e-3 * (1 - beta)
    tokens = [x.to(dtype) for x in (q, k, v, beta)]
    return [x.requires_grad_() for x in (*tokens, draw(b, h, d, e))]


def run(inputs, weights, **options):
    """Output, final state and the gradient of every input."""
    outputs = delta_rule(*inputs[:4], initial_state=inputs[4], output_final_state=True, **options)
    weights = [w.to(x.dtype) for w, x in zip(weights, outputs, strict=True)]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def errors(inputs, *, impl="triton", **options):
    """Relative errors of output, final state, and the gradients of q, k, v, beta and the state."""
    (b, h, seq_len, d), e = inputs[0].shape, inputs[2].shape[-1]
    generator = torch.Generator("cuda").manual_seed(6)
    weights = [
        torch.randn(*shape, generator=generator, device="cuda").to(dtype)
        for shape, dtype in (((b, h, seq_len, e), inputs[0].dtype), ((b, h, d, e), torch.float32))
    ]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    expected = run(wide, weights, impl="eager", **options)
    actual = run(inputs, weights, impl=impl, **options)
    assert all(x.isfinite().all() for x in actual)
    return [
        ((x.double() - y).norm() / y.norm()).item() for x, y in zip(actual, expected, strict=True)
    ]


def assert_within(found, limits):
    forward_limit, gradient_limit = limits
    assert max(found[:2]) < forward_limit, found
    assert max(found[2:]) < gradient_limit, found


@pytest.mark.parametrize(
    ("dims", "dtype"),
    [
        *((dims, dtype) for dims in ((2, 3, 64, 64), (1, 3, 128, 128)) for dtype in HALVES),
        ((1, 2, 96, 48), torch.bfloat16),
        ((1, 2, 64, 48), torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("seq_len", [1, 63, 64, 65, 130, 1500])
def test_outputs_and_every_gradient_match_float64(seq_len, dims, dtype):
    inputs = make_inputs(seq_len, dims, dtype=dtype)
    assert_within(errors(inputs, qk_l2norm=True), LIMITS[dtype])


@pytest.mark.parametrize(
    ("dims", "dtype"),
    [
        ((1, 2, 16, 16), torch.bfloat16),
        ((1, 2, 32, 200), torch.float16),
        ((1, 2, 200, 32), torch.float16),
        ((1, 2, 256, 256), torch.bfloat16),
        ((1, 2, 128, 64), torch.bfloat16),
        ((1, 2, 64, 128), torch.float16),
        ((1, 2, 32, 32), torch.bfloat16),
        ((1, 2, 60, 44), torch.bfloat16),
        ((1, 2, 16, 256), torch.bfloat16),
        ((1, 2, 128, 128), torch.float32),
    ],
    ids=str,
)
def test_every_head_dim_runs(dims, dtype):
    forward_limit, gradient_limit = LIMITS[dtype]
    # with few channels every one of them weighs more
    limits = (1.5 * forward_limit, 1.5 * gradient_limit)
    assert_within(errors(make_inputs(777, dims, dtype=dtype), qk_l2norm=True), limits)


@pytest.mark.parametrize("seq_len", [4096, 20000])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_segments_of_long_sequences_join(head_dim, seq_len):
    assert segment_chunks_of(3, -(-seq_len // 64), head_dim) < seq_len // 64
    inputs = make_inputs(seq_len, (1, 3, head_dim, head_dim))
    assert_within(errors(inputs, qk_l2norm=True), LIMITS[torch.bfloat16])


@pytest.mark.parametrize("keys", ["near parallel", "alternating", "equal"])
@pytest.mark.parametrize("has_state", [True, False], ids=["state", "no state"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_stays_within_bounds_for_hard_keys(dtype, head_dim, has_state, keys):
    """From an empty state everything is a small difference: what is rounded weighs most."""
    inputs = make_inputs(1000, (1, 2, head_dim, head_dim), dtype=dtype, keys=keys)
    if not has_state:
        with torch.no_grad():
            inputs[4].zero_()
    limits = {torch.bfloat16: (5e-3, 1e-2), torch.float16: (1e-3, 5e-3)}
    if not has_state:
        limits = {torch.bfloat16: (6e-3, 1e-2), torch.float16: (5e-3, 5e-3)}
    assert_within(errors(inputs, qk_l2norm=True), limits[dtype])


@pytest.mark.parametrize("keys", ["near parallel", "alternating", "equal"])
def test_single_precision_stays_single_for_hard_keys(keys):
    inputs = make_inputs(1000, (1, 2, 64, 64), dtype=torch.float32, keys=keys)
    assert_within(errors(inputs, qk_l2norm=True), (1e-5, 3e-5))


@pytest.mark.parametrize("head_dim", [64, 128])
def test_results_repeat_bit_for_bit(head_dim):
    inputs = make_inputs(2500, (1, 2, head_dim, head_dim))
    weights = [torch.ones((), device="cuda").expand(1, 2, n, head_dim) for n in (2500, head_dim)]
    first, second = (run(inputs, weights, impl="triton", qk_l2norm=True) for _ in range(2))
    for x, y in zip(first, second, strict=True):
        assert torch.equal(x, y)


def test_views_of_one_projection_are_read_in_place():
    b, seq_len, h, d = 2, 333, 3, 64
    packed = torch.randn(b, seq_len, 3 * h * d, device="cuda", dtype=torch.bfloat16)
    strengths = torch.rand(b, seq_len, 2 * h, device="cuda", dtype=torch.bfloat16)
    packed.requires_grad_()
    weight = torch.randn(b, h, seq_len, d, device="cuda", dtype=torch.bfloat16)

    def call(packed, impl):
        q, k, v = (x.unflatten(-1, (h, d)).transpose(1, 2) for x in packed.chunk(3, dim=-1))
        beta = strengths[..., ::2].transpose(1, 2).to(packed)
        o, _ = delta_rule(q, k, v, beta, qk_l2norm=True, impl=impl)
        return o, torch.autograd.grad(o, packed, weight.to(o))[0]

    expected = call(packed.detach().double().requires_grad_(), "eager")
    for x, y in zip(call(packed, "triton"), expected, strict=True):
        assert ((x.double() - y).norm() / y.norm()).item() < 1e-2


def test_on_hopper_the_backward_takes_its_own_kernels_for_packed_projections():
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("not a Hopper GPU")
    packed = torch.randn(2, 70, 3 * 5 * 64, device="cuda", dtype=torch.bfloat16)
    q, k, v = (x.unflatten(-1, (5, 64)).transpose(1, 2) for x in packed.chunk(3, dim=-1))
    assert hopper_backward.supports(q, k, v, v, 64, 64)
    assert not hopper_backward.supports(*(x.float() for x in (q, k, v, v)), 64, 64)
    assert not hopper_backward.supports(q, k.float(), v, v, 64, 64)
    assert not hopper_backward.supports(q, k, v, v, 64, 192)
    assert not hopper_backward.supports(q, k, v, v[:, :, :, 1:], 64, 64)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_waits_for_the_device():
    inputs = make_inputs(2500, (1, 2, 64, 48))
    weights = [torch.ones((), device="cuda").expand(1, 2, n, 48) for n in (2500, 64)]
    run(inputs, weights, impl="triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(inputs, weights, impl="triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")
@pytest.mark.parametrize("seq_len", [333, 2500])
def test_forward_and_backward_can_be_captured_in_a_cuda_graph(seq_len):
    inputs = make_inputs(seq_len, (1, 2, 64, 64))
    weights = [torch.ones((), device="cuda").expand(1, 2, n, 64) for n in (seq_len, 64)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = run(inputs, weights, impl="triton", qk_l2norm=True)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = run(inputs, weights, impl="triton", qk_l2norm=True)
    for x in captured:
        x.detach().zero_()
    graph.replay()
    torch.cuda.synchronize()
    for x, y in zip(captured, expected, strict=True):
        assert torch.equal(x, y)


def test_a_thread_of_its_own_needs_no_cuda_context():
    inputs = make_inputs(300, (1, 2, 64, 64))
    weights = [torch.ones((), device="cuda").expand(1, 2, n, 64) for n in (300, 64)]
    expected = run(inputs, weights, impl="triton", qk_l2norm=True)
    actual = []
    options = {"impl": "triton", "qk_l2norm": True}
    thread = threading.Thread(target=lambda: actual.extend(run(inputs, weights, **options)))
    thread.start()
    thread.join()
    for x, y in zip(actual, expected, strict=True):
        assert torch.equal(x, y)


@pytest.mark.filterwarnings("default")  # those of the compiler are not ours
def test_compiles_into_one_graph():
    *tokens, _ = make_inputs(300, (1, 2, 64, 64))

    def function(*tokens):
        return 2 * delta_rule(*tokens, qk_l2norm=True, impl="triton")[0]

    whole = torch.compile(function, fullgraph=True)
    for x, y in zip(whole(*tokens), function(*tokens), strict=True):
        torch.testing.assert_close(x, y)
    compiled = torch.autograd.grad(whole(*tokens).sum(), tokens)
    for x, y in zip(compiled, torch.autograd.grad(function(*tokens).sum(), tokens), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_steps_in_order_equal_one_long_call(dtype):
    inputs = [x.detach() for x in make_inputs(20, (2, 3, 64, 96), dtype=dtype)]
    *tokens, state = inputs
    wide = [x.double() for x in inputs]
    expected, final = delta_rule(
        *wide[:4], initial_state=wide[4], output_final_state=True, qk_l2norm=True
    )
    outputs = []
    for t in range(20):
        o, state = delta_rule_step(
            *(x[:, :, t] for x in tokens), state, qk_l2norm=True, impl="triton"
        )
        outputs.append(o)
    limit = 1e-5 if dtype == torch.float32 else 5e-3
    for x, y in ((torch.stack(outputs, 2), expected), (state, final)):
        assert ((x.double() - y).norm() / y.norm()).item() < limit


def test_more_than_2_to_the_31_elements():
    seq_len, h, d = 2**16 + 65, 264, 128
    free, _ = torch.cuda.mem_get_info()
    if free < 110 * 2**30:
        pytest.skip("too little memory for tensors of more than 2^31 elements")
    generator = torch.Generator("cuda").manual_seed(9)
    q, k, v, weight = (
        torch.randn(
            1, seq_len, h, d, generator=generator, device="cuda", dtype=torch.bfloat16
        ).transpose(1, 2)
        for _ in range(4)
    )
    assert q.numel() > 2**31
    beta = torch.rand(1, h, seq_len, generator=generator, device="cuda", dtype=torch.bfloat16)
    leaves = [x.requires_grad_() for x in (q, k, v, beta)]
    o, _ = delta_rule(*leaves, qk_l2norm=True, impl="triton")
    # the last head alone: its elements lie behind the first 2^31
    last = [x.detach()[:, -1:].double().requires_grad_() for x in leaves]
    expected, _ = delta_rule(*last, qk_l2norm=True)
    assert ((o.detach()[:, -1:].double() - expected).norm() / expected.norm()).item() < 8e-3
    grads = torch.autograd.grad(o, leaves, weight)
    wanted = torch.autograd.grad(expected, last, weight[:, -1:].double())
    for x, y in zip(grads, wanted, strict=True):
        assert ((x[:, -1:].double() - y).norm() / y.norm()).item() < 1.2e-2


@pytest.mark.filterwarnings("ignore")
def test_it_is_as_exact_as_fla():
    pytest.importorskip("fla.ops.delta_rule")
    inputs = make_inputs(331, (2, 3, 64, 64), keys="near parallel")
    ours, theirs = (errors(inputs, impl=impl, qk_l2norm=True) for impl in ("triton", "fla"))
    for x, y in zip(ours, theirs, strict=True):
        assert x < 1.5 * y + 1e-3, (ours, theirs)
