"""What tells several runs apart when they share one figure: a name, the GPU, the commit, a version.

Runs whose directories or files somebody named, and no two alike, have those names. Any others have
the first facts, in the order of `_facts`, that it takes to tell all of them apart. What else
differs between them is for `differences` to say: a reader must know that two GPUs were also
measured with two versions of torch.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench import units

Record = dict[str, Any]
Key = tuple[Any, ...]
Fact = tuple[str, Callable[[Record], str]]

DIRTY = " + changes"
KEY = ("run_id", "device", "device_id", "device_name")
"""What was measured by one process on one device; a run on two GPUs has two labels."""
_VENDORS = ("NVIDIA ", "AMD ", "Intel(R) ", "Intel ")
_NAME = re.compile(r"(?P<name>.+)-[0-9a-f]{6}")
"""A run as `bench.session.new_run_id` calls it: its directory, and digits that are its own."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
"""A directory that nobody named."""
_NAMED = ("torch", "triton", "cuda", "driver", "python", "ena_bench")


def attach(cases: Sequence[Record]) -> None:
    """Set `run_label` on every case: None unless several runs measured the same thing.

    Args:
        cases: One record per case and run, with the columns of `bench.row.Row`.
    """
    found = _labels(cases)
    for case in cases:
        case["run_label"] = found.get(_key(case))


def labels(cases: Sequence[Record]) -> dict[str, str]:
    """Run to label in order of time; of a run on several devices the labels are joined.

    Empty where one run needs no telling apart.
    """
    joined: dict[str, list[str]] = {}
    for key, label in _labels(cases).items():
        joined.setdefault(str(key[0]), []).append(label)
    return {run: " and ".join(dict.fromkeys(parts)) for run, parts in joined.items()}


def differences(cases: Sequence[Record]) -> list[str]:
    """In what the labelled runs differ without their labels saying so, one text for each fact."""
    groups = _groups(cases)
    found = _labels(cases)
    lines = []
    for name, text in _facts([g[0] for g in groups.values()]) if found else []:
        values: dict[str, list[str]] = {}
        for key in found:
            values.setdefault(text(groups[key][0]), []).append(found[key])
        is_said = all(_said(name, value) in label for value in values for label in values[value])
        if len(values) > 1 and not is_said:
            parts = [f"{value} in {_few(runs)}" for value, runs in values.items()]
            lines.append(f"{name}: {', '.join(parts)}")
    return lines


def changed(before: Record, after: Record) -> list[str]:
    """What differs between two runs but the commit, as far as both know it.

    Such as `torch 2.11.0 to 2.12.0`.

    Args:
        before, after: Any case of either.
    """
    settings = ("threads", "num_threads"), ("timer", "timer")
    facts = [
        *_facts([before, after]),
        *((name, _version_text(column)) for name, column in settings),
    ]
    told = [(n, text(before), text(after)) for n, text in facts if n not in ("commit", "ena_bench")]
    known = [t for t in told if units.NOT_AVAILABLE not in t]
    return [f"{n} {old} to {new}" for n, old, new in known if old != new]


def commit_text(case: Mapping[str, Any]) -> str:
    """`a1b2c3d`, `a1b2c3d + changes` for a dirty tree, or `no commit`."""
    commit = case["git_commit"]
    dirty = DIRTY if case["git_dirty"] else ""
    return f"{str(commit)[:7]}{dirty}" if commit else "no commit"


def started(cases: Iterable[Mapping[str, Any]]) -> str:
    """When the first of the cases was measured, UTC, ISO 8601; empty where that is unknown."""
    return min((str(c["started_at"]) for c in cases if c["started_at"]), default="")


