"""Three ways to time one call; `bench.timing` decides how often.

events  how long the GPU works: an event pair around each call, cold L2, launches queued ahead
graph   the same with all launches of a call folded into one CUDA graph
wall    how long a caller waits: the host clock, with synchronisation on CUDA
"""

import time
from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any, ClassVar, NamedTuple, Protocol, cast

from bench.errors import EnaBenchError

SHORTEST_SAMPLE_NS = 50_000
"""A host sample is at least this long: a thousand times the cost of reading the clock."""
CPU_WARMUP_SHARE = 0.05
"""A CPU needs this share of the warm-up: its caches fill at once, a GPU's clock rises slowly."""

Call = Callable[[], object]
Now = Callable[[], float]
Pairs = list[tuple[Any, Any]]


class Sample(NamedTuple):
    """One timed number, and whether the GPU began before all its work was queued."""

    ms: float
    is_exposed: bool | None = None


class Timer(Protocol):
    """A way to take samples of one call; `num_calls` counts those made to calibrate as well.

    `samples` takes any number, and does it best in multiples of `batch_size`.
    """

    name: ClassVar[str]
    warmup_share: float
    batch_size: int
    calls_per_sample: int
    num_calls: int

    def __init__(self, call: Call, reset: Call, device: str) -> None: ...

    def samples(self, n: int) -> list[Sample]: ...

    def close(self) -> None: ...


def no_reset() -> None:
    """The reset of a call that leaves nothing to undo."""


