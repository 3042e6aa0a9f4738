"""The timers: the host clock on a fake clock, CUDA events on a simulated GPU."""

from contextlib import nullcontext
from math import inf
from types import SimpleNamespace

import pytest
import torch

from bench import timers
from bench.errors import EnaBenchError
from bench.queued_events import QueuedEvents, Sample, no_reset
from bench.timers import EventTimer, GraphTimer, WallTimer


class Clock:
    """Time passes only when something says so."""

    def __init__(self):
        self.ns = 0
        self.num_resets = 0

    def read(self) -> int:
        return self.ns

    def work(self, ns: int):
        def call():
            self.ns += ns

        return call

    def reset(self):
        self.num_resets += 1
        self.ns += 7_000_000


@pytest.fixture
def clock():
    return Clock()


def wall(clock: Clock, ns: int, reset=no_reset) -> WallTimer:
    return WallTimer(clock.work(ns), reset, "cpu", clock_ns=clock.read)


@pytest.mark.parametrize("ns", [3, 90, 4_100, 49_999])
def test_short_calls_are_averaged_into_samples_long_against_the_clock(clock, ns):
    timer = wall(clock, ns)
    before = clock.ns
    (sample,) = timer.samples(1)
    assert sample.ms == pytest.approx(ns / 1e6)
    assert 50_000 <= clock.ns - before <= 120_000
    assert timer.calls_per_sample == (clock.ns - before) // ns


def test_long_calls_are_timed_one_by_one(clock):
    timer = wall(clock, 50_001)
    assert timer.calls_per_sample == 1
    assert [s.ms for s in timer.samples(3)] == [0.050001] * 3


def test_a_slow_first_call_does_not_hide_that_calls_are_short(clock):
    durations = iter([60_000])

    def call():
        clock.ns += next(durations, 500)

    timer = WallTimer(call, no_reset, "cpu", clock_ns=clock.read)
    assert timer.calls_per_sample >= 100


def test_a_very_long_call_runs_once_to_be_calibrated(clock):
    assert wall(clock, 3_000_000_000).num_calls == 1


def test_every_call_is_counted(clock):
    num_made = 0

    def call():
        nonlocal num_made
        num_made += 1
        clock.ns += 9_000

    timer = WallTimer(call, no_reset, "cpu", clock_ns=clock.read)
    timer.samples(4)
    assert timer.num_calls == num_made


@pytest.mark.parametrize("ns", [800, 70_000])
def test_reset_runs_before_every_call_and_outside_the_clock(clock, ns):
    timer = wall(clock, ns, clock.reset)
    samples = timer.samples(3)
    assert [s.ms for s in samples] == [pytest.approx(ns / 1e6)] * 3
    assert clock.num_resets == timer.num_calls


def test_a_reset_comes_before_its_call(clock):
    order = []

    def call():
        order.append("call")
        clock.ns += 60_000

    timer = WallTimer(call, lambda: order.append("reset"), "cpu", clock_ns=clock.read)
    timer.samples(2)
    assert order == ["reset", "call"] * timer.num_calls


def test_the_host_clock_has_no_exposure(clock):
    assert [s.is_exposed for s in wall(clock, 60_000).samples(2)] == [None, None]


