"""A gate's decision: what seems slow is measured again, until it is clear or rounds run out."""

import pytest

from bench.compare import Limits
from bench.decision import MOST_BATCHES, Question, decide
from tests.comparing import case_of, failed, rows_of

CASES = [case_of(heads) for heads in (2, 3, 5, 7)]
CONTROL = case_of(3, contender="attention")
SECOND = CASES[1].case_id
QUESTION = Question(limits=Limits())


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
        self._changes = {"run": "change", "latency_ms": latency_ms, **changes}

    def __call__(self, case_ids):
        self.asked.append(list(case_ids))
        chosen = [case for case in self._cases if case.case_id in case_ids]
        batch = len(self.asked)
        rows = rows_of(chosen, seed=8 + batch, **self._changes)
        return rows.assign(round=rows["round"] + 100 * batch)


def test_what_is_not_slow_is_not_measured_again(baseline):
    again = Again(1.0)
    found = decide(baseline, rows_of(CASES, run="change", seed=2), QUESTION, again)
    assert again.asked == []
    assert found.verdict == "passed"


def test_a_slow_case_is_measured_again_and_then_fails(baseline):
    again = Again(slow(1.08))
    after = rows_of(CASES, run="change", latency_ms=slow(1.08), seed=2)
    found = decide(baseline, after, QUESTION, again)
    assert again.asked == [[SECOND]]
    assert found.exit_code == 3
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.num_rounds == (5, 10)
    assert case.reason.startswith("measured again: 1.08x in all, 1.08x in the new rounds alone")


def test_a_case_that_was_slow_once_only_passes(baseline):
    after = rows_of(CASES, run="change", latency_ms=slow(1.5), seed=2)
    found = decide(baseline, after, QUESTION, Again(1.0))
    assert found.exit_code == 0
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.verdict == "ambiguous"


def test_new_rounds_have_to_be_slow_by_themselves():
    """Many slow rounds and a few good ones: all together they are slow, the new ones are not."""
    before = rows_of(CASES, rounds=20, seed=1)
    after = rows_of(CASES, run="change", rounds=20, latency_ms=slow(1.3), seed=2)
    fresh = Again(1.0, rounds=3)
    found = decide(before, after, QUESTION, fresh)
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert case.verdict == "ambiguous"
    assert case.reason.startswith("slower, but not again: ")
    assert found.exit_code == 0


def test_what_noise_hides_is_measured_again():
    before = rows_of(CASES, between=0.03, seed=1)
    after = rows_of(CASES, run="change", between=0.03, latency_ms=slow(1.06), seed=2)
    again = Again(slow(1.06), between=0.03)
    assert decide(before, after, QUESTION).exit_code == 0
    decide(before, after, QUESTION, again)
    assert SECOND in again.asked[0]


def test_what_fails_when_measured_again_is_broken(baseline):
    def again(case_ids):
        rows = Again(1.08)(case_ids)
        return failed(rows, rows["round"] == 101, "crashed", "worker died")

    after = rows_of(CASES, run="change", latency_ms=slow(1.08), seed=2)
    found = decide(baseline, after, QUESTION, again)
    (case,) = (c for c in found.cases if c.case_id == SECOND)
    assert (case.verdict, found.exit_code) == ("broken", 3)


def test_controls_and_anchors_are_measured_again_with_the_suspects():
    cases = [*CASES, CONTROL]
    before = rows_of(cases, seed=1)
    after = rows_of(cases, run="change", latency_ms=slow(1.08, cases=cases), seed=2)
    for options in ({"limits": Limits(control="attention")}, {"relative_to": "attention"}):
        again = Again(slow(1.08, cases=cases), cases=cases)
        decide(before, after, Question(**{"limits": Limits(), **options}), again)
        assert CONTROL.case_id in again.asked[0]


def test_a_control_that_moved_once_only_does_not_stop_the_gate():
    cases = [*CASES, CONTROL]
    before = rows_of(cases, seed=1)
    moved = rows_of(cases, latency_ms=slow(0.8, CONTROL.case_id, cases), seed=2)
    question = Question(limits=Limits(control="attention"))
    assert decide(before, moved, question).exit_code == 4
    again = Again(1.0, cases=cases)
    assert decide(before, moved, question, again).exit_code == 0
    assert again.asked == [[CONTROL.case_id]]
    still = Again(slow(0.8, CONTROL.case_id, cases), cases=cases)
    assert decide(before, moved, question, still).exit_code == 4


def test_a_control_in_doubt_is_no_suspect():
    """It seems slow and may not be: whichever it is, no verdict depends on it."""
    cases = [*CASES, CONTROL]
    before = rows_of(cases, between=0.03, seed=1)
    doubtful = rows_of(cases, between=0.03, latency_ms=slow(1.03, CONTROL.case_id, cases), seed=2)
    found = Question(limits=Limits(control="attention")).compare(before, doubtful)
    (control,) = (c for c in found.cases if c.is_control)
    assert (control.verdict, control.ratio > 1.02) == ("ambiguous", True)
    assert control not in found.suspects
    plain = Question(limits=Limits()).compare(before, doubtful)
    assert CONTROL.case_id in {c.case_id for c in plain.suspects}


def test_a_suspect_that_seems_tolerable_by_now_is_let_go(baseline):
    after = rows_of(CASES, run="change", latency_ms=slow(1.05), seed=2)
    again = Again(0.97)
    assert decide(baseline, after, QUESTION, again).exit_code == 0
    assert again.asked == [[SECOND]]


def test_a_suspect_close_to_the_noise_gets_every_batch_and_is_found():
    before = rows_of(CASES, rounds=20, between=0.03, seed=1)
    after = rows_of(CASES, run="change", between=0.03, latency_ms=slow(1.05), seed=2)
    again = Again(slow(1.05), between=0.03, rounds=5)
    found = decide(before, after, QUESTION, again)
    assert len(again.asked) == MOST_BATCHES
    assert found.exit_code == 3
    (case,) = (c for c in found.cases if c.verdict == "slower")
    assert (case.case_id, case.num_rounds) == (SECOND, (20, 5 + 5 * MOST_BATCHES))


def test_suspects_leave_one_by_one_and_never_return(baseline):
    first, second = CASES[1].case_id, CASES[2].case_id
    after = rows_of(
        CASES, run="change", latency_ms=slow(1.04) | {second: 1.05}, between=0.001, seed=2
    )
    again = Again(slow(1.035, first) | {second: 0.9})
    decide(baseline, after, QUESTION, again)
    assert set(again.asked[0]) == {first, second}
    assert all(asked == [first] for asked in again.asked[1:])


def test_before_the_last_batch_only_the_improbable_counts_as_slower(baseline, monkeypatch):
    after = rows_of(CASES, run="change", latency_ms=slow(1.08), seed=2)
    monkeypatch.setattr("bench.decision.EARLY_Q_VALUE", 0.0)
    again = Again(slow(1.08))
    assert decide(baseline, after, QUESTION, again).exit_code == 3
    assert len(again.asked) == MOST_BATCHES
