"""The Hopper kernels of the delta rule's forward as compiled, without a GPU."""

import pytest

pytest.importorskip("triton")

from ena_kernels.delta_rule import configs, hopper
from tests.ena_kernels.sm90 import compiled

SHARED_BYTES = 227 * 1024


def box(*sides):
    return f"tensordesc<bf16{list(sides)}>"


def recurrence(size, *, has_output):
    """Compiled with the shipped configuration for D = E = size."""
    config = (configs.HOPPER_OUTPUT if has_output else configs.HOPPER_TRANSFER)[size]
    wide, narrow = box(1, 1, 64, size), box(1, 1, 64, 64)
    types = {"q_desc": wide, "k_desc": wide, "v_desc": narrow, "n_desc": box(64, 64)}
    types |= {"o_desc": narrow}
    types |= {f"{x}_ptr": "*fp32" for x in ("scalars", "initial", "transfer", "final")}
    integers = ("H", "L", "num_chunks", "num_segments", "segment_chunks", "plane")
    absent = () if has_output else ("q_desc", "o_desc", "final_ptr")
    return compiled(
        module="ena_kernels.delta_rule.hopper_kernel",
        kernel="delta_rule_recurrence_kernel",
        signature={x: kind for x, kind in types.items() if x not in absent}
        | dict.fromkeys(integers, "i32"),
        constexprs={
            **dict.fromkeys(absent),
            **{"D": size, "DP": size, "E": size, "EP": size},
            "WARPGROUPS": config.warpgroups,
            "STAGES": config.stages,
            "HAS_OUTPUT": has_output,
        },
        **({} if config.registers is None else {"maxnreg": config.registers}),
    )


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("has_output", [True, False], ids=["output", "transfer"])
def test_products_of_the_recurrence_follow_each_other_without_waits(size, has_output):
    binary = recurrence(size, has_output=has_output)
    assert binary.has_hgmma
    assert not binary.has_hmma
    # two for each product is what a compiler writes that could not overlap them
    assert binary.opcodes["WARPGROUP"] < binary.opcodes["HGMMA"]
    assert binary.local_bytes <= 384
    assert not binary.early_reads
    assert binary.shared_bytes <= SHARED_BYTES


@pytest.mark.slow
def test_chunk_matrices_are_solved_in_registers():
    binary = compiled(
        module="ena_kernels.delta_rule.hopper_inverse_kernel",
        kernel="delta_rule_hopper_matrices_kernel",
        signature={"q_ptr": "*bf16", "k_desc": box(1, 1, 64, 128), "beta_ptr": "*bf16"}
        | {"n_ptr": "*bf16", "scalars_ptr": "*fp32", "scale": "fp32"}
        | dict.fromkeys(("H", "L", "num_chunks", "total", "plane"), "i32")
        | {f"{x}_stride_{axis}": "i32:16" for x in ("q", "beta") for axis in "bhl"},
        constexprs={"D": 128, "DP": 128, "L2NORM": True, "EPS": 1e-6},
        maxnreg=hopper.MATRICES_REGISTERS,
    )
    assert binary.has_hgmma
    assert binary.local_bytes <= 128
    assert 3 * binary.shared_bytes <= SHARED_BYTES
