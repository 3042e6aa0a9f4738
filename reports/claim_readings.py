"""Readings: numbers with intervals that the checks of claims look at, and the cases behind them.

Of several implementations of one thing the fastest counts at every point. An interval of a ratio is
the widest that the intervals of both medians allow, so one that leaves out 1 means that they do
not overlap.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import frames
from reports.claim import Where
from reports.speedup import latency_interval

Record = dict[str, Any]
Ends = tuple[float, float]

SOFTWARE = ("git_commit", "git_dirty", "torch", "triton", "libraries")
PLACE = ("level", "mode", *frames.SETTING, *SOFTWARE, "timer", "ndim")
"""What cases that are compared with each other share: no ratio spans machines or versions."""
VARIANT = ("contender", "scan", "scan_variant", "interleave", "permute", "sparsity_target")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A number with its interval, and where it holds; `seq_len` is None for a whole curve.

    `case_ids` are the cases that it was made of, none where it follows from the geometry alone;
    `is_timed` tells a number made of latencies from one of memory; it `is_sure` unless a latency
    has too few samples.
    """

    series: str
    level: str
    mode: str
    ndim: int | None
    setting: str
    device_name: str | None
    software: str
    scan: str | None
    sparsity: float | None
    impl: str
    seq_len: int | None
    value: float
    lo: float
    hi: float
    case_ids: tuple[str, ...]
    is_timed: bool = True
    is_sure: bool = True


def timed(cases: Sequence[Record]) -> list[Record]:
    """Cases with a latency that counts: of several canvases of one length the squarest."""
    return [c for c in cases if frames.is_timed(c) and c["is_squarest"] and c["seq_len"]]


def allows(where: Where, case: Mapping[str, Any]) -> bool:
    """Whether a check looks at a case."""
    listed = (
        (where.levels, "level"),
        (where.modes, "mode"),
        (where.contenders, "contender"),
        (where.impls, "impl"),
        (where.scans, "scan"),
        (where.sparsities, "sparsity_target"),
        (where.ndims, "ndim"),
        (where.tiles, "tile"),
    )
    attended = 1.0 - (case["sparsity"] or 0.0)
    return (
        all(not allowed or case[name] in allowed for allowed, name in listed)
        and where.min_len <= case["seq_len"] <= where.max_len
        and where.attended[0] <= attended <= where.attended[1]
    )


def chosen(cases: Sequence[Record], where: Where) -> list[Record]:
    """The fastest implementation of everything that a check looks at, the shortest first."""
    return fastest([c for c in cases if allows(where, c)])


def fastest(cases: Sequence[Record], *more: str) -> list[Record]:
    """One case of each point, and of each value of the columns `more`."""
    best: dict[tuple[Any, ...], Record] = {}
    for case in sorted(cases, key=lambda c: float(c["latency_ms"])):
        window = case["window"] if case["sparsity_target"] is None else None
        key = (*(case[n] for n in (*PLACE, *VARIANT, "canvas", *more)), window)
        best.setdefault(key, case)
    return sorted(best.values(), key=lambda c: int(c["seq_len"]))


def curves(cases: Sequence[Record], *more: str) -> list[list[Record]]:
    """Cases that differ in length only, the shortest first."""
    marked = [
        c | {"fixed_window": c["window"] if c["sparsity_target"] is None else None} for c in cases
    ]
    return frames.grouped(marked, *PLACE, *VARIANT, "fixed_window", *more)


def pairs(
    cases: Iterable[Record], others: Iterable[Record], *names: str
) -> list[tuple[Record, Record]]:
    """Each case with the one of `others` that shares its place and the named columns."""
    same = (*PLACE, *names)
    known = {tuple(c[n] for n in same): c for c in others}
    keyed = [(c, tuple(c[n] for n in same)) for c in cases]
    return [(c, known[key]) for c, key in keyed if key in known]


def reading(
    case: Record,
    value: float,
    ends: Ends | None = None,
    *,
    whole: bool = False,
    behind: Iterable[Record] = (),
) -> Reading:
    """A reading at the place of a case.

    Args:
        ends: Its interval; without one the number is exact, and of memory.
        whole: It speaks of the curve that the case ends.
        behind: The other cases that it was made of.
    """
    low, high = ends or (value, value)
    made_of = (case, *behind)
    shared = ("series", "level", "mode", "ndim", "setting", "device_name", "scan", "impl")
    return Reading(
        **{n: case[n] for n in shared},
        software=", ".join(str(case[n])[:12] for n in ("git_commit", "torch") if case[n]),
        sparsity=case["sparsity_target"],
        seq_len=None if whole else case["seq_len"],
        value=value,
        lo=low,
        hi=high,
        case_ids=tuple(dict.fromkeys(str(c["case_id"]) for c in made_of)),
        is_timed=ends is not None,
        is_sure=ends is None or all(c["is_sure"] for c in made_of),
    )


def ends_of(case: Record) -> Ends:
    """The interval of a latency; `frames` widens that of few samples, this that of none known."""
    return latency_interval(case) if case["num_samples"] else frames.widened(case)


def time_ratio(above: Record, below: Record) -> tuple[float, Ends]:
    """The ratio of two medians and the widest that their intervals allow."""
    (a, b), (c, d) = ends_of(above), ends_of(below)
    return above["latency_ms"] / below["latency_ms"], (a / d, b / c)


def quotient(above: tuple[float, Ends], below: tuple[float, Ends]) -> tuple[float, Ends]:
    """The ratio of two positive readings and the widest that their intervals allow."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = above, below
    return a / b, (a_low / b_high, a_high / b_low)
