"""The Triton forward of the delta rule on a GPU, in every way it is launched, against float64."""

import pytest
import torch

from ena_kernels.delta_rule import configs, eager, hopper

pytest.importorskip("triton")

from ena_kernels.delta_rule import forward as forward_module
from ena_kernels.delta_rule.step_kernel import step

pytestmark = pytest.mark.gpu

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LIMITS = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 5e-5}
needs_hopper = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="the kernels are made for Hopper",
)


def make_inputs(seq_len, dims=(2, 3, 64, 48), *, dtype=torch.bfloat16, keys="random", seed=0):
    """Views of a packed projection, beta in (0, 1), an initial state."""
    B, H, D, E = dims
    generator = torch.Generator("cuda").manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, device="cuda")

    packed = draw(B, seq_len, H * (2 * D + E))
    q, k, v = packed.split([H * D, H * D, H * E], -1)
    if keys != "random":
        one = draw(1, 1, H * D)
        sign = torch.ones(seq_len, device="cuda")
        if keys == "alternating":
            sign[::2] = -1
        noise = 0.1 if keys == "near parallel" else 0.0
        k.copy_(sign[None, :, None] * one + noise * k)
    packed = packed.to(dtype)
    q, k, v = packed.split([H * D, H * D, H * E], -1)
    q, k, v = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in (q, k, v))
    beta = torch.rand(B, seq_len, H, generator=generator, device="cuda").transpose(1, 2)
    return q, k, v, beta.to(dtype), draw(B, H, D, E)


def run(inputs, **options):
    return forward_module.forward(*inputs, scale=0.3, qk_l2norm=True, **options)


def check(inputs, result, times=1):
    *tokens, state = (None if x is None else x.double() for x in inputs)
    options = {"output_final_state": True, "qk_l2norm": True}
    o, final_state = eager.forward(*tokens, scale=0.3, initial_state=state, **options)
    limit = times * LIMITS[inputs[0].dtype]
    for name, actual, exact in (("o", result.o, o), ("state", result.final_state, final_state)):
        error = ((actual.double() - exact).norm() / exact.norm()).item()
        assert error < limit, f"{name}: {error:.1e}"


@pytest.fixture
def anywhere(monkeypatch):
    """The kernels in plain Triton, also on Hopper."""
    monkeypatch.setattr(hopper, "supports", lambda *_: False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("segment_chunks", [None, 1, 3])
@pytest.mark.parametrize("seq_len", [1, 63, 64, 65, 130, 1500])
def test_every_length_matches(seq_len, segment_chunks, dtype):
    inputs = make_inputs(seq_len, dtype=dtype)
    check(inputs, run(inputs, segment_chunks=segment_chunks))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "dims",
    [
        *((1, 2, 16, 16), (1, 3, 24, 100), (1, 2, 128, 128), (2, 1, 96, 80)),
        *((1, 2, 64, 200), (1, 2, 200, 64), (1, 1, 256, 256)),
    ],
)
def test_every_width_matches(dims, dtype):
    inputs = make_inputs(700, dims, dtype=dtype)
    check(inputs, run(inputs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [(1, 2, 64, 64), (1, 2, 128, 128), (1, 2, 256, 80)])
def test_plain_triton_matches_in_every_configuration(anywhere, dims, dtype):
    inputs = make_inputs(460, dims, dtype=dtype)
    for segment_chunks in (2, None) if dims[2] <= configs.MOST_DIM_IN_SEGMENTS else (None,):
        check(inputs, run(inputs, segment_chunks=segment_chunks))


@pytest.mark.parametrize("kind", ["equal", "alternating", "near parallel"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_hard_keys_match(dtype, kind):
    inputs = make_inputs(4096, (1, 4, 128, 64), dtype=dtype, keys=kind)
    # the state is a sum of small differences of large values: what is rounded weighs more
    check(inputs, run(inputs), times=4 if dtype == torch.float16 else 2)


@pytest.mark.parametrize("dims", [(1, 16, 64, 64), (1, 16, 128, 128), (1, 130, 64, 128)])
def test_long_sequences_match_without_an_initial_state(dims):
    *tokens, _ = make_inputs(4096, dims)
    inputs = (*tokens, None)
    check(inputs, run(inputs))


def test_tokens_of_any_strides_match():
    q, k, v, beta, state = make_inputs(300, (2, 3, 64, 64))
    padded = torch.nn.functional.pad(k, (0, 3))[..., :64]
    assert not hopper.supports(q, padded, v, 64, 64)
    inputs = (q, padded, v, beta.contiguous(), state.mT.contiguous().mT)
    check(inputs, run(inputs))


def test_values_narrower_than_the_steps_between_them_match():
    q, k, v, beta, state = make_inputs(300, (2, 3, 64, 20))
    apart = torch.nn.functional.pad(v, (0, 12))[..., :20]
    inputs = (q, k, apart, beta, state)
    check(inputs, run(inputs))


@needs_hopper
@pytest.mark.parametrize("dims", [(2, 3, 64, 64), (1, 2, 128, 128), (1, 2, 96, 80)])
def test_hopper_keeps_for_the_backward_what_plain_triton_keeps(monkeypatch, dims):
    inputs = make_inputs(1000, dims)
    assert hopper.supports(*inputs[:3], *configs.padded(*dims[2:]))
    actual = run(inputs, segment_chunks=3)
    monkeypatch.setattr(hopper, "supports", lambda *_: False)
    expected = run(inputs, segment_chunks=3)
    for name in ("n", "scalars", "transfer"):
        x, y = (getattr(result, name).double() for result in (actual, expected))
        assert ((x - y).norm() / y.norm()).item() < 5e-3, name


def test_the_forward_never_waits_and_can_be_captured():
    inputs = make_inputs(2048, (1, 8, 128, 128))
    expected = run(inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(inputs)
    for x in captured:
        x.fill_(torch.nan)
    graph.replay()
    assert torch.equal(captured.o, expected.o)
    assert torch.equal(captured.final_state, expected.final_state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("D", "E"), [(16, 33), (64, 64), (256, 128)])
def test_a_step_matches_one_token_of_the_whole(D, E, dtype):
    *tokens, state = make_inputs(1, (3, 5, D, E), dtype=dtype)
    one = [x[:, :, 0] for x in tokens]
    o, after = step(*one, state, scale=0.3, qk_l2norm=True)
    *exact, exact_state = (x.double() for x in (*tokens, state))
    options = {"output_final_state": True, "qk_l2norm": True}
    expected, final = eager.forward(*exact, scale=0.3, initial_state=exact_state, **options)
    assert ((o.double() - expected[:, :, 0]).norm() / expected.norm()).item() < LIMITS[dtype]
    assert ((after.double() - final).norm() / final.norm()).item() < 1e-5
