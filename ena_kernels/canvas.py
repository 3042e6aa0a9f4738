"""Geometry of a token grid: tiles, windows, and which tiles see which.

A canvas, a tile and a window are tuples in tokens, slowest axis first. Pure arithmetic on whole
numbers: no torch, and numpy only where an array is returned. Formulas: docs/maths.md, "Canvas" to
"Choosing a window".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from ena_kernels.errors import ShapeError

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]


def num_tokens(canvas: Shape) -> int:
    """Number of tokens on the canvas, the product of its sides."""
    return math.prod(canvas)


def tile_grid(canvas: Shape, tile: Shape) -> Shape:
    """Number of tiles along each axis.

    Raises:
        ShapeError: the ranks differ, a side is not positive, or a tile does not divide its axis.
    """
    _check_sides("canvas", canvas)
    _check_sides("tile", tile)
    _check_ranks("tile", tile, canvas)
    for axis, (side, step) in enumerate(zip(canvas, tile, strict=True)):
        if side % step:
            fitting = tuple(max(t, round(n / t) * t) for n, t in zip(canvas, tile, strict=True))
            raise ShapeError(
                f"canvas {_text(canvas)} is not divisible by tile {_text(tile)} on axis {axis}",
                expected="every side of the canvas to be a multiple of the tile's side",
                try_=f"canvas {_text(fitting)}",
            )
    return tuple(n // t for n, t in zip(canvas, tile, strict=True))


def window_grid(canvas: Shape, tile: Shape, window: Shape) -> Shape:
    """Number of tiles along each axis that a query tile sees: window over tile, at most all.

    Raises:
        ShapeError: as `tile_grid`, or the window is not a whole number of tiles on every axis.
    """
    grid = tile_grid(canvas, tile)
    _check_sides("window", window)
    _check_ranks("window", window, canvas)
    for axis, (width, step) in enumerate(zip(window, tile, strict=True)):
        if width % step:
            fitting = tuple(max(t, round(w / t) * t) for w, t in zip(window, tile, strict=True))
            raise ShapeError(
                f"window {_text(window)} is not a multiple of tile {_text(tile)} on axis {axis}",
                expected="a window in tokens, on every axis a whole number of tiles",
                try_=f"window {_text(fitting)}",
            )
    return tuple(min(w // t, g) for w, t, g in zip(window, tile, grid, strict=True))


def attended_fraction(canvas: Shape, tile: Shape, window: Shape) -> Fraction:
    """Share of all (query, key) pairs that are attended, exactly.

    Raises:
        ShapeError: as `window_grid`.
    """
    seen = window_grid(canvas, tile, window)
    return Fraction(math.prod(seen), math.prod(tile_grid(canvas, tile)))


def window_for_sparsity(
    canvas: Shape, tile: Shape, sparsity: float, tolerance: float = 0.0
) -> Shape:
    """The window, in tokens, whose sparsity is nearest to the one asked for.

    Among the windows within `tolerance` of the nearest sparsity, the one that covers the most equal
    share of every axis is taken. Floats are read as the decimals they print as, so 0.7 is 7/10.

    Raises:
        ShapeError: as `tile_grid`, or the sparsity is outside [0, 1), or the tolerance is negative.
    """
    grid = tile_grid(canvas, tile)
    if not 0.0 <= sparsity < 1.0:
        raise ShapeError(
            f"sparsity {sparsity} is outside [0, 1)",
            expected="the fraction of (query, key) pairs to leave out",
            try_="sparsity 0.7",
        )
    if not 0.0 <= tolerance < 1.0:
        raise ShapeError(
            f"tolerance {tolerance} is outside [0, 1)",
            expected="how much farther from the asked sparsity a rounder window may be",
            try_="tolerance 0.02",
        )
    goal = (1 - Fraction(str(sparsity))) * math.prod(grid)
    slack = Fraction(str(tolerance)) * math.prod(grid)
    nearest = min(abs(math.prod(seen) - goal) for seen in _windows_near(grid, goal, None))
    candidates = _windows_near(grid, goal, nearest + slack)
    best = min(candidates, key=lambda seen: _preference(seen, grid, goal))
    return tuple(k * t for k, t in zip(best, tile, strict=True))


def most_square_canvas(seq_len: int, ndim: int, tile: Shape) -> Shape:
    """The canvas of exactly `seq_len` tokens with the smallest ratio of longest to shortest side.

    Every side is divisible by the tile; among equals the lexicographically smallest is taken.

    Raises:
        ShapeError: the tile has not `ndim` axes, or its volume does not divide `seq_len`.
    """
    _check_sides("tile", tile)
    if len(tile) != ndim:
        raise ShapeError(
            f"tile {_text(tile)} has {len(tile)} axes, the canvas {ndim}",
            expected="one side per axis of the canvas",
            try_=f"ndim {len(tile)}",
        )
    volume = math.prod(tile)
    if seq_len < 1 or seq_len % volume:
        possible = max(1, round(seq_len / volume)) * volume
        raise ShapeError(
            f"{seq_len} tokens cannot be cut into tiles of {_text(tile)}",
            expected=f"a multiple of {volume} tokens, the volume of the tile",
            try_=f"seq_len {possible}",
        )
    grids = _factorisations(seq_len // volume, ndim)
    canvases = (tuple(g * t for g, t in zip(grid, tile, strict=True)) for grid in grids)
    return min(canvases, key=lambda sides: (Fraction(max(sides), min(sides)), sides))


def tiled_order(canvas: Shape, tile: Shape) -> np.ndarray:
    """Raster index of the token at each position of the tiled order, int64 ``[L]``.

    Tiles follow each other in raster order, and so do the tokens inside a tile.

    Raises:
        ShapeError: as `tile_grid`.
    """
    import numpy as np

    grid = tile_grid(canvas, tile)
    interleaved = [side for pair in zip(grid, tile, strict=True) for side in pair]
    axes = (*range(0, 2 * len(grid), 2), *range(1, 2 * len(grid), 2))
    raster = np.arange(num_tokens(canvas), dtype=np.int64).reshape(interleaved)
    return np.ascontiguousarray(raster.transpose(axes)).reshape(-1)


def visible_tiles(canvas: Shape, tile: Shape, window: Shape) -> np.ndarray:
    """Ascending ids of the key tiles that each query tile sees, int32 ``[G, K]``.

    A window that would cross a border is moved inside, so every query tile sees equally many.

    Raises:
        ShapeError: as `window_grid`.
    """
    import numpy as np

    grid = tile_grid(canvas, tile)
    seen = window_grid(canvas, tile, window)
    ndim = len(grid)
    ids = np.zeros((*grid, *seen), dtype=np.int32)
    for axis, (num_tiles, num_seen) in enumerate(zip(grid, seen, strict=True)):
        starts = np.array(_starts(num_tiles, num_seen), dtype=np.int32)
        along_axis = starts[:, None] + np.arange(num_seen, dtype=np.int32)
        shape = [1] * (2 * ndim)
        shape[axis], shape[ndim + axis] = num_tiles, num_seen
        ids += along_axis.reshape(shape) * np.int32(math.prod(grid[axis + 1 :]))
    return ids.reshape(math.prod(grid), math.prod(seen))


def transposed_tiles(canvas: Shape, tile: Shape, window: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Which query tiles see each key tile, as compressed rows.

    Returns:
        offsets: int32 ``[G + 1]``; key tile j is seen by the query tiles in
            ``ids[offsets[j]:offsets[j + 1]]``, ascending.
        ids: int32. The rows have unequal lengths: tiles near a border are seen less often.

    Raises:
        ShapeError: as `window_grid`.
    """
    import numpy as np

    grid = tile_grid(canvas, tile)
    seen = window_grid(canvas, tile, window)
    coords = np.indices(grid).reshape(len(grid), -1)
    first, count = [], []
    for axis, (num_tiles, num_seen) in enumerate(zip(grid, seen, strict=True)):
        starts = np.array(_starts(num_tiles, num_seen))
        low = np.searchsorted(starts + num_seen, np.arange(num_tiles), side="right")
        high = np.searchsorted(starts, np.arange(num_tiles), side="right")
        first.append(low[coords[axis]])
        count.append((high - low)[coords[axis]])
    lengths = np.prod(count, axis=0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    key_tile = np.repeat(np.arange(math.prod(grid)), lengths)
    # A row is a box of query tiles; its running number is split into one digit per axis.
    digits = np.arange(offsets[-1]) - offsets[key_tile]
    ids = np.zeros_like(digits)
    for axis in reversed(range(len(grid))):
        digits, digit = np.divmod(digits, count[axis][key_tile])
        ids += (first[axis][key_tile] + digit) * math.prod(grid[axis + 1 :])
    return offsets.astype(np.int32), ids.astype(np.int32)


def _starts(num_tiles: int, num_seen: int) -> list[int]:
    """First tile that each query tile of one axis sees; even windows lean to the earlier side."""
    last_start = num_tiles - num_seen
    return [min(max(c - num_seen // 2, 0), last_start) for c in range(num_tiles)]


def _windows_near(grid: Shape, goal: Fraction, slack: Fraction | None) -> Iterator[Shape]:
    """Windows in tiles whose number of tiles is within `slack` of `goal`.

    The longest axis is solved for instead of enumerated. Without a slack, its two integers around
    the solution are yielded, among which the nearest is.
    """
    free = grid.index(max(grid))
    others = [range(1, g + 1) for axis, g in enumerate(grid) if axis != free]
    for rest in itertools.product(*others):
        area = math.prod(rest)
        if slack is None:
            low = min(max(goal // area, 1), grid[free])
            high = min(low + 1, grid[free])
        else:
            low = max(math.ceil((goal - slack) / area), 1)
            high = min(math.floor((goal + slack) / area), grid[free])
        for along_free in range(low, high + 1):
            yield (*rest[:free], along_free, *rest[free:])


def _preference(seen: Shape, grid: Shape, goal: Fraction) -> tuple[int, Fraction, int, int, Shape]:
    """Sort key: anisotropy, distance from the goal, even axes, density, then the window itself."""
    common = math.lcm(*grid)
    shares = [k * (common // g) for k, g in zip(seen, grid, strict=True)]
    num_even = sum(k % 2 == 0 and k < g for k, g in zip(seen, grid, strict=True))
    num_seen = math.prod(seen)
    return max(shares) - min(shares), abs(num_seen - goal), num_even, -num_seen, seen


def _factorisations(number: int, length: int) -> Iterator[Shape]:
    """Every ordered way to write `number` as a product of `length` whole numbers."""
    if length == 1:
        yield (number,)
        return
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    for divisor in sorted({*small, *(number // d for d in small)}):
        for rest in _factorisations(number // divisor, length - 1):
            yield (divisor, *rest)


def _check_sides(name: str, shape: Shape) -> None:
    if not shape or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in shape):
        raise ShapeError(
            f"{name} {shape!r} is not a grid of tokens",
            expected="a tuple of positive whole numbers, slowest axis first",
            try_=f"{name} (64, 64)",
        )


def _check_ranks(name: str, shape: Shape, canvas: Shape) -> None:
    if len(shape) != len(canvas):
        fitting = (*shape, *[shape[-1]] * len(canvas))[: len(canvas)]
        raise ShapeError(
            f"{name} {_text(shape)} has {len(shape)} axes but canvas {_text(canvas)} {len(canvas)}",
            expected=f"one side of the {name} per axis of the canvas",
            try_=f"{name} {_text(fitting)}",
        )


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
