"""The loop: every planned case in every round, shuffled by a seed, each row saved at once."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.case import Case
from bench.errors import EnaBenchError
from bench.executor import Executor
from bench.grid import Planned
from bench.outcome import identity, row_without_latency
from bench.results import RunDirectory
from bench.row import Row

MOST_ALIKE = 5
"""Cases that may fail alike, before any is ok, until the fault is taken to be in all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something a progress display may show.

    Args:
        kind: `started`, `phase`, `progress`, `finished` (with the row) or `skipped` (was saved
            before).
        num_done: Visits that are saved, by whichever process, out of `num_total`.
        phase: What the worker is at, with `phase` and `progress`.
        values: The estimate so far, with `progress`.
        whose: The revision that is measured, where there are several.
    """

    kind: str
    case: Case
    round: int
    num_done: int
    num_total: int
    phase: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    row: Row | None = None
    whose: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a run came to.

    Args:
        num_rows: Rows that this call added, by status.
        num_skipped: Visits that had been saved before, by this or another process.
        num_left: Visits that the budget left for a resumed run.
    """

    num_rows: Mapping[str, int]
    num_skipped: int
    num_left: int
    elapsed_s: float


def run(
    planned: Sequence[Planned],
    run_directory: RunDirectory,
    executor: Executor,
    *,
    rounds: int,
    seed: int,
    budget_s: float | None = None,
    fresh_workers: bool = False,
    stop_alike: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Summary:
    """Visit every case once a round and save each row as soon as it is known.

    What cannot run is saved first, without a worker. A visit that has a file is skipped, and that
    is looked up right before measuring, so processes can share a directory; give each another
    seed, or they visit the same case at the same time and measure it twice.

    Args:
        seed: Round `r` visits the cases in the order that `seed + r` shuffles them to.
        budget_s: No case is begun after this long; the one in flight is finished.
        fresh_workers: Begin each round in a new worker process, as a gate wants it.
        stop_alike: Give up once so many cases failed for one reason before any was ok, such as
            `MOST_ALIKE`; None never gives up.

    Raises:
        StorageError: a row cannot be saved.
        EnaBenchError: no worker can be started, or the first cases failed alike; every row is
            saved.
        KeyboardInterrupt: passed on; every finished row is saved.
    """
    visits = _Visits(planned, rounds, run_directory, executor, on_event or _ignore)
    warnings = {item.case.case_id: item.warning for item in planned if item.warning is not None}
    alike = _Alike(stop_alike, run_directory)
    if executor.known_machine is not None:
        run_directory.write_machine(executor.known_machine)
    started_s = time.monotonic()
    seed_of_inputs = executor.settings.seed
    for round in range(rounds):
        for item in planned:
            if item.reason is not None:
                visits.unsupported(item.case, round, item.reason, seed_of_inputs)
    for round in range(rounds):
        if fresh_workers:
            executor.close()
        cases = [item.case for item in planned if item.reason is None]
        random.Random(seed + round).shuffle(cases)
        for case in cases:
            if budget_s is not None and time.monotonic() - started_s >= budget_s:
                visits.leave(case, round)
            else:
                alike.look_at(visits.measure(case, round, warnings.get(case.case_id)))
    return visits.summary(time.monotonic() - started_s)


class _Alike:
    """Looks for a fault that is in every case, such as a broken library."""

    def __init__(self, limit: int | None, run_directory: RunDirectory) -> None:
        self._limit = limit
        self._directory = run_directory
        self._first: str | None = None
        self._case_ids: set[str] = set()

    def look_at(self, row: Row | None) -> None:
        """Raise EnaBenchError once `limit` different cases failed alike and nothing else was."""
        if self._limit is None or row is None:
            return
        kind = self._kind(row)
        if self._first is None:
            self._first = kind
        if row.status not in _COMMON_FAULTS or kind != self._first:
            self._limit = None
            return
        self._case_ids.add(str(row.case_id))
        if len(self._case_ids) >= self._limit:
            reason = (row.reason or "no reason given").split("\n")[0]
            raise EnaBenchError(
                f"the first {len(self._case_ids)} cases {row.status} alike: {reason}",
                expected="a fault of one case, not of all; the rows so far are saved",
                try_=f"ena-bench doctor; the output is in {self._directory.log_path}",
            )

    @staticmethod
    def _kind(row: Row) -> str:
        """Status and reason but for numbers, which differ from case to case."""
        return re.sub(r"\d+", "#", f"{row.status}: {row.reason}")


_COMMON_FAULTS = ("failed", "crashed")


class _Visits:
    """The book-keeping of one call of `run`."""

    def __init__(
        self,
        planned: Sequence[Planned],
        rounds: int,
        run_directory: RunDirectory,
        executor: Executor,
        on_event: Callable[[Event], None],
    ) -> None:
        self._directory = run_directory
        self._executor = executor
        self._on_event = on_event
        self._num_total = rounds * len(planned)
        every = ((item.case.case_id, round) for round in range(rounds) for item in planned)
        self._saved = {visit for visit in every if run_directory.has(*visit)}
        self._num_rows: Counter[str] = Counter()
        self._num_skipped = 0
        self._num_left = 0

    def unsupported(self, case: Case, round: int, reason: str, seed: int) -> None:
        if self._is_saved(case, round):
            return
        known = identity(case, round=round, run_id=self._directory.run_id, seed=seed)
        machine = self._executor.known_machine
        if machine is not None:
            known |= machine.row_values(case.device)
        self._save(case, row_without_latency(known, status="unsupported", reason=reason))

    def measure(self, case: Case, round: int, warning: str | None) -> Row | None:
        """The row, unless it was saved before; `warning` says what about the case is doubtful."""
        if self._is_saved(case, round):
            return None
        damaged = self._directory.damaged(case.case_id, round)
        self._tell("started", case, round)
        self._directory.write_machine(self._executor.machine())

        def on_phase(phase: str, values: Mapping[str, Any]) -> None:
            kind = "progress" if values else "phase"
            self._tell(kind, case, round, phase=phase, values=values)

        row = self._executor.measure(
            case, round=round, run_id=self._directory.run_id, on_event=on_phase
        )
        told = [warning] if warning else []
        if damaged is not None:
            told.append(f"measured anew: {damaged} was damaged, and this row replaces it")
        if told:
            row = replace(row, warnings=[*(row.warnings or ()), *told])
        self._save(case, row)
        return row

    def leave(self, case: Case, round: int) -> None:
        if not self._is_saved(case, round):
            self._num_left += 1

    def summary(self, elapsed_s: float) -> Summary:
        return Summary(
            num_rows=dict(self._num_rows),
            num_skipped=self._num_skipped,
            num_left=self._num_left,
            elapsed_s=elapsed_s,
        )

    def _is_saved(self, case: Case, round: int) -> bool:
        if not self._directory.has(case.case_id, round):
            return False
        self._num_skipped += 1
        self._saved.add((case.case_id, round))
        self._tell("skipped", case, round)
        return True

    def _save(self, case: Case, row: Row) -> None:
        self._directory.write_row(row)
        assert row.status is not None
        assert row.round is not None
        self._saved.add((case.case_id, row.round))
        self._num_rows[row.status] += 1
        self._tell("finished", case, row.round, row=row)

    def _tell(self, kind: str, case: Case, round: int, **details: Any) -> None:
        self._on_event(
            Event(
                kind=kind,
                case=case,
                round=round,
                num_done=len(self._saved),
                num_total=self._num_total,
                **details,
            )
        )


def _ignore(event: Event) -> None:
    """Nobody listens."""
