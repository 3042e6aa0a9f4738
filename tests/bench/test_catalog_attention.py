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
    rules = registry()[("op", "attention", impl)].rules

    def reasons(mode, head_dim):
        case = CASE.with_(impl=impl, mode=mode, head_dim=head_dim)
        return [reason for rule in rules if (reason := rule(case)) and "gradients" in reason]

    assert reasons("fwdbwd", 32) == ["flash-attn-4 has no gradients to rely on for head_dim 32"]
    assert reasons("fwdbwd", 64) == reasons("fwdbwd", 128) == reasons("fwd", 32) == []
