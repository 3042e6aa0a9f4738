"""The delta rule in Triton as a contender: where it runs, and what must be among its kernels."""

import re

import pytest

from bench.case import Case
from bench.contenders import registry

TRITON = registry()["op", "delta_rule", "triton"]
FLA = registry()["op", "delta_rule", "fla"]
CASE = Case(
    level="op",
    contender="delta_rule",
    impl="triton",
    mode="fwdbwd",
    canvas=(4096,),
    head_dim=128,
    dtype="bfloat16",
    device="cuda",
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"head_dim": 8}, "head_dim 8 is outside 16 to 256 of bfloat16"),
        ({"head_dim": 272}, "head_dim 272 is outside 16 to 256 of bfloat16"),
        ({"head_dim": 192, "dtype": "float32"}, "head_dim 192 is outside 16 to 128 of float32"),
    ],
)
def test_head_dims_without_kernels_are_named(changes, reason):
    assert reason in [rule(CASE.with_(**changes)) for rule in TRITON.rules]


def test_other_head_dims_have_kernels():
    for changes in ({}, {"head_dim": 16}, {"head_dim": 256}, {"dtype": "float32"}):
        assert not any(rule(CASE.with_(**changes)) for rule in TRITON.rules)


def test_it_comes_before_fla_and_knows_its_own_kernels_from_those():
    assert TRITON.preference("cuda") < FLA.preference("cuda")
    assert TRITON.preference("cpu") is None
    (pattern,) = TRITON.expected_kernels("cuda")
    assert re.search(pattern, "delta_rule_token_hopper_kernel")
    assert not re.search(pattern, "chunk_delta_rule_fwd_kernel")
