"""Sliding Tile Attention (arXiv 2502.04507): one entry point, several implementations."""

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ena_kernels.attention.checks import check_qkv, implementation
from ena_kernels.canvas import Shape, num_tokens, window_grid
from ena_kernels.errors import ShapeError, UnsupportedError
from ena_kernels.sliding_tile.tiling import tile as tile_tokens
from ena_kernels.sliding_tile.tiling import untile as untile_tokens
from ena_kernels.sliding_tile.tiling import whole_tiles

# An implementation is a module of this package with its name. It defines
#   ORDERS: the token orders it reads and writes, the preferred one first;
#   EXTRAS: which of text_tokens, pad and return_lse it knows;
#   forward(q, k, v, *, canvas, window, tile, scale, order) -> Tensor: arguments are validated, the
#   order is one of ORDERS; raises UnsupportedError for what it cannot run here. Text are the tokens
#   beyond the canvas; return_lse=True is passed if asked for, and then out and lse are returned.
IMPLS = ("reference", "eager", "triton", "flex", "flex_flash", "natten")
ORDERS = ("raster", "tiled")
PADS = ("error", "zero")
MOST_CALLS = 4096
_MODULES: dict[str, ModuleType] = {}
_CALLS: dict[tuple, "_Call"] = {}


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
    text_tokens: int = 0,
    pad: str = "error",
    return_lse: bool = False,
    impl: str = "eager",
) -> Tensor | tuple[Tensor, Tensor]:
    """Attend each tile of queries to the tiles inside a window around it.

    Args:
        q: ``[B, H, L, D]``, float16, bfloat16, float32 or float64, unit stride in D.
        k, v: ``[B, H_kv, L, D]`` with H_kv dividing H; same dtype, device and rule.
        canvas: Token grid, slowest axis first; ``prod(canvas) + text_tokens == L``.
        window: Window in tokens, per axis a multiple of `tile`; moved inside at the border.
        tile: Tile in tokens, per axis a divisor of `canvas` unless `pad` says otherwise.
        scale: Score multiplier. Default: ``D ** -0.5``.
        order: Order of the tokens of the canvas in q, k, v and in the result: "raster", or "tiled"
            as `tiling.tile` makes it, which saves permuting them where `impl` wants it.
        text_tokens: Tokens that follow the canvas; all tokens see them and they see all.
        pad: What a tile that does not divide the canvas is: an "error", or "zero": windows are laid
            out on the next larger canvas, whose additional tokens nobody sees.
        return_lse: Also return the log-sum-exp of each query's scores.
        impl: "reference" (the specification), "eager" (plain PyTorch, any device), "triton" (our
            kernels; reads both orders in place), "flex" (FlexAttention), "flex_flash" (the same on
            the kernels of flash-attn-4), "natten" (odd windows in tiles only). Text, padding and
            the log-sum-exp: "reference" and "triton".

    Returns:
        ``[B, H, L, D]`` in the dtype of `q`; softmax and accumulation in float32 or wider. With
        `return_lse` also ``[B, H, L]``, natural logarithm, float32 (float64 for float64 inputs).
        Both are differentiable.

    Raises:
        ShapeError: arguments that break a rule above.
        UnsupportedError: an unknown `impl`, or one that cannot run these arguments here.

    Cost: ``4 * B * H * L * D * prod(min(window, canvas))`` FLOPs forward, 2.5 times that backward.
    """
    try:
        geometry = canvas, window, tile = tuple(canvas), tuple(window), tuple(tile)
    except TypeError as err:
        raise ShapeError(
            f"canvas is {canvas!r}, window {window!r}, tile {tile!r}",
            expected="three tuples of tokens along each axis, slowest axis first",
            try_="canvas=(1024,), window=(256,), tile=(128,)",
        ) from err
    call = _known_call(q, k, v, *geometry, scale, order, text_tokens, pad, return_lse, impl)
    inner = call.options["order"]
    if inner != order:
        q, k, v = (_reorder(x, canvas, tile, inner) for x in (q, k, v))
    out = call.module.forward(q, k, v, **call.options)
    return out if inner == order else _reorder(out, canvas, tile, order)


