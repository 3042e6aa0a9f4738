"""The Triton delta rule and its gradients, interpreted, against the reference in float64."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from ena_kernels.delta_rule.api import delta_rule, delta_rule_step
from ena_kernels.errors import UnsupportedError

triton_impl = pytest.importorskip("ena_kernels.delta_rule.triton")

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here")
pytestmark = interpreted

NAMES = ("o", "final state", "dq", "dk", "dv", "dbeta", "dstate")


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan(monkeypatch):
    """Kernels cannot count on what memory holds."""
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(torch.Tensor, name, _filled(getattr(torch.Tensor, name)))


def _filled(make):
    def filled(self, *size, **options):
        tensor = make(self, *size, **options)
        return tensor.fill_(math.nan) if tensor.is_floating_point() else tensor

    return filled


def make_inputs(seq_len, dims=(1, 2, 20, 17), *, keys="random", dtype=torch.float32, seed=0):
    """q, k, v, beta in (0, 2) with one 0, initial state: leaves; tokens stored as [B, L, H, D]."""
    b, h, d, e = dims
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    q, k, v = (draw(b, seq_len, h, x).transpose(1, 2) for x in (d, d, e))
    if keys == "similar":
        k = k + 3 * draw(b, h, 1, d)
    beta = 2 * torch.rand(b, seq_len, h, generator=generator).transpose(1, 2)
    beta[:, :, seq_len // 3] = 0
    tokens = [x.to(dtype) for x in (q, k, v, beta)]
    return [x.requires_grad_() for x in (*tokens, draw(b, h, d, e))]


def weights_like(*tensors):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(x.shape, generator=generator).to(x.dtype) for x in tensors]


def outputs_and_gradients(inputs, *, weights=None, **options):
    """Output, final state and the gradient of every input."""
    *tokens, state = inputs
    outputs = delta_rule(*tokens, initial_state=state, output_final_state=True, **options)
    weights = weights or weights_like(*outputs)
    weights = [w.to(x.dtype) for w, x in zip(weights, outputs, strict=True)]
    return [*outputs, *torch.autograd.grad(outputs, inputs, weights)]


def exact(inputs):
    return [x.detach().double().requires_grad_() for x in inputs]


def assert_close(actual, expected, limit=1e-5, names=NAMES):
    for name, x, y in zip(names, actual, expected, strict=True):
        assert x.isfinite().all(), name
        error = (x.double() - y).norm() / y.norm().clamp(min=1e-30)
        assert error <= limit, f"{name}: {error:.1e}"


def in_segments(monkeypatch, chunks):
    """Let that many chunks run one after the other, and segments of them side by side."""
    monkeypatch.setattr(triton_impl, "segment_chunks_of", lambda *_: chunks)


@pytest.mark.parametrize("keys", ["random", "similar"])
@pytest.mark.parametrize("seq_len", [1, 63, 64, 65, 130])
def test_outputs_and_every_gradient_match_the_reference(seq_len, keys):
    inputs = make_inputs(seq_len, keys=keys)
    options = {"scale": 0.3, "qk_l2norm": True}
    expected = outputs_and_gradients(exact(inputs), **options)
    assert_close(outputs_and_gradients(inputs, impl="triton", **options), expected)


@pytest.mark.parametrize("segment_chunks", [1, 2, 3])
def test_segments_change_nothing(monkeypatch, segment_chunks):
    inputs = make_inputs(300, (2, 1, 16, 33), keys="similar")
    expected = outputs_and_gradients(exact(inputs), qk_l2norm=True)
    in_segments(monkeypatch, segment_chunks)
    assert_close(outputs_and_gradients(inputs, impl="triton", qk_l2norm=True), expected)


@pytest.mark.parametrize("dims", [(1, 1, 16, 70), (1, 1, 70, 16), (1, 2, 33, 100)])
def test_keys_and_values_differ_in_width(dims):
    inputs = make_inputs(70, dims)
    expected = outputs_and_gradients(exact(inputs), qk_l2norm=True)
    assert_close(outputs_and_gradients(inputs, impl="triton", qk_l2norm=True), expected)


@pytest.mark.parametrize("scale", [1.7, 0.0, -0.4])
def test_keys_are_taken_as_they_are_without_the_norm(scale):
    inputs = make_inputs(70)
    with torch.no_grad():
        inputs[1].copy_(normalize(inputs[1], dim=-1))
    options = {"scale": scale}
    expected = outputs_and_gradients(exact(inputs), **options)
    assert_close(outputs_and_gradients(inputs, impl="triton", **options), expected)


def test_a_scale_of_zero_stops_the_gradient_of_normalised_queries():
    inputs = make_inputs(20)
    options = {"scale": 0.0, "qk_l2norm": True}
    expected = outputs_and_gradients(exact(inputs), **options)
    assert_close(outputs_and_gradients(inputs, impl="triton", **options), expected)


@pytest.mark.parametrize("kind", ["equal", "alternating", "near parallel"])
@pytest.mark.parametrize(
    ("dtype", "forward_limit", "gradient_limit"),
    # the update of a token, rounded to half precision, is a small difference of large sums here
    [(torch.float16, 4e-3, 2e-2), (torch.float32, 1e-5, 1e-5)],
    ids=["float16", "float32"],
)
def test_rounding_stays_within_bounds_for_hard_keys(kind, dtype, forward_limit, gradient_limit):
    inputs = make_inputs(133, dtype=dtype)
    base = normalize(torch.randn(20, generator=torch.Generator().manual_seed(3)), dim=-1)
    keys = {
        "equal": base.expand(133, 20),
        "alternating": base * (1 - 2 * (torch.arange(133) % 2))[:, None],
        "near parallel": normalize(base + 1e-2 * inputs[1][0, 0].detach().float(), dim=-1),
    }[kind]
    with torch.no_grad():
        inputs[1].copy_(keys)
        inputs[3].copy_(1 - 1e-3 * torch.rand(inputs[3].shape))
    expected = outputs_and_gradients(exact(inputs))
    actual = outputs_and_gradients(inputs, impl="triton")
    assert [x.dtype for x in actual[2:]] == [x.dtype for x in inputs]
    assert_close(actual[:2], expected[:2], forward_limit, NAMES[:2])
    assert_close(actual[2:], expected[2:], gradient_limit, NAMES[2:])


@pytest.mark.parametrize("sign", [1, -1], ids=["equal", "alternating"])
def test_half_precision_loses_little_of_values_under_one_key(sign):
    """What is written is a small difference of values here; sums of many are as small as one."""
    inputs = make_inputs(300, (1, 1, 64, 64), dtype=torch.float16)
    with torch.no_grad():
        inputs[1].copy_(inputs[1][:, :, :1] * (sign ** torch.arange(300))[:, None])
        inputs[3].copy_(1 - 1e-3 * torch.rand(300, generator=torch.Generator().manual_seed(2)))
        inputs[4].zero_()
    expected = outputs_and_gradients(exact(inputs), qk_l2norm=True)
    actual = outputs_and_gradients(inputs, impl="triton", qk_l2norm=True)
    assert_close(actual, expected, 6e-4)


@pytest.mark.parametrize("output", [0, 1], ids=["o", "final_state"])
@pytest.mark.parametrize("has_state", [False, True])
def test_gradients_are_right_when_one_output_is_unused(output, has_state):
    *tokens, state = make_inputs(70)
    leaves = [*tokens, state] if has_state else tokens
    grads = []
    for impl, inputs in (("triton", leaves), ("reference", exact(leaves))):
        first = inputs[4] if has_state else None
        outputs = delta_rule(
            *inputs[:4], initial_state=first, output_final_state=True, qk_l2norm=True, impl=impl
        )
        (weight,) = weights_like(outputs[output].float())
        weight = weight.to(outputs[output])
        grads.append(torch.autograd.grad(outputs[output], inputs, weight, materialize_grads=True))
    assert_close(*grads, names=NAMES[2 : 2 + len(leaves)])


def test_the_final_state_is_returned_only_when_asked_for():
    *tokens, _ = make_inputs(4)
    assert delta_rule(*tokens, impl="triton")[1] is None


def test_views_of_one_projection_are_read_without_a_copy(monkeypatch):
    b, seq_len, h, d, e = 2, 70, 3, 16, 24
    generator = torch.Generator().manual_seed(1)
    packed = torch.randn(b, seq_len, h * (2 * d + e), generator=generator).requires_grad_()
    strengths = torch.rand(b, seq_len, 2 * h, generator=generator)

    def call(packed, strengths, impl):
        parts = packed.split([h * d, h * d, h * e], dim=-1)
        views = [x.unflatten(-1, (h, -1)).transpose(1, 2) for x in parts]
        beta = strengths[..., ::2].transpose(1, 2)
        return delta_rule(*views, beta, qk_l2norm=True, impl=impl)[0]

    wide = packed.detach().double().requires_grad_()
    expected = call(wide, strengths.double(), "reference")
    weight = torch.randn(expected.shape, generator=generator)
    (expected_grad,) = torch.autograd.grad(expected, wide, weight.double())

    def refuse(x, *_, **__):
        raise AssertionError(f"a copy of strides {x.stride()}")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "contiguous", refuse)
        o = call(packed, strengths, "triton")
        (grad,) = torch.autograd.grad(o, packed, weight)
    assert_close((o, grad), (expected, expected_grad), names=("o", "gradient"))
    assert o.transpose(1, 2).is_contiguous()


def test_results_are_stored_with_the_heads_of_a_token_together():
    inputs = make_inputs(9, (2, 3, 16, 17))
    o, _, *grads = outputs_and_gradients(inputs, impl="triton")
    for x in (o, *grads[:4]):
        assert x.transpose(1, 2).is_contiguous()


def test_tokens_and_gradients_of_any_strides_are_read_right():
    inputs = [x.detach().mT.contiguous().mT.requires_grad_() for x in make_inputs(70)[:3]]
    beta = make_inputs(70)[3]
    expected = delta_rule(*exact([*inputs, beta]), qk_l2norm=True, impl="reference")[0]
    o, _ = delta_rule(*inputs, beta, qk_l2norm=True, impl="triton")
    weight = torch.ones((), dtype=o.dtype).expand(o.shape)
    wide = exact([*inputs, beta])
    expected = delta_rule(*wide, qk_l2norm=True, impl="reference")[0]
    assert_close(
        (o, *torch.autograd.grad(o, [*inputs, beta], weight)),
        (expected, *torch.autograd.grad(expected, wide, weight.double())),
        names=("o", *NAMES[2:6]),
    )


def test_float32_beta_goes_with_half_precision_tokens():
    q, k, v, beta, _ = make_inputs(17, dtype=torch.float16)
    wide = beta.detach().float().requires_grad_()
    o, _ = delta_rule(q, k, v, wide, qk_l2norm=True, impl="triton")
    torch.testing.assert_close(o, delta_rule(q, k, v, beta, qk_l2norm=True, impl="triton")[0])
    assert torch.autograd.grad(o.sum(), wide)[0].dtype == torch.float32


def test_a_sequence_cut_in_two_gives_the_same_as_the_whole():
    q, k, v, beta, state = (x.detach() for x in make_inputs(90))
    options = {"output_final_state": True, "qk_l2norm": True, "impl": "triton"}
    whole, whole_state = delta_rule(q, k, v, beta, initial_state=state, **options)
    parts = []
    for part in (slice(0, 71), slice(71, 90)):
        tokens = (x[:, :, part] for x in (q, k, v, beta))
        o, state = delta_rule(*tokens, initial_state=state, **options)
        parts.append(o)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, whole_state, atol=1e-5, rtol=1e-5)


def test_beta_of_zero_writes_nothing_and_still_has_a_gradient():
    inputs = make_inputs(70)
    with torch.no_grad():
        inputs[3].zero_()
    expected = outputs_and_gradients(exact(inputs), scale=0.3)
    actual = outputs_and_gradients(inputs, impl="triton", scale=0.3)
    assert_close(actual, expected)
    torch.testing.assert_close(actual[1], inputs[4].detach())
    assert actual[5].abs().min() > 0


def test_orthonormal_keys_store_their_values_exactly():
    q, _, v, _, _ = (x.detach() for x in make_inputs(20))
    keys = torch.linalg.qr(torch.randn(1, 2, 20, 20)).Q
    _, final = delta_rule(q, keys, v, torch.ones(1, 2, 20), output_final_state=True, impl="triton")
    torch.testing.assert_close(keys @ final, v, atol=1e-5, rtol=1e-5)


def test_only_the_last_value_of_a_repeated_key_survives():
    q, k, v, beta, _ = (x.detach() for x in make_inputs(67))
    key = normalize(k[:, :, :1], dim=-1).expand_as(k)
    ones = torch.ones_like(beta)
    _, final = delta_rule(q, key, v, ones, output_final_state=True, impl="triton")
    torch.testing.assert_close(key[:, :, :1] @ final, v[:, :, -1:], atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_later_tokens():
    *leaves, _ = make_inputs(80)
    o, _ = delta_rule(*leaves, qk_l2norm=True, impl="triton")
    for grad in torch.autograd.grad(o[:, :, 66].sum(), leaves):
        assert grad[:, :, 66].abs().sum() > 0
        assert grad[:, :, 67:].abs().sum() == 0


def test_one_token_more_than_a_chunk_changes_nothing_before_it():
    *tokens, _ = (x.detach() for x in make_inputs(65))
    longer, _ = delta_rule(*tokens, qk_l2norm=True, impl="triton")
    shorter, _ = delta_rule(*(x[:, :, :64] for x in tokens), qk_l2norm=True, impl="triton")
    torch.testing.assert_close(longer[:, :, :64], shorter)


def test_the_operators_pass_the_checks_of_pytorch():
    inputs = make_inputs(66, (1, 2, 16, 17))
    options = 0.3, True, 1
    for state in (None, inputs[4]):
        arguments = (*inputs[:4], state, *options)
        torch.library.opcheck(torch.ops.ena_kernels.delta_rule.default, arguments)
        results = torch.ops.ena_kernels.delta_rule(*arguments)
        o, final, *kept = (x.detach() for x in results)
        plain = [None if x is None else x.detach() for x in arguments[:5]]
        for grad_final in (None, torch.randn_like(final)):
            arguments = (torch.randn_like(o), grad_final, *plain, *kept, *options)
            torch.library.opcheck(torch.ops.ena_kernels.delta_rule_backward.default, arguments)


def test_compiles_into_one_graph_for_every_length():
    def function(*tokens):
        o, final = delta_rule(*tokens, qk_l2norm=True, output_final_state=True, impl="triton")
        return 2 * o, final

    whole = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for seq_len in (70, 40):
        *tokens, _ = make_inputs(seq_len)
        results = []
        for call in (function, whole):
            outputs = call(*tokens)
            grads = torch.autograd.grad([x.sum() for x in outputs], tokens)
            results.append((*outputs, *grads))
        torch.testing.assert_close(*results)


def test_differentiating_twice_is_refused():
    q, *others, _ = make_inputs(5)
    o, _ = delta_rule(q, *others, impl="triton")
    (grad,) = torch.autograd.grad(o.sum(), q, create_graph=True)
    with pytest.raises(UnsupportedError, match="no second derivative"):
        torch.autograd.grad(grad.sum(), others[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_steps_in_order_equal_one_long_call(dtype):
    q, k, v, beta, state = (x.detach() for x in make_inputs(9, (2, 3, 33, 70), dtype=dtype))
    options = {"qk_l2norm": True, "impl": "triton"}
    whole, final = delta_rule(
        q, k, v, beta, initial_state=state, output_final_state=True, **options
    )
    before, carried, outputs = state.clone(), state, []
    for t in range(9):
        token = (x[:, :, t] for x in (q, k, v, beta))
        o, carried = delta_rule_step(*token, carried, **options)
        outputs.append(o)
    limit = 1e-5 if dtype == torch.float32 else 5e-3
    actual = torch.stack(outputs, dim=2), carried
    assert_close(actual, (whole.double(), final.double()), limit, NAMES[:2])
    assert outputs[0].dtype == dtype
    assert torch.equal(state, before)


def test_the_step_passes_the_checks_of_pytorch_and_has_no_gradient():
    q, k, v, beta, state = make_inputs(1, (2, 3, 16, 24))
    token = [x.detach()[:, :, 0] for x in (q, k, v, beta)]
    arguments = (*token, state.detach(), 0.3, True)
    torch.library.opcheck(torch.ops.ena_kernels.delta_rule_step.default, arguments)
    with pytest.raises(UnsupportedError, match="a gradient is asked for"):
        delta_rule_step(*token, state, impl="triton")
    with torch.no_grad():
        delta_rule_step(*token, state, impl="triton")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda q, v: (q.double(), v.double()), "float64"),
        (lambda q, v: (q[..., :8], v), "head dim 8 of q"),
        (lambda q, v: (q, v[..., :3]), "head dim 3 of v"),
        (lambda q, v: (q.repeat(1, 1, 1, 7), v), "head dim 140 of q"),
        (lambda q, v: (q.repeat(1, 1, 1, 13).half(), v.half()), "head dim 260 of q"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(change, text):
    q, _, v, beta, _ = (x.detach() for x in make_inputs(3))
    q, v = change(q, v)
    with pytest.raises(UnsupportedError, match=text):
        delta_rule(q, q, v, beta.to(q.dtype), impl="triton")


def test_a_device_without_kernels_is_refused(monkeypatch):
    import triton

    *tokens, _ = make_inputs(3)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(UnsupportedError, match="no kernel for cpu tensors"):
        delta_rule(*tokens, impl="triton")
