"""How the delta rule's forward is cut and launched: this decides its cost, never its result."""

from typing import NamedTuple

CHUNK = 64
SIZES = ("H", "L", "num_chunks", "num_segments", "segment_chunks", "plane")
"""What kernels over segments are not compiled anew for."""
BLOCK_R = 64
"""Rows of the state are padded to a multiple of this."""
CHAIN_ROWS = 16
MOST_DIM_IN_SEGMENTS = 128
"""The map of a wider segment does not fit into shared memory."""
MOST_DIM_IN_TWO = 128
"""Wider states spill, and ptxas 12.8 (of Triton 3.6) then read a half before it was spilled."""
MULTIPROCESSORS = 132
"""Of an H100 and an H200. A constant, so that shapes follow from shapes."""
FEWEST_SEGMENTS = 4
"""Fewer cost more in maps than they save in steps one after the other."""
SHORTEST_SEGMENT = 8
"""Chunks."""


class Config(NamedTuple):
    """A launch in plain Triton: rows of the state per program, warps, stages."""

    rows: int
    num_warps: int
    num_stages: int


class HopperConfig(NamedTuple):
    """A launch on Hopper: groups of 64 rows per program, chunks in flight, registers or all."""

    warpgroups: int
    stages: int
    registers: int | None = None


CONFIGS = {
    (2, 64): Config(64, 4, 2),
    (2, 128): Config(64, 4, 2),
    (2, 256): Config(32, 4, 1),
    (4, 64): Config(64, 4, 1),
    (4, 128): Config(64, 8, 1),
    (4, 256): Config(32, 8, 1),
}
"""(Bytes of a value, DP) to the launch of `transfer_kernel` and `output_kernel`."""

HOPPER_TRANSFER = {64: HopperConfig(1, 3, 128), 128: HopperConfig(1, 3, 128)}
"""DP to the launch."""
HOPPER_OUTPUT = {64: HopperConfig(1, 4), 128: HopperConfig(2, 2)}
"""EP to the launch."""


def padded(D: int, E: int) -> tuple[int, int]:
    """``(DP, EP)``: the sizes that kernels give to states of ``[E, D]``.

    Blocks of 32 columns are computed wrongly by Triton where products follow each other.
    """
    return max(64, 1 << (D - 1).bit_length()), -(-E // BLOCK_R) * BLOCK_R


def config(num_bytes: int, DP: int) -> Config:
    """The launch in plain Triton for values of `num_bytes`."""
    return CONFIGS[num_bytes, DP]


def y_parts(num_bytes: int, DP: int) -> int:
    """Numbers whose sum is one of Y, as the backward keeps it, for values of `num_bytes`."""
    return 2 if num_bytes == 2 and DP <= MOST_DIM_IN_TWO else 1


def segment_chunks_of(num_heads: int, num_chunks: int, D: int = MOST_DIM_IN_SEGMENTS) -> int:
    """Chunks in a segment, for ``B * H`` heads; all of them where heads alone fill a device."""
    most = MULTIPROCESSORS // num_heads
    if most < FEWEST_SEGMENTS or D > MOST_DIM_IN_SEGMENTS:
        return num_chunks
    num_segments = min(most, num_chunks // SHORTEST_SEGMENT)
    if num_segments < FEWEST_SEGMENTS:
        return num_chunks
    return -(-num_chunks // num_segments)
