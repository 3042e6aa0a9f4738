"""The gate measures again before it fails, and says when it cannot know."""

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import gate
from bench.compare import Limits
from bench.errors import UsageError
from bench.gate import Plan, Question
from bench.row import Row
from bench.timing import Settings
from tests.comparing import case_of, failed, rows_of

CASES = [case_of(heads) for heads in (2, 3, 5, 7)]
CONTROL = case_of(3, contender="attention")
SECOND = CASES[1].case_id


def slow(ratio, case_id=SECOND, cases=CASES):
    return {case.case_id: ratio if case.case_id == case_id else 1.0 for case in cases}


@pytest.fixture(scope="module")
def baseline():
    return rows_of(CASES, run="main", seed=1)


class Again:
    """Measures cases again, and remembers which."""

    def __init__(self, latency_ms, cases=CASES, **changes):
        self.asked = []
        self._cases = cases
        self._changes = {"run": "change", "seed": 9, "latency_ms": latency_ms, **changes}

    def __call__(self, case_ids):
        self.asked.append(list(case_ids))
        chosen = [case for case in self._cases if case.case_id in case_ids]
        rows = rows_of(chosen, **self._changes)
        return rows.assign(round=rows["round"] + 5)


def test_what_is_not_slow_is_not_measured_again(baseline):
    again = Again(1.0)
    found = gate.decide(baseline, rows_of(CASES, run="change", seed=2), Limits(), remeasure=again)
    assert again.asked == []
    assert found.verdict == "passed"


def test_a_slow_case_is_measured_again_and_then_fails(baseline):
    again = Again(slow(1.08))
    after = rows_of(CASES, run="change", latency_ms=slow(1.08), seed=2)
    found = gate.decide(baseline, after, Limits(), remeasure=again)
    assert again.asked == [[SECOND]]
    assert found.exit_code == 3
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.num_rounds == (5, 10)
    assert case.reason.startswith("measured twice: 1.08x in all, 1.08x in the new rounds alone")


def test_a_case_that_was_slow_once_only_passes(baseline):
    after = rows_of(CASES, run="change", latency_ms=slow(1.5), seed=2)
    found = gate.decide(baseline, after, Limits(), remeasure=Again(1.0))
    assert found.exit_code == 0
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.verdict == "ambiguous"


def test_new_rounds_have_to_be_slow_by_themselves():
    """Many slow rounds and a few good ones: all together they are slow, the new ones are not."""
    before = rows_of(CASES, rounds=20, seed=1)
    after = rows_of(CASES, run="change", rounds=20, latency_ms=slow(1.3), seed=2)
    fresh = Again(1.0, rounds=3)
    found = gate.decide(before, after, Limits(), remeasure=fresh)
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.verdict == "ambiguous"
    assert case.reason.startswith("slower, but not again: ")
    assert found.exit_code == 0


def test_what_noise_hides_is_measured_again():
    before = rows_of(CASES, between=0.03, seed=1)
    after = rows_of(CASES, run="change", between=0.03, latency_ms=slow(1.06), seed=2)
    again = Again(slow(1.06), between=0.03)
    assert gate.decide(before, after, Limits()).exit_code == 0
    gate.decide(before, after, Limits(), remeasure=again)
    assert SECOND in again.asked[0]


def test_what_fails_when_measured_again_is_broken(baseline):
    def again(case_ids):
        rows = Again(1.08)(case_ids)
        return failed(rows, rows["round"] == 6, "crashed", "worker died")

    after = rows_of(CASES, run="change", latency_ms=slow(1.08), seed=2)
    found = gate.decide(baseline, after, Limits(), remeasure=again)
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert (case.verdict, found.exit_code) == ("broken", 3)


def test_controls_and_anchors_are_measured_again_with_the_suspects():
    cases = [*CASES, CONTROL]
    before = rows_of(cases, seed=1)
    after = rows_of(cases, run="change", latency_ms=slow(1.08, cases=cases), seed=2)
    for options in ({"limits": Limits(control="attention")}, {"relative_to": "attention"}):
        again = Again(slow(1.08, cases=cases), cases=cases)
        asked = {"limits": Limits(), **options}
        gate.decide(before, after, remeasure=again, **asked)
        assert CONTROL.case_id in again.asked[0]


def test_a_control_that_moved_once_only_does_not_stop_the_gate():
    cases = [*CASES, CONTROL]
    before = rows_of(cases, seed=1)
    moved = rows_of(cases, latency_ms=slow(0.8, CONTROL.case_id, cases), seed=2)
    limits = Limits(control="attention")
    assert gate.decide(before, moved, limits).exit_code == 4
    again = Again(1.0, cases=cases)
    assert gate.decide(before, moved, limits, remeasure=again).exit_code == 0
    assert again.asked == [[CONTROL.case_id]]
    still = Again(slow(0.8, CONTROL.case_id, cases), cases=cases)
    assert gate.decide(before, moved, limits, remeasure=still).exit_code == 4


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

    def run(latency_ms, *, rounds=3, limits=None, relative_to=None, **machine):
        facts = Machine()
        known = facts.row_values("cpu")
        before = rows_of(CASES, run="main", seed=4, timer="wall", **{**known, **machine})
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


def test_a_check_measures_a_suspect_in_as_many_rounds_again(check):
    found, after, executor, said, events = check(
        lambda case, round: 1.2 if case.case_id == SECOND else 1.0
    )
    assert found.exit_code == 3
    assert executor.asked[3 * len(CASES) :] == [(SECOND, round) for round in (3, 4, 5)]
    assert said[1] == "1 case again, before any of them fails"
    assert len(after) == 3 * len(CASES) + 3
    assert "skipped" not in {event.kind for event in events}


def test_a_check_forgives_what_was_slow_in_the_first_rounds_only(check):
    found, *_ = check(lambda case, round: 1.2 if case.case_id == SECOND and round < 3 else 1.0)
    assert found.exit_code == 0


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
    found, after, *_ = check(
        lambda case, round: 1.0, device_name="Another CPU", relative_to="delta_rule"
    )
    assert found.exit_code == 0
    assert len(after) == 3 * len(CASES)


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
    ("num_rounds", "asked", "rounds"), [(2, None, 5), (13, None, 13), (13, 4, 4)]
)
def test_a_check_takes_as_many_rounds_as_the_baseline_and_five_at_least(num_rounds, asked, rounds):
    before = rows_of(CASES, rounds=num_rounds, timer="wall")
    plan = gate.plan(Path("b.parquet"), before, {**OPTIONS, "rounds": asked}, {"seed": None})
    assert (plan.rounds, plan.device, plan.settings.timer) == (rounds, "cpu", "wall")


@pytest.mark.parametrize("changes", [{"rounds": 0}, {"timeout": -1.0}])
def test_a_plan_without_time_or_rounds_is_refused(changes):
    with pytest.raises(UsageError, match="is not positive"):
        gate.plan(Path("b.parquet"), rows_of(CASES), {**OPTIONS, **changes}, {})


def test_a_baseline_of_a_gpu_is_measured_on_one():
    before = rows_of([case_of(3, device="cuda")])
    assert gate.plan(Path("b.parquet"), before, OPTIONS, {}).device == "cuda"
    asked = {**OPTIONS, "device": "cuda:1"}
    assert gate.plan(Path("b.parquet"), before, asked, {}).device == "cuda:1"
