"""The comparator measured: how often it cries wolf, and how often it finds what is there.

A gate is a grid of cases compared by `bench.decision.decide`, suspects measured again: the decision
of `ena-bench check`. Here runs are drawn from recorded noise (`bench.noise`), in `real_selftest`
they are measured. Without a slow case every alarm is false; with one, slowed by scaling its
samples, the gate should name it.
"""

import json
import math
import pickle
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from bench import processes
from bench.decision import Question, decide
from bench.errors import EnaBenchError
from bench.gate import first_rounds
from bench.noise import NoiseModel, Visit
from bench.selftest_report import Outcome, Rate, Report, Trial
from bench.verdict import SLOWER, Limits

if TYPE_CHECKING:
    from subprocess import Popen

Job = tuple[int, int]
"""Which slow-down, counted with none as the first, and which of its gates."""
Result = tuple[Job, bool, bool]
"""A gate, whether it found what was slow, and whether it called something else slower."""

GATES_PER_PROCESS = 12
"""A process pays for its start from so many gates on."""
MAX_PROCESSES = 16
_PROGRAM = "from bench.selftest import simulate_share; simulate_share()"
_BASELINE, _CANDIDATE = "baseline", "candidate"


def simulate(
    model: NoiseModel,
    trial: Trial,
    limits: Limits | None = None,
    *,
    budget_s: float = math.inf,
    on_gate: Callable[[int, int], None] | None = None,
) -> Report:
    """Run gates on runs drawn from a noise model, many of them by several processes.

    Equal seeds give equal rates, however many processes there are, if the budget lasts.

    Args:
        budget_s: No gate is begun after this long; slow-downs take turns.
        on_gate: Told after each gate how many of how many are done.

    Raises:
        EnaBenchError: the budget does not last for a gate of each slow-down.
    """
    started_s = time.monotonic()
    limits = limits or Limits()
    steps = (0.0, *trial.slowdowns)
    jobs = [(step, gate) for gate in range(trial.num_gates) for step in range(len(steps))]
    num_gates, num_found, num_false = ([0] * len(steps) for _ in range(3))
    simulated = _Simulated(model, trial, limits, time.time() + budget_s)
    with closing(_results(simulated, jobs)) as results:
        for num_done, ((step, _), is_found, is_false) in enumerate(results, 1):
            num_gates[step] += 1
            num_found[step] += is_found
            num_false[step] += is_false
            if on_gate is not None:
                on_gate(num_done, len(jobs))
    if not all(num_gates):
        raise EnaBenchError(
            f"{budget_s:g} s did not last for a gate of each slow-down: {sum(num_gates)} of "
            f"{len(jobs)} gates were done",
            expected=f"time for {len(steps)} gates or more",
            try_="a larger --budget, or fewer --cases or --rounds",
        )
    outcomes = [
        Outcome(
            slowdown=slowdown,
            detected=Rate(num_hits=found, num_gates=gates) if slowdown else None,
            false_alarms=Rate(num_hits=false, num_gates=gates),
        )
        for slowdown, gates, found, false in zip(
            steps, num_gates, num_found, num_false, strict=True
        )
    ]
    how = f"{trial.num_gates} gates for each line, simulated"
    if sum(num_gates) < len(jobs):
        how = f"{sum(num_gates)} of {len(jobs)} gates, simulated: the budget is spent"
    return Report(
        noise=model.name,
        machine=f"recorded on {model.machine}, {model.recorded}",
        device=model.device,
        how=how,
        trial=trial,
        candidate_rounds=first_rounds(trial.num_rounds),
        limits=limits,
        outcomes=tuple(outcomes),
        elapsed_s=time.monotonic() - started_s,
    )


def simulate_share() -> None:
    """In a process of its own: the gates that come through the pipe, each told in a line."""
    simulated, jobs = pickle.load(sys.stdin.buffer)
    for result in simulated.gates(jobs):
        print(json.dumps(result), flush=True)


