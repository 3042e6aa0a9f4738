"""Plain values as TOML text that `tomllib` reads back unchanged."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(document: Mapping[str, Any]) -> str:
    """Write a document: one line per value, `table.key = value`, and a list's tables one per line.

    A key whose value is None is left out, for TOML has no null; tuples are read back as lists.

    Raises:
        TypeError: a value that TOML cannot hold.
    """
    return "".join(f"{key} = {text}\n" for key, text in _lines(document, ""))


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        key = prefix + _key(name)
        if isinstance(value, Mapping) and any(v is not None for v in value.values()):
            yield from _lines(value, f"{key}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            rows = "".join(f"  {_inline(item)},\n" for item in value)
            yield key, f"[\n{rows}]"
        elif value is not None:
            yield key, _inline(value)


def _inline(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _quoted(value)
        case list() | tuple():
            return f"[{', '.join(map(_inline, value))}]"
        case Mapping():
            pairs = [f"{_key(k)} = {_inline(v)}" for k, v in value.items() if v is not None]
            return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"TOML cannot hold {type(value).__name__} {value!r:.80}")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's; only the delete character has to be escaped in addition
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
