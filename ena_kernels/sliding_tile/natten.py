"""Sliding Tile Attention by the library NATTEN: neighborhood attention with stride = tile.

Equal token for token where every window is an odd number of tiles, or as wide as the canvas, or the
tile is one token. Elsewhere NATTEN's windows do not fall on tiles.
"""

from torch import Tensor

from ena_kernels.attention.checks import library, require_cuda
from ena_kernels.canvas import Shape, tile_grid, window_grid
from ena_kernels.errors import UnsupportedError

ORDERS = ("raster",)
EXTRAS = ()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    canvas: Shape,
    window: Shape,
    tile: Shape,
    scale: float,
    order: str,
) -> Tensor:
    """``[B, H, L, D]``, a transposed view of what the library returns as ``[B, *canvas, H, D]``.

    Raises:
        UnsupportedError: tensors not on CUDA, a canvas of more than three axes, a window that
            NATTEN cannot place on tiles, or no NATTEN kernel for these arguments.
    """
    assert order == "raster"
    require_cuda(q, impl="natten")
    _check_window(canvas, window, tile)
    natten = library("natten", impl="natten", install="natten")
    function = {1: natten.na1d, 2: natten.na2d, 3: natten.na3d}[len(canvas)]
    kernel_size = tuple(min(w, n) for w, n in zip(window, canvas, strict=True))
    q, k, v = (x.transpose(1, 2).unflatten(1, canvas) for x in (q, k, v))
    try:
        out = function(q, k, v, kernel_size=kernel_size, stride=tile, scale=scale)
    except NotImplementedError as err:
        reason = str(err).partition("\n")[0]
        raise UnsupportedError(
            f"impl 'natten' has no kernel for these arguments: {reason}",
            expected="float16 or bfloat16, head dim 32, 64 or 128 where NATTEN is fastest",
            try_="impl='flex'",
        ) from err
    return out.flatten(1, len(canvas)).transpose(1, 2)


def _check_window(canvas: Shape, window: Shape, tile: Shape) -> None:
    if len(canvas) > 3:
        raise UnsupportedError(
            f"impl 'natten' has no kernel for a canvas of {len(canvas)} axes",
            expected="one, two or three axes",
            try_="impl='flex'",
        )
    seen = window_grid(canvas, tile, window)
    for axis, (num_seen, num_tiles) in enumerate(zip(seen, tile_grid(canvas, tile), strict=True)):
        side = tile[axis]
        if num_seen % 2 == 0 and num_seen < num_tiles and side > 1:
            raise UnsupportedError(
                f"impl 'natten' cannot place a window of {num_seen} tiles on axis {axis}",
                expected="on every axis an odd number of tiles, or the whole canvas",
                try_=f"a window of {(num_seen + 1) * side} tokens on axis {axis}, or impl='flex'",
            )
        if num_seen * side == 1:
            raise UnsupportedError(
                f"impl 'natten' cannot place a window of one token on axis {axis}",
                expected="a window of at least two tokens on every axis",
                try_=f"a window of {3 * side} tokens on axis {axis}, or impl='flex'",
            )