def _labels(cases: Sequence[Record]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    groups = _groups(cases)
    kinds = dict.fromkeys(key[1] for key in groups)
    for kind in kinds:
        own = {key: group for key, group in groups.items() if key[1] == kind}
        if _need_labels(own):
            found |= _told_apart(own)
    return {key: found[key] for key in groups if key in found}


def _groups(cases: Sequence[Record]) -> dict[Key, list[Record]]:
    """Cases by run and device, the earliest first."""
    groups: dict[Key, list[Record]] = {}
    for case in cases:
        groups.setdefault(_key(case), []).append(case)
    return dict(sorted(groups.items(), key=lambda item: (started(item[1]), str(item[0]))))


def _key(case: Mapping[str, Any]) -> Key:
    return tuple(case[name] for name in KEY)


def _need_labels(groups: Mapping[Key, Sequence[Record]]) -> bool:
    """Whether a case was measured twice, or on two devices of which one figure would be made."""
    seen: set[Any] = set()
    for group in groups.values():
        own = {c["case_id"] or c["case_path"] for c in group}
        if own & seen:
            return True
        seen |= own
    return len({key[-1] for key in groups}) > 1


def _told_apart(groups: Mapping[Key, list[Record]]) -> dict[Key, str]:
    """The shortest run of facts that makes all labels different."""
    firsts = [group[0] | {"started_at": started(group)} for group in groups.values()]
    parts: list[list[str]] = [[] for _ in firsts]
    for name, text in (*_names(firsts), *_facts(firsts), *_TIMES):
        known = len({tuple(p) for p in parts})
        values = [_said(name, text(first)) for first in firsts]
        if len({(*p, v) for p, v in zip(parts, values, strict=True)}) > known:
            parts = [[*p, v] for p, v in zip(parts, values, strict=True)]
    return dict(zip(groups, (", ".join(p) for p in parts), strict=True))


def _names(firsts: Sequence[Record]) -> list[Fact]:
    """What runs are called, if somebody called one of them anything and no two of them alike."""
    found = {str(first["run_id"]): _name(first) for first in firsts}
    are_chosen = any(not _TIME.fullmatch(name) for name in found.values())
    are_told = all(found.values()) and len(set(found.values())) == len(found) > 1
    return [("", _name)] if are_chosen and are_told else []


def _name(case: Mapping[str, Any]) -> str:
    """Of its directory or file now, else when it was measured; empty where that is unknown."""
    if case.get("run_name"):
        return str(case["run_name"])
    match = _NAME.fullmatch(str(case["run_id"]))
    return match["name"] if match else ""


def _facts(firsts: Sequence[Record]) -> list[Fact]:
    """In the order in which they are used: what matters most to a timing comes first."""
    libraries = sorted({name for first in firsts for name in _libraries(first)})
    return [
        ("device", _device_text(firsts)),
        ("commit", commit_text),
        *((name, _version_text(name)) for name in _NAMED),
        *((name, _library_text(name)) for name in libraries),
        ("host", lambda c: str(c["host_id"] or units.NOT_AVAILABLE)[:6]),
    ]


_TIMES: tuple[Fact, ...] = (
    ("", lambda c: str(c["started_at"])[:10]),
    ("", lambda c: str(c["started_at"])[11:16]),
    ("run", lambda c: str(c["run_id"])),
    ("device", lambda c: str(c["device_id"])),
)


def _said(name: str, value: str) -> str:
    return value if name in ("", "device", "commit") else f"{name} {value}"


def _device_text(firsts: Sequence[Record]) -> Callable[[Record], str]:
    """Without vendor and memory, as long as that keeps devices apart."""
    names = list(dict.fromkeys(str(f["device_name"] or units.NOT_AVAILABLE) for f in firsts))
    short = {name: _model(name) for name in names}
    is_clear = len(set(short.values())) == len(short)
    return lambda c: (short if is_clear else {}).get(
        str(c["device_name"]), str(c["device_name"] or units.NOT_AVAILABLE)
    )


def _model(name: str) -> str:
    """`H100` of `NVIDIA H100 80GB HBM3`."""
    for vendor in _VENDORS:
        name = name.removeprefix(vendor)
    return name.partition(" ")[0]


def _version_text(name: str) -> Callable[[Record], str]:
    return lambda c: _known(c[name])


def _library_text(name: str) -> Callable[[Record], str]:
    return lambda c: _libraries(c).get(name, "absent")


def _libraries(case: Mapping[str, Any]) -> dict[str, str]:
    try:
        found = json.loads(case["libraries"] or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _known(value: Any) -> str:
    return units.NOT_AVAILABLE if value is None else str(value)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} runs"
