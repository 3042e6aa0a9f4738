"""The quantities that claims are judged by: timed cases in, readings with intervals out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from bench import cost, units
from bench.case import Shape, parse_shape
from ena_kernels.canvas import attended_fraction
from reports import frames, scaling
from reports.claim import Where
from reports.claim_readings import (
    PLACE,
    SOFTWARE,
    Ends,
    Reading,
    allows,
    chosen,
    curves,
    ends_of,
    fastest,
    pairs,
    quotient,
    reading,
    time_ratio,
    timed,
)
from reports.exponents import line
from reports.token_windows import token_wise_waste

Record = dict[str, Any]

_SWEEP = (*PLACE, "contender", "scan", "scan_variant", "interleave", "canvas")
_SWEEP_POINTS = 4
"""Sparsities that a sweep has at least."""


def readings(quantity: str, cases: Sequence[Record], where: Where) -> list[Reading]:
    """All readings of a quantity.

    Args:
        quantity: A name in `QUANTITIES`.
        cases: Records of `frames.tidy`.
    """
    return QUANTITIES[quantity](timed(cases), where)


def _anchored(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    """Each case with the Transformer or the attention that it is compared with."""
    same = ("case_id", *frames.SETTING, *SOFTWARE, "timer")
    own = {(c["run_id"], *(c[n] for n in same)): c for c in cases}
    others = {tuple(c[n] for n in same): c for c in cases}
    found = []
    for case in chosen(cases, where):
        key = (case["anchor_case_id"], *(case[n] for n in same[1:]))
        anchor = own.get((case["run_id"], *key)) or others.get(key)
        if anchor is not None:
            found.append((case, anchor))
    return found


def _with_speedups(cases: Sequence[Record], where: Where) -> list[Record]:
    """Cases that have an anchor, with `gain`: their speed-up and its interval."""
    return [
        case | {"gain": time_ratio(anchor, case), "anchor_case": anchor}
        for case, anchor in _anchored(cases, where)
    ]


def _speedup(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = _with_speedups(cases, where)
    return [reading(c, *c["gain"], behind=[c["anchor_case"]]) for c in found]


def _most_speedup(cases: Sequence[Record], where: Where) -> list[Reading]:
    """The largest of each curve; its interval is that of the maximum of all of its lengths.

    Curves that end before the last length that a check allows do not tell their largest.
    """
    found = []
    for curve in curves(_with_speedups(cases, where)):
        if math.isfinite(where.max_len) and curve[-1]["seq_len"] < where.max_len:
            continue
        best = max(curve, key=lambda c: c["gain"][0])
        ends = tuple(max(c["gain"][1][i] for c in curve) for i in (0, 1))
        behind = [x for c in curve for x in (c, c["anchor_case"])]
        found.append(reading(best, best["gain"][0], (ends[0], ends[1]), behind=behind))
    return found


def _speedup_rise(cases: Sequence[Record], where: Where) -> list[Reading]:
    steps = [s for g in curves(_with_speedups(cases, where)) for s in pairwise(g)]
    return [
        reading(b, *quotient(b["gain"], a["gain"]), behind=[b["anchor_case"], a, a["anchor_case"]])
        for a, b in steps
    ]


def _memory_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [
        reading(c, c["peak_memory_mib"] / anchor["peak_memory_mib"], behind=[anchor])
        for c, anchor in _anchored(cases, where)
        if c["peak_memory_mib"] and anchor["peak_memory_mib"]
    ]


def _fit(curve: Sequence[Record]) -> scaling.Exponent | None:
    """Over the three largest lengths; fewer have none."""
    if len({c["seq_len"] for c in curve}) < scaling.TOP_SIZES:
        return None
    lows, highs = zip(*(ends_of(c) for c in curve), strict=True)
    times = [c["latency_ms"] for c in curve]
    return scaling.exponent([c["seq_len"] for c in curve], times, lows, highs)


def _exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    fits = [(g, _fit(g)) for g in curves(chosen(cases, where))]
    return [
        reading(g[-1], f.value, (f.lo, f.hi), whole=True, behind=g[-scaling.TOP_SIZES :])
        for g, f in fits
        if f
    ]


def _exponent_difference(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = []
    for curve in curves(_with_speedups(cases, where)):
        anchors = [c["anchor_case"] for c in curve]
        own, anchor = _fit(curve), _fit(anchors)
        if own and anchor:
            ends = own.lo - anchor.hi, own.hi - anchor.lo
            top = [*curve[-scaling.TOP_SIZES :], *anchors[-scaling.TOP_SIZES :]]
            difference = own.value - anchor.value
            found.append(reading(curve[-1], difference, ends, whole=True, behind=top))
    return found


def _memory_exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    kept = [c for c in cases if allows(where, c) and c["peak_memory_mib"]]
    found = []
    for curve in curves(fastest(kept, "impl"), "impl"):
        lengths = [c["seq_len"] for c in curve]
        fit = scaling.exponent(lengths, [c["peak_memory_mib"] for c in curve])
        if fit and len(set(lengths)) >= scaling.TOP_SIZES:
            top = curve[-scaling.TOP_SIZES :]
            found.append(reading(curve[-1], fit.value, whole=True, behind=top))
    return found


def _line_deviation(cases: Sequence[Record], where: Where) -> list[Reading]:
    """The largest distance of a sparsity sweep from its straight line, over the time itself."""
    tiled = [c for c in chosen(cases, where) if c["sparsity_target"] and c["sparsity"]]
    found = []
    for sweep in _sweeps(tiled):
        if len(sweep) < _SWEEP_POINTS:
            continue
        attended, times = [1 - c["sparsity"] for c in sweep], [c["latency_ms"] for c in sweep]
        slope, constant = line(attended, times)
        distances = [
            abs(constant + slope * f - t) / t for f, t in zip(attended, times, strict=True)
        ]
        worst = max(distances)
        whole = reading(sweep[0], worst, (worst, worst), behind=sweep)
        found.append(replace(whole, series=_sweep_name(sweep)))
    return found


def _sweep_name(sweep: Sequence[Record]) -> str:
    """`ENA 25% to 95% (triton)`."""
    targets = sorted({c["sparsity_target"] for c in sweep})
    low, high = units.percent_label(targets[0]), units.percent_label(targets[-1])
    first = next(c for c in sweep if c["sparsity_target"] == targets[0])
    return str(first["series"]).replace(low, f"{low} to {high}", 1)


def _sweeps(cases: Sequence[Record]) -> list[list[Record]]:
    """Cases that differ in sparsity only."""
    return frames.grouped(cases, *_SWEEP)


def _gain_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = []
    for sweep in _sweeps(chosen(cases, where)):
        at = {c["sparsity_target"]: c for c in sweep}
        if {0.0, 0.7, 0.9} <= at.keys():
            late, early = time_ratio(at[0.7], at[0.9]), time_ratio(at[0.0], at[0.7])
            found.append(reading(at[0.7], *quotient(late, early), behind=[at[0.0], at[0.9]]))
    return found


def _dense_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    wanted = Where(levels=where.levels, contenders=where.contenders, sparsities=(0.0,))
    same = ("canvas", "scan", "scan_variant", "interleave")
    return pairs(chosen(cases, where), chosen(cases, wanted), *same)


def _dense_ratio(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [
        reading(c, *time_ratio(full, c), behind=[full]) for c, full in _dense_pairs(cases, where)
    ]


def _dense_ratio_rise(cases: Sequence[Record], where: Where) -> list[Reading]:
    paired = [c | {"full": full} for c, full in _dense_pairs(cases, where)]
    return [
        reading(
            b,
            *quotient(time_ratio(b["full"], b), time_ratio(a["full"], a)),
            behind=[b["full"], a, a["full"]],
        )
        for curve in curves(paired)
        for a, b in pairwise(curve)
    ]


def _uni_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    wanted = Where(levels=where.levels, contenders=where.contenders, scans=("uni",))
    others = [c for c in chosen(cases, where) if c["scan"] != "uni"]
    return pairs(others, chosen(cases, wanted), "contender", "canvas", "sparsity_target")


def _scan_time(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [reading(c, *time_ratio(c, uni), behind=[uni]) for c, uni in _uni_pairs(cases, where)]


def _scan_memory(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [
        reading(c, c["activations_mib"] / uni["activations_mib"], behind=[uni])
        for c, uni in _uni_pairs(cases, where)
        if c["activations_mib"] and uni["activations_mib"]
    ]


def _scan_exponent(cases: Sequence[Record], where: Where) -> list[Reading]:
    """How what a scan adds to uni grows; lengths at which it adds nothing for certain are out."""
    added = []
    for case, uni in _uni_pairs(cases, where):
        (low, high), (uni_low, uni_high) = ends_of(case), ends_of(uni)
        ends: Ends = (low - uni_high, high - uni_low)
        if ends[0] > 0:
            extra = case["latency_ms"] - uni["latency_ms"]
            added.append(case | {"extra": extra, "extra_ends": ends, "uni": uni})
    found = []
    for curve in curves(added):
        if len({c["seq_len"] for c in curve}) < scaling.TOP_SIZES:
            continue
        lows, highs = zip(*(c["extra_ends"] for c in curve), strict=True)
        lengths = [c["seq_len"] for c in curve]
        fit = scaling.exponent(lengths, [c["extra"] for c in curve], lows, highs)
        if fit:
            behind = [x for c in curve[-scaling.TOP_SIZES :] for x in (c, c["uni"])]
            ends = fit.lo, fit.hi
            found.append(reading(curve[-1], fit.value, ends, whole=True, behind=behind))
    return found


def _stacked_pairs(cases: Sequence[Record], where: Where) -> list[tuple[Record, Record]]:
    kept = chosen(cases, where)
    plain = [c for c in kept if c["interleave"] == "linear-first"]
    stacked = [c for c in kept if c["interleave"] == "stacked"]
    return pairs(stacked, plain, "canvas", "scan", "scan_variant", "sparsity_target")


def _stacked_time(cases: Sequence[Record], where: Where) -> list[Reading]:
    found = _stacked_pairs(cases, where)
    return [reading(c, *time_ratio(c, plain), behind=[plain]) for c, plain in found]


def _stacked_memory(cases: Sequence[Record], where: Where) -> list[Reading]:
    return [
        reading(c, c["peak_memory_mib"] / plain["peak_memory_mib"], behind=[plain])
        for c, plain in _stacked_pairs(cases, where)
        if c["peak_memory_mib"] and plain["peak_memory_mib"]
    ]


def _efficiency(cases: Sequence[Record], where: Where) -> list[Reading]:
    """Speed-up times attended fraction: 1 if time followed the pairs that are left."""
    found = []
    for case in _with_speedups(cases, where):
        share = 1.0 - (case["sparsity"] or 0.0)
        value, (low, high) = case["gain"]
        ends = low * share, high * share
        found.append(reading(case, value * share, ends, behind=[case["anchor_case"]]))
    return found


def _doubling(cases: Sequence[Record], where: Where) -> list[Reading]:
    steps = [s for g in curves(chosen(cases, where)) for s in pairwise(g)]
    doubled = [(a, b) for a, b in steps if b["seq_len"] == 2 * a["seq_len"]]
    return [reading(b, *time_ratio(b, a), behind=[a]) for a, b in doubled]


def _geometries(
    cases: Sequence[Record], where: Where, waste: Callable[[Shape, Shape, Shape], float | None]
) -> list[Reading]:
    """One exact reading for each canvas, tile and window that leaves out something."""
    found: dict[tuple[Shape, ...], Reading] = {}
    for case in cases:
        if allows(where, case) and case["tile"] and case["window"] and case["sparsity"]:
            shapes = tuple(parse_shape(case[n]) for n in ("canvas", "tile", "window"))
            value = None if shapes in found else waste(*shapes)
            if value is not None:
                found[shapes] = replace(reading(case, value), case_ids=())
    return list(found.values())


def _touched_waste(canvas: Shape, tile: Shape, window: Shape) -> float:
    visited = cost.visited_fraction(canvas, tile, window, cost.FLEX_BLOCK)
    return visited / float(attended_fraction(canvas, tile, window))


def _is_aligned(tile: Shape) -> bool:
    return math.prod(tile) % cost.FLEX_BLOCK == 0


def _aligned_waste(cases: Sequence[Record], where: Where) -> list[Reading]:
    return _geometries(
        cases, where, lambda c, t, w: _touched_waste(c, t, w) if _is_aligned(t) else None
    )


def _unaligned_waste(cases: Sequence[Record], where: Where) -> list[Reading]:
    return _geometries(
        cases, where, lambda c, t, w: None if _is_aligned(t) else _touched_waste(c, t, w)
    )


def _token_wise_waste(cases: Sequence[Record], where: Where) -> list[Reading]:
    return _geometries(cases, where, token_wise_waste)


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
    "token_wise_waste": _token_wise_waste,
}
