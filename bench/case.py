"""One point of the grid: frozen, validated, with a readable path and a stable id."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from bench.errors import UsageError
from ena_kernels.canvas import attended_fraction, num_tokens, tile_grid, window_for_sparsity
from ena_kernels.errors import ShapeError
from ena_kernels.scans.catalog import SCANS, VARIANTS

LEVELS = ("op", "layer", "model")
MODES = ("fwd", "bwd", "fwdbwd", "step")
DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICES = ("cpu", "cuda")
INTERLEAVES = ("linear-first", "attention-first", "stacked")
PERMUTES = ("qkvo", "io", "fused")
DEFAULT_TILES = {1: (128,), 2: (8, 16), 3: (4, 4, 8), 4: (2, 4, 4, 4)}

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is measured, completely: two equal cases are the same measurement.

    `tile`, `window` and `sparsity_target` are None for contenders without Sliding Tile Attention;
    `scan` and `scan_variant` are None for contenders without a linear recurrence; `interleave` and
    `permute` are None unless both kinds of layers, or an attention layer on tiles, are present.
    Given a `sparsity_target` and no `window`, `window_for_sparsity` chooses the window.
    """

    level: str
    contender: str
    impl: str
    mode: str
    canvas: Shape
    batch: int = 1
    heads: int = 4
    head_dim: int = 64
    depth: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    tile: Shape | None = None
    window: Shape | None = None
    sparsity_target: float | None = None
    scan: str | None = None
    scan_variant: str | None = None
    interleave: str | None = None
    permute: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)
        for name in ("batch", "heads", "head_dim", "depth"):
            _check_positive(name, getattr(self, name))
        for name in ("canvas", "tile", "window"):
            _check_sides(name, getattr(self, name))
        if self.sparsity_target is not None:
            check_sparsity(self.sparsity_target)
        if self.tile is not None:
            try:
                tile_grid(self.canvas, self.tile)
                window = self.window
                if window is None:
                    target = self.sparsity_target or 0.0
                    window = window_for_sparsity(self.canvas, self.tile, target)
                    object.__setattr__(self, "window", window)
                attended_fraction(self.canvas, self.tile, window)
            except ShapeError as err:
                raise UsageError.from_shape(err) from err

    @property
    def ndim(self) -> int:
        return len(self.canvas)

    @property
    def seq_len(self) -> int:
        return num_tokens(self.canvas)

    @property
    def model_dim(self) -> int:
        """Width of the hidden state: heads times head_dim."""
        return self.heads * self.head_dim

    @property
    def sparsity(self) -> float | None:
        """The achieved sparsity, 1 - attended fraction; None where nothing could be left out."""
        if self.tile is None or self.window is None:
            return 0.0 if self.sparsity_target == 0.0 else None
        return 1.0 - float(attended_fraction(self.canvas, self.tile, self.window))

    @property
    def tiles_attended(self) -> int | None:
        """Pairs of a query tile and a key tile it sees, per head; None where nothing is tiled."""
        if self.tile is None or self.window is None:
            return None
        num_tiles = math.prod(tile_grid(self.canvas, self.tile))
        return int(attended_fraction(self.canvas, self.tile, self.window) * num_tiles**2)

    @property
    def case_id(self) -> str:
        """Sixteen hex digits, the same for equal cases on every machine and Python."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def case_path(self) -> str:
        """For people, plots and `-k` filters: every field that differs from nothing."""
        parts = [f"B{self.batch}-H{self.heads}", shape_text(self.canvas), f"D{self.head_dim}"]
        if self.level != "op":
            parts.append(f"N{self.depth}")
        if self.tile is not None:
            parts.append(f"t{shape_text(self.tile)}")
        if self.sparsity_target is not None:
            parts.append(f"s{self.sparsity_target:.2f}")
        elif self.window is not None:
            parts.append(f"w{shape_text(self.window)}")
        parts += [p for p in (self.scan, self.scan_variant) if p not in (None, "fixed")]
        if self.interleave not in (None, "linear-first"):
            parts.append(self.interleave)
        if self.permute not in (None, "io"):
            parts.append(self.permute)
        parts += [self.dtype, self.device]
        return f"{self.level}/{self.contender}/{self.impl}/{self.mode}/{'-'.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        names = {f.name for f in fields(cls)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in names
        }
        return cls(**known)

    def with_(self, **changes: Any) -> Self:
        """A copy with some fields changed; a changed canvas or tile chooses its window anew."""
        if {
            "canvas",
            "tile",
            "sparsity_target",
        } & changes.keys() and self.sparsity_target is not None:
            changes.setdefault("window", None)
        return replace(self, **changes)


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "level": LEVELS,
    "mode": MODES,
    "dtype": DTYPES,
    "device": DEVICES,
    "scan": (*SCANS, None),
    "scan_variant": (*VARIANTS, None),
    "interleave": (*INTERLEAVES, None),
    "permute": (*PERMUTES, None),
}


def parse_shape(text: str, *, name: str = "canvas") -> Shape:
    """Read `16x32x32` as (16, 32, 32), slowest axis first.

    Raises:
        UsageError: anything but positive whole numbers joined by `x`.
    """
    sides = text.strip().lower().split("x")
    if not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(
            f"{name} {text!r} is not a grid of tokens",
            expected="positive whole numbers joined by x, slowest axis first",
            try_="4096, 64x64 or 16x32x32",
        )
    return tuple(int(side) for side in sides)


def shape_text(shape: Shape | None) -> str:
    """Write (16, 32, 32) as `16x32x32`."""
    return "x".join(map(str, shape)) if shape is not None else ""


def check_sparsity(value: float) -> float:
    """Return `value` if it is in [0, 1); raise UsageError otherwise."""
    if not (math.isfinite(value) and 0.0 <= value < 1.0):
        raise UsageError(
            f"sparsity {value:g} is outside [0, 1)",
            expected="a fraction of key tiles to leave out: 0 attends to all, 0.9 to one in ten",
            try_="--sparsity 0.7",
        )
    return value


def _check_choice(name: str, value: str | None, allowed: tuple[str | None, ...]) -> None:
    if value not in allowed:
        known = [a for a in allowed if a is not None]
        raise UsageError(
            f"{name} {value!r} is unknown",
            expected=f"one of {', '.join(known)}",
            try_=f"--{name.replace('_', '-')} {known[0]}",
        )


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"{name} {value!r} is not a positive whole number",
            expected=f"{name} of at least 1",
            try_=f"--{name.replace('_', '-')} 1",
        )


def _check_sides(name: str, value: Shape | None) -> None:
    if value is None and name != "canvas":
        return
    if not value or not all(isinstance(s, int) and s > 0 for s in value):
        raise UsageError(
            f"{name} {value!r} is not a grid of tokens",
            expected="a tuple of positive whole numbers, slowest axis first",
            try_=f"{name}=(64, 64)",
        )
