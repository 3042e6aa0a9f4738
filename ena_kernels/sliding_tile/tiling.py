"""Between raster order and tiled order, on tensors."""

from torch import Tensor

from ena_kernels.canvas import Shape, num_tokens, tile_grid
from ena_kernels.errors import ShapeError


def whole_tiles(canvas: Shape, tile: Shape) -> Shape:
    """The canvas itself, or the next larger one that the tile divides.

    What is no tile of this canvas leaves it as it is, for `window_grid` to refuse.
    """
    if len(canvas) != len(tile) or any(not isinstance(t, int) or t < 1 for t in tile):
        return canvas
    return tuple(-(-n // t) * t for n, t in zip(canvas, tile, strict=True))


def tile(x: Tensor, canvas: Shape, tile: Shape) -> Tensor:
    """Bring tokens from raster order into tiled order, ``[..., L, D]`` to ``[..., L, D]``.

    Tiles follow each other in raster order, and so do the tokens inside a tile. Differentiable.
    On a canvas of one axis both orders are the same and `x` itself is returned.

    Raises:
        ShapeError: the canvas has not L tokens, or the tile does not divide it.
    """
    grid = _checked_grid(x, canvas, tile)
    if len(grid) == 1:
        return x
    interleaved = [side for pair in zip(grid, tile, strict=True) for side in pair]
    axes = (*range(0, 2 * len(grid), 2), *range(1, 2 * len(grid), 2))
    return _permute_tokens(x, interleaved, axes)


def untile(x: Tensor, canvas: Shape, tile: Shape) -> Tensor:
    """Bring tokens from tiled order back into raster order: the inverse of `tile`.

    Raises:
        ShapeError: as `tile`.
    """
    grid = _checked_grid(x, canvas, tile)
    if len(grid) == 1:
        return x
    axes = [axis + side * len(grid) for axis in range(len(grid)) for side in (0, 1)]
    return _permute_tokens(x, (*grid, *tile), axes)


def _permute_tokens(x: Tensor, sides, axes) -> Tensor:
    """View the token axis as `sides`, permute those sides, and flatten them again."""
    num_leading = x.dim() - 2
    order = (*range(num_leading), *(num_leading + axis for axis in axes), -1)
    return x.unflatten(-2, tuple(sides)).permute(order).reshape(x.shape)


def _checked_grid(x: Tensor, canvas: Shape, tile: Shape) -> Shape:
    grid = tile_grid(canvas, tile)
    if x.dim() < 2 or x.shape[-2] != num_tokens(canvas):
        raise ShapeError(
            f"x is {list(x.shape)}, the canvas {canvas} has {num_tokens(canvas)} tokens",
            expected="x of shape [..., L, D] with L the number of tokens on the canvas",
            try_=f"x of shape [1, {num_tokens(canvas)}, 64]",
        )
    return grid
