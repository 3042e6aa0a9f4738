"""What the Triton forward of the delta rule computes and keeps, interpreted, against float64."""

import pytest
import torch

from ena_kernels.delta_rule import configs, hopper, reference
from ena_kernels.delta_rule.common import inverse_norm

forward_module = pytest.importorskip("ena_kernels.delta_rule.forward")

LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3}


def make_inputs(seq_len, dims=(1, 2, 20, 17), *, dtype=torch.float32):
    """q, k, v and beta in (0, 2) as views of [B, L, H, D], and an initial state."""
    B, H, D, E = dims
    generator = torch.Generator().manual_seed(seq_len)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    q, k, v = (draw(B, seq_len, H, x).transpose(1, 2).to(dtype) for x in (D, D, E))
    beta = 2 * torch.rand(B, seq_len, H, generator=generator).transpose(1, 2)
    return q, k, v, beta.to(dtype), draw(B, H, D, E)


def run(inputs, **options):
    return forward_module.forward(*inputs, scale=0.3, qk_l2norm=True, **options)


def expected(inputs):
    *tokens, state = (x.double() for x in inputs)
    options = {"output_final_state": True, "qk_l2norm": True}
    return reference.forward(*tokens, scale=0.3, initial_state=state, **options)


def error(actual, exact):
    return ((actual.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("segment_chunks", [None, 1, 2])
@pytest.mark.parametrize("seq_len", [1, 63, 64, 65, 200])
def test_output_and_final_state_match_the_reference(seq_len, segment_chunks, dtype):
    inputs = make_inputs(seq_len, dtype=dtype)
    result = run(inputs, segment_chunks=segment_chunks)
    o, final_state = expected(inputs)
    assert error(result.o, o) < LIMITS[dtype]
    assert error(result.final_state, final_state) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("dims", [(1, 1, 16, 256), (1, 1, 256, 16), (1, 1, 100, 72)])
def test_every_width_has_a_configuration_that_works(dims, dtype):
    inputs = make_inputs(70, dims, dtype=dtype)
    o, final_state = expected(inputs)
    result = run(inputs)
    assert error(result.o, o) < LIMITS[dtype]
    assert error(result.final_state, final_state) < LIMITS[dtype]


def test_the_states_behind_segments_are_kept():
    inputs = make_inputs(260)
    *tokens, state = inputs
    transfer = run(inputs, segment_chunks=1).transfer
    assert transfer.shape == (2, 4, 64 + 64, 64)
    for segment in range(4):
        _, exact = expected([x[:, :, : 64 * (segment + 1)] for x in tokens] + [state])
        assert error(transfer[:, segment, :17, :20].mT, exact[0]) < 1e-5


def test_the_maps_of_segments_are_kept_and_the_first_is_zero():
    q, k, v, beta, state = inputs = make_inputs(200)
    maps = run(inputs, segment_chunks=1).transfer[:, :, 64:]
    nothing, part = torch.zeros_like(v), slice(64, 128)
    tokens = (x[:, :, part] for x in (q, k, nothing, beta))
    _, mapped = expected([*tokens, state])
    actual = torch.einsum("hij,hik->hjk", maps[:, 1, :20, :20], state[0])
    assert error(actual, mapped[0]) < 1e-5
    assert not maps[:, 0].any()


def test_n_inverts_the_overlap_of_keys_and_scalars_are_what_it_was_made_with():
    q, k, _, beta, _ = inputs = make_inputs(65)
    result = run(inputs)
    norms = [inverse_norm(x.double()).squeeze(-1)[0] for x in (k, q)]
    for actual, exact in zip(
        result.scalars, (beta[0].double(), norms[0], 0.3 * norms[1]), strict=True
    ):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-5, atol=1e-6)
    keys = k[0, :, :64].double() * norms[0][:, :64, None]
    overlap = (keys @ keys.mT).tril(-1)
    b = beta[0, :, :64, None].double()
    n = result.n.view(2, 2, 64, 64)[:, 0].double()
    identity = torch.eye(64, dtype=torch.float64)
    product = (identity + b * overlap) @ (identity - b * n)
    torch.testing.assert_close(product, identity.expand(2, 64, 64), rtol=0, atol=1e-4)


def test_the_output_is_stored_with_the_heads_of_a_token_together():
    assert run(make_inputs(3)).o.stride() == (102, 17, 34, 1)


def test_few_heads_are_cut_into_segments_that_fill_a_device():
    for num_heads, num_chunks in ((16, 256), (16, 64), (8, 1024), (1, 2000)):
        segment_chunks = configs.segment_chunks_of(num_heads, num_chunks)
        num_segments = -(-num_chunks // segment_chunks)
        assert num_segments >= configs.FEWEST_SEGMENTS
        assert num_segments * num_heads <= configs.MULTIPROCESSORS


@pytest.mark.parametrize(
    ("num_heads", "num_chunks", "head_dim"),
    [(128, 256, 64), (40, 1024, 128), (2, 5, 64), (2, 512, 256)],
)
def test_many_heads_short_sequences_and_wide_heads_stay_whole(num_heads, num_chunks, head_dim):
    assert configs.segment_chunks_of(num_heads, num_chunks, head_dim) == num_chunks


def test_hopper_kernels_are_not_for_this_machine():
    q, k, v, *_ = make_inputs(3, dtype=torch.float16)
    assert not hopper.supports(q, k, v, 64, 64)
