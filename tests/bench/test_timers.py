"""The timers: the host clock on a fake clock, CUDA events on a simulated GPU."""

from math import inf

import pytest

from bench import timers
from bench.errors import EnaBenchError
from bench.timers import EventTimer, GraphTimer, QueuedEvents, WallTimer, no_reset


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
    it; a full queue stops the host until a launch has begun.
    """

    cycles_per_s = 1.5e9
    launch_s = 5e-6

    def __init__(self, queue_length=inf):
        self.host_s = 0.0
        self.free_s = 0.0
        self.begun_s = []
        self.queue_length = queue_length
        self.num_resets = 0

    def now(self):
        return self.host_s

    def kernel(self, seconds):
        self.host_s += self.launch_s
        if len(self.begun_s) >= self.queue_length:
            self.host_s = max(self.host_s, self.begun_s[-int(self.queue_length)])
        self.begun_s.append(max(self.free_s, self.host_s))
        self.free_s = self.begun_s[-1] + seconds

    def _sleep(self, cycles):
        self.kernel(cycles / self.cycles_per_s)

    def flush(self):
        self.kernel(40e-6)

    def reset(self):
        self.num_resets += 1

    def synchronize(self):
        self.host_s = max(self.host_s, self.free_s)

    def Event(self, *, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at_s = max(self.gpu.host_s, self.gpu.free_s)

    def query(self):
        return self.gpu.host_s >= self.at_s

    def synchronize(self):
        self.gpu.host_s = max(self.gpu.host_s, self.at_s)

    def elapsed_time(self, end):
        return 1e3 * (end.at_s - self.at_s)


def queued(gpu: Gpu) -> QueuedEvents:
    return QueuedEvents(gpu, gpu.flush, gpu.now)


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
    sample = events.time(launches(gpu, 3, kernel_s=10e-6, gap_s=1e-3))
    assert sample.ms > 2.0
    assert sample.is_exposed


def test_calibration_finds_a_spin_that_hides_the_host():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 3, kernel_s=10e-6, gap_s=1e-3)
    events.calibrate(call, gpu.reset)
    sample = events.time(call)
    assert sample.ms == pytest.approx(0.030)
    assert not sample.is_exposed


def test_the_spin_is_no_longer_than_the_host_needs():
    gpu = Gpu()
    events = queued(gpu)
    events.calibrate(launches(gpu, 2, kernel_s=5e-3), gpu.reset)
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
    assert events.spin_s < 1e-3


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
    exposed = [events.time(slower).is_exposed for _ in range(8)]
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
    assert all(events.time(call).is_exposed for _ in range(20))
    assert events.spin_s < 10e-3


def test_more_launches_than_the_queue_holds_are_exposed_and_end():
    gpu = Gpu(queue_length=1024)
    events = queued(gpu)
    call = launches(gpu, 3000, kernel_s=1e-6)
    events.calibrate(call, gpu.reset)
    assert all(events.time(call).is_exposed for _ in range(20))
    assert events.spin_s < 60e-3


def test_the_spin_has_a_longest_length():
    gpu = Gpu()
    events = queued(gpu)
    call = launches(gpu, 2, kernel_s=10e-6, gap_s=3.0)
    assert events.calibrate(call, gpu.reset) == 1
    for _ in range(5):
        events.time(call)
    assert events.spin_s == events.longest_spin_s


def test_the_flush_is_queued_before_every_sample_and_outside_the_clock():
    gpu = Gpu()
    num_flushes = 0

    def flush():
        nonlocal num_flushes
        num_flushes += 1
        gpu.kernel(0.5)

    events = QueuedEvents(gpu, flush, gpu.now)
    samples = [events.time(launches(gpu, 1, kernel_s=20e-6)) for _ in range(3)]
    assert [s.ms for s in samples] == [pytest.approx(0.020)] * 3
    assert num_flushes == 3


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
    assert [s.ms for s in timer.samples(3)] == [pytest.approx(0.030)] * 3
    assert order == ["reset", "call"] * timer.num_calls


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
    assert [s.ms for s in timer.samples(2)] == [pytest.approx(0.020)] * 2
    assert timer.num_calls == 3 + graph.num_replays
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
