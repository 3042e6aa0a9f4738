"""How time grows with length, and from which length on a series beats the Transformer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd

from reports import frames
from reports.exponents import Growth, memory_growth, time_growth
from reports.speedup import speedup_interval

Record = dict[str, Any]

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
    lengths at which the ends of the ratio's interval cross, None if they do not. At
    `unclear_lengths` that interval contains 1. At `unsure_lengths` there are too few samples, and
    nothing is judged from them; if that is everywhere, the verdict is `unsure`.
    """

    verdict: str
    seq_len: float | None = None
    lo: float | None = None
    hi: float | None = None
    unclear_lengths: tuple[int, ...] = ()
    unsure_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """One series of one level, mode, setting and dimensionality over all its lengths.

    `top_*` is measured at its largest length; `anchor`, speed-up and `memory_ratio` hold at
    `pair_seq_len`, the largest length at which its anchor was measured too (None without one).
    Either is sure if there were samples enough.
    """

    level: str
    mode: str
    setting: str
    device_name: str | None
    run_label: str | None
    ndim: int | None
    series: str
    contender: str
    is_anchor: bool
    time: Growth | None
    memory: Growth | None
    crossover: Crossover | None
    top_seq_len: int
    top_latency_ms: float
    is_top_sure: bool
    top_memory_mib: float | None
    pair_seq_len: int | None
    anchor: str | None
    speedup: float | None
    speedup_lo: float | None
    speedup_hi: float | None
    is_speedup_sure: bool | None
    memory_ratio: float | None

    @property
    def block(self) -> tuple[str, str, str, str | None, int | None]:
        """What it shares with the series that it is compared with."""
        return self.level, self.mode, self.setting, self.device_name, self.ndim


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


def crossing_lengths(lengths: Sequence[int], ratios: Sequence[float]) -> list[float]:
    """Every length at which the ratio passes 1, log-linear between measured lengths."""
    found = []
    for (x0, r0), (x1, r1) in pairwise(sorted(zip(lengths, ratios, strict=True))):
        if (r0 < 1) != (r1 < 1):
            share = math.log(r0) / (math.log(r0) - math.log(r1))
            found.append(math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0))))
    return found


def crossover_length(lengths: Sequence[int], ratios: Sequence[float]) -> float | None:
    """The length at which the ratio last passes 1."""
    return next(reversed(crossing_lengths(lengths, ratios)), None)


def crossover(
    lengths: Sequence[int],
    ratios: Sequence[float],
    lows: Sequence[float] | None = None,
    highs: Sequence[float] | None = None,
) -> Crossover | None:
    """Judge a series by its speed-ups; None without any."""
    if not ratios:
        return None
    bounds = zip(lengths, lows or ratios, highs or ratios, strict=True)
    unclear = tuple(n for n, low, high in bounds if low <= 1 <= high)
    if all(r >= 1 for r in ratios):
        return Crossover(verdict="always", unclear_lengths=unclear)
    if all(r < 1 for r in ratios):
        return Crossover(verdict="never", unclear_lengths=unclear)
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
        unclear_lengths=unclear,
    )


def _wins_at_the_end(lengths: Sequence[int], ratios: Sequence[float]) -> bool:
    return max(zip(lengths, ratios, strict=True))[1] >= 1


def scaling_table(frame: pd.DataFrame) -> list[Scaling]:
    """Every series of a tidy frame that was measured at all, in the order of the frame.

    Of several canvases of one length the squarest counts.
    """
    return [_scaling(curve) for curve in frames.curves(frame)]


def _scaling(timed: list[Record]) -> Scaling:
    top = timed[-1]
    paired = [case for case in timed if case["speedup"] is not None]
    last: Record = paired[-1] if paired else dict.fromkeys(top)
    is_anchor = bool(paired) and all(case["series"] == case["anchor"] for case in paired)
    shared = ("level", "mode", "setting", "device_name", "run_label", "ndim", "series", "contender")
    compared = ("anchor", "speedup", "speedup_lo", "speedup_hi", "is_speedup_sure", "memory_ratio")
    return Scaling(
        **{name: top[name] for name in shared},
        **{name: last[name] for name in compared},
        is_anchor=is_anchor,
        time=time_growth(timed),
        memory=memory_growth(timed),
        crossover=None if is_anchor else crossover_of(paired),
        top_seq_len=top["seq_len"],
        top_latency_ms=top["latency_ms"],
        is_top_sure=top["is_sure"],
        top_memory_mib=top["peak_memory_mib"],
        pair_seq_len=last["seq_len"],
    )


def crossover_of(paired: Sequence[Record]) -> Crossover | None:
    """Where one series overtakes its anchor, by the cases with samples enough.

    Args:
        paired: Its cases that have a speed-up; none gives None.
    """
    if not paired:
        return None
    sure = [case for case in paired if case["is_speedup_sure"]]
    unsure = tuple(case["seq_len"] for case in paired if not case["is_speedup_sure"])
    ends = [speedup_interval(case) for case in sure]
    lows, highs = [low for low, _ in ends], [high for _, high in ends]
    found = crossover([c["seq_len"] for c in sure], [c["speedup"] for c in sure], lows, highs)
    return replace(found or Crossover(verdict="unsure"), unsure_lengths=unsure)
