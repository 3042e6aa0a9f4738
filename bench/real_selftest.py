"""The comparator measured for real: gates on this machine, with slow-downs that are really there.

A cycle measures a baseline, and a candidate that has every case at every slow-down, each round in a
fresh worker. Out of these rows come a gate without a slow case, and one for each slow-down of each
case. What a gate wants to measure again is measured, for all gates of the cycle together.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bench import units
from bench.case import Case
from bench.decision import Question, decide
from bench.errors import EnaBenchError, UsageError
from bench.executor import Executor
from bench.gate import first_rounds, spaced
from bench.injection import run_of
from bench.outcome import columns_of
from bench.row import Row
from bench.selftest_report import Outcome, Rate, Report, Trial
from bench.verdict import SLOWER, Limits

Visit = tuple[str, float]
"""A case_id and the slow-down in it."""
Rows = dict[Visit, list[Row]]
Say = Callable[[str], None]


class _OutOfTimeError(Exception):
    """The budget is spent in the middle of a cycle."""


class _WantedError(Exception):
    """A gate wants rounds that nobody measured yet."""

    def __init__(self, visits: set[Visit]) -> None:
        super().__init__()
        self.visits = visits


@dataclass
class _Tally:
    """What the gates so far did, by slow-down."""

    num_gates: int = 0
    num_found: int = 0
    num_false: int = 0

    def outcome(self, slowdown: float, injected: float | None) -> Outcome:
        return Outcome(
            slowdown=slowdown,
            detected=Rate(num_hits=self.num_found, num_gates=self.num_gates) if slowdown else None,
            false_alarms=Rate(num_hits=self.num_false, num_gates=self.num_gates),
            injected=injected,
        )


def reports(
    cases: Sequence[Case],
    executor: Executor,
    trial: Trial,
    limits: Limits,
    *,
    budget_s: float,
    say: Say,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Measure cycles until the budget is spent; after each, all that is known so far.

    Args:
        executor: Measures by `bench.injection.measure`.
        budget_s: No round is begun after this long, and a cycle that it cuts short counts nothing.
        say: Told in a sentence what begins.

    Raises:
        UsageError: no case can run here.
        EnaBenchError: a case failed, or the budget is too short for one cycle.
    """
    if not cases:
        raise UsageError(
            "no case can run here",
            expected="operators of the preset ci on this device",
            try_="ena-bench list cases --preset ci",
        )
    measuring = _Measuring(cases, executor, trial, started_s=now(), budget_s=budget_s, now=now)
    tallies = {slowdown: _Tally() for slowdown in (0.0, *trial.slowdowns)}
    num_cycles = 0
    try:
        while True:
            say(f"cycle {num_cycles + 1}, {units.plural(len(cases), 'case')}")
            _cycle(measuring, trial, limits, tallies, num_cycles, say)
            num_cycles += 1
            yield Report(
                noise="real",
                machine=measuring.machine_name,
                device=cases[0].device,
                how=f"{units.plural(num_cycles, 'cycle')}, measured; gates of a cycle share rounds",
                trial=trial,
                candidate_rounds=first_rounds(trial.num_rounds),
                limits=limits,
                outcomes=tuple(t.outcome(s, measuring.injected(s)) for s, t in tallies.items()),
                elapsed_s=now() - measuring.started_s,
            )
    except _OutOfTimeError:
        if not num_cycles:
            measured = units.plural(measuring.num_rounds, "round")
            raise EnaBenchError(
                f"{budget_s:g} s do not last for one cycle: so says the pace of {measured}",
                expected=f"about {measuring.wanted_s:.0f} s or more",
                try_=f"--budget {1.5 * measuring.wanted_s:.0f}, or fewer --cases or --rounds",
            ) from None


