"""The delta rule against explicit loops in float64, and what it stores, forgets and cannot see."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ena_kernels.delta_rule import eager, fla, reference
from ena_kernels.delta_rule.api import delta_rule, delta_rule_step
from ena_kernels.errors import ShapeError, UnsupportedError

B, H, D, E = 2, 3, 5, 7
IMPLS = ("reference", "eager")


def make_inputs(seq_len, *, dtype=torch.float64, dims=(B, H, D, E), seed=0):
    """q, k (unit norm), v, beta in (0, 1), initial state: leaves that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    b, h, d, e = dims

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = draw(b, h, seq_len, d), draw(b, h, seq_len, d), draw(b, h, seq_len, e)
    beta = torch.rand(b, h, seq_len, generator=generator, dtype=torch.float64)
    state = draw(b, h, d, e)
    state_dtype = torch.promote_types(dtype, torch.float32)
    tokens = [x.to(dtype) for x in (q, normalize(k, dim=-1), v, beta)]
    return [x.requires_grad_() for x in (*tokens, state.to(state_dtype))]


def loops(q, k, v, beta, state, *, scale):
    """The recurrence with one index loop per axis; numpy, float64."""
    q, k, v, beta = (x.detach().double().numpy() for x in (q, k, v, beta))
    s = state.detach().double().numpy().copy()
    o = np.zeros(v.shape)
    for b, h, t in np.ndindex(*beta.shape):
        for e in range(v.shape[-1]):
            stored = sum(k[b, h, t, d] * s[b, h, d, e] for d in range(k.shape[-1]))
            update = beta[b, h, t] * (v[b, h, t, e] - stored)
            for d in range(k.shape[-1]):
                s[b, h, d, e] += k[b, h, t, d] * update
                o[b, h, t, e] += scale * q[b, h, t, d] * s[b, h, d, e]
    return torch.from_numpy(o), torch.from_numpy(s)


def loop_gradients(q, k, v, beta, state, do, dstate, *, scale):
    """The recurrent backward, one head and one token at a time; float64."""
    q, k, v, beta, state, do, dstate = (
        x.detach().double().numpy() for x in (q, k, v, beta, state, do, dstate)
    )
    dq, dk, dv, dbeta = (np.zeros(x.shape) for x in (q, k, v, beta))
    dinitial = np.zeros(state.shape)
    for b, h in np.ndindex(*beta.shape[:2]):
        states = [state[b, h]]
        for t in range(beta.shape[2]):
            update = beta[b, h, t] * (v[b, h, t] - k[b, h, t] @ states[-1])
            states.append(states[-1] + np.outer(k[b, h, t], update))
        grad = dstate[b, h].copy()
        for t in reversed(range(beta.shape[2])):
            before, after = states[t], states[t + 1]
            surprise = v[b, h, t] - k[b, h, t] @ before
            dq[b, h, t] = scale * after @ do[b, h, t]
            grad += scale * np.outer(q[b, h, t], do[b, h, t])
            du = k[b, h, t] @ grad
            dbeta[b, h, t] = du @ surprise
            dv[b, h, t] = beta[b, h, t] * du
            dk[b, h, t] = beta[b, h, t] * (grad @ surprise - before @ du)
            grad -= np.outer(k[b, h, t], beta[b, h, t] * du)
        dinitial[b, h] = grad
    return [torch.from_numpy(x) for x in (dq, dk, dv, dbeta, dinitial)]


def relative_error(actual, expected):
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def weights_like(*tensors):
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in tensors]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("seq_len", [1, 13])
def test_output_and_final_state_match_explicit_loops(impl, seq_len):
    q, k, v, beta, state = make_inputs(seq_len)
    o, final = delta_rule(
        q, k, v, beta, scale=0.3, initial_state=state, output_final_state=True, impl=impl
    )
    o_loops, final_loops = loops(q, k, v, beta, state, scale=0.3)
    torch.testing.assert_close(o, o_loops)
    torch.testing.assert_close(final, final_loops)


@pytest.mark.parametrize("impl", IMPLS)
def test_every_gradient_matches_the_recurrent_backward(impl):
    leaves = make_inputs(37)
    q, k, v, beta, state = leaves
    o, final = delta_rule(
        q, k, v, beta, scale=0.3, initial_state=state, output_final_state=True, impl=impl
    )
    do, dstate = weights_like(o, final)
    grads = torch.autograd.grad([o, final], leaves, [do, dstate])
    expected = loop_gradients(*leaves, do, dstate, scale=0.3)
    for name, grad, oracle in zip(("q", "k", "v", "beta", "state"), grads, expected, strict=True):
        torch.testing.assert_close(grad, oracle, msg=lambda text, n=name: f"d{n}: {text}")


