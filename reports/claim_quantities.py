"""The quantities that claims are judged by: timed cases in, readings with intervals out.

Of several implementations of one thing the fastest counts at every point. An interval of a ratio is
the widest that the intervals of both medians allow, so one that leaves out 1 means that they do
not overlap.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench import cost
from bench.case import parse_shape
from reports import frames, scaling
from reports.claim_rules import Where
from reports.exponents import line

Record = dict[str, Any]

_PLACE = ("level", "mode", *frames.SETTING, "timer", "ndim")
_VARIANT = ("contender", "scan", "scan_variant", "interleave", "permute", "sparsity_target")
_SWEEP_POINTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A number with its interval, and where it holds; `seq_len` is None for a whole curve."""

    series: str
    level: str
    mode: str
    ndim: int | None
    setting: str
    device_name: str | None
    seq_len: int | None
    value: float
    lo: float
    hi: float


def readings(quantity: str, cases: Sequence[Record], where: Where) -> list[Reading]:
    """All readings of a quantity.

    Args:
        quantity: A name in `QUANTITIES`.
        cases: Records of `frames.tidy`.
    """
    timed = [c for c in cases if frames.is_timed(c) and c["is_squarest"] and c["seq_len"]]
    return QUANTITIES[quantity](timed, where)


def _allows(where: Where, case: Record) -> bool:
    listed = (
        (where.levels, "level"),
        (where.modes, "mode"),
        (where.contenders, "contender"),
        (where.impls, "impl"),
        (where.scans, "scan"),
        (where.sparsities, "sparsity_target"),
        (where.ndims, "ndim"),
    )
    attended = 1.0 - (case["sparsity"] or 0.0)
    return (
        all(not allowed or case[name] in allowed for allowed, name in listed)
        and where.min_len <= case["seq_len"] <= where.max_len
        and where.attended[0] <= attended <= where.attended[1]
    )


def _chosen(cases: Sequence[Record], where: Where) -> list[Record]:
    return _fastest([c for c in cases if _allows(where, c)])


def _fastest(cases: Sequence[Record], *more: str) -> list[Record]:
    best: dict[tuple[Any, ...], Record] = {}
    for case in sorted(cases, key=lambda c: float(c["latency_ms"])):
        window = case["window"] if case["sparsity_target"] is None else None
        key = (*(case[n] for n in (*_PLACE, *_VARIANT, "canvas", *more)), window)
        best.setdefault(key, case)
    return sorted(best.values(), key=lambda c: int(c["seq_len"]))


def _groups(cases: Sequence[Record], *names: str) -> list[list[Record]]:
    found: dict[tuple[Any, ...], list[Record]] = {}
    for case in cases:
        found.setdefault(tuple(case[n] for n in names), []).append(case)
    return list(found.values())


def _curves(cases: Sequence[Record], *more: str) -> list[list[Record]]:
    """Cases that differ in length only, the shortest first."""
    marked = [
        c | {"fixed_window": c["window"] if c["sparsity_target"] is None else None} for c in cases
    ]
    return _groups(marked, *_PLACE, *_VARIANT, "fixed_window", *more)


def _reading(
    case: Record, value: float, ends: tuple[float, float] | None = None, *, whole: bool = False
) -> Reading:
    low, high = ends or (value, value)
    shared = ("series", "level", "mode", "ndim", "setting", "device_name")
    seq_len = None if whole else case["seq_len"]
    return Reading(**{n: case[n] for n in shared}, seq_len=seq_len, value=value, lo=low, hi=high)


def _ends(case: Record, name: str) -> tuple[float, float]:
    return case[f"{name}_lo"] or case[name], case[f"{name}_hi"] or case[name]


def _time_ratio(above: Record, below: Record) -> tuple[float, tuple[float, float]]:
    (a, b), (c, d) = _ends(above, "latency_ms"), _ends(below, "latency_ms")
    return above["latency_ms"] / below["latency_ms"], (a / d, b / c)


def _with_speedup(cases: Sequence[Record], where: Where) -> list[Record]:
    return [c for c in _chosen(cases, where) if c["speedup"] is not None]


