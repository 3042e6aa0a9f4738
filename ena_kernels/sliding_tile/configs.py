"""Sizes of the Triton kernels of Sliding Tile Attention: blocks, warps, pipeline stages.

The table is keyed by kernel, padded head dim and bytes per element; the blocks it names are the
largest, and are fitted to the tile. The backward at 64 and 128 channels was chosen by measuring on
an H200; the rest is not tuned.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from ena_kernels.canvas import Shape, num_tokens, tile_grid, window_grid
from ena_kernels.sliding_tile.tiling import whole_tiles


class Config(NamedTuple):
    """Queries and keys of a block, warps of a program, stages of its software pipeline."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


CONFIGS = {
    ("fwd", 16, 2): Config(64, 128, 4, 3),
    ("fwd", 32, 2): Config(64, 128, 4, 3),
    ("fwd", 64, 2): Config(64, 128, 4, 2),
    ("fwd", 128, 2): Config(128, 128, 8, 2),
    ("fwd", 16, 4): Config(64, 64, 4, 2),
    ("fwd", 32, 4): Config(64, 64, 4, 2),
    ("fwd", 64, 4): Config(64, 32, 4, 2),
    ("fwd", 128, 4): Config(32, 32, 4, 2),
    ("dq", 16, 2): Config(128, 64, 8, 3),
    ("dq", 32, 2): Config(128, 64, 8, 3),
    ("dq", 64, 2): Config(64, 64, 4, 3),
    ("dq", 128, 2): Config(128, 64, 8, 3),
    ("dq", 16, 4): Config(32, 32, 4, 2),
    ("dq", 32, 4): Config(32, 32, 4, 2),
    ("dq", 64, 4): Config(32, 32, 4, 2),
    ("dq", 128, 4): Config(32, 16, 4, 2),
    ("dkdv", 16, 2): Config(64, 128, 8, 2),
    ("dkdv", 32, 2): Config(64, 128, 8, 2),
    ("dkdv", 64, 2): Config(64, 64, 4, 3),
    ("dkdv", 128, 2): Config(32, 64, 4, 2),
    ("dkdv", 16, 4): Config(32, 32, 4, 2),
    ("dkdv", 32, 4): Config(32, 32, 4, 2),
    ("dkdv", 64, 4): Config(32, 32, 4, 2),
    ("dkdv", 128, 4): Config(16, 32, 4, 2),
}
# how fast blocks of a few rows are; matrix products of fewer than 64 rows miss Hopper's fast path
SPEED = {16: 0.3, 32: 0.5, 64: 0.95, 128: 1.0}


def padded_head_dim(head_dim: int) -> int:
    """The power of two, at least 16, that a kernel computes a head dim with."""
    return max(16, 1 << (head_dim - 1).bit_length())


def config(kernel: str, head_dim: int, element_size: int, volume: int | None) -> Config:
    """Config of a kernel, ``"fwd"``, ``"dq"`` or ``"dkdv"``, for tiles of `volume` tokens.

    Without a volume the blocks hold text, which no tile cuts.
    """
    best = CONFIGS[kernel, padded_head_dim(head_dim), element_size]
    if volume is None:
        return best
    block_m = fitting_block(volume, best.block_m)
    block_n = fitting_block(volume, best.block_n)
    own_rows = block_n if kernel == "dkdv" else block_m
    # a group of four warps computes 64 rows
    num_warps = min(best.num_warps, 8 if own_rows > 64 else 4)
    return Config(block_m, block_n, num_warps, best.num_stages)


def fitting_block(volume: int, largest: int) -> int:
    """Rows per block that waste the least time on a tile of `volume` tokens."""
    blocks = [size for size in SPEED if size <= largest]
    return min(blocks, key=lambda size: (-(-volume // size) * size / SPEED[size], -size))


def is_box(block: int, tile: Shape) -> bool:
    """Whether every block of a tile has the shape of the first, so that only its place differs."""
    inner = 1
    for side in reversed(tile):
        if block <= inner * side:
            return block % inner == 0 and (inner * side) % block == 0
        inner *= side
    return True


class Layout(NamedTuple):
    """Where tiles and tokens lie, as `addresses` names it; a tuple per axis, slowest first."""

    grid: Shape
    seen: Shape
    steps: Shape
    rows: Shape
    sides: Shape
    is_cut: bool


@lru_cache(maxsize=256)
def layout(canvas: Shape, window: Shape, tile: Shape, order: str) -> Layout:
    """The layout of a canvas in raster or tiled order, its last tiles cut where they do not fit."""
    whole = whole_tiles(canvas, tile)
    grid, seen = tile_grid(whole, tile), window_grid(whole, tile, window)
    if order == "tiled":
        rows = _strides(tile)
        steps = tuple(num_tokens(tile) * stride for stride in _strides(grid))
    else:
        rows = _strides(canvas)
        steps = tuple(t * stride for t, stride in zip(tile, rows, strict=True))
    return Layout(grid, seen, steps, rows, canvas, whole != canvas)


def _strides(sides: Shape) -> Shape:
    return tuple(math.prod(sides[axis + 1 :]) for axis in range(len(sides)))
