"""Split a canvas into the sequences a linear recurrence reads, and merge them back.

The mixer runs between the two, on a batch `scan_passes(scan)` times larger:
``x + scan_merge(mixer(scan_split(norm(x))))``. With the mixer left out, the variant ``fixed``
returns ``scan_passes(scan) * x``: every token meets its own output. Each scan in a line:
docs/maths.md, "Scans".
"""

import math

import torch
from torch import Tensor

from ena_kernels.errors import ShapeError, UnsupportedError, check_impl
from ena_kernels.scans.catalog import VARIANTS, check_scan_name, scan_passes, scan_refusal
from ena_kernels.scans.moves import MOVES, move, move_back
from ena_kernels.scans.orders import Shape, Table, cross_table, multi_head_table, sample_table
from ena_kernels.scans.permute import collect, spread

IMPLS = ("eager", "triton")

_WITHOUT_TABLE = ("uni", "learnable")
_ORDERED = ("random", "learnable")
_SLICED = ("mh2d", "mh3d")
_OFFICIAL_KEEPS_OUTPUT = ("flip", "random", "learnable")
_OFFICIAL_KEEPS_INPUT = ("1d-shift", "2d-shift", "switch")


def scan_split(
    x: Tensor,
    *,
    scan: str,
    canvas: Shape,
    variant: str = "fixed",
    layer: int = 0,
    heads: int = 1,
    order: Tensor | None = None,
    impl: str = "eager",
) -> Tensor:
    """Put the tokens of a canvas into the order, or orders, in which the mixer reads them.

    Args:
        x: ``[B, L, C]`` in raster order.
        scan: A name of `catalog.SCANS`.
        canvas: Token grid, slowest axis first; ``prod(canvas) == L``.
        variant: ``"official"`` does what ENA's own code (fla-org/fla-zoo) does: flip, random,
            learnable and the second half of bi are never put back, and the shifts and switch move
            the output only.
            ``"fixed"`` moves the input of every scan and puts its output back.
        layer: 0-based index of the layer: how far the shifts move, which way switch goes.
        heads: Number of channel slices of mh2d and mh3d; divides C. The published video model
            always uses 16.
        order: For random, int64 permutations ``[B, L]`` (`orders.random_order`); for learnable, a
            matrix ``[L, L]`` (`orders.learnable_order`). Give `scan_merge` the same. Not checked
            to be permutations, which would wait for the device.
        impl: ``"eager"``, or ``"triton"``: one kernel that reads and writes each byte once. Where
            nothing moves (uni) and for learnable, a matrix product, the two are one.
    Returns:
        ``[p * B, L, C]``, p passes: copy k of sample b is at ``b * 4 + k`` for cross and at
        ``k * B + b`` for bi. Where nothing moves this is `x` itself.
    Raises:
        ShapeError: an unknown scan or variant, or sizes that disagree.
        UnsupportedError: this scan cannot read this canvas (the text is `catalog.scan_reason`'s),
            or `impl` is unknown or cannot run on this device or dtype.
    Cost: x is read and each pass written, at best once; learnable costs ``2 B L^2 C`` FLOPs.
    Differentiable in x and in a learnable order; gradients gather, never add up at random.
    """
    _check(x, scan, canvas, variant, layer, heads, order, passes=1)
    keeps_input = variant == "official" and scan in _OFFICIAL_KEEPS_INPUT
    if _runs_kernels(impl, scan) and not keeps_input:
        return _kernels().spread(x, **_settings(scan, canvas, layer, heads, order))
    if scan == "bi":
        return torch.cat([x, x.flip(1)])
    if keeps_input:
        return x
    return _move(x, scan, canvas, layer, heads, order)


def scan_merge(
    y: Tensor,
    *,
    scan: str,
    canvas: Shape,
    variant: str = "fixed",
    layer: int = 0,
    heads: int = 1,
    order: Tensor | None = None,
    impl: str = "eager",
) -> Tensor:
    """Bring the mixer's outputs back to the canvas and sum the passes, without averaging.

    Args:
        y: ``[p * B, L, C]``, the mixer's output on what `scan_split` gave.
        scan, canvas, variant, layer, heads, order, impl: As given to `scan_split`.
    Returns:
        ``[B, L, C]``.
    Raises:
        ShapeError: an unknown scan or variant, or sizes that disagree.
        UnsupportedError: this scan cannot read this canvas, or `impl` is unknown or cannot run
            here.
    """
    _check(y, scan, canvas, variant, layer, heads, order, passes=scan_passes(scan))
    if _runs_kernels(impl, scan):
        return _merge_by_kernels(y, variant, _settings(scan, canvas, layer, heads, order))
    if scan == "bi":
        forward, backward = y.chunk(2)
        return forward + (backward if variant == "official" else backward.flip(1))
    if variant == "official" and scan in _OFFICIAL_KEEPS_OUTPUT:
        return y
    if variant == "official" and scan in _OFFICIAL_KEEPS_INPUT:
        return _move(y, scan, canvas, layer, heads, order)
    return _move_back(y, scan, canvas, layer, heads, order)


def _runs_kernels(impl: str, scan: str) -> bool:
    check_impl(impl, IMPLS, "scan_split and scan_merge")
    return impl == "triton" and scan not in _WITHOUT_TABLE


def _kernels():
    from ena_kernels.scans import triton

    return triton


