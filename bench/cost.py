"""FLOPs and bytes of a case, from formulas alone: those of docs/maths.md, "Cost".

A multiply-add counts as 2. Products count; exponentials, norms, activations, residual additions and
the optimizer's arithmetic do not. Every formula gives the forward and the backward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from bench.case import Case, Shape
from ena_kernels.canvas import attended_fraction, num_tokens, visible_tiles
from ena_kernels.scans.catalog import scan_passes
from ena_kernels.sizes import INTERLEAVES, NUM_CLASSES, attention_layers

CHUNK = 64
CONV_WIDTH = 4
MLP_RATIO = 4
FLEX_BLOCK = 128
ELEMENT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
LSE_BYTES = 4
INDEX_BYTES = 8
ADAMW_PASSES = 7
"""AdamW reads the weight, its gradient and two moments; it writes the weight and the moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one call of a case costs.

    Args:
        flops: Useful FLOPs: attended pairs only, the backward of attention as five products.
        flops_computed: The same with the pairs that the implementation visits and masks away;
            None where which pairs it visits is a library's choice.
        flops_dense: The same if every attention were full.
        bytes: Least memory traffic: each product, attention and recurrence reads its inputs once
            and writes its outputs once. Elementwise maps, norms, convolutions and permutations are
            taken as fused into their neighbours, except at level op, where a scan is what is
            measured.
    """

    flops: float
    flops_computed: float | None
    flops_dense: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Passes:
    """A count for the forward and one for the backward."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> Passes:
        return Passes(self.forward * times, self.backward * times)

    def of(self, mode: str) -> float:
        """The count of one call in a mode; `step` holds one forward and one backward."""
        return {"fwd": self.forward, "bwd": self.backward}.get(mode, self.forward + self.backward)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dims:
    """Sizes of the tensors of one operator, ``[batch, heads, seq_len, head_dim]``."""

    batch: int
    heads: int
    seq_len: int
    head_dim: int

    @property
    def tokens(self) -> int:
        """Tokens of the whole batch."""
        return self.batch * self.seq_len

    @property
    def model_dim(self) -> int:
        """Width of the hidden state."""
        return self.heads * self.head_dim


def cost(case: Case) -> Cost | None:
    """FLOPs and bytes of one call; None for a contender that this module does not know."""
    if case.contender not in _CONTENDERS[case.level]:
        return None
    visited = _visited(case)
    return Cost(
        flops=_case_flops(case, _attended(case)).of(case.mode),
        flops_computed=None if visited is None else _case_flops(case, visited).of(case.mode),
        flops_dense=_case_flops(case, 1.0).of(case.mode),
        bytes=_case_bytes(case).of(case.mode),
    )


def attention_flops(dims: Dims, attended: float = 1.0) -> Passes:
    """Two products forward and five backward over the attended pairs."""
    product = 2.0 * dims.tokens * dims.seq_len * attended * dims.model_dim
    return Passes(2 * product, 5 * product)


def delta_rule_flops(dims: Dims, chunk: int = CHUNK) -> Passes:
    """The chunkwise recurrence, dense products within a chunk, keys as wide as values.

    The backward computes W, U, states, new values and scores anew. A sequence shorter than the
    chunk is one chunk of its own length.
    """
    d, c = dims.head_dim, min(chunk, dims.seq_len)
    forward = 6 * d**2 + 10 * c * d + c**2 / 3
    backward = 16 * d**2 + 28 * c * d + 4 * c**2
    return Passes(forward, backward) * (dims.tokens * dims.heads)


def linear_flops(tokens: int, d_in: int, d_out: int) -> Passes:
    """A linear map: one product forward; backward one for the input and one for the weight."""
    product = 2.0 * tokens * d_in * d_out
    return Passes(product, 2 * product)


def projection_flops(dims: Dims) -> Passes:
    """q, k, v and the output: four square maps."""
    return linear_flops(dims.tokens, dims.model_dim, 4 * dims.model_dim)


def short_conv_flops(dims: Dims) -> Passes:
    """Three depthwise convolutions, one multiply-add per tap."""
    return linear_flops(dims.tokens, CONV_WIDTH, 3 * dims.model_dim)


def mlp_flops(dims: Dims) -> Passes:
    """Up to four times the width and down again."""
    return linear_flops(dims.tokens, dims.model_dim, 2 * MLP_RATIO * dims.model_dim)


def attention_layer_flops(dims: Dims, attended: float = 1.0) -> Passes:
    """Projections and attention."""
    return projection_flops(dims) + attention_flops(dims, attended)


