"""A callable timed by `bench.timing`, its samples put where pytest-benchmark keeps its own."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bench import stats, timing
from bench.queued_events import no_reset
from bench.telemetry import Telemetry, timing_warnings
from bench.timers import synchronization

LEAST_SAMPLES = 10


class GpuBenchmark:
    """What the fixture `gpu_benchmark` gives a test.

    Args:
        benchmark: The fixture of pytest-benchmark, whose options and storage are used.
        settings: Of `bench.timing.Settings`, put over what pytest-benchmark's options say.
    """

    def __init__(self, benchmark: Any, *, settings: Mapping[str, Any]) -> None:
        self._benchmark = benchmark
        self._given = settings

    @property
    def extra_info(self) -> dict[str, Any]:
        """What the test adds here is stored with its timing."""
        info: dict[str, Any] = self._benchmark.extra_info
        return info

    @property
    def stats(self) -> Any:
        """pytest-benchmark's statistics of this test, in seconds; None while disabled."""
        return self._benchmark.stats

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Time `function(*args, **kwargs)` and return what it returns."""
        return self.measure(function, args=args, kwargs=kwargs)

    def measure(
        self,
        function: Callable[..., Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        reset: Callable[[], object] | None = None,
        device: str | None = None,
        flops: float | None = None,
        num_bytes: float | None = None,
    ) -> Any:
        """Time a call, and return what it returns when it runs once more after timing.

        Args:
            reset: Runs before each call, outside the clock; drops gradients.
            device: `cpu` or `cuda`. Default: that of the tensors among the arguments, and without
                any, CUDA where there is a GPU.
            flops, num_bytes: Of one call; stored as TFLOP/s and GB/s.

        Raises:
            UsageError: a setting or the timer is wrong for this device.
        """
        call = partial(function, *args, **(kwargs or {}))
        chosen = device or _device_of([*args, *(kwargs or {}).values()])
        # pytest-benchmark's own call guards against a second use and marks a test that failed
        self._benchmark._raw = partial(self._measured, device=chosen, reset=reset or no_reset)
        result = self._benchmark(call)
        if self._benchmark.enabled:
            self._add_rates(flops, num_bytes)
        return result

    def _measured(
        self, call: Callable[[], Any], *, device: str, reset: Callable[[], object]
    ) -> Any:
        if self._benchmark.enabled:
            reset()
            started_s = time.perf_counter()
            call()
            synchronization(device)()
            self.extra_info["first_call_ms"] = (time.perf_counter() - started_s) * 1e3
            self._record(call, device, reset)
        reset()
        return call()

    def _record(self, call: Callable[[], Any], device: str, reset: Callable[[], object]) -> None:
        recorded = self._benchmark._make_stats(1)
        settings = self._settings(recorded.options)
        with Telemetry(device) as telemetry:
            timed = timing.measure(call, device=device, settings=settings, reset=reset)
        watched = telemetry.summary()
        for sample_ms in timed.samples_ms:
            recorded.update(sample_ms * 1e-3)
        recorded.options["timer"] = f"ena-bench {timed.timer}"
        low_ms, high_ms = stats.median_interval(timed.samples_ms)
        self.extra_info.update(
            timer=timed.timer,
            device=device,
            device_name=_device_name(device),
            latency_ms=stats.median(timed.samples_ms),
            latency_ms_lo=low_ms,
            latency_ms_hi=high_ms,
            calls_per_sample=timed.calls_per_sample,
            num_warmup=timed.num_warmup,
            stop_reason=timed.stop_reason,
            exposed_fraction=timed.exposed_fraction,
            warnings=timing_warnings(watched, timed, precision=settings.precision),
            **{name: value for name, value in watched.row_values().items() if value is not None},
        )

    def _settings(self, options: Mapping[str, Any]) -> timing.Settings:
        """pytest-benchmark's limits in our words; its precision is of the mean, ours of the median.

        Raises:
            UsageError: the marker has an unknown setting or a wrong value.
        """
        min_samples = max(int(options["min_rounds"]), LEAST_SAMPLES)
        values: dict[str, Any] = {
            "budget_s": float(options["max_time"]),
            "min_samples": min_samples,
            "max_samples": max(timing.Settings().max_samples, min_samples),
        }
        if options.get("precision"):
            values["precision"] = float(options["precision"])
        return timing.Settings.from_dict(values | dict(self._given))

    def _add_rates(self, flops: float | None, num_bytes: float | None) -> None:
        latency_ms = self.extra_info["latency_ms"]
        if flops is not None:
            self.extra_info["tflops_per_s"] = flops / latency_ms / 1e9
        if num_bytes is not None:
            self.extra_info["bandwidth_gb_per_s"] = num_bytes / latency_ms / 1e6


def _device_of(values: Sequence[Any]) -> str:
    import torch

    kinds = {value.device.type for value in values if isinstance(value, torch.Tensor)}
    if kinds:
        return "cuda" if "cuda" in kinds else "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    from bench.host import cpu_name

    return cpu_name()