class Gpu:
    """A stream, a launch queue and a host clock; stands in for `torch.cuda`.

    A launch costs the host 5 us. The GPU begins it when it has reached it and the host has queued
    it; a full queue stops the host until a launch has begun. `log` says what was queued in order.
    """

    cycles_per_s = 1.5e9
    launch_s = 5e-6

    def __init__(self, queue_length=inf):
        self.host_s = 0.0
        self.free_s = 0.0
        self.begun_s = []
        self.queue_length = queue_length
        self.num_resets = 0
        self.busy_s = 0.0
        self.log = []

    def now(self):
        return self.host_s

    def kernel(self, seconds):
        self.host_s += self.launch_s
        if len(self.begun_s) >= self.queue_length:
            self.host_s = max(self.host_s, self.begun_s[-int(self.queue_length)])
        self.begun_s.append(max(self.free_s, self.host_s))
        self.free_s = self.begun_s[-1] + seconds
        self.busy_s += seconds
        self.log.append("kernel")

    def _sleep(self, cycles):
        self.kernel(cycles / self.cycles_per_s)
        self.busy_s -= cycles / self.cycles_per_s
        self.log[-1] = "spin"

    def flush(self):
        self.kernel(40e-6)
        self.log[-1] = "flush"

    def reset(self):
        self.num_resets += 1
        self.log.append("reset")

    def synchronize(self):
        self.log.append("synchronize")
        self.host_s = max(self.host_s, self.free_s)

    def Event(self, *, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.gpu.log.append("event")
        self.at_s = max(self.gpu.host_s, self.gpu.free_s)

    def query(self):
        return self.gpu.host_s >= self.at_s

    def synchronize(self):
        self.gpu.log.append("synchronize")
        self.gpu.host_s = max(self.gpu.host_s, self.at_s)

    def elapsed_time(self, end):
        return 1e3 * (end.at_s - self.at_s)


def queued(gpu: Gpu) -> QueuedEvents:
    return QueuedEvents(gpu, gpu.flush, gpu.now)


def one_sample(events: QueuedEvents, launch) -> Sample:
    (sample,) = events.samples(launch, no_reset, 1)
    return sample


def launches(gpu: Gpu, num: int, kernel_s: float, gap_s: float = 0.0):
    def call():
        for _ in range(num):
            gpu.kernel(kernel_s)
            gpu.host_s += gap_s

    return call


def test_without_a_spin_the_gaps_of_the_host_would_count():
    gpu = Gpu()
    events = queued(gpu)
    events.spin_s = 0.0
    sample = one_sample(events, launches(gpu, 3, kernel_s=10e-6, gap_s=1e-3))
    assert sample.ms > 2.0
    assert sample.is_exposed


def test_calibration_finds_a_spin_that_hides_the_host():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 3, kernel_s=10e-6, gap_s=1e-3)
    events.calibrate(call, gpu.reset)
    sample = one_sample(events, call)
    assert sample.ms == pytest.approx(0.030)
    assert not sample.is_exposed


def test_the_spin_is_no_longer_than_the_host_needs():
    gpu = Gpu()
    events = queued(gpu)
    events.calibrate(launches(gpu, 2, kernel_s=6e-3), gpu.reset)
    assert 20e-6 <= events.spin_s <= 100e-6


def test_a_host_that_was_slow_once_does_not_lengthen_the_spin_for_good():
    gpu = Gpu()
    events = queued(gpu)
    gaps_s = iter([5e-3])

    def call():
        gpu.kernel(10e-6)
        gpu.host_s += next(gaps_s, 0.1e-3)
        gpu.kernel(10e-6)

    events.calibrate(call, gpu.reset)
    assert events.spin_s / events.batch_size < 1e-3


def test_calibration_resets_before_each_call_and_counts_them():
    gpu = Gpu()
    call = launches(gpu, 4, kernel_s=1e-6, gap_s=2e-3)
    num_calls = queued(gpu).calibrate(call, gpu.reset)
    assert num_calls == gpu.num_resets >= 2


def test_a_host_that_got_slower_exposes_a_sample_and_lengthens_the_spin():
    gpu = Gpu()
    events = queued(gpu)
    events.calibrate(launches(gpu, 2, kernel_s=10e-6, gap_s=0.1e-3), gpu.reset)
    slower = launches(gpu, 2, kernel_s=10e-6, gap_s=0.4e-3)
    exposed = [one_sample(events, slower).is_exposed for _ in range(8)]
    assert exposed[0]
    assert not exposed[-1]
    assert exposed == sorted(exposed, reverse=True)


def test_a_call_that_waits_for_the_gpu_stays_exposed_and_keeps_a_short_spin():
    gpu = Gpu()
    events = queued(gpu)

    def call():
        gpu.kernel(2e-3)
        gpu.synchronize()
        gpu.kernel(1e-3)

    num_calls = events.calibrate(call, gpu.reset)
    assert num_calls < 40
    assert all(one_sample(events, call).is_exposed for _ in range(20))
    assert events.spin_s < 10e-3


def test_more_launches_than_the_queue_holds_are_exposed_and_end():
    gpu = Gpu(queue_length=1024)
    events = queued(gpu)
    call = launches(gpu, 3000, kernel_s=1e-6)
    events.calibrate(call, gpu.reset)
    assert all(one_sample(events, call).is_exposed for _ in range(20))
    assert events.spin_s < 60e-3


def test_the_spin_has_a_longest_length():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 2, kernel_s=10e-6, gap_s=3.0)
    assert events.calibrate(call, gpu.reset) == 1
    for _ in range(5):
        one_sample(events, call)
    assert events.spin_s == events.longest_spin_s


