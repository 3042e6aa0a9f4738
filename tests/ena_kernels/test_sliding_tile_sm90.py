"""The Triton kernels compiled for Hopper: matrix products on its fast path, nothing spilled."""

import pytest

from ena_kernels.sliding_tile.configs import CONFIGS, is_box
from tests.ena_kernels.sm90 import compiled

PACKAGE = "ena_kernels.sliding_tile"
KERNELS = {
    "fwd": (f"{PACKAGE}.forward_kernel", "sliding_tile_fwd_kernel"),
    "dq": (f"{PACKAGE}.backward_kernel", "sliding_tile_bwd_dq_kernel"),
    "dkdv": (f"{PACKAGE}.backward_kernel", "sliding_tile_bwd_dkdv_kernel"),
}
TENSORS = {
    "fwd": ("q", "k", "v", "o"),
    "dq": ("q", "k", "v", "o", "do", "dq"),
    "dkdv": ("q", "k", "v", "do", "dk", "dv"),
}
FLOATS = {
    "fwd": ("lse",),
    "dq": ("lse", "dlse", "base_2_lse", "delta"),
    "dkdv": ("base_2_lse", "delta"),
}
OWN = {"fwd": {"FLIPPED": False}, "dq": {"HAS_DLSE": False}, "dkdv": {}}
TILE = (16, 8)


def binary(name, head_dim, config):
    """The kernel for bf16 tensors on a canvas of two axes in raster order."""
    signature = {f"{x}_ptr": "*bf16" for x in TENSORS[name]}
    signature |= {f"{x}_ptr": "*fp32" for x in FLOATS[name]}
    signature |= {f"{x.upper()}_STRIDES": ("i32:16",) * 3 for x in TENSORS[name]}
    signature |= dict.fromkeys(("GRID", "SEEN", "STEPS", "ROWS", "SIDES"), ("i32", "i32"))
    counts = ("canvas_len", "num_blocks", "num_kv_heads" if name == "dkdv" else "num_heads")
    signature |= {"scale": "fp32", "seq_len": "i32:16"} | dict.fromkeys(counts, "i32")
    if name != "fwd":
        signature["num_rows"] = "i32:16"
    constexprs = {
        **{"TILE": TILE, "NDIM": 2, "VOLUME": 128, "CUT": False},
        **{"HAS_TEXT": False, "IS_TEXT": False, "GROUP": 1, "ALIKE": True, "OFFSET": "tl.int32"},
        **{"D": head_dim, "BLOCK_D": head_dim},
        **{"BLOCK_M": config.block_m, "SPLIT_M": is_box(config.block_m, TILE)},
        **{"BLOCK_N": config.block_n, "SPLIT_N": is_box(config.block_n, TILE)},
        **OWN[name],
    }
    module, kernel = KERNELS[name]
    launch = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return compiled(
        module=module, kernel=kernel, signature=signature, constexprs=constexprs, **launch
    )


@pytest.mark.parametrize(
    ("name", "head_dim"), [(name, dim) for name, dim, size in CONFIGS if size == 2]
)
def test_half_precision_runs_on_warpgroup_products_and_spills_nothing(name, head_dim):
    made = binary(name, head_dim, CONFIGS[name, head_dim, 2])
    assert made.has_hgmma
    assert not made.has_hmma
    assert made.local_bytes == 0
    assert made.shared_bytes <= 227 * 1024
