"""Two revisions on one device: rounds A B, B A, A B: a drift of the machine hits both alike."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bench import units
from bench.comparison import Comparison
from bench.decision import Question, Rows, settled
from bench.executor import Executor
from bench.gate import Course, OnEvent, Plan, Say, again_text, begun, measured, spaced
from bench.grid import Planned
from bench.listing import left_out
from bench.session import Request, Session, decided, plan
from bench.worktree import Revision, RevisionExecutor


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What both revisions gave."""

    comparison: Comparison
    baseline: pd.DataFrame
    candidate: pd.DataFrame


def compare_revisions(
    made: Request,
    found: Sequence[Revision],
    question: Question,
    path: Path,
    on_event: OnEvent,
    say: Say,
) -> Pair:
    """Measure two revisions in turn and compare the second with the first.

    Each visit of a revision to a round is a fresh worker, and only one of them lives at a time.
    Cases that seem slower are measured in more rounds by both, as `bench.decision` says.

    Args:
        path: Gets the run directories `a` and `b`.

    Raises:
        UsageError: the grid cannot be planned here.
        StorageError, EnaBenchError: as `bench.runner.run`.
    """
    question = replace(question, limits=replace(question.limits, new_kernels=True))
    with _sessions(made, found, path) as sessions:
        runnable = sum(item.reason is None for item in sessions[0].planned)
        say(
            f"{units.plural(runnable, 'case')} in {units.plural(made.rounds, 'round')} each of "
            f"{found[0].name} and {found[1].name}"
        )
        for line in left_out(made.named, sessions[0].planned):
            say(line)
        course = Course(on_event)
        course.expect(made.rounds * len(sessions) * len(sessions[0].planned))
        listeners = [course.of(revision.name) for revision in found]
        began_s = time.monotonic()
        for round in range(made.rounds):
            take_turns(sessions, sessions[0].planned, round, listeners)
        apart_s = (time.monotonic() - began_s) / made.rounds

        def rows() -> Rows:
            first, second = (session.directory.rows() for session in sessions)
            return first, second

        old, new = rows()
        num_rounds = made.rounds

        def again(case_ids: Sequence[str]) -> tuple[Rows, Rows]:
            nonlocal old, new, num_rounds
            say(again_text(len(case_ids), num_rounds // made.rounds))
            doubtful = [item for item in sessions[0].planned if item.case.case_id in case_ids]
            batch = range(num_rounds, num_rounds + made.rounds)
            course.expect(len(batch) * len(sessions) * len(doubtful))
            for round in spaced(batch, apart_s):
                take_turns(sessions, doubtful, round, listeners)
            num_rounds = batch.stop
            old, new = rows()
            fresh = (old[old["round"] >= made.rounds], new[new["round"] >= made.rounds])
            return (old, new), fresh

        comparison = settled(question, (old, new), again)
        return Pair(comparison=comparison, baseline=old, candidate=new)


def take_turns(
    sessions: Sequence[Session],
    planned: Sequence[Planned],
    round: int,
    listeners: Sequence[OnEvent],
) -> None:
    """Visit the cases in a round with every session; the order turns round each time.

    Args:
        listeners: What the events of each session go to.
    """
    turns = list(zip(sessions, listeners, strict=True))
    for session, on_event in turns if round % 2 == 0 else reversed(turns):
        measured(session, planned, round + 1, on_event)
        # two workers that live at once would share the device's memory
        session.executor.close()


@contextmanager
def _sessions(made: Request, found: Sequence[Revision], path: Path) -> Iterator[list[Session]]:
    """A run directory and an executor for each revision, of the same cases."""
    with ExitStack() as stack:
        executors: list[Executor] = []
        folders = [path / name for name in ("a", "b")]
        for revision, folder in zip(found, folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            executor = RevisionExecutor(
                revision,
                device=made.device,
                settings=made.settings,
                timeout_s=made.timeout_s,
                log_path=folder / "log.txt",
            )
            executors.append(stack.enter_context(executor))
        machine = executors[0].machine()
        executors[0].close()
        cases = [item.case for item in plan(made, machine)]
        device = decided(made.device, machine)
        yield [
            begun(
                cases,
                Plan(
                    settings=made.settings,
                    device=device,
                    timeout_s=made.timeout_s,
                    rounds=made.rounds,
                    path=folder,
                ),
                executor,
            )
            for folder, executor in zip(folders, executors, strict=True)
        ]
