"""The GPU's work alone: calls between events, queued behind a kernel that spins."""

import time
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

Call = Callable[[], object]
Now = Callable[[], float]
Pairs = list[tuple[Any, Any]]


class Sample(NamedTuple):
    """One timed number, and whether the GPU began before all its work was queued."""

    ms: float
    is_exposed: bool | None = None


def no_reset() -> None:
    """The reset of a call that leaves nothing to undo."""


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
