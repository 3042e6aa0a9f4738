"""How time grows with length, and from which length on a series beats the Transformer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import frames

TOP_SIZES = 3
"""How many of the largest lengths the exponent is fitted to: small ones are bound by launches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponent:
    """`gamma` in latency ~ seq_len ** gamma, fitted to the largest lengths."""

    value: float
    lo: float
    hi: float
    from_len: int
    to_len: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossover:
    """Where a series overtakes its anchor.

    `verdict` is `always` or `never` faster at the measured lengths, `from` a length on, or `until`
    a length. `seq_len` is None unless the verdict is `from` or `until`; `lo` and `hi` are the
    lengths at which the ends of the ratio's interval cross, None if they do not.
    """

    verdict: str
    seq_len: float | None = None
    lo: float | None = None
    hi: float | None = None


def exponent(
    lengths: Sequence[int],
    values: Sequence[float],
    lows: Sequence[float] | None = None,
    highs: Sequence[float] | None = None,
    *,
    top: int = TOP_SIZES,
) -> Exponent | None:
    """Least-squares slope of log(value) over log(length) at the `top` largest lengths.

    The interval is the range of slopes that values anywhere between `lows` and `highs` can give,
    which contains the slope with at least the confidence of those intervals taken jointly.
    None for fewer than two lengths.
    """
    points = sorted(zip(lengths, values, lows or values, highs or values, strict=True))[-top:]
    xs = [math.log(p[0]) for p in points]
    if len(set(xs)) < 2:
        return None
    mean = sum(xs) / len(xs)
    total = sum((x - mean) ** 2 for x in xs)
    weights = [(x - mean) / total for x in xs]
    slope, lo, hi = 0.0, 0.0, 0.0
    for weight, (_, value, low, high) in zip(weights, points, strict=True):
        ends = weight * math.log(low), weight * math.log(high)
        slope += weight * math.log(value)
        lo, hi = lo + min(ends), hi + max(ends)
    return Exponent(value=slope, lo=lo, hi=hi, from_len=points[0][0], to_len=points[-1][0])


def crossover_length(lengths: Sequence[int], ratios: Sequence[float]) -> float | None:
    """The length at which the ratio last passes 1, log-linear between measured lengths."""
    points = sorted(zip(lengths, ratios, strict=True))
    crossing = None
    for (x0, r0), (x1, r1) in zip(points, points[1:], strict=False):
        if (r0 < 1) != (r1 < 1):
            share = math.log(r0) / (math.log(r0) - math.log(r1))
            crossing = math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
    return crossing


def crossover(
    lengths: Sequence[int],
    ratios: Sequence[float],
    lows: Sequence[float] | None = None,
    highs: Sequence[float] | None = None,
) -> Crossover | None:
    """Judge a series by its speed-ups; None without any."""
    if not ratios:
        return None
    if all(r >= 1 for r in ratios):
        return Crossover(verdict="always")
    if all(r < 1 for r in ratios):
        return Crossover(verdict="never")
    wins = _wins_at_the_end(lengths, ratios)
    late, early = (
        crossover_length(lengths, ends) if _wins_at_the_end(lengths, ends) == wins else None
        for ends in (lows or ratios, highs or ratios)
    )
    return Crossover(
        verdict="from" if wins else "until",
        seq_len=crossover_length(lengths, ratios),
        lo=early if wins else late,
        hi=late if wins else early,
    )


def _wins_at_the_end(lengths: Sequence[int], ratios: Sequence[float]) -> bool:
    return max(zip(lengths, ratios, strict=True))[1] >= 1


def scaling_table(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One record per level, mode, setting, dimensionality and series with a measured case.

    Keys: the identity of the series, `exponent` (Exponent or None), `crossover` (Crossover or
    None), and at the largest length measured: `top_*` for length, latency, speed-up with interval,
    anchor, and memory with its ratio to the anchor.
    """
    keys = ["level", "mode", *frames.SETTING, "ndim", "series"]
    if frame.empty:
        return []
    found = []
    for _, part in frame.groupby(keys, sort=False, dropna=False):
        timed = [r for r in frames.records(part) if frames.is_timed(r) and r["is_squarest"]]
        timed = [r for r in timed if r["seq_len"]]
        if timed:
            found.append(_summary(sorted(timed, key=lambda r: int(r["seq_len"]))))
    return found


def _summary(timed: list[dict[str, Any]]) -> dict[str, Any]:
    paired = [r for r in timed if r["speedup"] is not None]
    top = timed[-1]
    is_anchor = all(r["series"] == r["anchor"] for r in paired)
    names = ("level", "mode", "setting", "device_name", "ndim", "series", "contender")
    return {
        **{name: top[name] for name in names},
        "exponent": exponent(
            _column(timed, "seq_len"),
            _column(timed, "latency_ms"),
            _ends_of(timed, "latency_ms_lo"),
            _ends_of(timed, "latency_ms_hi"),
        ),
        "crossover": None if is_anchor else _crossover(paired),
        "num_lengths": len(timed),
        "num_pairs": len(paired),
        "top_seq_len": top["seq_len"],
        "top_latency_ms": top["latency_ms"],
        "top_memory_mib": top["peak_memory_mib"],
        **{
            f"top_{name}": top[name]
            for name in ("speedup", "speedup_lo", "speedup_hi", "memory_ratio", "anchor")
        },
        "is_anchor": bool(paired) and is_anchor,
    }


def _crossover(paired: list[dict[str, Any]]) -> Crossover | None:
    lows, highs = _column(paired, "speedup_lo"), _column(paired, "speedup_hi")
    return crossover(_column(paired, "seq_len"), _column(paired, "speedup"), lows, highs)


def _column(timed: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [record[name] for record in timed]


def _ends_of(timed: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [record[name] or record["latency_ms"] for record in timed]
