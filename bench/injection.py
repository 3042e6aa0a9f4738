"""A known slow-down in what is timed: real work, as much of it as was asked for.

cpu   a loop that counts, before each call
cuda  a kernel that spins, queued before each call's own kernels

How much is enough is found anew in each process: how long the call takes by itself, and how fast
the work goes. A run is named after the slow-down in it, and the worker goes by that name.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import torch

from bench import stats, timing
from bench.case import Case
from bench.contenders import lookup
from bench.machine import Machine, Peaks
from bench.modes import timed_call
from bench.outcome import Unsupported, identity
from bench.row import Row
from bench.timers import synchronization

_PREFIX = "slower-by-"
_LOOP_STEPS = 20_000
_SPIN_CYCLES = 400_000
_TRIES = 5
_FIRST_LOOK_S = 0.05


def run_of(slowdown: float) -> str:
    """The run_id of visits slowed by a fraction."""
    return f"{_PREFIX}{slowdown:g}"


def slowdown_of(run_id: str) -> float:
    """The fraction in a run_id of `run_of`."""
    return float(run_id.removeprefix(_PREFIX))


def measure(
    case: Case,
    settings: timing.Settings,
    *,
    machine: Machine,
    peaks: Peaks | None,
    round: int,
    run_id: str,
    say: Callable[[str, Mapping[str, Any]], None],
) -> Row:
    """Time a case that is slower by what `run_id` says; nothing is verified or profiled.

    Raises:
        Unsupported: the case cannot run here.
    """
    contender = lookup(case)
    if reason := contender.why_not(case):
        raise Unsupported(reason)
    say("build", {})
    torch.manual_seed(settings.seed)
    timed = timed_call(contender.workload(case), case.mode)
    timed.run()
    synchronization(case.device)()
    say("time", {})
    sample = partial(timing.measure, device=case.device, reset=timed.reset)
    slowdown = slowdown_of(run_id)
    call = timed.run
    if slowdown:
        brief = replace(settings, budget_s=_FIRST_LOOK_S)
        plain_ms = stats.median(sample(timed.run, settings=brief).samples_ms)
        call = slowed(timed.run, slowdown * plain_ms, case.device)
    found = sample(call, settings=settings)
    return Row(
        **identity(case, round=round, run_id=run_id, seed=settings.seed),
        **machine.row_values(case.device),
        status="ok",
        timer=found.timer,
        calls_per_sample=found.calls_per_sample,
        samples_ms=list(found.samples_ms),
        latency_ms=stats.median(found.samples_ms),
        stop_reason=found.stop_reason,
        num_warmup=found.num_warmup,
    )


def slowed(call: Callable[[], object], by_ms: float, device: str) -> Callable[[], object]:
    """The call with work of this length before it."""
    spin: Callable[[int], object] = torch.cuda._sleep
    work, rate = (spin, _spins_per_ms()) if device == "cuda" else (_count, _steps_per_ms())
    amount = max(1, round(by_ms * rate))

    def run() -> object:
        work(amount)
        return call()

    return run


def _count(steps: int) -> None:
    deque(repeat(None, steps), maxlen=0)


def _steps_per_ms() -> float:
    def elapsed_ns() -> int:
        began = time.perf_counter_ns()
        _count(_LOOP_STEPS)
        return time.perf_counter_ns() - began

    return _LOOP_STEPS / (min(elapsed_ns() for _ in range(_TRIES)) / 1e6)


def _spins_per_ms() -> float:
    """Cycles a ms, from the difference of two spins, for a launch takes its time as well."""
    cuda: Any = torch.cuda

    def elapsed_ms(cycles: int) -> float:
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        cuda._sleep(cycles)
        end.record()
        end.synchronize()
        taken: float = begin.elapsed_time(end)
        return taken

    short, long = (min(elapsed_ms(n) for _ in range(_TRIES)) for n in (1_000, _SPIN_CYCLES))
    return (_SPIN_CYCLES - 1_000) / (long - short)
