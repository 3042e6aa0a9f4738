"""Sliding Tile Attention: one entry point, several implementations (SPEC section 2)."""

from torch import Tensor

from ena_kernels.attention.checks import check_qkv, implementation
from ena_kernels.canvas import Shape, num_tokens, window_grid
from ena_kernels.errors import ShapeError
from ena_kernels.sliding_tile.tiling import tile as tile_tokens
from ena_kernels.sliding_tile.tiling import untile as untile_tokens

# An implementation is a module of this package with its name. It defines
#   ORDERS: the token orders it reads and writes, the preferred one first;
#   forward(q, k, v, *, canvas, window, tile, scale, order) -> Tensor: arguments are validated, the
#   order is one of ORDERS; raises UnsupportedError for what it cannot run here.
IMPLS = ("reference", "eager", "flex", "natten")
ORDERS = ("raster", "tiled")


def sliding_tile(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    canvas: Shape,
    window: Shape,
    tile: Shape,
    scale: float | None = None,
    order: str = "raster",
    impl: str = "eager",
) -> Tensor:
    """Attend each tile of queries to the tiles inside a window around it.

    Args:
        q: ``[B, H, L, D]``, float16, bfloat16, float32 or float64, unit stride in D.
        k, v: ``[B, H_kv, L, D]`` with H_kv dividing H; same dtype, device and rule.
        canvas: Token grid, slowest axis first; ``prod(canvas) == L``.
        window: Window in tokens, per axis a multiple of `tile`; moved inside at the border.
        tile: Tile in tokens, per axis a divisor of `canvas`.
        scale: Score multiplier. Default: ``D ** -0.5``.
        order: Order of the L tokens in q, k, v and in the result: "raster", or "tiled" as
            `tiling.tile` makes it, which saves permuting them here.
        impl: "reference" (the specification), "eager" (plain PyTorch, any device), "flex"
            (FlexAttention), "natten" (odd windows in tiles only).

    Returns:
        ``[B, H, L, D]`` in the dtype of `q`; softmax and accumulation in float32 or wider.

    Raises:
        ShapeError: arguments that break a rule above.
        UnsupportedError: an unknown `impl`, or one that cannot run these arguments here.

    Cost: ``4 * B * H * L * D * prod(min(window, canvas))`` FLOPs forward, 2.5 times that backward.
    """
    canvas, window, tile = tuple(canvas), tuple(window), tuple(tile)
    validate(q, k, v, canvas=canvas, window=window, tile=tile, scale=scale, order=order)
    module = implementation(impl, IMPLS, __package__)
    inner = order if order in module.ORDERS else module.ORDERS[0]
    if inner != order:
        q, k, v = (_reorder(x, canvas, tile, inner) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    out = module.forward(q, k, v, canvas=canvas, window=window, tile=tile, scale=scale, order=inner)
    return out if inner == order else _reorder(out, canvas, tile, order)


def orders_of(impl: str) -> tuple[str, ...]:
    """The token orders that an implementation reads and writes without permuting.

    Raises:
        UnsupportedError: an unknown `impl`.
    """
    return implementation(impl, IMPLS, __package__).ORDERS


def validate(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    canvas: Shape,
    window: Shape,
    tile: Shape,
    scale: float | None,
    order: str,
) -> None:
    """Raise ShapeError unless the arguments keep the rules of `sliding_tile`."""
    check_qkv(q, k, v, scale)
    window_grid(canvas, tile, window)
    if q.shape[2] != num_tokens(canvas):
        raise ShapeError(
            f"q has {q.shape[2]} tokens, canvas {canvas} has {num_tokens(canvas)}",
            expected="q, k and v of shape [B, H, L, D] with L == prod(canvas)",
            try_=f"L = {num_tokens(canvas)}",
        )
    if order not in ORDERS:
        raise ShapeError(
            f"order {order!r} is unknown",
            expected=f"one of {', '.join(ORDERS)}",
            try_=f"order={ORDERS[0]!r}",
        )


def _reorder(x: Tensor, canvas: Shape, tile: Shape, order: str) -> Tensor:
    """Bring tokens into `order` from the other one."""
    return (tile_tokens if order == "tiled" else untile_tokens)(x, canvas, tile)