class WallTimer:
    """The host clock. On CUDA the device is idle before and after; caches stay as they are.

    On a CPU, calls too short for the clock are averaged, `calls_per_sample` of them. With a
    `reset` each of these is timed by itself, so that no reset lies inside the clock. On CUDA a
    sample is always one call, because calls in a row overlap and nobody waits that way.
    """

    name: ClassVar[str] = "wall"

    def __init__(
        self,
        call: Call,
        reset: Call,
        device: str,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._call = call
        self._reset = reset
        self._clock_ns = clock_ns
        self._synchronize = _synchronization(device)
        self.warmup_share = 1.0 if device == "cuda" else CPU_WARMUP_SHARE
        self.batch_size = 1
        self.num_calls = 0
        self.calls_per_sample = 1 if device == "cuda" else self._enough_calls()

    def samples(self, n: int) -> list[Sample]:
        num = self.calls_per_sample
        return [Sample(self._run_ns(num) / num / 1e6) for _ in range(n)]

    def close(self) -> None:
        """Nothing is held."""

    def _enough_calls(self) -> int:
        num = 1
        while (ns := self._fastest_ns(num)) < SHORTEST_SAMPLE_NS:
            # a first guess from few calls is coarse, so approach the goal in steps
            num = min(10 * num, ceil(1.2 * num * SHORTEST_SAMPLE_NS / max(ns, 1)))
        return num

    def _fastest_ns(self, num: int) -> int:
        """Of three runs, so that a cold first one does not pass for long; a long one is enough."""
        fastest = self._run_ns(num)
        for _ in range(2):
            if fastest >= 20 * SHORTEST_SAMPLE_NS:
                break
            fastest = min(fastest, self._run_ns(num))
        return fastest

    def _run_ns(self, num: int) -> int:
        self.num_calls += num
        if self._reset is no_reset:
            return self._timed_ns(num)
        return sum(self._timed_after_reset_ns() for _ in range(num))

    def _timed_ns(self, num: int) -> int:
        call, repeats = self._call, range(num)
        self._synchronize()
        started = self._clock_ns()
        for _ in repeats:
            call()
        self._synchronize()
        return self._clock_ns() - started

    def _timed_after_reset_ns(self) -> int:
        self._reset()
        return self._timed_ns(1)


class EventTimer:
    """CUDA events around each call, with cold L2, behind a blocked stream.

    A sample is always one call: repeats would find their data in L2. Where the step of the event
    clock shows in the samples, `bench.telemetry.timing_warnings` says so.
    """

    name: ClassVar[str] = "events"

    def __init__(self, call: Call, reset: Call, device: str) -> None:
        self._call = call
        self._reset = reset
        self.calls_per_sample = 1
        self.warmup_share = 1.0
        self._events = _queued_events()
        self.num_calls = self._events.calibrate(call, reset)
        self.batch_size = self._events.batch_size

    def samples(self, n: int) -> list[Sample]:
        self.num_calls += n
        return self._events.samples(self._call, self._reset, n)

    def close(self) -> None:
        """Free the buffer that flushes L2."""
        self._events.close()


class GraphTimer:
    """CUDA graph replay, timed as `EventTimer` times a call; one call per graph.

    Gradients are dropped once, before the capture: a replay writes them anew.
    """

    name: ClassVar[str] = "graph"

    def __init__(self, call: Call, reset: Call, device: str) -> None:
        self._reset = reset
        self.calls_per_sample = 1
        self.warmup_share = 1.0
        self._graph, num_eager = _capture(call, reset)
        self._events = _queued_events()
        self.num_calls = num_eager + self._events.calibrate(self._graph.replay, no_reset)
        self.batch_size = self._events.batch_size

    def samples(self, n: int) -> list[Sample]:
        self.num_calls += n
        return self._events.samples(self._graph.replay, no_reset, n)

    def close(self) -> None:
        """Free the graph's private memory and the buffer that flushes L2."""
        import torch

        self._events.close()
        self._graph.reset()
        self._reset()
        torch.cuda.empty_cache()


class QueuedEvents:
    """Time the GPU alone: queue all work behind a spinning kernel, then let it run.

    The spin lasts as long as the host needs to queue the work, so the GPU never waits for the host
    between two launches. A GPU that waits between calls draws less power and clocks higher than one
    at work, so up to `largest_batch` calls share a spin, and a batch that the one before it gives
    the host time to queue needs none. The launch queue is finite (1024 launches on an H100), and a
    full one stops the host until the spin ends.

    Args:
        cuda: `torch.cuda`, or something that behaves like it.
        flush: Queues work that leaves nothing of the call's data in L2.
        now: The host clock in seconds.
    """

    margin: ClassVar[float] = 1.5
    least_spin_s: ClassVar[float] = 50e-6
    longest_spin_s: ClassVar[float] = 0.25
    growth: ClassVar[float] = 8.0
    calibration_s: ClassVar[float] = 0.2
    largest_batch: ClassVar[int] = 32
    batch_s: ClassVar[float] = 20e-3
    tries_per_batch_size: ClassVar[int] = 3

    def __init__(self, cuda: Any, flush: Call, now: Now = time.perf_counter) -> None:
        self._cuda = cuda
        self._flush = flush
        self._now = now
        self._pairs: tuple[Pairs, Pairs] = ([self._event_pair()], [])
        self._cycles_per_s = self._spin_rate()
        self._host_s = 0.0
        self._work_s = 0.0
        self.batch_size = 1
        self.spin_s = self.least_spin_s
        self._limit_s = self.longest_spin_s

    def samples(self, launch: Call, reset: Call, n: int) -> list[Sample]:
        """This many samples in order, each call after a reset; at most two batches in flight."""
        taken: list[Sample] = []
        running: _Batch | None = None
        num_queued = 0
        while num_queued < n:
            size = min(self.batch_size, n - num_queued)
            queued = self._queue(launch, reset, size, behind=running)
            num_queued += size
            if running is not None:
                taken += self._finish(running)
            running = queued
        return taken + (self._finish(running) if running is not None else [])

    def calibrate(self, launch: Call, reset: Call) -> int:
        """Find a batch and a spin that hides the host; return how many calls it took.

        Batches double as long as nothing is exposed and both work and spin stay short.
        """
        num_calls, is_hidden = self._fit_spin(launch, reset)
        while is_hidden and self._may_double():
            smaller = self.batch_size, self.spin_s, self._limit_s
            self.batch_size, self.spin_s = 2 * self.batch_size, 2 * self.spin_s
            num_more, is_hidden = self._fit_spin(launch, reset)
            num_calls += num_more
            if not is_hidden:
                self.batch_size, self.spin_s, self._limit_s = smaller
        return num_calls

    def _may_double(self) -> bool:
        longest_s = max(self._work_s, self.spin_s)
        return self.batch_size < self.largest_batch and 2 * longest_s <= self.batch_s

    def _fit_spin(self, launch: Call, reset: Call) -> tuple[int, bool]:
        """Fit the spin to this batch in a bounded time; the calls it took, and whether it hides.

        Work that waits for the GPU, or has more launches than the queue holds, cannot be hidden
        by any spin: it keeps the first estimate, and its samples say that they are exposed.
        """
        began = self._now()
        estimates_s: list[float] = []
        while True:
            batch = self._queue(launch, reset, self.batch_size, behind=None)
            is_exposed = self._finish(batch)[0].is_exposed
            wanted_s = self.margin * self._host_s + self.least_spin_s
            estimates_s.append(min(wanted_s, self.longest_spin_s))
            num_tries = len(estimates_s)
            if not is_exposed:
                self.spin_s = estimates_s[-1]
                self._limit_s = min(self.growth * self.spin_s, self.longest_spin_s)
                return num_tries * self.batch_size, True
            is_last = self.batch_size > 1 and num_tries == self.tries_per_batch_size
            if is_last or self._now() - began > self.calibration_s:
                self.spin_s = self._limit_s = estimates_s[0]
                return num_tries * self.batch_size, False
            self.spin_s = max(self.spin_s, estimates_s[-1])

    def _queue(self, launch: Call, reset: Call, n: int, *, behind: "_Batch | None") -> "_Batch":
        """Queue a batch, behind a spin unless the batch before it lasts long enough."""
        pool = self._pairs[0 if behind is None else 1 - behind.pool]
        pool += [self._event_pair() for _ in range(n - len(pool))]
        pairs = pool[:n]
        first = pairs[0][0]
        reset()
        began = self._now()
        if behind is None or self._work_s < self.margin * self._host_s:
            self._cuda._sleep(int(self._spin_s_for(n) * self._cycles_per_s))
        for start, end in pairs:
            if start is not first:
                reset()
            self._flush()
            start.record()
            launch()
            end.record()
        is_exposed = bool(first.query())
        self._host_s = self._now() - began
        return _Batch(pairs, 0 if behind is None else 1 - behind.pool, is_exposed)

    def _finish(self, batch: "_Batch") -> list[Sample]:
        """Wait for a batch; a spin that proved too short exposes all of it and is lengthened."""
        first, last = batch.pairs[0][0], batch.pairs[-1][1]
        last.synchronize()
        self._work_s = 1e-3 * first.elapsed_time(last)
        if batch.is_exposed:
            self.spin_s = min(self.margin * self.spin_s, self._limit_s)
        return [Sample(start.elapsed_time(end), batch.is_exposed) for start, end in batch.pairs]

    def _spin_s_for(self, n: int) -> float:
        """A smaller batch needs its share and what does not shrink with it."""
        return min(self.spin_s, self.spin_s * n / self.batch_size + self.least_spin_s)

    def close(self) -> None:
        """Let go of the memory behind the flush."""
        self._flush = no_reset

    def _spin_rate(self) -> float:
        """Cycles per second of the spin at the clock the GPU has now, the faster of two tries."""
        cycles = 1_000_000
        start, end = self._pairs[0][0]
        rates: list[float] = []
        for _ in range(2):
            start.record()
            self._cuda._sleep(cycles)
            end.record()
            end.synchronize()
            rates.append(1e3 * cycles / start.elapsed_time(end))
        return max(rates)

    def _event_pair(self) -> tuple[Any, Any]:
        return self._cuda.Event(enable_timing=True), self._cuda.Event(enable_timing=True)


class _Batch(NamedTuple):
    """Queued calls between their events, out of one of two pools of events."""

    pairs: Pairs
    pool: int
    is_exposed: bool


def _queued_events() -> QueuedEvents:
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    buffer = torch.empty(2 * properties.L2_cache_size, dtype=torch.int8, device="cuda")
    return QueuedEvents(torch.cuda, buffer.zero_)


def _capture(call: Call, reset: Call) -> tuple[Any, int]:
    """A CUDA graph of the call, and how many calls ran eagerly before.

    Raises:
        EnaBenchError: the call does something that a graph cannot hold.
    """
    import torch

    num_eager = 3
    cuda: Any = torch.cuda
    here, aside = cuda.current_stream(), _side_stream()
    aside.wait_stream(here)
    with cuda.stream(aside):
        for _ in range(num_eager):
            reset()
            call()
    here.wait_stream(aside)
    reset()
    graph = cuda.CUDAGraph()
    try:
        # a capture that fails leaves its stream current; the outer context puts ours back
        with cuda.stream(here), cuda.graph(graph, stream=aside):
            call()
    except RuntimeError as err:
        _free_generator()
        if isinstance(err, torch.OutOfMemoryError):
            raise
        raise _not_capturable(err) from err
    return graph, num_eager


def _free_generator() -> None:
    """Give CUDA's random numbers a state that no capture holds, at the same place in the stream.

    Up to torch 2.11 a capture that cannot be ended keeps the state that it had marked as its own,
    and every later draw raises.
    """
    import torch

    generator: Any = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


@cache
def _side_stream() -> Any:
    """One for all captures, because libraries keep a workspace for every stream they have met."""
    import torch

    return cast(Any, torch.cuda).Stream()


def _not_capturable(err: RuntimeError) -> EnaBenchError:
    # ending the broken capture raises too, and hides what broke it in its context
    cause = err.__context__ or err
    return EnaBenchError(
        f"the call cannot be captured in a CUDA graph: {str(cause).partition(chr(10))[0]}",
        expected="a call that neither waits for the GPU nor copies from or to the host",
        try_="--timer events",
    )


def _synchronization(device: str) -> Call:
    if device != "cuda":
        return no_reset
    import torch

    return torch.cuda.synchronize
