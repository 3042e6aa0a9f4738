"""The gate: measure a baseline's cases anew, and whatever looks slow once more before it fails.

One slow measurement is not a slow kernel. Cases that seem slower are measured in as many fresh
rounds again; a case fails if all its rounds together say so and the new ones say it by themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench import baseline as baselines
from bench import runner, units
from bench.case import Case
from bench.cohort import cohorts
from bench.compare import CaseComparison, Comparison, compare
from bench.contenders import lookup
from bench.errors import UsageError
from bench.grid import Grid, Planned
from bench.results import RunDirectory
from bench.session import Request, Session, executor_of, new_run_id, new_run_path
from bench.verdict import AMBIGUOUS, FASTER, NOT_COMPARABLE, SLOWER, Limits

if TYPE_CHECKING:
    from bench.executor import Executor
    from bench.machine import Machine
    from bench.timing import Settings

FEWEST_ROUNDS = 5
"""Visits to each case at least, unless the user says otherwise."""

OnEvent = Callable[[runner.Event], None]
Say = Callable[[str], None]
Remeasure = Callable[[Sequence[str]], pd.DataFrame]
Rows = tuple[pd.DataFrame, pd.DataFrame]
"""Of a baseline and a candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a gate measures, and how.

    Args:
        rounds: Visits to each case, each in a fresh worker; suspects get as many again.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """How two runs are compared, in every step alike."""

    limits: Limits
    relative_to: str | None = None
    seed: int = 0

    def compare(self, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Comparison:
        return compare(
            baseline, candidate, self.limits, relative_to=self.relative_to, seed=self.seed
        )

    def doubtful(self, found: Comparison) -> tuple[str, ...]:
        """Ids of the cases to measure again: suspects, and what they are judged by.

        Empty if there is no suspect and no control moved.
        """
        suspects = {c.case_id for c in (*found.suspects, *found.moved_controls)}
        if not suspects:
            return ()
        return tuple(c.case_id for c in found.cases if c.case_id in suspects or self._judges(c))

    def _judges(self, case: CaseComparison) -> bool:
        names = (case.contender, f"{case.contender}/{case.impl}")
        return case.is_control or self.relative_to in names


def plan(
    path: Path, rows: pd.DataFrame, options: Mapping[str, Any], changes: dict[str, Any]
) -> Plan:
    """How to measure a baseline's cases as they were measured, but for what a user changes.

    Args:
        path, rows: The baseline.
        options: `device` (`auto` is the baseline's), `timeout` in seconds, `rounds` (None is as
            many as the baseline has, and `FEWEST_ROUNDS` at least), and `out`, the run directory
            to make.
        changes: Settings of `bench.timing`, None where unchanged.

    Raises:
        UsageError: any of them is out of range.
    """
    rounds = options["rounds"]
    if rounds is None:
        rounds = max(baselines.num_rounds(rows), FEWEST_ROUNDS)
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

    A machine on which nothing of the baseline could be compared is found before measuring.

    Args:
        say: Told in a sentence what begins.

    Raises:
        NotComparableError: the baseline has a case that is another one now.
        StorageError, EnaBenchError: as `bench.runner.run`.
    """
    cases = baselines.cases(baseline)
    RunDirectory.prepare(plan.path)
    with executor_of(plan.request, plan.path / "log.txt") as executor:
        if reason := obstacle(baseline, cases, executor.machine(), question):
            return refused(baseline, question, reason), baseline.head(0)
        session = begun(cases, plan, executor)
        say(f"{units.plural(len(cases), 'case')} in {units.plural(plan.rounds, 'round')}")
        candidate = measured(session, session.planned, plan.rounds, on_event)

        def remeasure(case_ids: Sequence[str]) -> pd.DataFrame:
            say(f"{units.plural(len(case_ids), 'case')} again, before any of them fails")
            again = [item for item in session.planned if item.case.case_id in case_ids]
            rows = measured(session, again, 2 * plan.rounds, on_event)
            return rows[rows["round"] >= plan.rounds]

        found = decide(
            baseline,
            candidate,
            question.limits,
            remeasure=remeasure,
            relative_to=question.relative_to,
            seed=question.seed,
        )
        return found, session.directory.rows()


def decide(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    limits: Limits,
    *,
    remeasure: Remeasure | None = None,
    relative_to: str | None = None,
    seed: int = 0,
) -> Comparison:
    """The whole decision of a gate, wherever rows come from.

    Args:
        remeasure: Given case ids, returns rows of rounds that `candidate` lacks; without it the
            first comparison stands.
    """
    question = Question(limits=limits, relative_to=relative_to, seed=seed)
    if remeasure is None:
        return question.compare(baseline, candidate)

    def again(case_ids: Sequence[str]) -> tuple[Rows, Rows]:
        fresh = remeasure(case_ids)
        pooled = pd.concat([candidate, fresh], ignore_index=True)
        return (baseline, pooled), (baseline, fresh)

    return settled(question, (baseline, candidate), again)


def settled(
    question: Question, rows: Rows, again: Callable[[Sequence[str]], tuple[Rows, Rows]]
) -> Comparison:
    """Compare two runs; what is doubtful is measured again and has to say so twice.

    Args:
        rows: Of the baseline and the candidate.
        again: Given ids of doubtful cases, measures them and returns the same two of all rounds,
            and of the new rounds alone.
    """
    first = question.compare(*rows)
    doubtful = question.doubtful(first)
    if not doubtful:
        return first
    pooled, fresh = again(doubtful)
    return confirmed(question.compare(*pooled), question.compare(*fresh), doubtful)


def confirmed(pooled: Comparison, fresh: Comparison, doubtful: Sequence[str]) -> Comparison:
    """What stands after measuring again.

    Args:
        pooled: Of all rounds.
        fresh: Of the new rounds alone.
        doubtful: Ids of the cases that were measured again.
    """
    anew = {case.case_id: case for case in fresh.cases if case.case_id in doubtful}
    cases = tuple(_confirmed(case, anew.get(case.case_id)) for case in pooled.cases)
    return replace(pooled, cases=cases)


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

    def on_news(event: runner.Event) -> None:
        if event.kind != "skipped":
            on_event(event)

    runner.run(
        planned,
        session.directory,
        session.executor,
        rounds=rounds,
        seed=session.request.settings.seed,
        fresh_workers=True,
        on_event=on_news,
    )
    return session.directory.rows()


def _confirmed(case: CaseComparison, anew: CaseComparison | None) -> CaseComparison:
    if anew is None or case.verdict not in (SLOWER, FASTER) or case.ratio is None:
        return case
    times = f"{units.ratio(case.ratio)} in all, {units.ratio(anew.ratio)} in the new rounds alone"
    slow = 1.0 + (case.bound or 0.0)
    ratio = anew.ratio or 1.0
    if ratio > slow if case.verdict == SLOWER else ratio < 1.0 / slow:
        return replace(case, reason=f"measured twice: {times}")
    return replace(case, verdict=AMBIGUOUS, reason=f"{case.verdict}, but not again: {times}")


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
