"""How time and memory grow with length, where launches or weights dominate and beyond.

A curve is flat up to a knee, where a fixed overhead dominates, and a power law from there on. The
knee is placed by least squares on logarithms; without a clearly better fit there is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from reports import frames
from reports.speedup import latency_interval

Record = dict[str, Any]

NOISE = 0.01
"""Relative error below which two fits count as equally good: a measured median is no better."""
LEAST_POINTS = 3
"""Lengths that the power law keeps at least, where a knee is to be placed."""
_Z95 = 1.959964
_STEPS = 8
"""Places for the knee that are tried between two neighbouring lengths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """`value ~ seq_len ** exponent` from the knee on, by the points in `lengths`.

    `lo` and `hi` are the 95% interval that the intervals of the values give; `deviation` is the
    largest relative distance of a used point from the line, which tells a power law from a curve
    that still bends. `knee_len` is where the overhead ends, None where no length is dominated by
    it; `overhead_lengths` were left out.
    """

    exponent: float
    lo: float
    hi: float
    deviation: float
    lengths: tuple[int, ...]
    overhead_lengths: tuple[int, ...] = ()
    knee_len: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthLine:
    """The growth of one series of one level, mode, setting and dimensionality."""

    level: str
    mode: str
    setting: str
    device_name: str | None
    ndim: int | None
    series: str
    time: Growth | None
    memory: Growth | None


def growth(
    lengths: Sequence[int],
    values: Sequence[float],
    lows: Sequence[float] | None = None,
    highs: Sequence[float] | None = None,
) -> Growth | None:
    """Fit a curve; None for fewer than two lengths.

    Raises:
        ValueError: a length or a value that is not positive.
    """
    if any(v <= 0 for v in (*lengths, *values)):
        raise ValueError("a power law needs positive lengths and values")
    points = sorted(zip(lengths, values, lows or values, highs or values, strict=True))
    return _fitted(tuple(points)) if len({p[0] for p in points}) > 1 else None


@lru_cache(maxsize=4096)
def _fitted(points: tuple[tuple[int, float, float, float], ...]) -> Growth:
    """The same curve is asked for by tables, sentences and pages."""
    xs, ys = [math.log(p[0]) for p in points], [math.log(p[1]) for p in points]
    knee = _knee(xs, ys)
    used = [p for p, x in zip(points, xs, strict=True) if knee is None or x >= knee - 1e-9]
    left_out = [p[0] for p in points[: len(points) - len(used)]]
    slope, constant = line([math.log(p[0]) for p in used], [math.log(p[1]) for p in used])
    half = _Z95 * _slope_error(used)
    return Growth(
        exponent=slope,
        lo=slope - half,
        hi=slope + half,
        deviation=max(
            abs(math.expm1(math.log(p[1]) - constant - slope * math.log(p[0]))) for p in used
        ),
        lengths=tuple(p[0] for p in used),
        overhead_lengths=tuple(left_out),
        knee_len=math.exp(knee) if left_out and knee is not None else None,
    )


def growth_table(frame: pd.DataFrame) -> list[GrowthLine]:
    """Every series of a tidy frame that was measured; of one length the squarest canvas counts."""
    shared = ("level", "mode", "setting", "device_name", "ndim", "series")
    return [
        GrowthLine(
            **{name: group[0][name] for name in shared},
            time=time_growth(group),
            memory=memory_growth(group),
        )
        for group in frames.curves(frame)
    ]


def time_growth(cases: Sequence[Record]) -> Growth | None:
    """Growth of the latency of timed cases of one series."""
    ends = [latency_interval(case) for case in cases]
    return growth(
        [c["seq_len"] for c in cases],
        [c["latency_ms"] for c in cases],
        [low for low, _ in ends],
        [high for _, high in ends],
    )


def memory_growth(cases: Sequence[Record]) -> Growth | None:
    """Growth of the peak memory of cases of one series; those without one are left out."""
    known = [c for c in cases if c["peak_memory_mib"]]
    return growth([c["seq_len"] for c in known], [c["peak_memory_mib"] for c in known])


def _knee(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """The end of the flat part that gives the best fit; None if a plain line is as good."""
    if len(xs) < LEAST_POINTS + 1:
        return None
    candidates = {
        xs[i] + (xs[i + 1] - xs[i]) * step / _STEPS
        for i in range(len(xs) - LEAST_POINTS)
        for step in range(1, _STEPS + 1)
    }
    fits = {knee: _misfit([max(x - knee, 0.0) for x in xs], ys) for knee in candidates}
    best = min(fits, key=lambda knee: (fits[knee], knee))
    plain = _criterion(_misfit(xs, ys), len(xs), 2)
    is_rising = line([max(x - best, 0.0) for x in xs], ys)[0] > 0
    return best if is_rising and _criterion(fits[best], len(xs), 3) < plain else None


def _criterion(misfit: float, num_points: int, num_parameters: int) -> float:
    """Bayesian information criterion; a fit closer than `NOISE` is not better."""
    variance = misfit / num_points + NOISE**2
    return num_points * math.log(variance) + num_parameters * math.log(num_points)


def _misfit(xs: Sequence[float], ys: Sequence[float]) -> float:
    slope, constant = line(xs, ys)
    return sum((y - constant - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))


def line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope and constant by least squares; the slope is 0 where all xs are equal."""
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    together = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    slope = together / spread if spread else 0.0
    return slope, y_mean - slope * x_mean


def _slope_error(points: Sequence[tuple[int, float, float, float]]) -> float:
    """Standard error of the slope from the intervals of the values, which are independent."""
    xs = [math.log(p[0]) for p in points]
    mean = sum(xs) / len(xs)
    spread = sum((x - mean) ** 2 for x in xs)
    errors = [math.log(high / low) / (2 * _Z95) for _, _, low, high in points]
    terms = zip(xs, errors, strict=True)
    return math.sqrt(sum(((x - mean) / spread * error) ** 2 for x, error in terms))