class _Simulated(NamedTuple):
    """What every gate of a simulation is drawn from, and when none is begun any more."""

    model: NoiseModel
    trial: Trial
    limits: Limits
    ends_at: float

    def gates(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """The results of gates one after the other, as long as there is time."""
        for job in jobs:
            # the clock on the wall, for processes share no other one
            if time.time() >= self.ends_at:
                break
            yield self.gate(job)

    def gate(self, job: Job) -> Result:
        """Whether a gate named the slow case, and whether it named another one."""
        step, number = job
        slowdown = (0.0, *self.trial.slowdowns)[step]
        seed = [self.trial.seed, step, number]
        slow, alarms = _gate(self.model, self.trial, self.limits, slowdown, seed=seed)
        return job, slow in alarms, bool(alarms - {slow})


def _results(simulated: _Simulated, jobs: Sequence[Job]) -> Generator[Result, None, None]:
    """The result of each gate as it comes, by several processes where there are many gates."""
    number = min(len(jobs) // GATES_PER_PROCESS, processes.num_processors(), MAX_PROCESSES)
    # every process gets gates of every slow-down, or one of them would be tried less in a budget
    shares = [[job for job in jobs if job[1] % number == which] for which in range(number)]
    shares = shares if number > 1 else []
    helpers, listeners = [], []
    heard: SimpleQueue[Result | None] = SimpleQueue()
    left, num_open = dict.fromkeys(jobs), len(shares)
    try:
        for share in shares:
            helper = processes.start(_PROGRAM, (simulated, share), is_heard=True)
            helpers.append(helper)
            listeners.append(Thread(target=_listen, args=(helper, heard)))
            listeners[-1].start()
        while num_open:
            result = heard.get()
            if result is None:
                num_open -= 1
            else:
                del left[result[0]]
                yield result
        # what a process does not do is done here: its fault, if it has one, is an error then
        yield from simulated.gates(left)
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
        for listener in listeners:
            if listener.ident is not None:
                listener.join()


def _listen(helper: "Popen[bytes]", heard: "SimpleQueue[Result | None]") -> None:
    """Pass on the results of a process, and None at its end."""
    assert helper.stdout is not None
    with helper.stdout as lines:
        for line in lines:
            try:
                (step, number), is_found, is_false = json.loads(line)
            # torn, or what something else in that interpreter prints
            except (ValueError, TypeError):
                continue
            heard.put(((step, number), is_found, is_false))
    heard.put(None)


def _gate(
    model: NoiseModel, trial: Trial, limits: Limits, slowdown: float, *, seed: Sequence[int]
) -> tuple[str | None, set[str]]:
    """The slow case, None if there is none, and the cases that one gate called slower."""
    rng = np.random.default_rng(seed)
    cases = model.cases(rng, trial.num_cases)
    slow = "0" if slowdown else None
    factors = {"0": 1.0 + slowdown}
    num_rounds = batch = first_rounds(trial.num_rounds)

    def remeasure(case_ids: Sequence[str]) -> pd.DataFrame:
        nonlocal num_rounds
        again = [int(case_id) for case_id in case_ids]
        visits = [
            Visit(str(again[int(visit.case)]), visit.round + num_rounds, visit.samples_ms)
            for visit in model.visits(
                rng, [cases[i] for i in again], batch, round_length=trial.num_cases
            )
        ]
        num_rounds += batch
        return _frame(visits, _CANDIDATE, factors)

    baseline = _frame(model.visits(rng, cases, trial.num_rounds), _BASELINE, {})
    candidate = _frame(model.visits(rng, cases, batch), _CANDIDATE, factors)
    question = Question(limits=limits, seed=int(rng.integers(2**31)))
    found = decide(baseline, candidate, question, remeasure)
    return slow, {case.case_id for case in found.cases if case.verdict == SLOWER}


def _frame(visits: Sequence[Visit], run_id: str, factors: dict[str, float]) -> pd.DataFrame:
    """Rows as a comparison reads them, the samples of some cases scaled."""
    return pd.DataFrame([_row(visit, run_id, factors.get(visit.case, 1.0)) for visit in visits])


def _row(visit: Visit, run_id: str, factor: float) -> dict[str, Any]:
    samples_ms = factor * np.asarray(visit.samples_ms)
    return {
        "run_id": run_id,
        "case_id": visit.case,
        "case_path": f"case {visit.case}",
        "contender": "simulated",
        "impl": "noise",
        "round": visit.round,
        "status": "ok",
        "samples_ms": samples_ms,
        "latency_ms": float(np.median(samples_ms)),
    }
