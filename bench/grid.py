"""Axes to cases: presets, a user's own TOML, overrides, and the reasons why a case cannot run.

A grid is a list of blocks; a block is the product of its axes. An axis that means nothing to a
contender (a scan for a Transformer) is left out of its cases, and equal cases are planned once.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import product
from pathlib import Path
from typing import Any

from bench import units
from bench.axes import AVAILABLE, BEST, DEFAULTS, Block, check_known, parse_block
from bench.case import DEFAULT_TILES, DEVICES, LEVELS, Case, shape_text
from bench.contenders import Contender, check_registered, import_failure, registry
from bench.errors import UsageError
from bench.spots import spots
from ena_kernels.sizes import SIZES


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A case; if it cannot run here, why; if it is not quite what was asked for, how it differs."""

    case: Case
    reason: str | None = None
    warning: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Blocks of axes, and measuring settings that differ from the defaults."""

    name: str
    description: str
    blocks: tuple[Block, ...]
    measure: Mapping[str, Any] = field(default_factory=dict)


def preset_names() -> list[str]:
    """The presets that ship with ena-bench, alphabetically."""
    return sorted(
        p.name.removesuffix(".toml")
        for p in files("bench").joinpath("presets").iterdir()
        if p.name.endswith(".toml")
    )


def preset_file(name: str) -> Traversable:
    """Where a shipped preset is."""
    return files("bench") / "presets" / f"{name}.toml"


def load_preset(name: str) -> Grid:
    """Read a shipped preset.

    Raises:
        UsageError: there is no preset of that name.
    """
    check_known("preset", name, preset_names())
    return parse_grid(preset_file(name).read_text(), name=name)


def load_file(path: Path) -> Grid:
    """Read a grid from a TOML file.

    Raises:
        UsageError: the file cannot be read or is not a grid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(
            f"grid {path} cannot be read: {err}",
            expected="a TOML file with [[cases]] tables",
            try_="ena-bench list presets, and copy one to start from",
        ) from err
    return parse_grid(text, name=path.stem)