def delta_net_flops(dims: Dims, scan: str = "uni", variant: str = "fixed") -> Passes:
    """Projections, beta, convolutions and recurrence, once per pass of the scan."""
    passes = replace(dims, batch=dims.batch * scan_passes(scan))
    return (
        projection_flops(passes)
        + linear_flops(passes.tokens, dims.model_dim, dims.heads)
        + short_conv_flops(passes)
        + delta_rule_flops(passes)
        + scan_flops(dims, scan, variant)
    )


def scan_flops(dims: Dims, scan: str, variant: str = "fixed") -> Passes:
    """Split and merge only move data, but a learnable scan multiplies by a matrix."""
    if scan != "learnable":
        return Passes()
    num_products = 1 if variant == "official" else 2
    return linear_flops(dims.batch * dims.model_dim, dims.seq_len, dims.seq_len) * num_products


def head_flops(dims: Dims, num_classes: int = NUM_CLASSES) -> Passes:
    """Two linear maps of the mean token."""
    return linear_flops(dims.batch, dims.model_dim, dims.model_dim + num_classes)


def attention_bytes(dims: Dims, element_bytes: int) -> Passes:
    """q, k, v in, o and the row sums out; backward five in and three out."""
    tensor = dims.tokens * dims.model_dim * element_bytes
    rows = dims.tokens * dims.heads * LSE_BYTES
    return Passes(4 * tensor + rows, 8 * tensor + 3 * rows)


def delta_rule_bytes(dims: Dims, element_bytes: int) -> Passes:
    """q, k, v, beta in, o out; backward also the gradient of o in and four out."""
    rows = dims.tokens * dims.heads * element_bytes
    return Passes(4 * dims.head_dim + 1, 7 * dims.head_dim + 2) * rows


def linear_bytes(tokens: int, d_in: int, d_out: int, element_bytes: int) -> Passes:
    """Input and weight in, output out; backward both and the gradient in, two gradients out."""
    x, y, weight = tokens * d_in, tokens * d_out, d_in * d_out
    return Passes(x + y + weight, 2 * x + y + 2 * weight) * element_bytes


def scan_bytes(dims: Dims, scan: str, variant: str, element_bytes: int) -> Passes:
    """Split and merge by a given order, each as one kernel; the backward transposes both."""
    split, merge = _SCAN_TENSORS.get((scan, variant)) or _SCAN_TENSORS[scan, "fixed"]
    tensor = dims.tokens * dims.model_dim * element_bytes
    moved = float((split + merge) * tensor)
    num_moves = (split > 0) + (merge > 0)
    if scan == "random":
        moved += num_moves * dims.tokens * INDEX_BYTES
    if scan == "learnable":
        moved += num_moves * dims.seq_len**2 * element_bytes
    return Passes(moved, moved)


def head_bytes(dims: Dims, element_bytes: int, num_classes: int = NUM_CLASSES) -> Passes:
    """The position table, the tokens that are averaged, and the two maps of their mean."""
    read = (dims.seq_len + dims.tokens) * dims.model_dim * element_bytes
    hidden = linear_bytes(dims.batch, dims.model_dim, dims.model_dim, element_bytes)
    logits = linear_bytes(dims.batch, dims.model_dim, num_classes, element_bytes)
    return Passes(read, read) + hidden + logits


@lru_cache(maxsize=256)
def visited_fraction(canvas: Shape, tile: Shape, window: Shape, block: int) -> float:
    """Share of all pairs in those blocks of tokens, in tiled order, that hold an attended pair.

    Equals the attended fraction where the block divides the volume of a tile.

    Raises:
        ShapeError: as `ena_kernels.canvas.visible_tiles`.
    """
    import numpy as np

    volume, seq_len = num_tokens(tile), num_tokens(canvas)
    if volume % block == 0:
        return float(attended_fraction(canvas, tile, window))
    keys = visible_tiles(canvas, tile, window)
    first = np.arange(len(keys)) * volume // block
    last = (np.arange(1, len(keys) + 1) * volume - 1) // block
    touched = np.zeros((last[-1] + 1, last[-1] + 1), dtype=bool)
    steps = range(int((last - first).max()) + 1)
    for query_step in steps:
        rows = np.minimum(first + query_step, last)
        for key_step in steps:
            touched[rows[:, None], np.minimum(first[keys] + key_step, last[keys])] = True
    bounds = np.minimum(np.arange(len(touched) + 1) * block, seq_len)
    sizes = np.diff(bounds)
    return float(sizes @ touched @ sizes) / seq_len**2


def num_parameters(case: Case) -> int:
    """Weights of a layer or model; an operator has none."""
    if case.level == "op":
        return 0
    width = case.model_dim
    shared = 2 * MLP_RATIO * width**2 + (MLP_RATIO + 1) * width + 4 * width
    recurrent = width * case.heads + 3 * CONV_WIDTH * width + case.head_dim
    if case.scan == "learnable":
        recurrent += case.seq_len**2
    num_recurrent = case.depth - sum(_attends(case))
    total = case.depth * (shared + 4 * width**2) + num_recurrent * recurrent
    if case.level == "model":
        total += case.seq_len * width + 2 * width + (width + 1) * (width + NUM_CLASSES)
    return total