def _settings(scan: str, canvas: Shape, layer: int, heads: int, order: Tensor | None) -> dict:
    return {"scan": scan, "canvas": canvas, "layer": layer, "heads": heads, "order": order}


def _merge_by_kernels(y: Tensor, variant: str, settings: dict) -> Tensor:
    kernels, scan = _kernels(), settings["scan"]
    if variant == "official" and scan in _OFFICIAL_KEEPS_OUTPUT:
        return y
    if variant == "official" and scan in _OFFICIAL_KEEPS_INPUT:
        return kernels.spread(y, **settings)
    if variant == "official" and scan == "bi":
        # both copies stay where they are: an elementwise sum, which is one kernel already
        return torch.add(*y.chunk(2))
    return kernels.collect(y, **settings)


def _move(x: Tensor, scan: str, canvas: Shape, layer: int, heads: int, order: Tensor | None):
    if scan in MOVES:
        return move(x, scan, canvas, layer)
    if scan == "learnable":
        return torch.matmul(order.to(x.dtype), x)
    table = _table(scan, canvas, heads, order, x.device)
    return spread(_rows(x, scan, heads, passes=1), table).view(-1, *x.shape[1:])


def _move_back(y: Tensor, scan: str, canvas: Shape, layer: int, heads: int, order: Tensor | None):
    if scan in MOVES:
        return move_back(y, scan, canvas, layer)
    if scan == "learnable":
        return torch.matmul(order.to(y.dtype).mT, y)
    table = _table(scan, canvas, heads, order, y.device)
    return collect(_rows(y, scan, heads, scan_passes(scan)), table).view(-1, *y.shape[1:])


def _rows(x: Tensor, scan: str, heads: int, passes: int) -> Tensor:
    """What the table of a scan counts: tokens, those of the whole batch for random, or slices."""
    batch = 1 if scan == "random" else x.shape[0] // passes
    width = x.shape[2] // heads if scan in _SLICED else x.shape[2]
    return x.reshape(batch, -1, width)


def _table(
    scan: str, canvas: Shape, heads: int, order: Tensor | None, device: torch.device
) -> Table:
    if scan == "random":
        return sample_table(order)
    if scan == "cross":
        return cross_table(canvas, device)
    return multi_head_table(scan, canvas, heads, device)


def _check(
    x: Tensor,
    scan: str,
    canvas: Shape,
    variant: str,
    layer: int,
    heads: int,
    order: Tensor | None,
    *,
    passes: int,
) -> None:
    check_scan_name(scan)
    if variant not in VARIANTS:
        raise ShapeError(
            f"scan variant {variant!r} is unknown",
            expected=f"one of {', '.join(VARIANTS)}",
            try_='variant="fixed"',
        )
    if layer < 0 or heads < 1:
        raise ShapeError(
            f"layer={layer}, heads={heads}",
            expected="layer of at least 0 and heads of at least 1",
            try_="layer=0, heads=12",
        )
    refusal = scan_refusal(scan, canvas, heads)
    if refusal is not None:
        wrong, expected, try_ = refusal
        raise UnsupportedError(wrong, expected=expected, try_=try_)
    _check_tokens(x, scan, canvas, heads, passes)
    _check_order(x, scan, order)


def _check_tokens(x: Tensor, scan: str, canvas: Shape, heads: int, passes: int) -> None:
    seq_len = math.prod(canvas)
    if x.ndim != 3 or x.shape[1] != seq_len:
        raise ShapeError(
            f"the tokens have shape {tuple(x.shape)} on canvas {canvas}",
            expected=f"[B, L, C] with L = {seq_len}, the product of the canvas",
            try_=f"tokens of shape (2, {seq_len}, 64)",
        )
    if x.shape[0] % passes:
        raise ShapeError(
            f"a batch of {x.shape[0]} cannot hold the {passes} passes of scan {scan}",
            expected=f"the batch that scan_split returned, a multiple of {passes}",
            try_="give scan_merge the mixer's output unsliced",
        )
    if scan in _SLICED and x.shape[2] % heads:
        raise ShapeError(
            f"{x.shape[2]} channels do not divide into {heads} heads",
            expected=f"channels that are a multiple of heads for {scan}",
            try_=f"{x.shape[2] // heads * heads or heads} channels",
        )


def _check_order(x: Tensor, scan: str, order: Tensor | None) -> None:
    B, L = x.shape[:2]
    if scan not in _ORDERED:
        if order is not None:
            raise ShapeError(
                f"scan {scan} takes no order, but one of shape {tuple(order.shape)} was given",
                expected=f"an order for {' and '.join(_ORDERED)} only",
                try_="order=None",
            )
        return
    shape = (B, L) if scan == "random" else (L, L)
    helper = f"random_order({B}, {L})" if scan == "random" else "learnable_order(logits)"
    found = "None" if order is None else f"{tuple(order.shape)} {order.dtype} on {order.device}"
    is_sound = (
        order is not None
        and tuple(order.shape) == shape
        and order.device == x.device
        and (order.dtype == torch.int64 if scan == "random" else order.is_floating_point())
    )
    if not is_sound:
        raise ShapeError(
            f"the order of scan {scan} is {found}",
            expected=f"{shape} of {'int64' if scan == 'random' else 'floating point'} on "
            f"{x.device}, the same for scan_split and scan_merge",
            try_=f"order=ena_kernels.scans.orders.{helper}",
        )
