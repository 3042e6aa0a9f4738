"""Where a contender may be asked to run: canvases with a tile and a window, or why not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from bench.axes import Block
from bench.case import DEFAULT_TILES, Shape, shape_text
from bench.errors import UsageError
from ena_kernels.canvas import most_square_canvas
from ena_kernels.errors import ShapeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A canvas; tile and window are None where the contender has none or none fits.

    Args:
        reason: Why nothing tiled can run there.
        warning: What was changed of what was asked for.
    """

    canvas: Shape
    tile: Shape | None = None
    window: Shape | None = None
    reason: str | None = None
    warning: str | None = None


def spots(block: Block, *, tiled: bool) -> list[Spot]:
    """Every canvas of a block, with each tile and window that it may have.

    A length that tiles do not divide is kept with the reason as long as another length is possible.

    Raises:
        UsageError: no length is possible, a named tile does not divide a named canvas, or no named
            tile or window has as many axes as a canvas.
    """
    canvases = _canvases(block, tiled=tiled)
    if not tiled:
        return canvases
    return [spot for canvas in canvases for spot in _tiled(block, canvas)]


def _canvases(block: Block, *, tiled: bool) -> list[Spot]:
    ndims = block.get("ndim")
    if "canvas" in block:
        named = [c for c in block["canvas"] if ndims is None or len(c) in ndims]
        return [Spot(canvas=canvas) for canvas in named]
    found, errors = [], []
    for ndim, seq_len in product(ndims or [1], block.get("seq_len", [4096])):
        try:
            found.append(Spot(canvas=most_square_canvas(seq_len, ndim, _tile(block, ndim))))
        except ShapeError as err:
            # untiled contenders do not care whether a tile divides the canvas
            canvas = most_square_canvas(seq_len, ndim, (1,) * ndim)
            reason = str(err).split("\n")[0] if tiled else None
            found.append(Spot(canvas=canvas, reason=reason))
            errors.append(err)
    if tiled and errors and all(spot.reason for spot in found):
        raise UsageError.from_shape(errors[0]) from errors[0]
    return found


def _tile(block: Block, ndim: int) -> Shape:
    """The tile that chooses the canvas of a length."""
    usual = DEFAULT_TILES.get(ndim, (1,) * ndim)
    return next(iter(_of_rank(block, "tile", ndim)), usual)


def _tiled(block: Block, spot: Spot) -> Iterator[Spot]:
    """The spot with each named tile of its rank, which must divide, else with the default one."""
    canvas = spot.canvas
    tiles = _of_rank(block, "tile", len(canvas)) or _default_tile(block, canvas)
    if spot.reason is not None or not tiles:
        yield spot
        return
    for tile in tiles:
        if any(side % t for side, t in zip(canvas, tile, strict=True)):
            fitting = tuple(-(-side // t) * t for side, t in zip(canvas, tile, strict=True))
            raise UsageError(
                f"tile {shape_text(tile)} does not divide canvas {shape_text(canvas)}",
                expected="every canvas side to be a multiple of the tile side",
                try_=f"--canvas {shape_text(fitting)}",
            )
    windows: Sequence[Shape | None] = _of_rank(block, "window", len(canvas))
    if "window" in block and not windows:
        raise _other_rank("window", block["window"][0], canvas, suggested=tiles[0])
    for tile, window in product(tiles, windows or [None]):
        yield _clamped(replace(spot, tile=tile, window=window))


def _default_tile(block: Block, canvas: Shape) -> list[Shape]:
    default = DEFAULT_TILES.get(len(canvas))
    if "tile" in block:
        suggested = default or (1,) * len(canvas)
        raise _other_rank("tile", block["tile"][0], canvas, suggested=suggested)
    divides = default and not any(n % t for n, t in zip(canvas, default, strict=True))
    return [default] if default and divides else []


def _clamped(spot: Spot) -> Spot:
    """A window wider than the canvas is as wide as the canvas, and the spot says so."""
    if spot.window is None or all(w <= n for w, n in zip(spot.window, spot.canvas, strict=True)):
        return spot
    window = tuple(min(w, n) for w, n in zip(spot.window, spot.canvas, strict=True))
    return replace(
        spot,
        window=window,
        warning=f"window {shape_text(spot.window)} is wider than canvas {shape_text(spot.canvas)}: "
        f"{shape_text(window)} was measured; name a larger canvas or a smaller window",
    )


def _of_rank(block: Block, axis: str, ndim: int) -> list[Shape]:
    return [shape for shape in block.get(axis, []) if len(shape) == ndim]


def _other_rank(axis: str, named: Shape, canvas: Shape, *, suggested: Shape) -> UsageError:
    return UsageError(
        f"{axis} {shape_text(named)} has {len(named)} axes, canvas {shape_text(canvas)} has "
        f"{len(canvas)}",
        expected=f"a {axis} for every number of axes that canvases of the grid have",
        try_=f"--{axis} {shape_text(suggested)}",
    )
