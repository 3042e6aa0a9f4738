"""The kernels of the delta rule's backward as compiled for Hopper, without a GPU."""

import pytest

from tests.ena_kernels.sm90 import compiled

pytest.importorskip("triton")

IN_FLOAT32 = ("scalars", "initial", "transfer", "dfinal", "links", "dinitial")
NUMBERS = ("H", "L", "num_chunks", "num_segments", "segment_chunks", "plane")
POINTERS = {
    "rebuild": ("k", "v", "n", "scalars", "initial", "transfer", "states", "y"),
    "scan": ("q", "k", "n", "scalars", "do", "dfinal", "links", "grads", "z", "dinitial"),
    "token": ("q", "k", "scalars", "do", "states", "grads", "y", "dq", "dk", "dv", "dbeta"),
}
STRIDED = {
    "rebuild": ("k", "v"),
    "scan": ("q", "k", "do", "z"),
    "token": ("q", "k", "do", "dq", "dv"),
}


def binary_of(name, head_dim, **own):
    """A kernel as launched for bfloat16 and strides of tokens that are multiples of 16."""
    from ena_kernels.delta_rule import backward

    types = {f"{x}_ptr": "*fp32" if x in IN_FLOAT32 else "*bf16" for x in POINTERS[name]}
    types |= dict.fromkeys(NUMBERS, "i32")
    if name == "token":
        types["inverse_scale"] = "fp32"
        del types["num_segments"], types["segment_chunks"]
    types |= {f"{x}_stride_{axis}": "i32:16" for x in STRIDED[name] for axis in "bhl"}
    config = getattr(backward, name.upper())[head_dim]
    sizes = {"D": head_dim, "DP": head_dim, "E": head_dim, "EP": head_dim, "C": 64}
    sizes["BLOCK_E" if name == "token" else "BLOCK_R"] = config.rows
    return compiled(
        module="ena_kernels.delta_rule.backward_kernels",
        kernel=f"delta_rule_{name}_kernel",
        signature=types,
        constexprs=sizes | own | {"PRECISION": "ieee"},
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("rebuild", {}),
        ("scan", {"LOCAL": True}),
        ("scan", {"LOCAL": False}),
        ("token", {"L2NORM": True}),
    ],
)
def test_kernels_use_hopper_products_and_spill_little(name, own, head_dim):
    binary = binary_of(name, head_dim, **own)
    assert binary.has_hgmma
    assert not binary.has_hmma
    assert binary.local_bytes <= (64 if head_dim == 64 else 512)
    assert binary.shared_bytes <= 113 * 1024
