"""The gate measures a baseline's cases anew, suspects again, and says when it cannot know."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import gate
from bench.compare import Limits
from bench.decision import Question
from bench.errors import UsageError
from bench.gate import Plan, first_rounds
from bench.row import Row
from bench.timing import Settings
from tests.comparing import case_of, rows_of

CASES = [case_of(heads) for heads in (2, 3, 5, 7)]
SECOND = CASES[1].case_id


@dataclass(frozen=True)
class Machine:
    """Of a CPU: what a row says about it."""

    cuda_available: bool = False

    def row_values(self, device):
        return {"device_name": f"Some {device}", "driver": None}


class InProcess:
    """An executor whose rows come from a function of case and round."""

    def __init__(self, facts, latency_ms):
        self.settings = Settings()
        self.known_machine = facts
        self.asked = []
        self.num_closed = 0
        self._latency_ms = latency_ms

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def machine(self):
        return self.known_machine

    def close(self):
        self.num_closed += 1

    def measure(self, case, *, round, run_id, on_event):
        self.asked.append((case.case_id, round))
        (values,) = rows_of(
            [case],
            run=run_id,
            rounds=1,
            seed=round,
            latency_ms=self._latency_ms(case, round),
            **self.known_machine.row_values(case.device),
            timer="wall",
        ).to_dict("records")
        known = {k: v for k, v in values.items() if not (isinstance(v, float) and v != v)}
        return Row(**known | {"round": round})


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a baseline measured on this machine, with latencies that a function gives."""

    def run(latency_ms, *, cases=CASES, rounds=3, limits=None, relative_to=None, **machine):
        facts = Machine()
        known = facts.row_values("cpu")
        before = rows_of(cases, run="main", seed=4, timer="wall", **{**known, **machine})
        executor = InProcess(facts, latency_ms)
        monkeypatch.setattr(gate, "executor_of", lambda *arguments: executor)
        plan = Plan(
            settings=Settings(), device="cpu", timeout_s=9.0, rounds=rounds, path=tmp_path / "run"
        )
        said, events = [], []
        question = Question(limits=limits or Limits(), relative_to=relative_to)
        found, after = gate.check(before, question, plan, events.append, said.append)
        return found, after, executor, said, events

    return run


def test_a_check_measures_every_case_of_the_baseline_in_fresh_workers(check):
    found, after, executor, said, events = check(lambda case, round: 1.0)
    assert found.exit_code == 0
    assert sorted(executor.asked) == sorted((c.case_id, r) for c in CASES for r in range(3))
    assert executor.num_closed >= 3
    assert len(after) == 3 * len(CASES)
    assert said == ["4 cases in 3 rounds"]
    assert {event.kind for event in events} == {"started", "finished"}


def test_a_check_of_a_baseline_with_few_rounds_says_how_many_find_more(check):
    found, *_ = check(lambda case, round: 1.0)
    assert any(note.startswith("the baseline has 5 rounds: with 20") for note in found.notes)


def test_a_check_measures_a_suspect_in_as_many_rounds_again(check):
    found, after, executor, said, events = check(
        lambda case, round: 1.2 if case.case_id == SECOND else 1.0
    )
    assert found.exit_code == 3
    assert executor.asked[3 * len(CASES) :] == [(SECOND, round) for round in (3, 4, 5)]
    assert said[1:] == ["1 case again, before any of them fails (batch 1 of 3 at most)"]
    assert len(after) == 3 * len(CASES) + 3
    assert "skipped" not in {event.kind for event in events}
    numbers = [(event.num_done, event.num_total) for event in events if event.kind == "finished"]
    first = 3 * len(CASES)
    assert numbers[:first] == [(done, first) for done in range(1, first + 1)]
    assert numbers[first:] == [(first + done, first + 3) for done in (1, 2, 3)]


def test_a_check_forgives_what_was_slow_in_the_first_rounds_only(check):
    found, *_ = check(lambda case, round: 1.2 if case.case_id == SECOND and round < 3 else 1.0)
    assert found.exit_code == 0


def test_a_check_goes_on_with_a_suspect_that_stays_doubtful(check):
    found, after, executor, said, _ = check(
        lambda case, round: 1.04 + 0.03 * (-1) ** round if case.case_id == SECOND else 1.0
    )
    rounds = [round for case_id, round in executor.asked if case_id == SECOND]
    assert rounds == list(range(12))
    assert [text.partition("(")[2] for text in said[1:]] == [
        f"batch {batch} of 3 at most)" for batch in (1, 2, 3)
    ]
    assert len(after) == 3 * len(CASES) + 9
    assert found.exit_code == 0


