"""Three ways to time one call; `bench.timing` decides how often.

events  how long the GPU works: an event pair around each call, cold L2, launches queued ahead
graph   the same with all launches of a call folded into one CUDA graph
wall    how long a caller waits: the host clock, with synchronisation on CUDA
"""

import time
from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any, ClassVar, Protocol, cast

from bench.errors import EnaBenchError
from bench.queued_events import Call, QueuedEvents, Sample, no_reset

SHORTEST_SAMPLE_NS = 50_000
"""A host sample is at least this long: a thousand times the cost of reading the clock."""
CPU_WARMUP_SHARE = 0.05
"""A CPU needs this share of the warm-up: its caches fill at once, a GPU's clock rises slowly."""


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
        self._synchronize = synchronization(device)
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


def synchronization(device: str) -> Call:
    """What waits until a device has done everything it was asked for."""
    if device != "cuda":
        return no_reset
    import torch

    return torch.cuda.synchronize
