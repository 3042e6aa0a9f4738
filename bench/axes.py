"""The axes of a grid: how each value is read and checked, what it is when nobody says."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.case import (
    DEVICES,
    DTYPES,
    INTERLEAVES,
    LEVELS,
    MODES,
    PERMUTES,
    Shape,
    check_sparsity,
    parse_shape,
)
from bench.errors import UsageError
from ena_kernels.scans.catalog import SCANS, VARIANTS
from ena_kernels.sizes import SIZES

BEST, AVAILABLE = "best", "available"
Block = dict[str, list[Any]]
_MEANT = {
    "forward": "fwd",
    "backward": "bwd",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "float": "float32",
    "fp64": "float64",
    "double": "float64",
}
"""What other tools call a value, and what it is called here."""
_BINARY = {"k": 2**10, "m": 2**20}


def parse_block(block: Mapping[str, Any], *, where: str) -> Block:
    """Check a table of axes; a single value stands for a list of one.

    Raises:
        UsageError: an unknown axis, an empty one, a value that the axis does not take, or both a
            canvas and a length.
    """
    parsed: Block = {}
    for axis, values in block.items():
        check_known(f"{where}: axis", axis, _PARSERS)
        listed = values if isinstance(values, list | tuple) else [values]
        if not listed:
            raise UsageError(
                f"{where}: axis {axis} is empty",
                expected="at least one value",
                try_=f"leave {axis} out to get its default",
            )
        parsed[axis] = [_PARSERS[axis](value, axis) for value in listed]
    if {"canvas", "seq_len"} <= parsed.keys():
        raise UsageError(
            f"{where}: canvas and seq_len are both named",
            expected="a canvas, or a length that a canvas is chosen for",
            try_="leave seq_len out; the canvas has a length",
        )
    return parsed


def check_known(what: str, value: Any, known: Iterable[Any]) -> None:
    """Raise a UsageError that names the closest known value unless `value` is known."""
    names = list(known)
    if value not in names:
        meant = _MEANT.get(str(value).lower())
        close = difflib.get_close_matches(str(value), [str(n) for n in names], n=1)
        if meant is not None and meant in names:
            close = [meant]
        raise UsageError(
            f"{what} {value!r} is unknown",
            expected=f"one of {', '.join(map(str, names))}",
            try_=close[0] if close else str(names[0] if names else "ena-bench list contenders"),
        )


def _name(value: Any, axis: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{axis} {value!r} is not a name", expected="text", try_=f'{axis} = "ena"')
    return value


def _one_of(known: Iterable[str]) -> Callable[[Any, str], str]:
    def parse(value: Any, axis: str) -> str:
        check_known(axis, value, known)
        return str(value)

    return parse


def _count(value: Any, axis: str) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(
            f"{axis} {value!r} is not a positive whole number",
            expected=f"{axis} of at least 1",
            try_=f"{axis} = 1",
        )
    return number


def _length(value: Any, axis: str) -> int:
    """A count of tokens, which may be written `4k` for 4096 or `1m` for 1048576."""
    text = str(value).strip().lower()
    if isinstance(value, str) and text[:-1].isdecimal() and text[-1] in _BINARY:
        value = int(text[:-1]) * _BINARY[text[-1]]
    try:
        return _count(value, axis)
    except UsageError as err:
        raise UsageError(
            err.wrong,
            expected="tokens, at least 1: 4096, or 4k for the same",
            try_="--seq-len 4096",
        ) from None


def _fraction(value: Any, axis: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(
            f"{axis} {value!r} is not a number",
            expected="a fraction in [0, 1)",
            try_=f"{axis} = 0.7",
        ) from None
    return check_sparsity(number)


def _shape(value: Any, axis: str) -> Shape:
    if isinstance(value, list):
        value = "x".join(map(str, value))
    return parse_shape(str(value), name=axis)


_PARSERS: dict[str, Callable[[Any, str], Any]] = {
    "when": _one_of(DEVICES),
    "level": _one_of(LEVELS),
    "contender": _name,
    "impl": _name,
    "mode": _one_of(MODES),
    "canvas": _shape,
    "seq_len": _length,
    "ndim": _count,
    "tile": _shape,
    "window": _shape,
    "sparsity": _fraction,
    "scan": _one_of(SCANS),
    "scan_variant": _one_of(VARIANTS),
    "interleave": _one_of(INTERLEAVES),
    "permute": _one_of(PERMUTES),
    "batch": _count,
    "heads": _count,
    "head_dim": _count,
    "size": _one_of(SIZES),
    "depth": _count,
    "dtype": _one_of(DTYPES),
}
DEFAULTS: dict[str, Any] = {
    "level": "layer",
    "contender": "ena",
    "impl": BEST,
    "mode": "fwd",
    "sparsity": 0.7,
    "scan": "uni",
    "scan_variant": "fixed",
    "interleave": INTERLEAVES[0],
    "permute": "io",
    "batch": 1,
}
AXES = tuple(axis for axis in _PARSERS if axis != "when")
