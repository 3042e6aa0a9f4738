"""A self-test as a user sees it: its options, its table, and what Ctrl-C leaves."""

import json
import math
from contextlib import contextmanager

import click
import pytest

from bench import baseline
from bench.errors import UsageError
from bench.selftest_report import Outcome, Rate, Report, Trial
from bench.verdict import Limits
from reports import selftest
from tests.comparing import case_of

CASES = [case_of(heads) for heads in (2, 3, 5)]
OPTIONS = {
    "real": False,
    "gates": 2,
    "cases": 3,
    "rounds": 4,
    "noise": None,
    "device": "cpu",
    "budget": 60.0,
    "seed": 0,
    "as_json": False,
}


def report_of(num_gates, trial):
    rate = Rate(num_hits=0, num_gates=num_gates)
    return Report(
        noise="real",
        machine="Some cpu",
        device="cpu",
        how=f"{num_gates} cycles",
        trial=trial,
        candidate_rounds=5,
        limits=Limits(),
        outcomes=(Outcome(slowdown=0.0, detected=None, false_alarms=rate),),
        elapsed_s=1.0,
    )


@pytest.fixture
def cycles(monkeypatch):
    """Makes `--real` give these reports; an error among them is raised in its place."""
    asked = []

    def make(*steps):
        def reports(cases, executor, trial, limits, *, budget_s, say):
            asked.append((list(cases), trial, budget_s))
            say("cycle 1")
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                yield report_of(step, trial)

        @contextmanager
        def operators(device):
            yield CASES, f"executor of {device}"

        monkeypatch.setattr(selftest, "_operators", operators)
        monkeypatch.setattr(selftest.real_selftest, "reports", reports)
        return asked

    return make


def test_a_simulation_prints_its_table_and_which_targets_are_met(capsys):
    selftest.show(OPTIONS)
    text, told = capsys.readouterr()
    assert told.splitlines()[-1] == "simulating   8 of 8 gates are done"
    assert "noise        cpu, recorded on Intel" in text
    assert "the baseline has 4 rounds, the candidate 5" in text
    assert "2 gates for each line, simulated" in text
    assert "at most 1 of 100 gates with a false alarm: " in text
    assert "a slow-down of 10% found in at least 95 of 100 gates: " in text


def test_rounds_default_to_what_a_baseline_of_that_device_should_have(capsys):
    for noise, device in ((None, "cpu"), ("h200", "cuda")):
        options = OPTIONS | {"noise": noise, "rounds": None, "gates": 1, "as_json": True}
        selftest.show(options)
        found = json.loads(capsys.readouterr().out)
        assert found["trial"]["num_rounds"] == baseline.ROUNDS[device]
        assert found["device"] == device


def test_real_gates_are_tried_with_some_cases_and_the_last_cycle_tells_all(cycles, capsys):
    asked = cycles(1, 2, 3)
    selftest.show(OPTIONS | {"real": True, "cases": 2, "rounds": None})
    ((cases, trial, budget_s),) = asked
    assert (cases, trial.num_cases, trial.num_rounds, budget_s) == (CASES[:2], 2, 20, 60.0)
    out, err = capsys.readouterr()
    assert "0 of 3" in out
    assert "0 of 2" not in out
    assert err == "measuring    cycle 1\n"


def test_all_cases_are_tried_unless_some_are_asked_for(cycles):
    asked = cycles(1)
    selftest.show(OPTIONS | {"real": True, "cases": None})
    assert asked[0][0] == CASES
    assert asked[0][1] == Trial(num_gates=2, num_cases=3, num_rounds=4)


def test_ctrl_c_leaves_the_complete_cycles(cycles, capsys):
    cycles(1, 2, KeyboardInterrupt())
    with pytest.raises(click.exceptions.Exit) as caught:
        selftest.show(OPTIONS | {"real": True})
    assert caught.value.exit_code == 130
    out, err = capsys.readouterr()
    assert "0 of 2" in out
    assert "Interrupted. The cycle in progress does not count." in err


def test_ctrl_c_before_a_cycle_is_complete_prints_no_table(cycles, capsys):
    cycles(KeyboardInterrupt())
    with pytest.raises(click.exceptions.Exit):
        selftest.show(OPTIONS | {"real": True})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [({"noise": "h200"}, "--noise h200 is given with --real"), ({"budget": 0.0}, "budget 0 is")],
)
def test_options_that_do_not_go_with_real_gates_are_refused(cycles, changes, wrong):
    asked = cycles(1)
    with pytest.raises(UsageError, match=wrong):
        selftest.show(OPTIONS | {"real": True} | changes)
    assert asked == []


def test_a_simulation_obeys_its_budget_and_says_how_many_gates_were_done(capsys, monkeypatch):
    asked = []
    simulate = selftest.simulate

    def simulated(*arguments, budget_s, **options):
        asked.append(budget_s)
        return simulate(*arguments, budget_s=budget_s, **options)

    monkeypatch.setattr(selftest, "simulate", simulated)
    selftest.show(OPTIONS | {"budget": 77.0})
    selftest.show(OPTIONS | {"budget": None, "gates": 1})
    assert asked == [77.0, math.inf]
    with pytest.raises(UsageError, match="budget 0 is not positive"):
        selftest.show(OPTIONS | {"budget": 0.0})


def test_real_gates_have_15_minutes_unless_the_user_says(cycles):
    asked = cycles(1)
    selftest.show(OPTIONS | {"real": True, "budget": None})
    assert asked[0][2] == 900.0


@pytest.mark.slow
def test_real_gates_on_this_machine(capsys):
    """One case, few rounds: whatever this machine is like, a table comes out."""
    options = OPTIONS | {"real": True, "cases": 1, "rounds": 1, "budget": 600.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.gate.FEWEST_ROUNDS", 1)
        patch.setattr(selftest.real_selftest, "reports", _first_only(selftest.real_selftest))
        selftest.show(options)
    text = capsys.readouterr().out
    assert "noise        real, " in text
    assert "2% (was " in text


def _first_only(module):
    whole = module.reports

    def reports(*arguments, **options):
        yield next(whole(*arguments, **options))

    return reports
