"""The comparator under recorded noise: it finds what is slow and leaves the rest alone."""

import math
import pickle
from dataclasses import replace
from io import BytesIO
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from bench import processes, selftest
from bench.compare import compare
from bench.errors import EnaBenchError, UsageError
from bench.gate import first_rounds
from bench.recorded_noise import recorded
from bench.selftest import _frame, simulate
from bench.selftest_report import Outcome, Rate, Trial
from bench.verdict import Limits

QUIET = replace(
    recorded("cpu"), name="quiet", machine_sigma=0.002, visit_sigma=0.004, sample_sigma=0.005
)
LIMITS = Limits(num_draws=300)


def test_quiet_noise_gives_no_false_alarm_and_every_slow_down_of_5_percent():
    trial = Trial(num_gates=12, num_cases=7, num_rounds=5, slowdowns=(0.05,), seed=3)
    calm, slow = simulate(QUIET, trial, LIMITS).outcomes
    assert calm.detected is None
    assert calm.false_alarms.num_hits == slow.false_alarms.num_hits == 0
    assert slow.detected.num_hits == 12


def test_a_limit_above_the_slow_down_finds_nothing():
    trial = Trial(num_gates=5, num_cases=3, slowdowns=(0.05,))
    _, slow = simulate(QUIET, trial, replace(LIMITS, max_slowdown=0.5)).outcomes
    assert slow.detected.num_hits == 0


def test_bimodal_noise_does_not_pass_for_a_slow_down():
    trial = Trial(num_gates=10, num_cases=7, num_rounds=8, slowdowns=(), seed=1)
    (calm,) = simulate(QUIET.with_modes(gap=0.13, share=0.4), trial, LIMITS).outcomes
    assert calm.false_alarms.num_hits <= 1


def test_equal_seeds_give_equal_reports():
    trial = Trial(num_gates=2, num_cases=3, num_rounds=3, seed=9)
    first, second = (simulate(QUIET, trial, LIMITS).outcomes for _ in range(2))
    assert first == second


MANY = Trial(num_gates=10, num_cases=3, num_rounds=3, slowdowns=(0.05, 0.1), seed=4)


def alone(monkeypatch):
    """What one process finds; from here on there are two."""
    monkeypatch.setattr(processes, "num_processors", lambda: 1)
    found = simulate(recorded("cpu"), MANY, LIMITS).outcomes
    assert 0 < found[2].detected.num_hits < 10
    monkeypatch.setattr(processes, "num_processors", lambda: 2)
    return found


def test_two_processes_find_what_one_finds(monkeypatch):
    expected = alone(monkeypatch)
    monkeypatch.setattr(selftest, "_gate", lambda *a, **kw: pytest.fail("it was simulated here"))
    seen = []
    found = simulate(recorded("cpu"), MANY, LIMITS, on_gate=lambda *at: seen.append(at))
    assert found.outcomes == expected
    assert seen == [(done, 30) for done in range(1, 31)]


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(3)",
        "import sys; sys.stdin.buffer.read(); print('hello'); print(1); print('[[0, 1], fal')",
        "from bench import selftest; selftest._Simulated.gate = lambda self, job: "
        "[job, False, False] if job == (0, 0) else exit(1); selftest.simulate_share()",
    ],
)
def test_gates_that_a_process_does_not_tell_are_simulated_here(monkeypatch, program):
    expected = alone(monkeypatch)
    monkeypatch.setattr(selftest, "_PROGRAM", program)
    assert simulate(recorded("cpu"), MANY, LIMITS).outcomes == expected