@pytest.mark.parametrize("has_state", [False, True])
@pytest.mark.parametrize("chunk_size", [16, 32, 64])
@pytest.mark.parametrize("seq_len", [5, 64, 65, 131])
def test_chunks_of_any_size_equal_the_recurrence(seq_len, chunk_size, has_state):
    q, k, v, beta, state = make_inputs(seq_len)
    state = state if has_state else None
    options = {"scale": 0.4, "initial_state": state, "output_final_state": True}
    o, final = eager.forward(q, k, v, beta, **options, qk_l2norm=False, chunk_size=chunk_size)
    o_ref, final_ref = reference.forward(q, k, v, beta, **options, qk_l2norm=False)
    torch.testing.assert_close(o, o_ref)
    torch.testing.assert_close(final, final_ref)


@pytest.mark.parametrize("qk_l2norm", [False, True])
def test_chunked_backward_passes_gradcheck(qk_l2norm):
    leaves = make_inputs(37, dims=(1, 1, 3, 2))

    def call(q, k, v, beta, state):
        return eager.forward(
            *(q, k, v, beta),
            scale=0.7,
            initial_state=state,
            output_final_state=True,
            qk_l2norm=qk_l2norm,
            chunk_size=16,
        )

    assert torch.autograd.gradcheck(call, leaves)


@pytest.mark.parametrize("output", [0, 1], ids=["o", "final_state"])
def test_gradients_are_right_when_one_output_is_unused(output):
    leaves = make_inputs(21)
    grads = []
    for impl in IMPLS:
        *tokens, state = leaves
        outputs = delta_rule(*tokens, initial_state=state, output_final_state=True, impl=impl)
        (weight,) = weights_like(outputs[output])
        grads.append(torch.autograd.grad(outputs[output], leaves, weight, materialize_grads=True))
    torch.testing.assert_close(grads[0], grads[1])


def test_gradient_of_a_sum_reaches_inputs_without_an_initial_state():
    *leaves, _ = make_inputs(19)
    eager_grads, reference_grads = (
        torch.autograd.grad(delta_rule(*leaves, impl=impl)[0].sum(), leaves) for impl in IMPLS
    )
    torch.testing.assert_close(eager_grads, reference_grads)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_sequence_cut_in_two_gives_the_same_as_the_whole(impl):
    q, k, v, beta, state = make_inputs(90)
    options = {"output_final_state": True, "impl": impl}
    whole, whole_state = delta_rule(q, k, v, beta, initial_state=state, **options)
    for cut in (1, 64, 71):
        parts = []
        carried = state
        for part in (slice(0, cut), slice(cut, 90)):
            tokens = (x[:, :, part] for x in (q, k, v, beta))
            o, carried = delta_rule(*tokens, initial_state=carried, **options)
            parts.append(o)
        torch.testing.assert_close(torch.cat(parts, dim=2), whole)
        torch.testing.assert_close(carried, whole_state)


@pytest.mark.parametrize("qk_l2norm", [False, True])
def test_steps_in_order_equal_one_long_call(qk_l2norm):
    q, k, v, beta, state = make_inputs(11)
    before = state.detach().clone()
    whole, final = delta_rule(
        q, k, v, beta, initial_state=state, output_final_state=True, qk_l2norm=qk_l2norm
    )
    outputs, carried = [], state
    for t in range(11):
        token = (x[:, :, t] for x in (q, k, v, beta))
        o, carried = delta_rule_step(*token, carried, qk_l2norm=qk_l2norm)
        outputs.append(o)
    torch.testing.assert_close(torch.stack(outputs, dim=2), whole)
    torch.testing.assert_close(carried, final)
    assert torch.equal(state, before)


@pytest.mark.parametrize("impl", IMPLS)
def test_beta_of_zero_writes_nothing(impl):
    q, k, v, beta, state = make_inputs(70)
    o, final = delta_rule(
        *(q, k, v, torch.zeros_like(beta)),
        initial_state=state,
        output_final_state=True,
        scale=0.3,
        impl=impl,
    )
    torch.testing.assert_close(final, state)
    torch.testing.assert_close(o, 0.3 * q @ state)


def test_beta_of_zero_still_has_a_gradient():
    leaves = make_inputs(20)
    with torch.no_grad():
        leaves[3].zero_()
    *tokens, state = leaves
    o, _ = delta_rule(*tokens, initial_state=state)
    (do,) = weights_like(o)
    (dbeta,) = torch.autograd.grad(o, leaves[3], do)
    oracle = loop_gradients(*leaves, do, torch.zeros_like(state), scale=D**-0.5)[3]
    torch.testing.assert_close(dbeta, oracle)
    assert dbeta.abs().min() > 0