def parse_grid(text: str, *, name: str) -> Grid:
    """Read a grid from TOML text; every value is checked here, before anything is measured.

    Raises:
        UsageError: malformed TOML, unknown tables or axes, values that no axis takes.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise UsageError(
            f"grid {name} is not TOML: {err}",
            expected="lines like seq_len = [1024, 4096] under a [[cases]] heading",
            try_="ena-bench list presets, and copy one to start from",
        ) from err
    for key in document:
        check_known(f"grid {name}: table", key, ["description", "measure", "cases"])
    blocks = document.get("cases", [])
    if not isinstance(blocks, list) or not blocks or not all(isinstance(b, dict) for b in blocks):
        raise UsageError(
            f"grid {name} has no cases",
            expected="at least one [[cases]] table",
            try_='[[cases]] and below it contender = "ena"',
        )
    return Grid(
        name=name,
        description=str(document.get("description", "")),
        blocks=tuple(_BASE | parse_block(block, where=f"grid {name}") for block in blocks),
        measure=document.get("measure", {}),
    )


def override(grid: Grid, axes: Mapping[str, Sequence[str]]) -> Grid:
    """Put command line values in place of a grid's own.

    `level` and `contender` select among the blocks (and a contender that no block has gets a block
    of its own); every other axis replaces the values of every block.

    Raises:
        UsageError: an unknown axis or value.
    """
    given = {axis: values for axis, values in axes.items() if values}
    changes = parse_block(given, where="command line")
    blocks = [selected for block in grid.blocks if (selected := _select(block, changes))]
    present = {name for block in blocks for name in block["contender"]}
    for name in changes.get("contender", []):
        if name not in present:
            blocks += _blocks_for(name, grid.blocks, changes)
    if not blocks:
        levels = " or ".join(changes.get("level", []))
        raise UsageError(
            f"grid {grid.name} has nothing at level {levels}",
            expected=f"one of {', '.join(sorted({lv for b in grid.blocks for lv in b['level']}))}",
            try_="name contenders too, such as --contender attention",
        )
    return replace(grid, blocks=tuple(_replace_axes(block, changes) for block in blocks))


def expand(grid: Grid, *, device: str) -> list[Planned]:
    """All cases of a grid on a device, each once, in the grid's order.

    Raises:
        UsageError: a named contender, impl or library does not exist here, a named tile does not
            divide the canvas, a canvas has no tile of its rank, or no length has a canvas.
    """
    planned: dict[str, Planned] = {}
    for block in grid.blocks:
        if device in block.get("when", DEVICES):
            for plan in _expand_block(block, device=device):
                planned.setdefault(plan.case.case_id, plan)
    if not planned:
        raise UsageError(
            f"grid {grid.name} has no case for {device}",
            expected="at least one block for this device and these axes",
            try_="ena-bench run --dry-run --preset quick",
        )
    return list(planned.values())


def _expand_block(block: Block, *, device: str) -> Iterator[Planned]:
    known = registry()
    levels, names = block["level"], block["contender"]
    for name in names:
        check_registered(
            f"contender at level {' or '.join(levels)}",
            name,
            sorted({key[1] for key in known if key[0] in levels}),
        )
    for level, name in product(levels, names):
        choices = {impl: c for (lv, n, impl), c in known.items() if (lv, n) == (level, name)}
        if not choices:
            continue
        axes = {axis for contender in choices.values() for axis in contender.axes}
        inner = [_values(block, axis, axes, device) for axis in _INNER]
        for spot, *values in product(spots(block, tiled="tile" in axes), *inner):
            point = dict(zip(_INNER, values, strict=True))
            point |= _dimensions(level, point) | {"level": level, "contender": name}
            point |= {"device": device, "canvas": spot.canvas}
            point |= {"tile": spot.tile, "window": spot.window}
            point |= {"untiled": spot.reason}
            for plan in _choose(choices, point):
                yield replace(plan, warning=spot.warning or _off_target(plan.case))


def _off_target(case: Case) -> str | None:
    """What a window of whole tiles is far from on a canvas of few tiles."""
    target, achieved = case.sparsity_target, case.sparsity
    if target is None or achieved is None or abs(achieved - target) <= FAR_FROM_TARGET:
        return None
    return (
        f"sparsity {units.percent(achieved)} was measured where {units.percent(target)} was asked "
        f"for: no window of tiles comes nearer on canvas {shape_text(case.canvas)}; name a larger "
        "canvas or a smaller tile"
    )


def _choose(choices: dict[str, Contender], point: dict[str, Any]) -> Iterator[Planned]:
    """Turn an impl, `best` or `available` into planned cases."""
    impl, device = point["impl"], point["device"]
    if impl not in (BEST, AVAILABLE):
        check_registered(f"impl of {point['contender']} at level {point['level']}", impl, choices)
        _check_installed(choices[impl])
        yield _plan(choices[impl], point)
        return
    ranked = sorted(
        (rank, contender.impl)
        for contender in choices.values()
        if (rank := contender.preference(device)) is not None and not contender.missing_libraries()
    )
    if not ranked:
        raise _nothing_to_choose(choices, point)
    # what nothing can run is a row of an impl that has tiles, whose reason is the one to tell
    ranked.sort(key=lambda pair: bool(point["untiled"]) and "tile" not in choices[pair[1]].axes)
    plans = [_plan(choices[name], point) for _, name in ranked]
    runnable = [plan for plan in plans if plan.reason is None] or plans[:1]
    yield from runnable if impl == AVAILABLE else runnable[:1]


def _nothing_to_choose(choices: dict[str, Contender], point: dict[str, Any]) -> UsageError:
    """Libraries are absent, or no impl is for this device at all."""
    name, device = point["contender"], point["device"]
    absent = [c for c in choices.values() if c.preference(device) is not None]
    if absent:
        told = [f"{c.impl} needs {_package(c)} ({c.lacks()})" for c in absent]
        return UsageError(
            f"{name} cannot run here without libraries: {', '.join(told)}",
            expected=f"the libraries of one impl of {name}",
            try_=f"pip install {_package(absent[0])}",
        )
    return UsageError(
        f"{name} has no impl for {device} to choose",
        expected=f"--impl with one of {', '.join(sorted(choices))}, or another device",
        try_="ena-bench list contenders",
    )


def _package(contender: Contender) -> str:
    """What to install for the first library that it misses."""
    library = contender.missing_libraries()[0].split("|")[0]
    return PACKAGES.get(library, library)


def _plan(contender: Contender, point: dict[str, Any]) -> Planned:
    """A case of one contender; what means nothing to it is None."""
    values = {name: v for name, v in point.items() if name not in ("sparsity", "untiled")}
    values |= {"impl": contender.impl, "sparsity_target": point["sparsity"]}
    for axis, names in _FIELDS_OF_AXIS.items():
        if axis not in contender.axes:
            values |= dict.fromkeys(names)
    if values["window"] is not None:
        values["sparsity_target"] = None
    case = Case(**values)
    untiled = point["untiled"] if "tile" in contender.axes else None
    return Planned(case=case, reason=untiled or contender.why_not(case))


def _values(block: Block, axis: str, axes: set[str], device: str) -> list[Any]:
    """A block's values of an axis, or the default; one None where it means nothing."""
    owner = _OWNERS.get(axis)
    if owner is not None and owner not in axes:
        return [None]
    default = {"dtype": "bfloat16" if device == "cuda" else "float32"} | DEFAULTS
    return block.get(axis, [default.get(axis)])