def orders_of(impl: str) -> tuple[str, ...]:
    """The token orders that an implementation reads and writes without permuting.

    Raises:
        UnsupportedError: an unknown `impl`.
    """
    return _MODULES[_loaded(impl)].ORDERS


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
    text_tokens: int = 0,
    pad: str = "error",
) -> None:
    """Raise ShapeError unless the arguments keep the rules of `sliding_tile`."""
    check_qkv(q, k, v, scale)
    for name, value, known in (("order", order, ORDERS), ("pad", pad, PADS)):
        if value not in known:
            raise ShapeError(
                f"{name} {value!r} is unknown",
                expected=f"one of {', '.join(known)}",
                try_=f"{name}={known[0]!r}",
            )
    whole = whole_tiles(canvas, tile) if pad == "zero" else canvas
    window_grid(whole, tile, window)
    if whole != canvas and order == "tiled":
        raise ShapeError(
            f"canvas {canvas} has no tiled order: tile {tile} does not divide it",
            expected="raster order where tiles are padded",
            try_="order='raster'",
        )
    if isinstance(text_tokens, bool) or not isinstance(text_tokens, int) or text_tokens < 0:
        raise ShapeError(
            f"text_tokens is {text_tokens!r}",
            expected="how many tokens follow the canvas, a whole number from zero on",
            try_="text_tokens=0",
        )
    length = num_tokens(canvas) + text_tokens
    if q.shape[2] != length:
        text = f" and {text_tokens} tokens of text follow" if text_tokens else ""
        raise ShapeError(
            f"q has {q.shape[2]} tokens, canvas {canvas} has {num_tokens(canvas)}{text}",
            expected="q, k and v of shape [B, H, L, D] with L == prod(canvas) + text_tokens",
            try_=f"L = {length}",
        )


class _Call(NamedTuple):
    """A valid call but its tensors: the implementation, and the options that it is given."""

    module: ModuleType
    options: dict[str, object]


def _known_call(q: Tensor, k: Tensor, v: Tensor, *options) -> _Call:
    """The call, which is checked once for all tensors that are alike; short ones feel the time.

    Args:
        options: Canvas, window, tile, scale, order, text_tokens, pad, return_lse, impl.
    """
    if torch.compiler.is_compiling() or not _are_plain(q, k, v, options):
        return _checked_call(q, k, v, *options)
    key = *(_kind(x) for x in (q, k, v)), options
    call = _CALLS.get(key)
    if call is None:
        if len(_CALLS) >= MOST_CALLS:
            _CALLS.clear()
        call = _CALLS[key] = _checked_call(q, k, v, *options)
    return call


def _are_plain(q: Tensor, k: Tensor, v: Tensor, options: tuple) -> bool:
    """Whether arguments of the same values always mean the same call: 1 is True, but no number."""
    canvas, window, tile, scale, order, text_tokens, pad, _, impl = options
    numbers = {type(x) for x in (*canvas, *window, *tile, text_tokens)}
    return (
        type(q) is type(k) is type(v) is Tensor
        and numbers == {int}
        and (scale is None or type(scale) is float)
        and type(order) is type(pad) is type(impl) is str
    )


def _kind(x: Tensor) -> tuple:
    return x.shape, x.stride(), x.dtype, x.device


def _checked_call(
    q, k, v, canvas, window, tile, scale, order, text_tokens, pad, return_lse, impl
) -> _Call:
    """A call whose arguments keep the rules and are known to the implementation."""
    validate(
        *(q, k, v),
        **{"canvas": canvas, "window": window, "tile": tile, "scale": scale, "order": order},
        text_tokens=text_tokens,
        pad=pad,
    )
    module = _MODULES[_loaded(impl)]
    is_cut = whole_tiles(canvas, tile) != canvas
    asked = {"text_tokens": text_tokens > 0, "pad": is_cut, "return_lse": return_lse}
    _require_extras(module, impl, [name for name, is_asked in asked.items() if is_asked])
    options = {"canvas": canvas, "window": window, "tile": tile}
    options["scale"] = q.shape[-1] ** -0.5 if scale is None else float(scale)
    options["order"] = order if order in module.ORDERS else module.ORDERS[0]
    if return_lse:
        options["return_lse"] = True
    return _Call(module, options)


def _loaded(impl: str) -> str:
    """Name of an implementation that is in `_MODULES` from now on.

    A compiler that traces `sliding_tile` calls this as it is, for it cannot trace an import.
    """
    _MODULES[impl] = implementation(impl, IMPLS, __package__)
    return impl


# all that torch.compiler.assume_constant_result does, which imports the compiler: seconds
_loaded._dynamo_marked_constant = True


def _require_extras(module: ModuleType, impl: str, asked: list[str]) -> None:
    """Raise UnsupportedError for an argument that an implementation does not know."""
    for name in asked:
        if name not in module.EXTRAS:
            raise UnsupportedError(
                f"impl {impl!r} does not know {name}",
                expected=f"{name} with impl 'reference' or 'triton'",
                try_="impl='triton'",
            )


def _reorder(x: Tensor, canvas: Shape, tile: Shape, order: str) -> Tensor:
    """Bring tokens into `order` from the other one."""
    return (tile_tokens if order == "tiled" else untile_tokens)(x, canvas, tile)
