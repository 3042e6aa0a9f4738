"""Every visit is measured once and saved at once, whatever interrupts the run."""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.case import Case
from bench.errors import EnaBenchError, StorageError
from bench.executor import Executor
from bench.grid import Planned
from bench.outcome import identity
from bench.results import RunDirectory, load
from bench.row import Row
from bench.runner import run

HERE = Path(__file__).parent


def case_of(heads, **changes):
    return Case(
        **{
            "level": "op",
            "contender": "delta_rule",
            "impl": "eager",
            "mode": "fwd",
            "canvas": (3, 5),
            "heads": heads,
            "head_dim": 7,
            **changes,
        }
    )


CASES = tuple(case_of(heads) for heads in range(1, 7))
PLANNED = [Planned(case=case) for case in CASES]


class InProcess:
    """Measures at once and remembers what it was asked."""

    def __init__(self, fakes):
        self.settings = fakes.Settings()
        self.known_machine = None
        self.facts = fakes.facts()
        self.asked = []
        self.closed_before = []
        self.before_row = lambda case: None
        self.outcome = lambda case: {"status": "ok", "latency_ms": 0.5}

    def machine(self):
        self.known_machine = self.facts
        return self.facts

    def close(self):
        self.closed_before.append(len(self.asked))

    def measure(self, case, *, round, run_id, on_event):
        self.asked.append((case, round))
        on_event("build", {})
        on_event("time", {"latency_ms": 0.5})
        self.before_row(case)
        known = identity(case, round=round, run_id=run_id, seed=1)
        return Row(**known, **self.outcome(case))


@pytest.fixture(scope="module")
def fakes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield importlib.import_module("fake_instruments")


@pytest.fixture
def executor(fakes):
    return InProcess(fakes)


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run", run_id="night", cases=CASES, options={})


def visits(directory):
    frame, problems = load(directory.path)
    assert problems == []
    return sorted(zip(frame.case_id, frame["round"], strict=True))


def all_visits(rounds):
    return sorted((case.case_id, round) for case in CASES for round in range(rounds))


def test_every_case_is_measured_once_a_round_and_saved(directory, executor):
    summary = run(PLANNED, directory, executor, rounds=3, seed=5)
    assert visits(directory) == all_visits(3)
    assert len(executor.asked) == 18
    assert (summary.num_rows, summary.num_skipped, summary.num_left) == ({"ok": 18}, 0, 0)


def test_each_round_has_an_order_of_its_own_that_the_seed_repeats(directory, executor, tmp_path):
    run(PLANNED, directory, executor, rounds=2, seed=5)
    again = RunDirectory.create(tmp_path / "again", run_id="x", cases=CASES, options={})
    first, executor.asked = executor.asked, []
    run(PLANNED, again, executor, rounds=2, seed=5)
    assert executor.asked == first
    order = [case.heads for case, _ in first]
    assert [round for _, round in first] == [0] * 6 + [1] * 6
    assert sorted(order[:6]) == sorted(order[6:]) == [1, 2, 3, 4, 5, 6]
    assert order[:6] != order[6:]
    expected = list(CASES)
    random.Random(5 + 1).shuffle(expected)
    assert order[6:] == [case.heads for case in expected]


def test_what_was_saved_is_skipped(directory, executor):
    run(PLANNED[:2], directory, executor, rounds=2, seed=5)
    executor.asked.clear()
    summary = run(PLANNED, directory, executor, rounds=2, seed=6)
    assert {case.heads for case, _ in executor.asked} == {3, 4, 5, 6}
    assert (summary.num_rows, summary.num_skipped) == ({"ok": 8}, 4)
    assert visits(directory) == all_visits(2)


def test_a_row_that_another_process_saved_meanwhile_is_not_measured_again(directory, executor):
    def elsewhere(case):
        if len(executor.asked) == 1:
            for other in CASES:
                if other != case:
                    known = identity(other, round=0, run_id="night", seed=1)
                    directory.write_row(Row(**known, status="ok", latency_ms=7.0))

    executor.before_row = elsewhere
    summary = run(PLANNED, directory, executor, rounds=1, seed=5)
    assert len(executor.asked) == 1
    assert (summary.num_rows, summary.num_skipped) == ({"ok": 1}, 5)


