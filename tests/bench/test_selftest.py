"""The comparator under recorded noise: it finds what is slow and leaves the rest alone."""

from dataclasses import replace

import pytest

from bench.errors import UsageError
from bench.recorded_noise import recorded
from bench.selftest import simulate
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


def report_of(*, found, false, slowdown, device):
    some = Rate(num_hits=0, num_gates=100)
    outcomes = (
        Outcome(slowdown=0.0, detected=None, false_alarms=Rate(num_hits=false, num_gates=100)),
        Outcome(slowdown=0.02, detected=some, false_alarms=some),
        Outcome(slowdown=slowdown, detected=Rate(num_hits=found, num_gates=100), false_alarms=some),
    )
    done = simulate(QUIET, Trial(num_gates=1, num_cases=1, slowdowns=()), LIMITS)
    return replace(done, outcomes=outcomes, device=device)


@pytest.mark.parametrize(
    ("found", "false", "states"),
    [(95, 1, [True, True]), (94, 1, [True, False]), (100, 2, [False, True])],
)
@pytest.mark.parametrize(("device", "slowdown"), [("cuda", 0.05), ("cpu", 0.1)])
def test_the_report_says_which_targets_are_met(found, false, states, device, slowdown):
    report = report_of(found=found, false=false, slowdown=slowdown, device=device)
    assert [target.is_met for target in report.targets] == states
    assert ("MISSED" in report.text()) == (False in states)
    assert [target["is_met"] for target in report.to_dict()["targets"]] == states


def test_nothing_to_try_is_an_error():
    with pytest.raises(UsageError, match="num_gates is 0"):
        Trial(num_gates=0)