@pytest.mark.parametrize("impl", IMPLS)
def test_orthonormal_keys_store_their_values_exactly(impl):
    q, _, v, _, _ = make_inputs(D)
    keys = torch.linalg.qr(torch.randn(B, H, D, D, dtype=torch.float64)).Q
    beta = torch.ones(B, H, D, dtype=torch.float64)
    _, final = delta_rule(q, keys, v, beta, output_final_state=True, impl=impl)
    torch.testing.assert_close(keys @ final, v)


@pytest.mark.parametrize("impl", IMPLS)
def test_only_the_last_value_of_a_repeated_key_survives(impl):
    q, k, v, beta, _ = make_inputs(67)
    key = k[:, :, :1].expand_as(k)
    _, final = delta_rule(q, key, v, torch.ones_like(beta), output_final_state=True, impl=impl)
    torch.testing.assert_close(key[:, :, :1] @ final, v[:, :, -1:])


@pytest.mark.parametrize("impl", IMPLS)
def test_no_gradient_reaches_later_tokens(impl):
    *leaves, _ = make_inputs(80)
    o, _ = delta_rule(*leaves, impl=impl)
    for grad in torch.autograd.grad(o[:, :, 66].sum(), leaves):
        assert grad[:, :, 66].abs().sum() > 0
        assert grad[:, :, 67:].abs().sum() == 0


def test_one_token_more_than_a_chunk_changes_nothing_before_it():
    q, k, v, beta, _ = make_inputs(65)
    longer, _ = delta_rule(q, k, v, beta)
    shorter, _ = delta_rule(*(x[:, :, :64] for x in (q, k, v, beta)))
    torch.testing.assert_close(longer[:, :, :64], shorter)


def adversarial_keys(kind, shape):
    generator = torch.Generator().manual_seed(3)
    b, h, seq_len, d = shape
    base = normalize(torch.randn(b, h, 1, d, generator=generator), dim=-1)
    if kind == "alternating":
        return base * (1 - 2 * (torch.arange(seq_len) % 2))[:, None]
    if kind == "near parallel":
        return normalize(base + 1e-2 * torch.randn(shape, generator=generator), dim=-1)
    return base.expand(shape).clone()


@pytest.mark.parametrize("kind", ["random", "equal", "alternating", "near parallel"])
@pytest.mark.parametrize(
    ("dtype", "forward_limit", "gradient_limit"),
    [(torch.bfloat16, 5e-3, 1e-2), (torch.float16, 1e-3, 2e-3), (torch.float32, 1e-5, 1e-5)],
    ids=["bfloat16", "float16", "float32"],
)
def test_rounding_stays_within_bounds_for_hard_keys(kind, dtype, forward_limit, gradient_limit):
    leaves = make_inputs(133, dtype=dtype, dims=(1, 2, 12, 20))
    with torch.no_grad():
        leaves[3].copy_(1 - 1e-3 * torch.rand(leaves[3].shape))
        if kind != "random":
            leaves[1].copy_(adversarial_keys(kind, leaves[1].shape))
    oracle_leaves = [x.detach().double().requires_grad_() for x in leaves]
    results = []
    weights = None
    for inputs, impl in ((leaves, "eager"), (oracle_leaves, "reference")):
        outputs = delta_rule(
            *inputs[:4], initial_state=inputs[4], output_final_state=True, impl=impl
        )
        weights = weights or [w.to(dtype) for w in weights_like(*outputs)]
        grads = torch.autograd.grad(
            outputs, inputs, [w.to(x.dtype) for w, x in zip(weights, outputs, strict=True)]
        )
        results.append((outputs, grads))
    (outputs, grads), (oracle_outputs, oracle_grads) = results
    assert outputs[0].dtype == dtype
    assert outputs[1].dtype == torch.float32
    for actual, expected in zip(outputs, oracle_outputs, strict=True):
        assert relative_error(actual, expected) < forward_limit
    for leaf, actual, expected in zip(leaves, grads, oracle_grads, strict=True):
        assert actual.dtype == leaf.dtype
        assert relative_error(actual, expected) < gradient_limit


