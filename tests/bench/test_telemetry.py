"""A fake GPU that changes from reading to reading, and warnings for what it went through."""

import os
import threading
import time
from dataclasses import replace

import pytest

from bench.nvml import GpuProcess
from bench.telemetry import Summary, Telemetry, timing_warnings
from bench.timing import Timing


class FakeGpu:
    """Each list is what successive readings say; the last value stays."""

    def __init__(self, **scripts):
        self.scripts = {name: list(values) for name, values in scripts.items()}
        self.threads = set()

    def _next(self, name):
        self.threads.add(threading.current_thread().name)
        script = self.scripts.get(name, [None])
        return script.pop(0) if len(script) > 1 else script[0]

    def sm_clock_mhz(self):
        return self._next("clock")

    def power_w(self):
        return self._next("power")

    def temperature_c(self):
        return self._next("temperature")

    def clock_reasons(self):
        return self._next("reasons")

    def processes(self):
        return self._next("processes")


class FakeClock:
    def __init__(self, *times_s):
        self.times_s = list(times_s)

    def __call__(self):
        return self.times_s.pop(0)


def watched(gpu: FakeGpu) -> Summary:
    """A window in which only the readings at the start and at the end are taken."""
    telemetry = Telemetry("cuda", gpu=gpu, period_s=60.0, now=FakeClock(10.0, 10.3))
    with telemetry:
        pass
    return telemetry.summary()


def test_a_cpu_has_no_telemetry():
    with Telemetry("cpu") as telemetry:
        pass
    summary = telemetry.summary()
    assert summary == Summary(duration_s=summary.duration_s)
    assert set(summary.row_values().values()) == {None}


def test_start_and_end_are_read():
    summary = watched(FakeGpu(clock=[1980, 1500], power=[300, 500], temperature=[40, 61]))
    assert summary.num_readings == 2
    assert (summary.sm_clock_mhz_min, summary.sm_clock_mhz, summary.sm_clock_mhz_max) == (
        1500,
        1740,
        1980,
    )
    assert (summary.power_w_min, summary.power_w, summary.power_w_max) == (300, 400, 500)
    assert (summary.temperature_c_min, summary.temperature_c_max) == (40, 61)
    assert summary.duration_s == pytest.approx(0.3)


def test_every_reading_is_kept_with_its_time():
    summary = watched(FakeGpu(clock=[1980, 1500], power=[300, 500], reasons=[0x1, 0x4]))
    assert summary.readings_s == (0.0, 0.3)
    assert summary.sm_clock_readings_mhz == (1980, 1500)
    assert summary.power_readings_w == (300, 500)
    assert summary.row_values()["sm_clock_readings_mhz"] == [1980, 1500]


def test_readings_that_the_driver_refused_once_are_left_out_whole():
    summary = watched(FakeGpu(clock=[1980, 1500], power=[300, None]))
    assert summary.power_readings_w is None
    assert summary.row_values()["power_readings_w"] is None
    assert summary.sm_clock_readings_mhz == (1980, 1500)


def test_a_thread_reads_while_the_window_is_open_and_ends_with_it():
    gpu = FakeGpu(clock=[1000])
    num_threads = threading.active_count()
    with Telemetry("cuda", gpu=gpu, period_s=0.001) as telemetry:
        deadline = time.monotonic() + 2.0
        while len(gpu.threads) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert telemetry.summary().num_readings >= 3
    assert threading.active_count() == num_threads


def test_the_thread_ends_when_the_call_fails():
    num_threads = threading.active_count()
    with (
        pytest.raises(MemoryError),
        Telemetry("cuda", gpu=FakeGpu(clock=[1000]), period_s=0.001),
    ):
        raise MemoryError
    assert threading.active_count() == num_threads


def test_moments_of_idleness_do_not_count_as_the_clock_of_the_call():
    summary = watched(FakeGpu(clock=[210, 1980], power=[70, 600], reasons=[0x1, 0x4]))
    assert (summary.sm_clock_mhz_min, summary.sm_clock_mhz_max) == (1980, 1980)
    assert summary.power_w_min == 600


def test_a_gpu_that_always_idled_still_has_a_clock():
    summary = watched(FakeGpu(clock=[210], reasons=[0x1]))
    assert summary.sm_clock_mhz == 210
    assert summary.throttle_reasons == ()


def test_throttle_reasons_of_all_readings_are_named():
    summary = watched(FakeGpu(reasons=[0x4, 0x1 | 0x2 | 0x40]))
    assert summary.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")


def test_what_the_driver_does_not_tell_is_unknown():
    summary = watched(FakeGpu(clock=[1980]))
    assert summary.sm_clock_mhz == 1980
    assert summary.power_w is None
    assert summary.throttle_reasons is None
    assert summary.num_foreign_processes is None


def test_a_process_at_either_end_is_foreign():
    ours, other = GpuProcess(os.getpid(), 1.0), GpuProcess(-5, 1.0)
    assert watched(FakeGpu(processes=[[ours], [ours, other]])).num_foreign_processes == 1
    assert watched(FakeGpu(processes=[[ours, other], [ours]])).num_foreign_processes == 1
    assert watched(FakeGpu(processes=[[ours], [ours]])).num_foreign_processes == 0


def test_row_values_are_columns_of_a_row():
    from bench.row import Row

    summary = watched(FakeGpu(clock=[1980, 1500], reasons=[0x4]))
    row = Row(**summary.row_values())
    assert (row.sm_clock_mhz_min, row.sm_clock_mhz_max) == (1500, 1980)
    assert row.throttle_reasons == ["sw_power_cap"]