def test_what_cannot_run_is_a_row_at_once_and_needs_no_worker(directory, executor):
    reasons = [Planned(case=case, reason=f"no {case.heads} heads") for case in CASES]
    summary = run(reasons, directory, executor, rounds=2, seed=5)
    assert executor.asked == []
    assert executor.known_machine is None
    assert summary.num_rows == {"unsupported": 12}
    frame, _ = load(directory.path)
    assert set(frame.status) == {"unsupported"}
    assert frame.latency_ms.isna().all()
    assert (frame.reason == "no " + frame.heads.astype(str) + " heads").all()
    assert set(frame.seed) == {3}


def test_what_cannot_run_names_the_machine_where_it_is_known(directory, executor):
    executor.machine()
    run([Planned(case=CASES[0], reason="no")], directory, executor, rounds=1, seed=5)
    assert load(directory.path)[0].device_name.tolist() == ["fake cpu"]


def test_a_spent_budget_leaves_the_rest_for_a_resumed_run(directory, executor, monkeypatch):
    now_s = iter(range(0, 1000, 10))
    monkeypatch.setattr("bench.runner.time.monotonic", lambda: float(next(now_s)))
    summary = run(PLANNED, directory, executor, rounds=2, seed=5, budget_s=35)
    assert (summary.num_rows, summary.num_left) == ({"ok": 3}, 9)
    none = run(PLANNED, directory, executor, rounds=2, seed=5, budget_s=0)
    assert (none.num_rows, none.num_skipped, none.num_left) == ({}, 3, 9)
    rest = run(PLANNED, directory, executor, rounds=2, seed=5)
    assert (rest.num_rows, rest.num_skipped, rest.num_left) == ({"ok": 9}, 3, 0)


def test_a_gate_gets_a_fresh_worker_each_round(directory, executor):
    run(PLANNED, directory, executor, rounds=3, seed=5, fresh_workers=True)
    assert executor.closed_before == [0, 6, 12]


def test_events_tell_what_happens(directory, executor):
    run(PLANNED[:1], directory, executor, rounds=1, seed=5)
    events = []
    plan = [*PLANNED[:2], Planned(case=CASES[2], reason="no")]
    run(plan, directory, executor, rounds=1, seed=5, on_event=events.append)
    told = [(e.kind, e.case.heads, e.num_done, e.num_total) for e in events]
    assert told[0] == ("finished", 3, 2, 3)
    assert ("skipped", 1) in [(kind, heads) for kind, heads, _, _ in told]
    kinds = [e.kind for e in events if e.case.heads == 2]
    assert kinds == ["started", "phase", "progress", "finished"]
    by_kind = {e.kind: e for e in events if e.case.heads == 2}
    assert by_kind["phase"].phase == "build"
    assert by_kind["progress"].values == {"latency_ms": 0.5}
    assert by_kind["finished"].row.latency_ms == 0.5
    assert max(e.num_done for e in events) == 3


def test_a_resumed_run_goes_on_counting_where_it_stopped(directory, executor):
    run(PLANNED, directory, executor, rounds=1, seed=5)
    events = []
    run(PLANNED, directory, executor, rounds=2, seed=99, on_event=events.append)
    numbers = [(e.num_done, e.num_total) for e in events if e.kind == "finished"]
    assert numbers == [(done, 12) for done in range(7, 13)]
    assert {e.num_done for e in events if e.kind == "skipped"} == {6}


def test_a_disk_that_fills_up_stops_the_run_and_keeps_the_rows(directory, executor, monkeypatch):
    def fills_up(case):
        if len(executor.asked) == 4:
            monkeypatch.setattr("bench.disk.os.fsync", no_space)

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    executor.before_row = fills_up
    with pytest.raises(StorageError, match="No space left on device"):
        run(PLANNED, directory, executor, rounds=1, seed=5)
    monkeypatch.undo()
    assert len(visits(directory)) == 3
    run(PLANNED, directory, executor, rounds=1, seed=5)
    assert visits(directory) == all_visits(1)