def test_the_flush_is_queued_before_every_sample_and_outside_the_clock():
    gpu = Gpu()
    num_flushes = 0

    def flush():
        nonlocal num_flushes
        num_flushes += 1
        gpu.kernel(0.5)

    events = QueuedEvents(gpu, flush, gpu.now)
    samples = [one_sample(events, launches(gpu, 1, kernel_s=20e-6)) for _ in range(3)]
    assert [s.ms for s in samples] == [pytest.approx(0.020)] * 3
    assert num_flushes == 3


def test_a_batch_is_queued_behind_one_spin_and_waited_for_once():
    gpu = Gpu()
    events = queued(gpu)
    events.batch_size = 3
    gpu.log.clear()
    events.samples(launches(gpu, 2, kernel_s=7e-6), gpu.reset, 3)
    call = ["reset", "flush", "event", "kernel", "kernel", "event"]
    assert gpu.log == ["reset", "spin", *call[1:], *call, *call, "synchronize"]


@pytest.mark.parametrize(
    ("kernel_s", "batch_size"), [(20e-6, 32), (0.9e-3, 16), (3e-3, 4), (9e-3, 2), (12e-3, 1)]
)
def test_batches_grow_to_32_calls_or_about_20_ms_of_work(kernel_s, batch_size):
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 1, kernel_s=kernel_s)
    events.calibrate(call, gpu.reset)
    assert events.batch_size == batch_size
    samples = events.samples(call, gpu.reset, 40)
    assert [s.ms for s in samples] == [pytest.approx(1e3 * kernel_s)] * 40
    assert not any(s.is_exposed for s in samples)


def test_batches_hold_no_more_launches_than_the_queue():
    gpu = Gpu(queue_length=1024)
    events = queued(gpu)
    call = launches(gpu, 200, kernel_s=1e-6)
    num_calls = events.calibrate(call, gpu.reset)
    assert events.batch_size == 4
    assert num_calls == gpu.num_resets
    samples = events.samples(call, gpu.reset, 9)
    assert [s.ms for s in samples] == [pytest.approx(0.200)] * 9
    assert not any(s.is_exposed for s in samples)


def test_batches_of_a_slow_host_stay_so_small_that_the_spin_is_short():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 2, kernel_s=10e-6, gap_s=1e-3)
    events.calibrate(call, gpu.reset)
    assert 2 <= events.batch_size < 32
    assert events.spin_s <= 21e-3
    assert not any(s.is_exposed for s in events.samples(call, gpu.reset, 40))


def test_a_host_that_was_slow_once_does_not_keep_batches_small():
    gpu = Gpu()
    events = queued(gpu)
    gaps_s = iter([*[0.0] * 10, 20e-3])

    def call():
        gpu.kernel(10e-6)
        gpu.host_s += next(gaps_s, 0.0)

    events.calibrate(call, gpu.reset)
    assert events.batch_size == 32
    assert events.spin_s < 5e-3


def test_the_gpu_works_nearly_all_the_time_while_short_calls_are_timed():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 1, kernel_s=200e-6)
    events.calibrate(call, gpu.reset)
    began_s, busy_s = gpu.host_s, gpu.busy_s
    events.samples(call, gpu.reset, 320)
    assert gpu.busy_s - busy_s > 0.97 * (gpu.host_s - began_s)


def test_a_batch_that_the_one_before_does_not_outlast_has_a_spin_of_its_own():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 1, kernel_s=20e-6, gap_s=0.1e-3)
    events.calibrate(call, gpu.reset)
    gpu.log.clear()
    samples = events.samples(call, gpu.reset, 3 * events.batch_size)
    assert gpu.log.count("spin") == 3
    assert not any(sample.is_exposed for sample in samples)


@pytest.mark.parametrize(("num", "num_spins"), [(1, 1), (32, 1), (70, 1)])
def test_any_number_of_samples_comes_in_order_and_none_is_dropped(num, num_spins):
    gpu = Gpu()
    events = queued(gpu)
    events.calibrate(launches(gpu, 1, kernel_s=50e-6), gpu.reset)
    durations_s = iter([1e-6 * (10 + i) for i in range(num)])
    gpu.log.clear()
    samples = events.samples(lambda: gpu.kernel(next(durations_s)), gpu.reset, num)
    assert [s.ms for s in samples] == [pytest.approx(1e-3 * (10 + i)) for i in range(num)]
    assert (gpu.log.count("spin"), gpu.log.count("reset")) == (num_spins, num)


