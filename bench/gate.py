"""The gate: measure a baseline's cases anew, and whatever looks slow again before it fails."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench import baseline as baselines
from bench import runner, units
from bench.case import Case
from bench.cohort import cohorts, is_named
from bench.comparison import CaseComparison, Comparison
from bench.contenders import lookup
from bench.decision import MOST_BATCHES, Question, decide
from bench.errors import UsageError
from bench.grid import Grid, Planned
from bench.results import RunDirectory
from bench.sensitivity import advice
from bench.session import Request, Session, executor_of, new_run_id, new_run_path
from bench.verdict import NOT_COMPARABLE

if TYPE_CHECKING:
    from bench.executor import Executor
    from bench.machine import Machine
    from bench.timing import Settings

FEWEST_ROUNDS = 5
"""Visits to each case at least, unless the user says otherwise."""
LONGEST_PAUSE_S = 10.0
"""Between two rounds of suspects."""

OnEvent = Callable[[runner.Event], None]
Say = Callable[[str], None]


class Course:
    """Numbers the visits of a whole gate: of all its rounds, batches and revisions.

    Args:
        on_event: Told what happens, numbered.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._num_done = 0
        self._num_total = 0

    def expect(self, num_visits: int) -> None:
        """So many visits more are to come."""
        self._num_total += num_visits

    def of(self, whose: str = "") -> OnEvent:
        """What the events of a run go to, and of which revision it is."""

        def on_event(event: runner.Event) -> None:
            if event.kind == "skipped":
                return
            self._num_done += event.kind == "finished"
            done, total = self._num_done, self._num_total
            self._on_event(replace(event, num_done=done, num_total=total, whose=whose))

        return on_event


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a gate measures, and how.

    Args:
        rounds: Visits to each case, each in a fresh worker; suspects get up to `MOST_BATCHES`
            times as many besides.
        path: The run directory to make.
    """

    settings: "Settings"
    device: str
    timeout_s: float
    rounds: int
    path: Path

    @property
    def request(self) -> Request:
        """The same for the harness, whose grid is known case by case."""
        return Request(
            grid=Grid(name="baseline", description="", blocks=()),
            settings=self.settings,
            device=self.device,
            timeout_s=self.timeout_s,
            rounds=self.rounds,
        )


def first_rounds(baseline_rounds: int) -> int:
    """Visits to each case before suspects are told from the rest: half of the baseline's rounds.

    Suspects end up with twice the baseline's rounds. A baseline is measured once and used often, so
    more of the rounds belong there.
    """
    return max(FEWEST_ROUNDS, (baseline_rounds + 1) // 2)


def plan(
    path: Path, rows: pd.DataFrame, options: Mapping[str, Any], changes: dict[str, Any]
) -> Plan:
    """How to measure a baseline's cases as they were measured, but for what a user changes.

    Args:
        path, rows: The baseline.
        options: `device` (`auto` is the baseline's), `timeout` in seconds, `rounds` (None is
            `first_rounds` of the baseline's), and `out`, the run directory to make.
        changes: Settings of `bench.timing`, None where unchanged.

    Raises:
        UsageError: any of them is out of range.
    """
    rounds = options["rounds"]
    if rounds is None:
        rounds = first_rounds(baselines.num_rounds(rows))
    for name, value in (("rounds", rounds), ("timeout", options["timeout"])):
        if not value > 0:
            raise UsageError(
                f"{name} {value:g} is not positive", expected="more than 0", try_=f"--{name} 5"
            )
    device = options["device"]
    if device == "auto":
        devices = rows.loc[rows["status"] == "ok", "device"].unique().tolist()
        device = "cuda" if "cuda" in devices else "cpu"
    return Plan(
        settings=baselines.settings(path, rows, changes),
        device=device,
        timeout_s=options["timeout"],
        rounds=rounds,
        path=options["out"] or new_run_path(),
    )


def check(
    baseline: pd.DataFrame, question: Question, plan: Plan, on_event: OnEvent, say: Say
) -> tuple[Comparison, pd.DataFrame]:
    """Measure the cases of a baseline and compare; suspects are measured again.

    Returns:
        The comparison, and every row that was measured.

    A machine on which nothing of the baseline could be compared is found before measuring, and so
    is a baseline in which nothing has an anchor.

    Args:
        say: Told in a sentence what begins.

    Raises:
        NotComparableError: the baseline has a case that is another one now.
        StorageError, EnaBenchError: as `bench.runner.run`.
    """
    cases = baselines.cases(baseline)
    if reason := without_anchor(baseline, question.relative_to):
        return refused(baseline, question, reason), baseline.head(0)
    RunDirectory.prepare(plan.path)
    with executor_of(plan.request, plan.path / "log.txt") as executor:
        if reason := obstacle(baseline, cases, executor.machine(), question):
            return refused(baseline, question, reason), baseline.head(0)
        session = begun(cases, plan, executor)
        say(f"{units.plural(len(cases), 'case')} in {units.plural(plan.rounds, 'round')}")
        began_s = time.monotonic()
        course = Course(on_event)
        course.expect(plan.rounds * len(session.planned))
        candidate = measured(session, session.planned, plan.rounds, course.of())
        apart_s = (time.monotonic() - began_s) / plan.rounds
        num_rounds = plan.rounds

        def remeasure(case_ids: Sequence[str]) -> pd.DataFrame:
            nonlocal num_rounds
            say(again_text(len(case_ids), num_rounds // plan.rounds))
            doubtful = [item for item in session.planned if item.case.case_id in case_ids]
            batch = range(num_rounds, num_rounds + plan.rounds)
            course.expect(len(batch) * len(doubtful))
            for round in spaced(batch, apart_s):
                rows = measured(session, doubtful, round + 1, course.of())
            num_rounds = batch.stop
            return rows[rows["round"] >= batch.start]

        found = decide(baseline, candidate, question, remeasure)
        few = advice(baselines.num_rounds(baseline), cases[0].device)
        notes = (*found.notes, *([few] if few else []))
        return replace(found, notes=notes), session.directory.rows()


def spaced(rounds: Sequence[int], apart_s: float) -> Iterator[int]:
    """The rounds, each begun this long after the one before, or `LONGEST_PAUSE_S` after its end.

    What a machine is up to for some seconds slows rounds in a row alike. Those of a few suspects
    would follow each other faster than those of all cases did, and agree too well.
    """
    for round in rounds:
        began_s = time.monotonic()
        yield round
        if round != rounds[-1]:
            left_s = began_s + apart_s - time.monotonic()
            time.sleep(min(max(left_s, 0.0), LONGEST_PAUSE_S))


def again_text(num_cases: int, batch: int) -> str:
    """`2 cases again, before any of them fails (batch 1 of 3 at most)`."""
    cases = units.plural(num_cases, "case")
    return f"{cases} again, before any of them fails (batch {batch} of {MOST_BATCHES} at most)"


def refused(baseline: pd.DataFrame, question: Question, reason: str) -> Comparison:
    """The comparison of a baseline with nothing, because nothing could be compared with it."""
    cases = tuple(
        CaseComparison(
            case_id=found.case_id,
            case_path=found.case_path,
            contender=found.contender,
            impl=found.impl,
            verdict=NOT_COMPARABLE,
            reason=reason,
        )
        for found in cohorts(baseline).values()
        if found.ok
    )
    return Comparison(
        cases=cases, geomean=None, limits=question.limits, relative_to=question.relative_to
    )


def begun(cases: Sequence[Case], plan: Plan, executor: "Executor") -> Session:
    """A run of exactly these cases; one that has no contender any more is planned as unsupported.

    Raises:
        StorageError: the directory holds something, or cannot be written.
    """
    directory = RunDirectory.create(
        plan.path,
        run_id=new_run_id(plan.path),
        cases=cases,
        options=plan.request.options(),
    )
    planned = [Planned(case=case, reason=_why_not(case)) for case in cases]
    return Session(request=plan.request, planned=planned, directory=directory, executor=executor)


def measured(
    session: Session, planned: Sequence[Planned], rounds: int, on_event: OnEvent
) -> pd.DataFrame:
    """Every row of the session's run, after visiting the planned cases up to that many rounds."""
    runner.run(
        planned,
        session.directory,
        session.executor,
        rounds=rounds,
        seed=session.request.settings.seed,
        fresh_workers=True,
        on_event=on_event,
    )
    return session.directory.rows()


def without_anchor(baseline: pd.DataFrame, relative_to: str | None) -> str | None:
    """Why no case of a baseline has what it is to be relative to; None if any has."""
    if relative_to is None:
        return None
    found = [cohort for cohort in cohorts(baseline).values() if cohort.ok]
    anchors = [cohort for cohort in found if is_named(cohort, relative_to)]
    if not anchors:
        return f"the baseline has no {relative_to}, which cases are to be relative to"
    shapes = {anchor.shape for anchor in anchors}
    others = [cohort for cohort in found if not is_named(cohort, relative_to)]
    if others and not any(cohort.shape in shapes for cohort in others):
        return f"the baseline has no {relative_to} of the shape of any other case"
    return None


def obstacle(
    baseline: pd.DataFrame, cases: Sequence[Case], machine: "Machine", question: Question
) -> str | None:
    """Why this machine cannot be compared with the baseline's, whatever is measured."""
    devices = {case.device for case in cases}
    if "cuda" in devices and not machine.cuda_available:
        return f"another device ({_names(baseline, 'device_name')}, now none: torch sees no GPU)"
    if question.relative_to is not None or len(devices) > 1:
        return None
    here = machine.row_values(devices.pop())
    found = [
        f"another {word} ({_names(baseline, column)}, now {here[column] or 'unknown'})"
        for column, word in (("device_name", "device"), ("driver", "driver"))
        if _names(baseline, column) != (here[column] or "unknown")
    ]
    return "; ".join(found) or None


def _names(baseline: pd.DataFrame, column: str) -> str:
    values = baseline.loc[baseline["status"] == "ok", column].dropna().unique()
    return " and ".join(map(str, values)) or "unknown"


def _why_not(case: Case) -> str | None:
    try:
        return lookup(case).why_not(case)
    except UsageError as err:
        return err.wrong