def _dimensions(level: str, point: dict[str, Any]) -> dict[str, Any]:
    """Heads, head_dim and depth: as named, else of the named size, else the level's usual ones."""
    size = SIZES[point.pop("size") or "base"]
    usual_depth = {"op": 1, "layer": 2, "model": size.depth}[level]
    return {
        "heads": point["heads"] or size.heads,
        "head_dim": point["head_dim"] or size.head_dim,
        "depth": point["depth"] or usual_depth,
    }


def _select(block: Block, changes: Block) -> Block | None:
    """The block narrowed to the chosen levels and contenders; None if nothing is left of it."""
    narrowed = dict(block)
    for axis in ("level", "contender"):
        if axis in changes:
            narrowed[axis] = [value for value in block[axis] if value in changes[axis]]
            if not narrowed[axis]:
                return None
    return narrowed


def _blocks_for(name: str, blocks: Sequence[Block], changes: Block) -> list[Block]:
    """Blocks for a contender that a grid lacks: the grid's own at its levels, else a plain one."""
    levels = sorted({level for level, n, _ in registry() if n == name}, key=LEVELS.index)
    levels = [level for level in levels if level in changes.get("level", LEVELS)]
    shared = [
        block | {"contender": [name], "level": common}
        for block in blocks
        if (common := [level for level in block["level"] if level in levels])
    ]
    return shared or [{"contender": [name], "level": levels or changes.get("level", ["layer"])}]


def _replace_axes(block: Block, changes: Block) -> Block:
    """The block with its other axes replaced; what a new value rules out of the old ones goes."""
    changed = dict(block)
    for axis, values in changes.items():
        if axis in ("level", "contender"):
            continue
        if axis in ("seq_len", "ndim") and "canvas" in changed and "canvas" not in changes:
            canvases = changed.pop("canvas")
            changed.setdefault("ndim", sorted({len(canvas) for canvas in canvases}))
            changed.setdefault("seq_len", sorted({math.prod(canvas) for canvas in canvases}))
        for other in _RULED_OUT.get(axis, ()):
            if other not in changes:
                changed.pop(other, None)
        changed[axis] = list(values)
    if "tile" not in changes and {"canvas", "ndim"} & changes.keys():
        _complete_tiles(changed)
    return changed


def _complete_tiles(block: Block) -> None:
    """Add the default tile for each new number of axes that the grid's own tiles do not have."""
    ndims = {*block.get("ndim", ()), *(len(canvas) for canvas in block.get("canvas", ()))}
    tiles = block.get("tile", [])
    lacking = sorted(ndims - {len(tile) for tile in tiles})
    if tiles and lacking:
        block["tile"] = [*tiles, *(DEFAULT_TILES[n] for n in lacking if n in DEFAULT_TILES)]


def _check_installed(contender: Contender) -> None:
    missing = contender.missing_libraries()
    if missing:
        package = missing[0].split("|")[0]
        why, again = import_failure(package), "--force-reinstall "
        raise UsageError(
            f"impl {contender.impl} needs {package}, which "
            + (f"cannot be imported: {why}" if why else "is not installed"),
            expected="the library to be importable",
            try_=f"pip install {again if why else ''}{_package(contender)}",
        )


_BASE: Block = {"level": [DEFAULTS["level"]], "contender": [DEFAULTS["contender"]]}
FAR_FROM_TARGET = 0.1
"""How far an achieved sparsity may be from the one asked for without a word."""
_RULED_OUT = {
    "canvas": ("seq_len", "ndim"),
    "sparsity": ("window",),
    "size": ("heads", "head_dim", "depth"),
}
_INNER = (
    "impl",
    "mode",
    "sparsity",
    "scan",
    "scan_variant",
    "interleave",
    "permute",
    "batch",
    "heads",
    "head_dim",
    "size",
    "depth",
    "dtype",
)
_OWNERS = {
    "sparsity": "sparsity",
    "scan": "scan",
    "scan_variant": "scan",
    "interleave": "interleave",
    "permute": "permute",
}
_FIELDS_OF_AXIS = {
    "sparsity": ("sparsity_target",),
    "tile": ("tile", "window"),
    "scan": ("scan", "scan_variant"),
    "interleave": ("interleave",),
    "permute": ("permute",),
}
PACKAGES = {
    "fla": "flash-linear-attention",
    "flash_attn.flash_attn_interface": "flash-attn",
    "flash_attn.cute": "flash-attn-4",
    "natten": "natten",
}