@pytest.mark.parametrize("impl", IMPLS)
def test_l2norm_inside_equals_normalised_inputs(impl):
    q, k, v, beta, _ = make_inputs(23)
    scaled = (3.0 * k).detach().requires_grad_()
    with torch.no_grad():
        q[:, :, 4] = 0.0
        q[:, :, 5] *= 1e-3

    def norm(x):
        return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    inside = delta_rule(q, scaled, v, beta, qk_l2norm=True, impl=impl)[0]
    outside = delta_rule(norm(q), norm(scaled), v, beta, impl=impl)[0]
    torch.testing.assert_close(inside, outside)
    weights = weights_like(inside)
    torch.testing.assert_close(
        torch.autograd.grad(inside, (q, scaled), weights),
        torch.autograd.grad(outside, (q, scaled), weights),
    )


def test_default_scale_is_the_inverse_root_of_the_key_dim():
    q, k, v, beta, _ = make_inputs(9)
    torch.testing.assert_close(
        delta_rule(q, k, v, beta)[0], delta_rule(q, k, v, beta, scale=D**-0.5)[0]
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_final_state_is_returned_only_when_asked_for(impl):
    q, k, v, beta, _ = make_inputs(4)
    assert delta_rule(q, k, v, beta, impl=impl)[1] is None
    _, final = delta_rule(q, k, v, beta, output_final_state=True, impl=impl)
    assert final.shape == (B, H, D, E)


def test_views_of_other_layouts_are_read_right_and_left_unchanged():
    inputs = make_inputs(70)
    views = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in inputs[:4]]
    copies = [x.clone() for x in (*views, inputs[4])]
    o, _ = delta_rule(*views, initial_state=inputs[4].detach())
    torch.testing.assert_close(o, delta_rule(*copies[:4], initial_state=copies[4])[0])
    for view, copy in zip((*views, inputs[4]), copies, strict=True):
        assert torch.equal(view, copy)
    assert o.is_contiguous()


def test_autocast_does_not_touch_the_recurrence():
    *leaves, _ = make_inputs(70, dtype=torch.float32)
    plain, _ = delta_rule(*leaves)
    plain_grads = torch.autograd.grad(plain.sum(), leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = delta_rule(*leaves)
        cast_grads = torch.autograd.grad(cast.sum(), leaves)
    assert torch.equal(cast, plain)
    for a, b in zip(cast_grads, plain_grads, strict=True):
        assert torch.equal(a, b)


def test_backward_keeps_the_inputs_and_one_row_of_a_chunk_per_token():
    *leaves, _ = make_inputs(128)
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        delta_rule(*leaves)
    assert sum(kept) == sum(x.numel() for x in leaves) + B * H * 128 * eager.CHUNK_SIZE


def test_float32_beta_goes_with_half_precision_tokens():
    q, k, v, beta, _ = make_inputs(17, dtype=torch.bfloat16)
    wide = beta.detach().float().requires_grad_()
    o, _ = delta_rule(q, k, v, wide)
    torch.testing.assert_close(o, delta_rule(q, k, v, beta)[0])
    assert torch.autograd.grad(o.sum(), wide)[0].dtype == torch.float32


def break_input(name, change):
    def apply(inputs):
        return {**inputs, name: change(inputs[name])}

    return apply


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (break_input("q", lambda x: x[0]), "q has shape (3, 6, 5)"),
        (break_input("q", lambda x: x[:, :, :0]), "q has shape (2, 3, 0, 5)"),
        (break_input("k", lambda x: x[..., :4]), "k has shape (2, 3, 6, 4), not (2, 3, 6, 5)"),
        (break_input("v", lambda x: x[:, :, :5]), "v has shape (2, 3, 5, 7)"),
        (break_input("v", lambda x: x[..., :0]), "v has shape (2, 3, 6, 0)"),
        (break_input("beta", lambda x: x[..., None]), "beta has shape (2, 3, 6, 1)"),
        (break_input("q", lambda x: x.long()), "q is int64"),
        (break_input("k", lambda x: x.float()), "k is float32 beside q in float64"),
        (break_input("v", lambda x: x.bfloat16()), "v is bfloat16 beside q in float64"),
        (break_input("beta", lambda x: x.half()), "beta is float16 beside q in float64"),
        (break_input("beta", lambda x: x.to("meta")), "beta is on meta, q on cpu"),
        (break_input("initial_state", lambda x: x.mT), "initial_state has shape (2, 3, 7, 5)"),
        (break_input("initial_state", lambda x: x.float()), "initial_state is float32"),
        (break_input("initial_state", lambda x: x.to("meta")), "initial_state is on meta"),
    ],
)
def test_unsound_arguments_are_refused_with_the_rule_and_a_way_out(change, text):
    names = ("q", "k", "v", "beta", "initial_state")
    inputs = dict(zip(names, (x.detach() for x in make_inputs(6)), strict=True))
    with pytest.raises(ShapeError) as error:
        delta_rule(**change(inputs))
    wrong, expected, try_ = str(error.value).split("\n")
    assert text in wrong
    assert expected.startswith("Expected: ")
    assert try_.startswith("Try: ")


