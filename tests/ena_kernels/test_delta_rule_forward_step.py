"""The one-token kernel of the delta rule, interpreted, against the reference in float64."""

import pytest
import torch

from ena_kernels.delta_rule import reference

step_kernel = pytest.importorskip("ena_kernels.delta_rule.step_kernel")


def make_token(B, H, D, E, dtype=torch.float32):
    """Views of a packed projection, beta in (0, 2), and a state stored with D last but one."""
    generator = torch.Generator().manual_seed(D)
    packed = torch.randn(B, H * (2 * D + E), generator=generator).to(dtype)
    q, k, v = (x.unflatten(-1, (H, -1)) for x in packed.split([H * D, H * D, H * E], -1))
    beta = 2 * torch.rand(B, H, generator=generator)
    return (q, k, v, beta.to(dtype)), torch.randn(B, H, D, E, generator=generator)


@pytest.mark.parametrize("qk_l2norm", [True, False])
@pytest.mark.parametrize(("D", "E"), [(16, 33), (50, 16), (256, 20)])
def test_a_step_matches_the_reference_and_leaves_its_state(D, E, qk_l2norm):
    token, state = make_token(2, 3, D, E)
    if not qk_l2norm:
        token = (token[0], torch.nn.functional.normalize(token[1], dim=-1), *token[2:])
    before = state.clone()
    options = {"scale": 0.3, "qk_l2norm": qk_l2norm}
    o, after = step_kernel.step(*token, state, **options)
    expected = reference.step(*(x.double() for x in token), state.double(), **options)
    torch.testing.assert_close(o.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.double(), expected[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(state, before)


def test_half_precision_tokens_keep_a_float32_state_of_any_strides():
    token, state = make_token(1, 2, 24, 40, torch.float16)
    state = state.mT.contiguous().mT
    o, after = step_kernel.step(*token, state, scale=1.0, qk_l2norm=True)
    expected = reference.step(
        *(x.double() for x in token), state.double(), scale=1.0, qk_l2norm=True
    )
    assert o.dtype == torch.float16
    assert after.dtype == torch.float32
    torch.testing.assert_close(o.double(), expected[0], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(after.double(), expected[1], rtol=1e-5, atol=1e-5)
