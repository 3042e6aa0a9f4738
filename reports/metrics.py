"""The quantities of a report: where a value and its interval come from, how their axis reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench import units
from reports import axes, energy, frames, roofline
from reports.speedup import NOT_MIXERS, latency_interval

Record = dict[str, Any]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A quantity to draw: where its value and interval come from, and how its axis reads.

    `is_sure` tells whether the latencies behind a value have samples enough.
    """

    name: str
    title: str
    axis: str
    value: Callable[[Record], float | None]
    interval: Callable[[Record], Interval]
    tick_label: Callable[[float], str]
    ticks: Callable[[float, float], list[float]] = axes.decimal_ticks
    is_worse_higher: bool = True
    note: str = ""
    is_sure: Callable[[Record], bool | None] = lambda case: case["is_sure"]


def has_points(cases: Iterable[Record], metric: Metric) -> bool:
    """Whether a figure of this metric shows a measured value beyond the anchor itself."""
    shown = (r for r in cases if metric.value(r) is not None)
    return any(metric is not SPEEDUP or r["series"] != r["anchor"] for r in shown)


def is_drawn(case: Record, metric: Metric) -> bool:
    """Measured cases with this quantity, and failures; what is unsupported is only listed."""
    if not case["seq_len"] or case["status"] == "unsupported":
        return False
    if metric is SPEEDUP and case["contender"] in NOT_MIXERS:
        return False
    return not frames.is_timed(case) or metric.value(case) is not None


def _throughput_interval(case: Record) -> Interval:
    per_s, middle = case["tokens_per_s"], case["latency_ms"]
    if per_s is None or not middle:
        return None, None
    low, high = latency_interval(case)
    return per_s * middle / high, per_s * middle / low


def _timed(name: str) -> Callable[[Record], float | None]:
    def value(case: Record) -> float | None:
        return case[name] if frames.is_timed(case) and (case[name] or 0) > 0 else None

    return value


def _ends(low: str, high: str) -> Callable[[Record], Interval]:
    def interval(case: Record) -> Interval:
        return _timed(low)(case), _timed(high)(case)

    return interval


def _percent_of_roof(case: Record) -> float | None:
    share = roofline.fraction(case)
    return None if share is None else 100 * share


LATENCY = Metric(
    name="latency",
    title="latency",
    axis="latency (ms)",
    value=_timed("latency_ms"),
    interval=_ends("latency_ms_lo", "latency_ms_hi"),
    tick_label=units.significant,
)
THROUGHPUT = Metric(
    name="throughput",
    title="throughput",
    axis="throughput (tokens/s)",
    value=_timed("tokens_per_s"),
    interval=_throughput_interval,
    tick_label=units.rate,
    is_worse_higher=False,
)
PEAK_MEMORY = Metric(
    name="peak-memory",
    title="peak memory",
    axis="peak memory (MiB, GiB)",
    value=_timed("peak_memory_mib"),
    interval=lambda case: (None, None),
    tick_label=units.memory,
    ticks=axes.binary_ticks,
    is_sure=lambda case: True,
)
SPEEDUP = Metric(
    name="speedup",
    title="speed-up",
    axis="speed-up (ratio of latencies)",
    value=_timed("speedup"),
    interval=_ends("speedup_lo", "speedup_hi"),
    tick_label=units.ratio,
    ticks=axes.decimal_ticks,
    is_worse_higher=False,
    is_sure=lambda case: case["is_speedup_sure"],
    note="Circles: where a series overtakes 1x, with its 95% interval. Dotted: what FLOPs predict.",
)
ENERGY = Metric(
    name="energy",
    title="energy per token",
    axis="energy (\N{MICRO SIGN}J/token)",
    value=energy.microjoules_per_token,
    interval=lambda case: (None, None),
    tick_label=units.significant,
    note="Median power of the board while timing, times latency, over tokens.",
)
ROOFLINE = Metric(
    name="roofline-fraction",
    title="fraction of the measured roofline",
    axis="fraction of the roofline (%)",
    value=_percent_of_roof,
    interval=lambda case: (None, None),
    tick_label=units.significant,
    is_worse_higher=False,
    note="Useful FLOP/s over what the measured peaks allow at the case's intensity.",
)