def test_a_step_refuses_a_whole_sequence_and_a_foreign_state():
    q, k, v, beta, state = (x.detach() for x in make_inputs(6))
    with pytest.raises(ShapeError, match=r"3 axes \[B, H, D\]"):
        delta_rule_step(q, k, v, beta, state)
    token = [x[:, :, 0] for x in (q, k, v, beta)]
    with pytest.raises(ShapeError, match=r"state has shape \(1, 3, 5, 7\)"):
        delta_rule_step(*token, state[:1])


def test_a_step_of_an_impl_without_one_is_that_of_the_reference():
    q, k, v, beta, state = (x.detach() for x in make_inputs(1))
    token = [x[:, :, 0] for x in (q, k, v, beta)]
    expected = delta_rule_step(*token, state, impl="reference")
    for impl in ("eager", "fla"):
        for x, y in zip(delta_rule_step(*token, state, impl=impl), expected, strict=True):
            assert torch.equal(x, y)


def test_only_the_called_implementation_is_imported_and_no_compiler():
    code = (
        "import sys; from ena_kernels.delta_rule import api\n"
        "loaded = [m for m in api.IMPLS.values() if m in sys.modules]\n"
        "assert not loaded, loaded\n"
        "assert 'torch._dynamo' not in sys.modules, 'the compiler, which takes seconds'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fla_is_refused_on_the_cpu_with_the_way_out():
    *tokens, _ = make_inputs(8, dtype=torch.bfloat16)
    with pytest.raises(UnsupportedError, match=r"q is on cpu.*\nExpected: .*CUDA.*\nTry: .*eager"):
        delta_rule(*tokens, impl="fla")


@pytest.fixture
def fla_calls(monkeypatch):
    """A stand-in for fla.ops.delta_rule that computes with the reference; yields its calls."""
    calls = []

    def chunk_delta_rule(
        q, k, v, beta, scale, initial_state, output_final_state, use_qk_l2norm_in_kernel
    ):
        calls.append(q.shape)
        o, final = reference.forward(
            *(x.transpose(1, 2) for x in (q, k, v, beta)),
            scale=scale,
            initial_state=initial_state,
            output_final_state=output_final_state,
            qk_l2norm=use_qk_l2norm_in_kernel,
        )
        return o.transpose(1, 2), final

    for name in ("fla", "fla.ops", "fla.ops.delta_rule"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["fla.ops.delta_rule"].chunk_delta_rule = chunk_delta_rule
    monkeypatch.setattr(fla, "DEVICE_TYPE", "cpu")
    return calls


@pytest.mark.parametrize("qk_l2norm", [False, True])
def test_fla_adapter_passes_everything_on_in_the_library_layout(fla_calls, qk_l2norm):
    *tokens, state = make_inputs(6, dtype=torch.bfloat16)
    options = {
        "scale": 0.3,
        "initial_state": state,
        "output_final_state": True,
        "qk_l2norm": qk_l2norm,
    }
    o, final = delta_rule(*tokens, **options, impl="fla")
    o_ref, final_ref = delta_rule(*tokens, **options, impl="reference")
    assert fla_calls == [(B, 6, H, D)]
    assert torch.equal(o, o_ref)
    assert torch.equal(final, final_ref)
    assert delta_rule(*tokens, impl="fla")[1] is None


def test_fla_adapter_refuses_what_its_kernels_cannot_run(fla_calls):
    *single, _ = make_inputs(6, dtype=torch.float32)
    with pytest.raises(UnsupportedError, match="q is float32"):
        delta_rule(*single, impl="fla")
    *wide, _ = make_inputs(3, dtype=torch.float16, dims=(1, 1, 257, 2))
    with pytest.raises(UnsupportedError, match="head dim 257"):
        delta_rule(*wide, impl="fla")
    assert fla_calls == []


def test_missing_fla_is_named_with_the_command_that_installs_it(fla_calls, monkeypatch):
    monkeypatch.setitem(sys.modules, "fla.ops.delta_rule", None)
    *tokens, _ = make_inputs(6, dtype=torch.bfloat16)
    with pytest.raises(UnsupportedError, match=r"(?s)fla cannot be imported.*pip install"):
        delta_rule(*tokens, impl="fla")
