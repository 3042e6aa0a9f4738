"""The state of the GPU while a call is timed, and warnings that name the cure."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from bench import stats, units
from bench.nvml import IDLE_BIT, THROTTLE_BITS, Gpu, current_gpu, num_foreign
from bench.timing import FEWEST_FOR_INTERVAL, Timing

PERIOD_S = 0.05

CLOCK_MOVED_FRACTION = 0.05
SPREAD_FRACTION = 0.10
EXPOSED_FRACTION = 0.05
LAUNCH_BOUND_RATIO = 1.5

Now = Callable[[], float]
_OVER_TIME = ("readings_s", "sm_clock_readings_mhz", "power_readings_w")


class Reading(NamedTuple):
    """The GPU at one moment; None where the driver does not tell."""

    at_s: float
    sm_clock_mhz: float | None
    power_w: float | None
    temperature_c: float | None
    clock_reasons: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The GPU over a window; None where nothing is known, as on a CPU.

    Args:
        throttle_reasons: Names out of `bench.nvml.THROTTLE_BITS` seen in any reading.
        readings_s, sm_clock_readings_mhz, power_readings_w: Every reading in order, idle or not.
        num_foreign_processes: Most processes other than ours, at the start or at the end.
    """

    duration_s: float
    num_readings: int = 0
    sm_clock_mhz_min: float | None = None
    sm_clock_mhz: float | None = None
    sm_clock_mhz_max: float | None = None
    power_w_min: float | None = None
    power_w: float | None = None
    power_w_max: float | None = None
    temperature_c_min: float | None = None
    temperature_c: float | None = None
    temperature_c_max: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    num_foreign_processes: int | None = None
    readings_s: tuple[float, ...] | None = None
    sm_clock_readings_mhz: tuple[float, ...] | None = None
    power_readings_w: tuple[float, ...] | None = None

    def row_values(self) -> dict[str, Any]:
        """The columns of a row that this fills."""
        values: dict[str, Any] = {
            f"{name}{end}": getattr(self, f"{name}{end}")
            for name in ("sm_clock_mhz", "power_w", "temperature_c")
            for end in ("_min", "", "_max")
        }
        for name in ("throttle_reasons", *_OVER_TIME):
            listed = getattr(self, name)
            values[name] = None if listed is None else list(listed)
        return values