def test_an_interrupt_is_passed_on_and_every_finished_row_is_saved(directory, executor):
    def interrupt(case):
        if len(executor.asked) == 3:
            raise KeyboardInterrupt

    executor.before_row = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(PLANNED, directory, executor, rounds=1, seed=5)
    assert len(visits(directory)) == 2


def broken(case):
    return {"status": "failed", "reason": f"ImportError: libtorch.so ({case.heads} heads)"}


def test_a_fault_of_every_case_ends_the_run_with_its_name(directory, executor):
    executor.outcome = broken
    with pytest.raises(EnaBenchError, match="first 3 cases failed alike: ImportError") as caught:
        run(PLANNED, directory, executor, rounds=2, seed=5, stop_alike=3)
    assert caught.value.exit_code == 1
    assert len(visits(directory)) == len(executor.asked) == 3


@pytest.mark.parametrize(
    "first",
    [
        {"status": "ok", "latency_ms": 0.5},
        {"status": "failed", "reason": "ZeroDivisionError"},
        {"status": "oom", "reason": "CUDA out of memory"},
    ],
    ids=["ok", "another reason", "out of memory"],
)
def test_faults_that_are_not_of_all_cases_do_not_end_the_run(directory, executor, first):
    executor.outcome = lambda case: first if len(executor.asked) == 1 else broken(case)
    run(PLANNED, directory, executor, rounds=1, seed=5, stop_alike=3)
    assert len(executor.asked) == 6


def test_one_case_that_fails_in_every_round_is_no_common_fault(directory, executor):
    executor.outcome = broken
    run(PLANNED[:1], directory, executor, rounds=5, seed=5, stop_alike=2)
    assert len(executor.asked) == 5


def test_a_damaged_row_is_measured_again_and_the_new_one_says_so(directory, executor):
    run(PLANNED, directory, executor, rounds=1, seed=5)
    victim = directory.row_paths()[2]
    victim.write_bytes(b"half a file")
    executor.asked.clear()
    run(PLANNED, directory, executor, rounds=1, seed=5)
    assert [case.case_id for case, _ in executor.asked] == [victim.stem.partition("-")[0]]
    (told,) = [w for row in directory.rows()["warnings"] if row is not None for w in row]
    assert told.startswith(f"measured anew: {victim} was damaged")


def test_what_the_plan_changed_is_a_warning_of_the_row(directory, executor):
    planned = [replace(PLANNED[0], warning="window is wider than the canvas"), PLANNED[1]]
    run(planned, directory, executor, rounds=1, seed=5)
    told = directory.rows().set_index("case_id")["warnings"]
    assert list(told[CASES[0].case_id]) == ["window is wider than the canvas"]
    assert told[CASES[1].case_id] is None


def test_lost_facts_about_the_machine_are_written_again(directory, executor):
    run(PLANNED, directory, executor, rounds=1, seed=5)
    (directory.path / "machine.json").unlink()
    run(PLANNED, directory, executor, rounds=1, seed=5)
    assert json.loads((directory.path / "machine.json").read_text())["device_name"] == "fake"


def test_the_machine_is_saved_with_the_run(directory, executor):
    run(PLANNED[:1], directory, executor, rounds=1, seed=5)
    saved = json.loads((directory.path / "machine.json").read_text())
    assert saved["device_name"] == "fake"


def test_hundreds_of_cases_pass_through_a_real_worker(fakes, tmp_path):
    cases = [case_of(heads, canvas=(5, 3)) for heads in range(1, 301)]
    directory = RunDirectory.create(tmp_path / "run", run_id="x", cases=cases, options={})
    with real_executor(fakes, directory) as executor:
        planned = [Planned(case=case) for case in cases]
        summary = run(planned, directory, executor, rounds=1, seed=5)
    assert summary.num_rows == {"ok": 300}
    frame, _ = load(directory.path)
    assert sorted(frame.heads) == list(range(1, 301))
    assert frame.num_warmup.nunique() == 1