class Clock:
    """Time passes only where it is spent."""

    def __init__(self):
        self.now_s = 0.0
        self.slept_s = []

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.mark.parametrize(
    ("apart_s", "pauses_s"), [(5.0, [3.0, 3.0, 3.0]), (1.0, [0.0] * 3), (99.0, [10.0] * 3)]
)
def test_rounds_of_few_cases_begin_as_far_apart_as_those_of_all(monkeypatch, apart_s, pauses_s):
    clock = Clock()
    monkeypatch.setattr(gate, "time", clock)
    seen = []
    for round in gate.spaced(range(7, 11), apart_s):
        seen.append(round)
        clock.now_s += 2.0
    assert seen == [7, 8, 9, 10]
    assert clock.slept_s == pauses_s


def test_a_check_on_another_machine_measures_nothing(check):
    found, after, executor, said, _ = check(lambda case, round: 1.0, device_name="Another CPU")
    assert found.exit_code == 4
    assert {case.verdict for case in found.cases} == {"not comparable"}
    assert "another device (Another CPU, now " in found.cases[0].reason
    assert (executor.asked, said, len(after)) == ([], [], 0)


def test_a_check_for_a_gpu_where_there_is_none_measures_nothing():
    cases = [case_of(3, device="cuda")]
    question = Question(limits=Limits())
    obstacle = gate.obstacle(rows_of(cases), cases, Machine(), question)
    assert "now none: torch sees no GPU" in obstacle


def test_speed_ups_are_checked_on_another_machine(check):
    anchors = [case_of(case.heads, contender="attention") for case in CASES]
    found, after, *_ = check(
        lambda case, round: 1.0,
        cases=[*CASES, *anchors],
        device_name="Another CPU",
        relative_to="attention",
    )
    assert found.exit_code == 0
    assert len(after) == 3 * 2 * len(CASES)


@pytest.mark.parametrize(
    ("relative_to", "reason"),
    [
        ("attention/math", "the baseline has no attention/math, which cases are to be relative to"),
        ("attention", "the baseline has no attention of the shape of any other case"),
    ],
)
def test_a_check_of_a_baseline_without_the_anchor_measures_nothing(check, relative_to, reason):
    cases = [*CASES, case_of(13, contender="attention")]
    found, after, executor, said, _ = check(
        lambda case, round: 1.0, cases=cases, relative_to=relative_to
    )
    assert executor.asked == said == []
    assert len(after) == 0
    assert {case.reason for case in found.cases} == {reason}
    assert found.exit_code == 4


def test_a_contender_that_is_gone_is_broken(check, monkeypatch):
    def lookup(case):
        if case.case_id == SECOND:
            raise UsageError("delta_rule has no impl 'eager'", expected="one", try_="another")
        return importlib.import_module("bench.contenders").lookup(case)

    monkeypatch.setattr(gate, "lookup", lookup)
    found, *_ = check(lambda case, round: 1.0)
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.verdict == "broken"
    assert case.reason == "was ok, now unsupported: delta_rule has no impl 'eager'"
    assert found.exit_code == 3


OPTIONS = {"rounds": None, "timeout": 30.0, "device": "auto", "out": Path("x")}


@pytest.mark.parametrize(
    ("num_rounds", "asked", "rounds"), [(2, None, 5), (13, None, 7), (20, None, 10), (13, 4, 4)]
)
def test_a_check_takes_half_the_rounds_of_the_baseline_and_five_at_least(num_rounds, asked, rounds):
    before = rows_of(CASES, rounds=num_rounds, timer="wall")
    plan = gate.plan(Path("b.parquet"), before, {**OPTIONS, "rounds": asked}, {"seed": None})
    assert (plan.rounds, plan.device, plan.settings.timer) == (rounds, "cpu", "wall")
    assert asked or plan.rounds == first_rounds(num_rounds)


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"timeout": -1.0}])
def test_a_plan_without_time_or_rounds_is_refused(changes):
    with pytest.raises(UsageError, match="is not positive"):
        gate.plan(Path("b.parquet"), rows_of(CASES), {**OPTIONS, **changes}, {})


def test_a_baseline_of_a_gpu_is_measured_on_one():
    before = rows_of([case_of(3, device="cuda")])
    assert gate.plan(Path("b.parquet"), before, OPTIONS, {}).device == "cuda"
    asked = {**OPTIONS, "device": "cuda:1"}
    assert gate.plan(Path("b.parquet"), before, asked, {}).device == "cuda:1"