class _Measuring:
    """Rounds, each in a fresh worker, as long as the budget lasts."""

    def __init__(
        self,
        cases: Sequence[Case],
        executor: Executor,
        trial: Trial,
        *,
        started_s: float,
        budget_s: float,
        now: Callable[[], float],
    ) -> None:
        self.cases = {case.case_id: case for case in cases}
        self.started_s = started_s
        self.num_rounds = 0
        self._executor = executor
        self._trial = trial
        self._budget_s = budget_s
        self._now = now
        self._ratios: dict[float, list[float]] = {}

    @property
    def machine_name(self) -> str:
        """Of the device that the cases run on."""
        device = next(iter(self.cases.values())).device
        return str(self._executor.machine().row_values(device)["device_name"] or "unknown")

    @property
    def wanted_s(self) -> float:
        """What a cycle takes, judged by the rounds so far; the candidate's are the longer ones."""
        rounds = self._trial.num_rounds + 2 * first_rounds(self._trial.num_rounds)
        num_visits = rounds * (1 + len(self._trial.slowdowns))
        elapsed_s = self._now() - self.started_s
        return elapsed_s / max(self.num_rounds, 1) * max(rounds, num_visits / 2)

    def measure(
        self, visits: Sequence[Visit], rounds: Sequence[int], seed: object, *, apart_s: float = 0.0
    ) -> Rows:
        """The rows of these visits in some rounds, shuffled anew in each.

        Args:
            apart_s: From the beginning of a round to that of the next, at least.

        Raises:
            _OutOfTimeError: the budget is spent.
            EnaBenchError: a case failed.
        """
        found: Rows = {visit: [] for visit in visits}
        for round in spaced(rounds, apart_s):
            if self._now() - self.started_s >= self._budget_s:
                raise _OutOfTimeError
            self._executor.close()
            order = list(visits)
            random.Random(f"{seed} {round}").shuffle(order)
            for case_id, slowdown in order:
                row = self._executor.measure(
                    self.cases[case_id], round=round, run_id=run_of(slowdown)
                )
                if row.status != "ok":
                    raise EnaBenchError(
                        f"{row.case_path} is {row.status}: {row.reason}",
                        expected="cases that can be measured, to measure the comparator with them",
                        try_="ena-bench run --preset ci --level op",
                    )
                found[case_id, slowdown].append(row)
            self.num_rounds += 1
            self._note_ratios(found)
            if self._is_hopeless():
                raise _OutOfTimeError
        return found

    def _is_hopeless(self) -> bool:
        """Whether no cycle gets done within the budget, even at twice the pace of its first round,
        which may load and compile what others do not."""
        rounds = self._trial.num_rounds + first_rounds(self._trial.num_rounds)
        if self.num_rounds != 1 or rounds == 1:
            return False
        return (self._now() - self.started_s) * rounds / 2 > self._budget_s

    def injected(self, slowdown: float) -> float | None:
        """The median slow-down, by visits with and without it in the same worker."""
        ratios = self._ratios.get(slowdown)
        return float(np.exp(np.median(ratios))) - 1.0 if ratios else None

    def _note_ratios(self, found: Rows) -> None:
        """Of the last round: how much slower each slowed visit was than the plain one."""
        for (case_id, slowdown), rows in found.items():
            plain = found.get((case_id, 0.0))
            if slowdown and plain:
                slow_ms, plain_ms = rows[-1].latency_ms, plain[-1].latency_ms
                assert slow_ms is not None
                assert plain_ms is not None
                self._ratios.setdefault(slowdown, []).append(float(np.log(slow_ms / plain_ms)))


def _cycle(
    measuring: _Measuring,
    trial: Trial,
    limits: Limits,
    tallies: dict[float, _Tally],
    cycle: int,
    say: Say,
) -> None:
    plain = [(case_id, 0.0) for case_id in measuring.cases]
    every = [(case_id, slow) for case_id in measuring.cases for slow in (0.0, *trial.slowdowns)]
    num_first = first_rounds(trial.num_rounds)
    seed = (trial.seed, cycle)
    began_s = time.monotonic()
    before = measuring.measure(plain, range(trial.num_rounds), (seed, "baseline"))
    apart_s = (time.monotonic() - began_s) / trial.num_rounds
    batches = [measuring.measure(every, range(num_first), (seed, "candidate"))]
    gates = [(0.0, ""), *((slow, case_id) for case_id, slow in every if slow)]
    found: dict[tuple[float, str], set[str]] = {}
    while len(found) < len(gates):
        wanted: dict[int, set[Visit]] = {}
        for slow, slow_id in gates:
            if (slow, slow_id) in found:
                continue
            gate = _Gate(before, batches, {slow_id: slow}, list(measuring.cases))
            try:
                found[slow, slow_id] = gate.alarms(limits, trial.seed)
            except _WantedError as want:
                wanted.setdefault(gate.num_batches, set()).update(want.visits)
        for batch, visits in sorted(wanted.items()):
            say(f"{units.plural(len(visits), 'visit')} again, batch {batch}")
            rounds = range(batch * num_first, (batch + 1) * num_first)
            more = measuring.measure(sorted(visits), rounds, (seed, "again"), apart_s=apart_s)
            if batch == len(batches):
                batches.append(more)
            else:
                batches[batch] |= more
    for (slow, slow_id), alarms in found.items():
        tally = tallies[slow]
        tally.num_gates += 1
        tally.num_found += slow_id in alarms
        tally.num_false += bool(alarms - {slow_id})


class _Gate:
    """One decision about a baseline and a candidate in which one case is slow."""

    def __init__(
        self,
        before: Rows,
        batches: Sequence[Rows],
        slow: dict[str, float],
        case_ids: Sequence[str],
    ) -> None:
        self._before = before
        self._batches = batches
        self._slow = slow
        self._case_ids = case_ids
        self.num_batches = 1

    def alarms(self, limits: Limits, seed: int) -> set[str]:
        """The cases that it calls slower.

        Raises:
            _WantedError: it wants rounds that the batches lack.
        """
        baseline = _frame([row for rows in self._before.values() for row in rows], "baseline")
        question = Question(limits=limits, seed=seed)
        found = decide(baseline, self._batch(0, self._case_ids), question, self._again)
        return {case.case_id for case in found.cases if case.verdict == SLOWER}

    def _again(self, case_ids: Sequence[str]) -> pd.DataFrame:
        rows = self._batch(self.num_batches, case_ids)
        self.num_batches += 1
        return rows

    def _batch(self, number: int, case_ids: Sequence[str]) -> pd.DataFrame:
        visits = [(case_id, self._slow.get(case_id, 0.0)) for case_id in case_ids]
        known = self._batches[number] if number < len(self._batches) else {}
        if missing := {visit for visit in visits if visit not in known}:
            raise _WantedError(missing)
        return _frame([row for visit in visits for row in known[visit]], "candidate")


def _frame(rows: Sequence[Row], run_id: str) -> pd.DataFrame:
    return pd.DataFrame([columns_of(replace(row, run_id=run_id)) for row in rows])
