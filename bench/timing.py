"""The only clock: warm up until steady, then sample until the median is known or time is up."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from math import ceil
from typing import Any, Self

from bench import stats
from bench.errors import UsageError
from bench.queued_events import Call, Now, Sample, no_reset
from bench.timers import EventTimer, GraphTimer, Timer, WallTimer

TIMERS = ("auto", "events", "graph", "wall")
STOP_REASONS = ("converged", "budget")

STEADY_FRACTION = 0.03
"""Warm-up may end when the medians of two successive batches differ by less than this."""
LONGEST_WARMUP = 5.0
"""Warm-up that never gets steady ends after this many times `warmup_s`."""
FEWEST_FOR_INTERVAL = 6
"""Below this the range of all samples covers the median with less than 95%."""

OnSample = Callable[[float], None]
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How long and how precisely to measure.

    Args:
        timer: One of `TIMERS`; `auto` is `events` on CUDA and `wall` on CPU.
        warmup_s: Least warm-up on a GPU; a CPU gets `timers.CPU_WARMUP_SHARE` of it.
        budget_s: Time to spend on samples, overhead included.
        min_samples: Taken even over budget, unless one call alone is longer than `budget_s`.
        max_samples: Reaching it counts as a spent budget.
        precision: Stop when the 95% interval of the median is within this fraction of it.
        seed: Of inputs and parameters.
    """

    timer: str = "auto"
    warmup_s: float = 0.1
    budget_s: float = 1.0
    min_samples: int = 10
    max_samples: int = 500
    precision: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        _check_timer(self.timer)
        _require(self.warmup_s >= 0, "warmup_s", self.warmup_s, "seconds, 0 or more", "0.1")
        _require(self.budget_s > 0, "budget_s", self.budget_s, "seconds, more than 0", "1.0")
        _require(self.precision > 0, "precision", self.precision, "a fraction above 0", "0.01")
        _require(self.min_samples >= 1, "min_samples", self.min_samples, "at least 1", "10")
        _require(
            self.max_samples >= self.min_samples,
            "max_samples",
            self.max_samples,
            f"at least min_samples, {self.min_samples}",
            str(max(500, self.min_samples)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from plain values; what is absent keeps its default.

        Raises:
            UsageError: an unknown name or a value out of range.
        """
        defaults = {f.name: f.default for f in fields(cls)}
        for name, value in values.items():
            if name not in defaults:
                raise UsageError(
                    f"setting {name!r} is unknown",
                    expected=f"one of {', '.join(defaults)}",
                    try_="budget_s = 1.0",
                )
            kinds, kind_text = _KINDS[type(defaults[name])]
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise UsageError(
                    f"setting {name} is {value!r}",
                    expected=kind_text,
                    try_=f"{name} = {defaults[name]!r}",
                )
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Every sample in order, and how they were taken.

    Args:
        samples_ms: One call each; a mean over `calls_per_sample` where one is too short.
        num_warmup: Calls before the first sample.
        stop_reason: One of `STOP_REASONS`.
        exposed_fraction: Samples whose launches were not all queued before the GPU began, so
            that gaps of the host may be inside; None for `wall`, which counts them on purpose.
    """

    timer: str
    samples_ms: tuple[float, ...]
    calls_per_sample: int
    num_warmup: int
    stop_reason: str
    exposed_fraction: float | None


def measure(
    call: Call,
    *,
    device: str,
    settings: Settings,
    timer: str | None = None,
    reset: Call | None = None,
    on_sample: OnSample | None = None,
) -> Timing:
    """Time a call.

    Args:
        call: What is timed. It has run before: compiling and autotuning are not warm-up.
        timer: One of `TIMERS`; by default the one in `settings`.
        reset: Runs before each call, outside the clock: drops gradients.
        on_sample: Told each recorded sample in ms, outside the clock.

    Raises:
        UsageError: the timer is unknown or needs another device.
        EnaBenchError: the call cannot be captured in a CUDA graph.
    """
    chosen = resolve_timer(timer or settings.timer, device)
    with closing(chosen(call, reset or no_reset, device)) as clock:
        return sample_adaptively(clock, settings, on_sample=on_sample)


def resolve_timer(name: str, device: str) -> type[Timer]:
    """The timer class behind a name on a device.

    Raises:
        UsageError: the name is unknown, or the timer needs CUDA.
    """
    _check_timer(name)
    if name == "auto":
        name = "events" if device == "cuda" else "wall"
    if name != "wall" and device != "cuda":
        raise UsageError(
            f"timer {name!r} on device {device!r}", expected="wall on a CPU", try_="--timer wall"
        )
    timers: dict[str, type[Timer]] = {t.name: t for t in (EventTimer, GraphTimer, WallTimer)}
    return timers[name]


def sample_adaptively(
    timer: Timer,
    settings: Settings,
    *,
    on_sample: OnSample | None = None,
    now: Now = time.perf_counter,
) -> Timing:
    """Warm up, then sample; every recorded sample is kept, in order."""
    _warm_up(timer, settings, now)
    num_warmup = timer.num_calls
    taken, stop_reason = _record(timer, settings, on_sample or _ignore, now)
    exposures = [s.is_exposed for s in taken if s.is_exposed is not None]
    return Timing(
        timer=timer.name,
        samples_ms=tuple(s.ms for s in taken),
        calls_per_sample=timer.calls_per_sample,
        num_warmup=num_warmup,
        stop_reason=stop_reason,
        exposed_fraction=sum(exposures) / len(exposures) if exposures else None,
    )


def _warm_up(timer: Timer, settings: Settings, now: Now) -> None:
    """Until both the time is up and successive batches agree, or the longest warm-up is."""
    least_s = settings.warmup_s * timer.warmup_share
    most_s = settings.warmup_s * LONGEST_WARMUP
    started = now()
    batch, last_ms = _whole_batches(timer, 1, settings), None
    while True:
        began = now()
        median_ms = stats.median([s.ms for s in timer.samples(batch)])
        ended = now()
        is_steady = last_ms is not None and abs(median_ms - last_ms) <= STEADY_FRACTION * last_ms
        if ended - started >= (least_s if is_steady else most_s):
            return
        last_ms = median_ms
        fitting = _fitting(least_s / 4, (ended - began) / batch, settings.max_samples)
        batch = _whole_batches(timer, fitting, settings)


def _record(
    timer: Timer, settings: Settings, on_sample: OnSample, now: Now
) -> tuple[list[Sample], str]:
    taken: list[Sample] = []
    started = now()
    batch = _whole_batches(timer, 1, settings)
    while True:
        new = timer.samples(batch)
        taken += new
        spent_s = now() - started
        for sample in new:
            on_sample(sample.ms)
        reason = _stop_reason([s.ms for s in taken], spent_s, settings)
        # a batch that began too early has lengthened the spin: the next one is worth waiting for
        is_doubtful = any(sample.is_exposed for sample in new) and spent_s < settings.budget_s
        if reason is not None and not (is_doubtful and len(taken) < settings.max_samples):
            return taken, reason
        wanted = max(settings.min_samples - len(taken), len(taken) // 4)
        fitting = _fitting(settings.budget_s - spent_s, spent_s / len(taken), wanted)
        batch = _whole_batches(timer, fitting, settings, num_taken=len(taken))


def _stop_reason(samples_ms: list[float], spent_s: float, settings: Settings) -> str | None:
    num = len(samples_ms)
    if (
        num >= max(settings.min_samples, FEWEST_FOR_INTERVAL)
        and stats.relative_half_width(samples_ms) <= settings.precision
    ):
        return "converged"
    if num >= settings.max_samples:
        return "budget"
    is_one_call_too_long = spent_s / num > settings.budget_s
    is_hopeless = is_one_call_too_long and spent_s >= 3 * settings.budget_s
    is_enough = num >= settings.min_samples and spent_s >= settings.budget_s
    return "budget" if is_enough or is_hopeless else None


def _fitting(seconds: float, seconds_each: float, at_most: int) -> int:
    """How many samples fit into a time; at least one."""
    fit = int(seconds / seconds_each) if seconds_each > 0 else at_most
    return max(1, min(fit, at_most))


def _whole_batches(timer: Timer, n: int, settings: Settings, num_taken: int = 0) -> int:
    """At least this many samples in full batches of the timer, as far as there is room."""
    return min(ceil(n / timer.batch_size) * timer.batch_size, settings.max_samples - num_taken)


def _check_timer(name: str) -> None:
    if name not in TIMERS:
        raise UsageError(
            f"timer {name!r} is unknown",
            expected=f"one of {', '.join(TIMERS)}",
            try_="--timer auto",
        )


def _require(is_met: bool, name: str, value: float, expected: str, try_: str) -> None:
    if not is_met:
        raise UsageError(f"{name} is {value}", expected=expected, try_=f"{name} = {try_}")


def _ignore(_: float) -> None:
    """Nobody listens to samples."""
