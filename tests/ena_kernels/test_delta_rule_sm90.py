"""The kernels of the delta rule's backward as compiled for Hopper, without a GPU."""

import pytest

from ena_kernels.delta_rule.configs import padded, y_parts
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


SLOW = pytest.mark.slow
WIDTHS = [(128, 128), *(pytest.param(*x, marks=SLOW) for x in ((64, 64), (64, 128), (128, 64)))]


def binary_of(name, head_dim, value_dim=None, dtype="bf16", **own):
    """A kernel as launched for strides of tokens that are multiples of 16."""
    from ena_kernels.delta_rule import backward

    types = {f"{x}_ptr": "*fp32" if x in IN_FLOAT32 else f"*{dtype}" for x in POINTERS[name]}
    types |= dict.fromkeys(NUMBERS, "i32")
    if name == "token":
        types["inverse_scale"] = "fp32"
        del types["num_segments"], types["segment_chunks"]
    types |= {f"{x}_stride_{axis}": "i32:16" for x in STRIDED[name] for axis in "bhl"}
    table = getattr(backward, name.upper())
    config = table[min(width for width in table if width >= head_dim)]
    value_dim = value_dim or head_dim
    DP, EP = padded(head_dim, value_dim)
    sizes = {"D": head_dim, "DP": DP, "E": value_dim, "EP": EP, "C": 64}
    sizes["BLOCK_E" if name == "token" else "BLOCK_R"] = config.rows
    if name != "scan":
        sizes["Y_PARTS"] = y_parts(2, DP)
    return compiled(
        module="ena_kernels.delta_rule.backward_kernels",
        kernel=f"delta_rule_{name}_kernel",
        signature=types,
        constexprs=sizes | own | {"PRECISION": "ieee"},
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )


@pytest.mark.parametrize("head_dim", [128, *(pytest.param(x, marks=SLOW) for x in (64, 256))])
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
    assert not binary.early_reads
    if head_dim <= 128:
        assert binary.local_bytes <= (64 if head_dim == 64 else 512)
    assert binary.shared_bytes <= (113 if head_dim <= 128 else 227) * 1024


@pytest.mark.parametrize("name", ["scan", pytest.param("token", marks=SLOW)])
def test_what_spills_from_a_wide_state_is_stored_before_it_is_loaded(name):
    own = {"LOCAL": False} if name == "scan" else {"L2NORM": True}
    binary = binary_of(name, 200, 32, "fp16", **own)
    assert binary.local_bytes > 0
    assert not binary.early_reads


def hopper_binary_of(name, pointers, numbers, maps, **constexprs):
    types = {f"{x}_desc": f"tensordesc<bf16[{box}]>" for x, box in maps.items()}
    types |= {f"{x}_ptr": "*bf16" if x == "dbeta" else "*fp32" for x in pointers}
    types |= dict.fromkeys(numbers, "i32")
    if name == "token":
        types["inverse_scale"] = "fp32"
    return compiled(
        module=f"ena_kernels.delta_rule.hopper_{name}_kernel",
        kernel=f"delta_rule_{name}_hopper_kernel",
        signature=types,
        constexprs=constexprs,
        num_warps=4,
    )


def assert_products_overlap(binary):
    assert not binary.early_reads
    assert binary.has_hgmma
    assert not binary.has_hmma
    # two for each product is what a compiler writes that could not overlap them
    assert binary.opcodes["WARPGROUP"] < binary.opcodes["HGMMA"]


@pytest.mark.parametrize(("d", "e"), WIDTHS)
def test_the_rebuilding_kernel_in_gluon_spills_nothing(d, e):
    from ena_kernels.delta_rule.hopper_backward import REBUILD

    warpgroups, stages, _ = REBUILD[d, e]
    wide, narrow, square, state = f"1, 1, 64, {d}", "1, 1, 64, 64", "64, 64", f"64, {d}"
    boxes = {"k": wide, "v": narrow, "n": square, "states": state, "y": narrow}
    binary = hopper_binary_of(
        *("rebuild", ("scalars", "initial", "transfer"), NUMBERS, boxes),
        **{"D": d, "DP": d, "E": e, "EP": e, "WARPGROUPS": warpgroups, "STAGES": stages},
    )
    assert_products_overlap(binary)
    assert binary.local_bytes == 0
    assert binary.shared_bytes <= 227 * 1024


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize(("d", "e"), WIDTHS)
def test_the_scan_in_gluon_fits_a_multiprocessor(d, e, is_local):
    from ena_kernels.delta_rule.hopper_backward import SCAN

    warpgroups, stages, _ = SCAN[d, e]
    wide, narrow, square, state = f"1, 1, 64, {d}", "1, 1, 64, 64", "64, 64", f"64, {d}"
    boxes = {"q": wide, "k": wide, "do": narrow, "n": square, "grads": state, "z": narrow}
    binary = hopper_binary_of(
        *("scan", ("scalars", "dfinal", "links", "dinitial"), NUMBERS),
        boxes,
        **{"D": d, "DP": d, "E": e, "EP": e},
        **{"WARPGROUPS": warpgroups, "STAGES": stages + is_local, "LOCAL": is_local},
    )
    assert_products_overlap(binary)
    assert binary.local_bytes <= 256
    assert binary.shared_bytes <= 227 * 1024


@pytest.mark.parametrize(("d", "e"), WIDTHS)
def test_the_token_kernel_in_gluon_fits_a_multiprocessor(d, e):
    from ena_kernels.delta_rule.hopper_backward import TOKEN_STAGES

    wide, narrow, state = f"1, 1, 64, {d}", "1, 1, 64, 64", f"64, {d}"
    boxes = dict.fromkeys(("q", "k", "dq", "dk"), wide)
    boxes |= dict.fromkeys(("do", "y", "z"), narrow) | dict.fromkeys(("states", "grads"), state)
    numbers = ("H", "L", "num_chunks", "num_items", "plane")
    binary = hopper_binary_of(
        *("token", ("scalars", "dbeta"), numbers, boxes),
        **{"DP": d, "EP": e, "STAGES": TOKEN_STAGES[d, e], "L2NORM": True},
    )
    assert_products_overlap(binary)
    assert binary.local_bytes <= 256
    assert binary.shared_bytes <= 227 * 1024