def test_a_smaller_batch_spins_for_less():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 1, kernel_s=50e-6, gap_s=0.1e-3)
    events.calibrate(call, gpu.reset)
    began_s = gpu.host_s
    sample = one_sample(events, call)
    assert not sample.is_exposed
    assert gpu.host_s - began_s < 0.2 * events.spin_s


def test_one_slow_call_exposes_its_whole_batch_and_no_other():
    gpu = Gpu()
    events = queued(gpu)
    events.calibrate(launches(gpu, 1, kernel_s=20e-6), gpu.reset)
    gaps_s = iter([*[0.0] * 40, 30e-3])

    def call():
        gpu.host_s += next(gaps_s, 0.0)
        gpu.kernel(20e-6)

    exposed = [s.is_exposed for s in events.samples(call, gpu.reset, 96)]
    assert exposed == [False] * 32 + [True] * 32 + [False] * 32


def test_a_slow_reset_lies_outside_the_clock_within_a_batch():
    gpu = Gpu()
    events = queued(gpu)

    def reset():
        gpu.host_s += 0.3e-3

    call = launches(gpu, 1, kernel_s=20e-6)
    events.calibrate(call, reset)
    assert events.batch_size > 1
    samples = events.samples(call, reset, 50)
    assert [s.ms for s in samples] == [pytest.approx(0.020)] * 50
    assert not any(s.is_exposed for s in samples)


@pytest.fixture
def gpu(monkeypatch):
    simulated = Gpu()
    monkeypatch.setattr(timers, "_queued_events", lambda: queued(simulated))
    return simulated


def test_events_reset_before_every_call_and_count_them_all(gpu):
    order = []

    def call():
        order.append("call")
        gpu.kernel(30e-6)

    timer = EventTimer(call, lambda: order.append("reset"), "cuda")
    assert [s.ms for s in timer.samples(45)] == [pytest.approx(0.030)] * 45
    assert order == ["reset", "call"] * timer.num_calls
    assert timer.batch_size == 32


class Graph:
    def __init__(self, gpu):
        self.gpu = gpu
        self.num_replays = 0
        self.is_freed = False

    def replay(self):
        self.num_replays += 1
        self.gpu.kernel(20e-6)

    def reset(self):
        self.is_freed = True


def test_a_graph_is_replayed_and_freed(gpu, monkeypatch):
    graph, resets = Graph(gpu), []
    monkeypatch.setattr(timers, "_capture", lambda call, reset: (graph, 3))
    timer = GraphTimer(lambda: None, lambda: resets.append("reset"), "cuda")
    assert [s.ms for s in timer.samples(45)] == [pytest.approx(0.020)] * 45
    assert timer.num_calls == 3 + graph.num_replays
    assert timer.batch_size == 32
    assert resets == []
    timer.close()
    assert graph.is_freed
    assert resets == ["reset"]


def test_a_failed_capture_names_what_broke_it_and_not_how_it_ended():
    err = RuntimeError("capture ended")
    err.__context__ = RuntimeError("operation not permitted when stream is capturing\nmore")
    shown = timers._not_capturable(err)
    assert isinstance(shown, EnaBenchError)
    assert shown.wrong.endswith("CUDA graph: operation not permitted when stream is capturing")
    assert "--timer events" in shown.try_


class Generator:
    """A CUDA generator: its state belongs to a capture from its begin to its successful end."""

    def __init__(self, is_captured=False, offset=12):
        self.is_captured, self.offset = is_captured, offset

    def clone_state(self):
        return Generator(offset=self.offset)

    def graphsafe_set_state(self, other):
        self.is_captured, self.offset = other.is_captured, other.offset


class BrokenCapture:
    """Stands in for `torch.cuda.graph` around a call that ends its own capture."""

    generator = Generator()

    def __init__(self, graph, *, stream):
        pass

    def __enter__(self):
        self.generator.is_captured = True

    def __exit__(self, *_):
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("operation failed"), EnaBenchError),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError),
    ],
)
def test_after_a_failed_capture_random_numbers_go_on(monkeypatch, error, raised):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(BrokenCapture, "generator", Generator())
    monkeypatch.setattr(BrokenCapture, "error", error, raising=False)
    monkeypatch.setattr(timers, "_side_stream", lambda: stream)
    for name, value in {
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": object,
        "graph": BrokenCapture,
        "default_generators": ["another device's", BrokenCapture.generator],
        "current_device": lambda: 1,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    with pytest.raises(raised):
        timers._capture(lambda: None, no_reset)
    assert not BrokenCapture.generator.is_captured
    assert BrokenCapture.generator.offset == 12