def _speedup(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [_reading(c, c["speedup"], _ends(c, "speedup")) for c in _with_speedup(cases, where)]


def _most_speedup(cases: Sequence[Record], where: Where) -> list[Reading]:
    best = [max(g, key=lambda c: c["speedup"]) for g in _curves(_with_speedup(cases, where))]
    return [_reading(c, c["speedup"], _ends(c, "speedup")) for c in best]


def _speedup_rise(cases: Sequence[Record], where: Where) -> list[Reading]:
    steps = [s for g in _curves(_with_speedup(cases, where)) for s in pairwise(g)]
    return [
        _rise(b, (a["speedup"], _ends(a, "speedup")), (b["speedup"], _ends(b, "speedup")))
        for a, b in steps
    ]


def _rise(
    case: Record,
    before: tuple[float, tuple[float, float]],
    after: tuple[float, tuple[float, float]],
) -> Reading:
    ends = after[1][0] / before[1][1], after[1][1] / before[1][0]
    return _reading(case, after[0] / before[0], ends)


def _memory_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    chosen = _chosen(cases, where)
    return [_reading(c, c["memory_ratio"]) for c in chosen if c["memory_ratio"] is not None]


def _fit(curve: Sequence[Record]) -> scaling.Exponent | None:
    """Over the three largest lengths; fewer have none."""
    if len({c["seq_len"] for c in curve}) < scaling.TOP_SIZES:
        return None
    lows, highs = zip(*(_ends(c, "latency_ms") for c in curve), strict=True)
    times = [c["latency_ms"] for c in curve]
    return scaling.exponent([c["seq_len"] for c in curve], times, lows, highs)


def _exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    fits = [(g[-1], _fit(g)) for g in _curves(_chosen(cases, where))]
    return [_reading(c, f.value, (f.lo, f.hi), whole=True) for c, f in fits if f]


def _exponent_difference(cases: Sequence[Record], where: Where) -> list[Reading]:
    by_id = {c["case_id"]: c for c in cases}
    found = []
    for curve in _curves(_with_speedup(cases, where)):
        own = _fit(curve)
        anchor = _fit([by_id[c["anchor_case_id"]] for c in curve if c["anchor_case_id"] in by_id])
        if own and anchor:
            ends = own.lo - anchor.hi, own.hi - anchor.lo
            found.append(_reading(curve[-1], own.value - anchor.value, ends, whole=True))
    return found


def _memory_exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    kept = [c for c in cases if _allows(where, c) and c["peak_memory_mib"]]
    found = []
    for curve in _curves(_fastest(kept, "impl"), "impl"):
        lengths = [c["seq_len"] for c in curve]
        fit = scaling.exponent(lengths, [c["peak_memory_mib"] for c in curve])
        if fit and len(set(lengths)) >= scaling.TOP_SIZES:
            found.append(_reading(curve[-1], fit.value, whole=True))
    return found


def _line_deviation(cases: Sequence[Record], where: Where) -> list[Reading]:
    chosen = [c for c in _chosen(cases, where) if c["sparsity_target"] and c["sparsity"]]
    found = []
    for sweep in _sweeps(chosen):
        if len(sweep) < _SWEEP_POINTS:
            continue
        attended, times = [1 - c["sparsity"] for c in sweep], [c["latency_ms"] for c in sweep]
        slope, constant = line(attended, times)
        distances = [
            abs(constant + slope * f - t) / t for f, t in zip(attended, times, strict=True)
        ]
        found.append(_reading(sweep[0], max(distances)))
    return found


def _sweeps(cases: Sequence[Record]) -> list[list[Record]]:
    """Cases that differ in sparsity only."""
    others = [n for n in _VARIANT if n not in ("sparsity_target", "permute")]
    return _groups(cases, *_PLACE, *others, "canvas")


def _gain_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = []
    for sweep in _sweeps(_chosen(cases, where)):
        at = {c["sparsity_target"]: c for c in sweep}
        if {0.0, 0.7, 0.9} <= at.keys():
            early, early_ends = _time_ratio(at[0.0], at[0.7])
            late, late_ends = _time_ratio(at[0.7], at[0.9])
            ends = late_ends[0] / early_ends[1], late_ends[1] / early_ends[0]
            found.append(_reading(at[0.7], late / early, ends))
    return found


def _dense_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    chosen = _chosen(cases, where)
    wanted = Where(levels=where.levels, contenders=where.contenders, sparsities=(0.0,))
    names = (*_PLACE, "canvas", "scan", "scan_variant", "interleave")
    dense = {tuple(c[n] for n in names): c for c in _chosen(cases, wanted)}
    keys = [tuple(c[n] for n in names) for c in chosen]
    return [(dense[k], c) for k, c in zip(keys, chosen, strict=True) if k in dense]


def _dense_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [_reading(c, *_time_ratio(full, c)) for full, c in _dense_pairs(cases, where)]


def _dense_ratio_rise(cases: Sequence[Record], where: Where) -> list[Reading]:
    full = {c["case_id"]: full for full, c in _dense_pairs(cases, where)}
    curves = _curves([c for _, c in _dense_pairs(cases, where)])
    return [
        _rise(b, _time_ratio(full[a["case_id"]], a), _time_ratio(full[b["case_id"]], b))
        for curve in curves
        for a, b in pairwise(curve)
    ]


def _uni_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    wanted = Where(levels=where.levels, contenders=where.contenders, scans=("uni",))
    names = (*_PLACE, "contender", "canvas", "sparsity_target")
    uni = {tuple(c[n] for n in names): c for c in _chosen(cases, wanted)}
    chosen = [c for c in _chosen(cases, where) if c["scan"] != "uni"]
    keys = [tuple(c[n] for n in names) for c in chosen]
    return [(c, uni[k]) for k, c in zip(keys, chosen, strict=True) if k in uni]


def _scan_time(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [_reading(c, *_time_ratio(c, uni)) for c, uni in _uni_pairs(cases, where)]


def _scan_memory(cases: Sequence[Record], where: Where) -> list[Reading]:
    pairs = [(c["activations_mib"], u["activations_mib"], c) for c, u in _uni_pairs(cases, where)]
    return [_reading(c, own / uni) for own, uni, c in pairs if own and uni]


def _scan_exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    extra = {c["case_id"]: c["latency_ms"] - u["latency_ms"] for c, u in _uni_pairs(cases, where)}
    found = []
    for curve in _curves([c for c, _ in _uni_pairs(cases, where)]):
        kept = [c for c in curve if extra[c["case_id"]] > 0]
        fit = scaling.exponent([c["seq_len"] for c in kept], [extra[c["case_id"]] for c in kept])
        if fit and len(kept) >= scaling.TOP_SIZES:
            found.append(_reading(kept[-1], fit.value, whole=True))
    return found


def _stacked_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    chosen = _chosen(cases, where)
    names = (*_PLACE, "canvas", "scan", "scan_variant", "sparsity_target")
    plain = {tuple(c[n] for n in names): c for c in chosen if c["interleave"] == "linear-first"}
    stacked = [c for c in chosen if c["interleave"] == "stacked"]
    keys = [tuple(c[n] for n in names) for c in stacked]
    return [(c, plain[k]) for k, c in zip(keys, stacked, strict=True) if k in plain]


def _stacked_time(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [_reading(c, *_time_ratio(c, plain)) for c, plain in _stacked_pairs(cases, where)]


def _stacked_memory(cases: Sequence[Record], where: Where) -> list[Reading]:
    pairs = _stacked_pairs(cases, where)
    known = [(c, p) for c, p in pairs if c["peak_memory_mib"] and p["peak_memory_mib"]]
    return [_reading(c, c["peak_memory_mib"] / p["peak_memory_mib"]) for c, p in known]


def _efficiency(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = []
    for case in _with_speedup(cases, where):
        share = 1.0 - (case["sparsity"] or 0.0)
        low, high = _ends(case, "speedup")
        found.append(_reading(case, case["speedup"] * share, (low * share, high * share)))
    return found


def _doubling(cases: Sequence[Record], where: Where) -> list[Reading]:
    steps = [s for g in _curves(_chosen(cases, where)) for s in pairwise(g)]
    doubled = [(a, b) for a, b in steps if b["seq_len"] == 2 * a["seq_len"]]
    return [_reading(b, *_time_ratio(b, a)) for a, b in doubled]


def _waste(cases: Sequence[Record], where: Where, *, aligned: bool) -> list[Reading]:
    """Exact, from the geometry: no time enters."""
    found: dict[tuple[Any, ...], Reading] = {}
    for case in cases:
        if not (_allows(where, case) and case["tile"] and case["window"] and case["sparsity"]):
            continue
        canvas, tile, window = (parse_shape(case[n]) for n in ("canvas", "tile", "window"))
        if (math.prod(tile) % cost.FLEX_BLOCK == 0) == aligned:
            visited = cost.visited_fraction(canvas, tile, window, cost.FLEX_BLOCK)
            reading = _reading(case, visited / (1.0 - case["sparsity"]))
            found.setdefault((canvas, tile, window), reading)
    return list(found.values())


def _aligned_waste(cases: Sequence[Record], where: Where) -> list[Reading]:
    return _waste(cases, where, aligned=True)


def _unaligned_waste(cases: Sequence[Record], where: Where) -> list[Reading]:
    return _waste(cases, where, aligned=False)


QUANTITIES: dict[str, Callable[[Sequence[Record], Where], list[Reading]]] = {
    "speedup": _speedup,
    "most_speedup": _most_speedup,
    "speedup_rise": _speedup_rise,
    "memory_ratio": _memory_ratio,
    "exponent": _exponent,
    "exponent_difference": _exponent_difference,
    "memory_exponent": _memory_exponent,
    "line_deviation": _line_deviation,
    "gain_ratio": _gain_ratio,
    "dense_ratio": _dense_ratio,
    "dense_ratio_rise": _dense_ratio_rise,
    "scan_time": _scan_time,
    "scan_memory": _scan_memory,
    "scan_exponent": _scan_exponent,
    "stacked_time": _stacked_time,
    "stacked_memory": _stacked_memory,
    "efficiency": _efficiency,
    "doubling": _doubling,
    "aligned_waste": _aligned_waste,
    "unaligned_waste": _unaligned_waste,
}