def test_a_fault_among_the_cases_costs_its_own_row_only(fakes, directory):
    names = [function.__name__ for function in fakes.FAULTS]
    faulty = case_of(1, batch=1 + names.index("segfault"))
    with real_executor(fakes, directory) as executor:
        planned = [*PLANNED, Planned(case=faulty)]
        summary = run(planned, directory, executor, rounds=2, seed=5)
    assert summary.num_rows == {"ok": 12, "crashed": 2}
    saved = Counter(load(directory.path)[0].status)
    assert saved == {"ok": 12, "crashed": 2}


DRIVER = """
import sys
from pathlib import Path
import fake_instruments
from bench.executor import Executor
from bench.grid import Planned
from bench.results import RunDirectory
from bench.runner import run

directory = RunDirectory.open(Path(sys.argv[1]))
settings = fake_instruments.Settings(case_s=float(sys.argv[3]), journal=sys.argv[2])
with Executor(
    device="cpu",
    settings=settings,
    timeout_s=20,
    log_path=directory.log_path,
    measure="fake_instruments:measure",
    facts="fake_instruments:facts",
    peaks="fake_instruments:measure_peaks",
) as executor:
    planned = [Planned(case=case) for case in directory.cases]
    run(planned, directory, executor, rounds=2, seed=int(sys.argv[4]))
"""


def real_executor(fakes, directory):
    return Executor(
        device="cpu",
        settings=fakes.Settings(),
        timeout_s=20.0,
        log_path=directory.log_path,
        measure="fake_instruments:measure",
        facts="fake_instruments:facts",
        peaks="fake_instruments:measure_peaks",
    )


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def start_run(directory, journal):
    """Run in a process of its own; every case begun and ended is noted in the journal."""
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    started = []

    def start(*, case_s, seed=5):
        arguments = [str(directory.path), str(journal), str(case_s), str(seed)]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def journal_lines(journal, kind):
    with suppress(FileNotFoundError):
        lines = [line.split() for line in journal.read_text().splitlines()]
        return [words for words in lines if words[0] == kind]
    return []


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 s")


def is_running(pid):
    with suppress(FileNotFoundError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_a_killed_run_loses_the_case_in_flight_only(directory, journal, start_run):
    first = start_run(case_s=0.15)
    wait_for(lambda: len(journal_lines(journal, "begin")) >= 4)
    first.kill()
    first.wait()
    worker = int(journal_lines(journal, "begin")[0][3])
    wait_for(lambda: not is_running(worker))
    saved = visits(directory)
    begun = Counter((i, int(r)) for _, i, r, _ in journal_lines(journal, "begin"))
    assert len(saved) in (len(begun) - 1, len(begun))
    assert set(saved) <= set(begun)

    assert start_run(case_s=0.0).wait(20) == 0
    assert visits(directory) == all_visits(2)
    again = Counter((i, int(r)) for _, i, r, _ in journal_lines(journal, "begin"))
    assert {visit for visit, times in again.items() if times > 1} <= set(begun) - set(saved)
    assert list((directory.path / "results").glob(".*")) == []


def test_a_worker_that_hangs_dies_with_a_killed_run(journal, start_run):
    process = start_run(case_s=300)
    wait_for(lambda: journal_lines(journal, "begin"))
    process.kill()
    process.wait()
    worker = int(journal_lines(journal, "begin")[0][3])
    wait_for(lambda: not is_running(worker))


def test_ctrl_c_saves_what_is_finished_and_leaves_no_worker(directory, journal, start_run):
    process = start_run(case_s=0.25)
    wait_for(lambda: len(journal_lines(journal, "begin")) >= 3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert told.rstrip().endswith("KeyboardInterrupt")
    worker = int(journal_lines(journal, "begin")[0][3])
    assert not is_running(worker)
    assert len(visits(directory)) >= 2
    assert "KeyboardInterrupt" not in directory.log_path.read_text()


def test_two_processes_share_a_directory(directory, journal, start_run):
    both = [start_run(case_s=0.02, seed=seed) for seed in (5, 50)]
    assert [process.wait(20) for process in both] == [0, 0]
    assert visits(directory) == all_visits(2)
    ended = journal_lines(journal, "end")
    assert len({pid for *_, pid in ended}) == 2
    assert len(ended) < 2 * len(all_visits(2))
