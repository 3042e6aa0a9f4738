"""The kernels of flash-attn-4 as contenders: where their results are to be relied on."""

import pytest

from bench.case import Case
from bench.contenders import registry

CASE = Case(
    level="op",
    contender="attention",
    impl="flash_attn_4",
    mode="fwdbwd",
    canvas=(16, 64),
    heads=3,
    dtype="bfloat16",
    device="cuda",
)


@pytest.mark.parametrize("impl", ["flash_attn_4", "flex_flash"])
def test_gradients_are_measured_at_head_dims_of_which_they_are_right_only(impl):
    contender = registry()[("op", "attention", impl)]

    def why_not(mode, head_dim):
        return contender.why_not(CASE.with_(impl=impl, mode=mode, head_dim=head_dim))

    assert "no gradients to rely on for head_dim 32" in why_not("fwdbwd", 32)
    for mode, head_dim in (("fwdbwd", 64), ("fwdbwd", 128), ("fwd", 32)):
        assert "gradients" not in (why_not(mode, head_dim) or "")