def test_no_process_stays_behind_an_interruption(monkeypatch):
    begun = []
    start = processes.start
    monkeypatch.setattr(processes, "num_processors", lambda: 2)
    monkeypatch.setattr(
        processes, "start", lambda *a, **kw: begun.append(start(*a, **kw)) or begun[-1]
    )

    def interrupt(num_done, num_total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(recorded("cpu"), replace(MANY, num_gates=2000), LIMITS, on_gate=interrupt)
    assert [process.poll() is not None for process in begun] == [True, True]


def ticking(monkeypatch):
    """A clock that is a second later whenever a gate asks."""
    clock = count()
    monkeypatch.setattr(selftest.time, "time", lambda: float(next(clock)))


def test_no_gate_begins_after_the_budget_and_slow_downs_take_turns(monkeypatch):
    ticking(monkeypatch)
    monkeypatch.setattr(processes, "num_processors", lambda: 1)
    found = simulate(QUIET, replace(MANY, num_gates=300), LIMITS, budget_s=8.5)
    assert [o.false_alarms.num_gates for o in found.outcomes] == [3, 3, 2]
    assert [o.detected.num_gates for o in found.outcomes[1:]] == [3, 2]
    assert "8 of 900 gates, simulated: the budget is spent" in found.text()
    assert [target.is_met for target in found.targets] == [None, None]


@pytest.mark.parametrize(("ends_at", "num_told"), [(0.0, 0), (math.inf, 2)])
def test_a_process_begins_no_gate_after_the_budget_either(monkeypatch, capsys, ends_at, num_told):
    simulated = selftest._Simulated(QUIET, replace(MANY, num_gates=2), LIMITS, ends_at)
    share = pickle.dumps((simulated, [(0, 0), (1, 0)]))
    monkeypatch.setattr(selftest.sys, "stdin", SimpleNamespace(buffer=BytesIO(share)))
    selftest.simulate_share()
    assert len(capsys.readouterr().out.splitlines()) == num_told


def test_every_process_tries_every_slow_down(monkeypatch):
    shares = []

    def start(program, share, *, is_heard):
        shares.append({step for step, _ in share[1]})
        raise OSError("nothing has to begin")

    monkeypatch.setattr(processes, "num_processors", lambda: 3)
    monkeypatch.setattr(processes, "start", start)
    with pytest.raises(OSError, match="nothing has to begin"):
        simulate(QUIET, replace(MANY, num_gates=20), LIMITS)
    assert shares == [{0, 1, 2}]


def test_a_budget_too_short_for_a_gate_of_each_is_a_failure(monkeypatch):
    ticking(monkeypatch)
    with pytest.raises(EnaBenchError, match=r"1\.5 s did not last for .*: 1 of 9 gates") as caught:
        simulate(QUIET, replace(MANY, num_gates=3), LIMITS, budget_s=1.5)
    assert caught.value.exit_code == 1


def test_intervals_are_those_of_clopper_and_pearson():
    low, high = Rate(num_hits=0, num_gates=100).interval
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_the_report_says_what_was_tried_and_what_came_of_it():
    seen = []
    trial = Trial(num_gates=2, num_cases=3, num_rounds=3, slowdowns=(0.1,))
    found = simulate(QUIET, trial, LIMITS, on_gate=lambda *at: seen.append(at))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "none (A/A)" in found.text()
    assert "2 of 2" in found.text()
    assert found.to_dict()["outcomes"][1]["detected"]["num_hits"] == 2


def test_gates_with_the_noise_of_a_gpu_find_5_percent_and_leave_the_rest_alone():
    """Few gates here; `ena-bench selftest --noise h200` runs hundreds."""
    trial = Trial(num_gates=10, num_cases=7, slowdowns=(0.05,), seed=2)
    calm, slow = simulate(recorded("h200"), trial, LIMITS).outcomes
    assert calm.false_alarms.num_hits == slow.false_alarms.num_hits == 0
    assert slow.detected.num_hits >= 9


@pytest.mark.parametrize(("name", "num_rounds"), [("h200", 10), ("cpu", 20)])
def test_with_the_rounds_of_a_good_baseline_recorded_noise_leaves_nearly_all_judged(
    name, num_rounds
):
    model = recorded(name)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        cases = model.cases(rng, 30)
        before, after = (
            _frame(model.visits(rng, cases, rounds), run, {}).assign(device=model.device)
            for run, rounds in (("main", num_rounds), ("change", first_rounds(num_rounds)))
        )
        found = compare(before, after, LIMITS)
        assert sum(case.is_judged for case in found.cases) >= 28
        assert found.verdict == "passed"


def report_of(*, found, false, slowdown, device, num_gates):
    some = Rate(num_hits=0, num_gates=num_gates)
    outcomes = (
        Outcome(slowdown=0.0, detected=None, false_alarms=replace(some, num_hits=false)),
        Outcome(slowdown=0.02, detected=some, false_alarms=some),
        Outcome(slowdown=slowdown, detected=replace(some, num_hits=found), false_alarms=some),
    )
    done = simulate(QUIET, Trial(num_gates=1, num_cases=1, slowdowns=()), LIMITS)
    return replace(done, outcomes=outcomes, device=device)


@pytest.mark.parametrize(
    ("num_gates", "found", "false", "states"),
    [
        (300, 300, 0, [True, True]),
        (300, 292, 0, [True, True]),
        (300, 270, 0, [True, False]),
        (300, 300, 9, [False, True]),
        (300, 288, 1, [None, None]),
        (100, 100, 0, [None, True]),
        (5, 5, 0, [None, None]),
        (5, 0, 5, [False, False]),
    ],
)
@pytest.mark.parametrize(("device", "slowdown"), [("cuda", 0.05), ("cpu", 0.1)])
def test_a_target_is_met_or_missed_only_if_the_gates_suffice_to_tell(
    num_gates, found, false, states, device, slowdown
):
    report = report_of(
        found=found, false=false, slowdown=slowdown, device=device, num_gates=num_gates
    )
    assert [target.is_met for target in report.targets] == states
    assert ("MISSED" in report.text()) == (False in states)
    assert ("too few gates to tell" in report.text()) == (None in states)
    assert [target["is_met"] for target in report.to_dict()["targets"]] == states


def test_too_few_gates_are_told_how_many_would_do():
    report = report_of(found=5, false=0, slowdown=0.1, device="cpu", num_gates=5)
    calm, slow = report.targets
    # 0.99 ** 299 < 0.05 < 0.99 ** 298, and 0.95 ** 59 < 0.05 < 0.95 ** 58
    assert (calm.num_wanted, slow.num_wanted) == (299, 59)
    assert "undecided    at most 1 of 100 gates with a false alarm: 0 of 5 " in report.text()
    assert "too few gates to tell, 299 would at this rate" in report.text()
    assert [target["num_gates_wanted"] for target in report.to_dict()["targets"]] == [299, 59]


def test_a_rate_that_is_on_its_target_is_told_from_it_by_no_number_of_gates():
    calm, _ = report_of(found=99, false=1, slowdown=0.1, device="cpu", num_gates=100).targets
    assert calm.is_met is None
    assert calm.num_wanted is None
    assert calm.line.endswith("too few gates to tell, the rate is too close to the target")


def test_nothing_to_try_is_an_error():
    with pytest.raises(UsageError, match="num_gates is 0"):
        Trial(num_gates=0)