class Telemetry:
    """Reads the GPU at the start, at the end and every 50 ms between, in a thread.

    with Telemetry("cuda") as telemetry:
        ...
    telemetry.summary()

    On a CPU, or where the driver cannot be asked, it does nothing and knows nothing.
    """

    def __init__(
        self,
        device: str,
        *,
        gpu: Gpu | None = None,
        period_s: float = PERIOD_S,
        now: Now = time.monotonic,
    ) -> None:
        self._gpu = gpu or (current_gpu() if device == "cuda" else None)
        self._period_s = period_s
        self._now = now
        self._readings: list[Reading] = []
        self._foreign: list[int] = []
        self._limits_s: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._mark()
        if self._gpu is not None:
            self._thread = threading.Thread(target=self._poll, args=(self._gpu,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._mark()

    def summary(self) -> Summary:
        """What was seen, once the window has ended."""
        started_s, ended_s = self._limits_s
        duration_s = ended_s - started_s
        if self._gpu is None:
            return Summary(duration_s=duration_s)
        masks = [r.clock_reasons for r in self._readings if r.clock_reasons is not None]
        return Summary(
            duration_s=duration_s,
            num_readings=len(self._readings),
            **_ranges(_busy(self._readings)),
            throttle_reasons=_reason_names(masks) if masks else None,
            num_foreign_processes=max(self._foreign) if self._foreign else None,
            **_over_time(self._readings, started_s),
        )

    def _mark(self) -> None:
        """The start or the end: a reading and the processes."""
        at_s = self._now()
        self._limits_s.append(at_s)
        if self._gpu is None:
            return
        self._readings.append(_read(self._gpu, at_s))
        processes = self._gpu.processes()
        if processes is not None:
            self._foreign.append(num_foreign(processes, own_pid=os.getpid()))

    def _poll(self, gpu: Gpu) -> None:
        while not self._stop.wait(self._period_s):
            self._readings.append(_read(gpu, self._now()))


def timing_warnings(
    summary: Summary, timing: Timing, *, wall: Timing | None = None, precision: float = 0.01
) -> list[str]:
    """What makes a timing doubtful: what was seen, then what to try.

    Args:
        wall: The same call on the host clock, where `timing` is of the GPU.
        precision: The half width of the interval that was asked for, as a fraction.
    """
    return [
        *_machine_warnings(summary),
        *_sample_warnings(timing, precision),
        *_host_warnings(timing, wall),
    ]


def _machine_warnings(summary: Summary) -> Iterator[str]:
    slowest_mhz = summary.sm_clock_mhz_min
    lock = "sudo nvidia-smi --lock-gpu-clocks="
    lock += "MHZ, a clock it can hold" if slowest_mhz is None else f"{slowest_mhz:.0f}"
    if summary.throttle_reasons:
        names = ", ".join(summary.throttle_reasons)
        yield f"throttled: the driver held the clock down ({names}); cool the GPU, or {lock}"
    low, high = summary.sm_clock_mhz_min, summary.sm_clock_mhz_max
    if low and high and summary.sm_clock_mhz:
        moved = (high - low) / summary.sm_clock_mhz
        if moved > CLOCK_MOVED_FRACTION:
            yield (
                f"clock moved by {units.percent(moved)} (from {low:.0f} to {high:.0f} MHz) "
                f"while timing; raise warmup_s, or {lock}"
            )
    if summary.num_foreign_processes:
        yield (
            f"shared GPU: processes other than this one: {summary.num_foreign_processes}; "
            "wait until nvidia-smi lists this one only"
        )


def _sample_warnings(timing: Timing, precision: float) -> Iterator[str]:
    samples = timing.samples_ms
    middle = stats.median(samples)
    if middle <= 0.0:
        return
    half_width = stats.relative_half_width(samples)
    if len(samples) < FEWEST_FOR_INTERVAL:
        yield (
            f"too few samples: {units.plural(len(samples), 'sample')} fitted into the budget, "
            "and their range is no 95% interval; raise --budget-s"
        )
    elif timing.stop_reason == "budget" and half_width > precision:
        yield (
            f"not converged: the median is known to {units.known_to(half_width)} after "
            f"{units.plural(len(samples), 'sample')}; raise --budget-s"
        )
    spread = (stats.quantile(samples, 0.95) - stats.quantile(samples, 0.05)) / middle
    if spread > SPREAD_FRACTION:
        yield (
            f"noisy: samples from 5% to 95% span {units.percent(spread)} of the median; "
            "stop other programs, or add --rounds 5"
        )
    step = stats.clock_step(samples)
    if step is not None and step > precision * middle:
        yield (
            f"quantised: samples move in steps of {units.duration(step)}, "
            f"{units.percent(min(step / middle, 1.0))} of the median; measure a larger case"
        )


def _host_warnings(timing: Timing, wall: Timing | None) -> Iterator[str]:
    exposed = timing.exposed_fraction
    if exposed is not None and exposed > EXPOSED_FRACTION:
        yield (
            f"exposed: in {units.percent(exposed)} of the samples the GPU began before all "
            "launches were queued, so gaps of the host may count; compare with --timer graph"
        )
    if wall is None or timing.timer == "wall":
        return
    gpu_ms, wall_ms = stats.median(timing.samples_ms), stats.median(wall.samples_ms)
    if gpu_ms > 0.0 and wall_ms > LAUNCH_BOUND_RATIO * gpu_ms:
        yield (
            f"launch-bound: a caller waits {units.ratio(wall_ms / gpu_ms)} as long as the GPU "
            f"works ({units.duration(wall_ms)} for {units.duration(gpu_ms)}); "
            "use a CUDA graph or a larger case"
        )


def _read(gpu: Gpu, at_s: float) -> Reading:
    return Reading(
        at_s=at_s,
        sm_clock_mhz=gpu.sm_clock_mhz(),
        power_w=gpu.power_w(),
        temperature_c=gpu.temperature_c(),
        clock_reasons=gpu.clock_reasons(),
    )


def _busy(readings: list[Reading]) -> list[Reading]:
    """Without moments of idleness, when clock and power are not those of the call."""
    busy = [r for r in readings if not (r.clock_reasons or 0) & IDLE_BIT]
    return busy or readings


def _ranges(readings: list[Reading]) -> dict[str, Any]:
    ranges: dict[str, Any] = {}
    for name in ("sm_clock_mhz", "power_w", "temperature_c"):
        known = [value for r in readings if (value := getattr(r, name)) is not None]
        if known:
            ranges[f"{name}_min"] = min(known)
            ranges[name] = stats.median(known)
            ranges[f"{name}_max"] = max(known)
    return ranges


def _over_time(readings: list[Reading], started_s: float) -> dict[str, Any]:
    """What the driver told at every reading."""
    columns: dict[str, list[float | None]] = {
        "readings_s": [round(r.at_s - started_s, 4) for r in readings],
        "sm_clock_readings_mhz": [r.sm_clock_mhz for r in readings],
        "power_readings_w": [r.power_w for r in readings],
    }
    return {name: tuple(values) for name, values in columns.items() if None not in values}


def _reason_names(masks: list[int]) -> tuple[str, ...]:
    return tuple(name for bit, name in THROTTLE_BITS.items() if any(m & bit for m in masks))