_CONTENDERS = {
    "op": ("sliding_tile", "attention", "delta_rule", "scan"),
    "layer": ("ena", "transformer", "linear"),
    "model": ("ena", "transformer", "linear"),
}
_SCAN_TENSORS = {
    ("uni", "fixed"): (0, 0),
    ("flip", "fixed"): (2, 2),
    ("flip", "official"): (2, 0),
    ("random", "fixed"): (2, 2),
    ("random", "official"): (2, 0),
    ("learnable", "fixed"): (2, 2),
    ("learnable", "official"): (2, 0),
    ("1d-shift", "fixed"): (2, 2),
    ("1d-shift", "official"): (0, 2),
    ("2d-shift", "fixed"): (2, 2),
    ("2d-shift", "official"): (0, 2),
    ("switch", "fixed"): (2, 2),
    ("switch", "official"): (0, 2),
    ("bi", "fixed"): (3, 3),
    ("cross", "fixed"): (5, 5),
    ("mh2d", "fixed"): (2, 2),
    ("mh3d", "fixed"): (2, 2),
}
"""Tensors read plus written by split and by merge; `official` only where it differs."""


def _case_flops(case: Case, attended: float) -> Passes:
    dims, (scan, variant) = _dims(case), _scan(case)
    if case.level == "op":
        match case.contender:
            case "delta_rule":
                return delta_rule_flops(dims)
            case "scan":
                # the order is given, so the backward is the forward transposed
                forward = scan_flops(dims, scan, variant).forward
                return Passes(forward, forward)
        return attention_flops(dims, attended)
    num_attending = sum(_attends(case))
    total = (
        mlp_flops(dims) * case.depth
        + attention_layer_flops(dims, attended) * num_attending
        + delta_net_flops(dims, scan, variant) * (case.depth - num_attending)
    )
    return total + head_flops(dims) if case.level == "model" else total


def _case_bytes(case: Case) -> Passes:
    dims, element_bytes = _dims(case), ELEMENT_BYTES[case.dtype]
    if case.level == "op":
        match case.contender:
            case "delta_rule":
                return delta_rule_bytes(dims, element_bytes)
            case "scan":
                return scan_bytes(dims, *_scan(case), element_bytes)
        return attention_bytes(dims, element_bytes)
    total = Passes()
    for attends in _attends(case):
        total += _block_bytes(dims, "uni" if attends else _scan(case)[0], attends, element_bytes)
    if case.level == "model":
        total += head_bytes(dims, element_bytes)
    if case.mode == "step":
        total += Passes(backward=ADAMW_PASSES * num_parameters(case) * element_bytes)
    return total


def _block_bytes(dims: Dims, scan: str, attends: bool, element_bytes: int) -> Passes:
    mixed, width = replace(dims, batch=dims.batch * scan_passes(scan)), dims.model_dim
    mixer = attention_bytes if attends else delta_rule_bytes
    total = mixer(mixed, element_bytes)
    maps = [
        (mixed.tokens, width, 3 * width),
        (mixed.tokens, width, width),
        (dims.tokens, width, MLP_RATIO * width),
        (dims.tokens, MLP_RATIO * width, width),
    ]
    if not attends:
        maps.append((mixed.tokens, width, dims.heads))
    for tokens, d_in, d_out in maps:
        total += linear_bytes(tokens, d_in, d_out, element_bytes)
    return total


def _attends(case: Case) -> tuple[bool, ...]:
    """Which blocks of a layer or model attend."""
    if case.contender == "ena":
        return attention_layers(case.depth, case.interleave or INTERLEAVES[0])
    return (case.contender == "transformer",) * case.depth


def _attended(case: Case) -> float:
    if case.tile is None or case.window is None:
        return 1.0
    return float(attended_fraction(case.canvas, case.tile, case.window))


def _visited(case: Case) -> float | None:
    """Share of the pairs that the case's impl computes; None where that is not known."""
    impls = case.impl.split("+")
    if "reference" in impls:
        return None
    if case.tile is None or case.window is None:
        return 1.0
    if impls[0] in ("flex", "flex_flash"):
        return visited_fraction(case.canvas, case.tile, case.window, FLEX_BLOCK)
    return _attended(case) if impls[0] == "eager" else None


def _scan(case: Case) -> tuple[str, str]:
    return case.scan or "uni", case.scan_variant or "fixed"


def _dims(case: Case) -> Dims:
    return Dims(batch=case.batch, heads=case.heads, seq_len=case.seq_len, head_dim=case.head_dim)