QUIET = Summary(
    duration_s=1.0,
    sm_clock_mhz_min=1740.0,
    sm_clock_mhz=1755.0,
    sm_clock_mhz_max=1770.0,
    throttle_reasons=(),
    num_foreign_processes=0,
)
STEADY = Timing(
    timer="events",
    samples_ms=tuple(1.0 + 0.0001 * i for i in range(20)),
    calls_per_sample=1,
    num_warmup=10,
    stop_reason="converged",
    exposed_fraction=0.0,
)


def test_a_quiet_machine_and_steady_samples_need_no_warning():
    assert timing_warnings(QUIET, STEADY) == []
    assert (
        timing_warnings(Summary(duration_s=1.0), STEADY, wall=replace(STEADY, timer="wall")) == []
    )


def only(warnings: list[str]) -> str:
    (warning,) = warnings
    return warning


def test_throttling_names_the_reason_and_a_clock_to_lock():
    warning = only(timing_warnings(replace(QUIET, throttle_reasons=("sw_power_cap",)), STEADY))
    assert "sw_power_cap" in warning
    assert "nvidia-smi --lock-gpu-clocks=1740" in warning
    unread = Summary(duration_s=1.0, throttle_reasons=("sw_power_cap",))
    assert "n/a" not in only(timing_warnings(unread, STEADY))


def test_a_moving_clock_says_from_where_to_where():
    moved = replace(QUIET, sm_clock_mhz_min=1600.0)
    assert "9.7% (from 1600 to 1770 MHz)" in only(timing_warnings(moved, STEADY))
    still = replace(QUIET, sm_clock_mhz_min=1690.0)
    assert timing_warnings(still, STEADY) == []


def test_foreign_processes_are_counted():
    warning = only(timing_warnings(replace(QUIET, num_foreign_processes=2), STEADY))
    assert "processes other than this one: 2" in warning


def test_a_single_sample_is_not_taken_for_a_precise_one():
    timing = replace(STEADY, samples_ms=(1.0,), stop_reason="budget")
    assert only(timing_warnings(QUIET, timing)).startswith("too few samples: 1 sample fitted")


def test_a_budget_spent_without_the_precision_says_what_was_reached():
    loose = tuple(1.0 + 0.004 * i for i in range(20))
    timing = replace(STEADY, samples_ms=loose, stop_reason="budget")
    warning = only(timing_warnings(QUIET, timing))
    assert warning.startswith("not converged: the median is known to 1.7% after 20 samples")
    assert timing_warnings(QUIET, timing, precision=0.05) == []
    assert timing_warnings(QUIET, replace(timing, stop_reason="converged")) == []


def test_a_median_known_to_more_than_itself_is_known_to_a_factor():
    wild = (*[1.0] * 5, *[21.4] * 5, 1.0)
    timing = replace(STEADY, samples_ms=wild, stop_reason="budget")
    warnings = timing_warnings(QUIET, timing)
    assert any("the median is known to a factor of 21.4 after 11" in text for text in warnings)


def test_noise_is_the_span_from_5_to_95_percent():
    # the ends at 0.9 and 1.1 are quantiles 5% and 95% of 21 values
    wide = (0.5, 0.9, *(1.0 + 0.0001 * i for i in range(-8, 9)), 1.1, 1.5)
    assert "20.0% of the median" in only(timing_warnings(QUIET, replace(STEADY, samples_ms=wide)))


def test_a_coarse_clock_is_noticed():
    steps = replace(STEADY, samples_ms=(0.0020, 0.0021) * 10)
    warning = only(timing_warnings(QUIET, steps))
    assert warning.startswith("quantised: samples move in steps of 100 ns, 4.9% of the median")


def test_a_coarse_clock_does_not_matter_to_a_long_call():
    assert timing_warnings(QUIET, replace(STEADY, samples_ms=(2.0000, 2.0001) * 10)) == []


def test_exposed_samples_warn_above_a_few():
    assert timing_warnings(QUIET, replace(STEADY, exposed_fraction=0.04)) == []
    warning = only(timing_warnings(QUIET, replace(STEADY, exposed_fraction=0.34)))
    assert warning.startswith("exposed: in 34.0% of the samples")


def test_a_host_slower_than_the_gpu_is_launch_bound():
    wall = replace(STEADY, timer="wall", samples_ms=(3.1,) * 5)
    warning = only(timing_warnings(QUIET, STEADY, wall=wall))
    assert "3.10x as long" in warning
    nearly = replace(STEADY, timer="wall", samples_ms=(1.45,) * 5)
    assert timing_warnings(QUIET, STEADY, wall=nearly) == []
    assert timing_warnings(QUIET, replace(STEADY, timer="wall"), wall=wall) == []


@pytest.mark.parametrize(
    ("summary", "timing"),
    [
        (replace(QUIET, throttle_reasons=("sync_boost",)), STEADY),
        (replace(QUIET, sm_clock_mhz_min=900.0), STEADY),
        (replace(QUIET, num_foreign_processes=1), STEADY),
        (QUIET, replace(STEADY, exposed_fraction=1.0)),
        (QUIET, replace(STEADY, samples_ms=(0.002, 0.003) * 9, stop_reason="budget")),
    ],
)
def test_every_warning_names_a_cure(summary, timing):
    warnings = timing_warnings(summary, timing)
    assert warnings
    assert all("; " in warning for warning in warnings)
