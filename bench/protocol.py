"""What parent and worker say to each other: one JSON document per line, over a pipe.

Plain values, tuples and dataclasses arrive as they were sent, NaN and infinities included. A
dataclass is written as its import path and its fields, so neither side lists the types.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from numbers import Integral, Real
from typing import Any

from bench.errors import EnaBenchError

MAX_LINE_BYTES = 64 * 2**20
_TYPE, _FIELDS, _TUPLE = "$type", "$fields", "$tuple"
# what json, an import of a made-up name, and a dataclass that checks its fields can raise
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    ImportError,
    AttributeError,
    RecursionError,
    EnaBenchError,
)


class ProtocolError(ValueError):
    """A line is not what the other side would have written."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One line, newline included.

    Raises:
        TypeError: a value is neither plain, nor a tuple, nor a dataclass of such.
    """
    return json.dumps(_plain(message), separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message of one line.

    Raises:
        ProtocolError: the line is not a message.
    """
    try:
        message = json.loads(line, object_hook=_revive)
    except _UNREADABLE as err:
        raise ProtocolError(f"{_shown(line)} is not a message: {err}") from err
    if not isinstance(message, dict):
        raise ProtocolError(f"{_shown(line)} is not a message: no JSON object")
    return message


class LineBuffer:
    """Bytes as they come, lines as they end."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their newlines.

        Raises:
            ProtocolError: a line is longer than any message.
        """
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._pending) + lines[0]
            self._pending.clear()
        self._pending += rest
        if len(self._pending) > MAX_LINE_BYTES:
            raise ProtocolError(f"{_shown(bytes(self._pending[:200]))} has no end")
        return lines


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        return {
            _TYPE: path,
            _FIELDS: {f.name: _plain(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Mapping):
        return {_key(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(v) for v in value]}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    # numpy's scalars are registered with these, so they travel as Python's own
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} cannot be sent: {value!r:.80}")


def _key(key: Any) -> str:
    if not isinstance(key, str) or key in (_TYPE, _FIELDS, _TUPLE):
        raise TypeError(f"{key!r} cannot be a key of a message")
    return key


def _revive(found: dict[str, Any]) -> Any:
    if _TUPLE in found:
        return tuple(found[_TUPLE])
    if _TYPE not in found:
        return found
    module, _, name = found[_TYPE].partition(":")
    kind = getattr(import_module(module), name)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise TypeError(f"{found[_TYPE]} is no dataclass")
    return kind(**found[_FIELDS])


def _shown(line: bytes) -> str:
    text = line[:80].decode(errors="backslashreplace")
    return repr(text + ("..." if len(line) > 80 else ""))
