"""Gates measured for real: what is measured, what comes out, and what ends it."""

from itertools import count

import numpy as np
import pytest

from bench import real_selftest
from bench.decision import MOST_BATCHES
from bench.errors import EnaBenchError, UsageError
from bench.injection import slowdown_of
from bench.outcome import row_without_latency
from bench.selftest_report import Trial
from bench.verdict import Limits
from tests.comparing import case_of, rows_of

CASES = [case_of(heads) for heads in (2, 3, 5)]
TRIAL = Trial(num_cases=3, num_rounds=6, slowdowns=(0.05, 0.1))
LIMITS = Limits(num_draws=300)


class Machine:
    def row_values(self, device):
        return {"device_name": f"Some {device}", "driver": None}


class Executor:
    """Latencies as a function of slow-down and round gives them; notes what each worker visits."""

    def __init__(self, latency_ms):
        self.workers = [[]]
        self._latency_ms = latency_ms

    def machine(self):
        return Machine()

    def close(self):
        self.workers.append([])

    def measure(self, case, *, round, run_id):
        slowdown = slowdown_of(run_id)
        self.workers[-1].append((case.case_id, slowdown))
        seed = sum(map(len, self.workers))
        (values,) = rows_of(
            [case],
            run=run_id,
            rounds=1,
            seed=seed,
            latency_ms=self._latency_ms(slowdown, round),
            between=0.003,
        ).to_dict("records")
        known = {k: v for k, v in values.items() if not (isinstance(v, float) and np.isnan(v))}
        return real_selftest.Row(**known | {"round": round})


def honest(slowdown, round):
    return 1.0 + slowdown


def reports(executor, *, budget_s=1e9, cases=CASES, trial=TRIAL, said=None, now=None):
    clock = count()
    return real_selftest.reports(
        cases,
        executor,
        trial,
        LIMITS,
        budget_s=budget_s,
        say=(said if said is not None else []).append,
        now=now or (lambda: float(next(clock))),
    )


def test_a_cycle_gives_a_gate_without_and_one_for_each_slow_down_of_each_case():
    found = next(reports(Executor(honest)))
    calm, *slow = found.outcomes
    assert calm.false_alarms.num_gates == 1
    assert [o.detected.num_gates for o in slow] == [3, 3]
    assert [o.detected.num_hits for o in slow] == [3, 3]
    assert sum(o.false_alarms.num_hits for o in found.outcomes) == 0
    assert (found.noise, found.machine, found.device) == ("real", "Some cpu", "cpu")


def test_what_was_injected_is_reported_by_all_samples():
    found = next(reports(Executor(lambda slowdown, round: 1.0 + 0.8 * slowdown)))
    assert [o.injected for o in found.outcomes] == [
        None,
        pytest.approx(0.04, abs=0.003),
        pytest.approx(0.08, abs=0.003),
    ]
    assert "5% (was 4." in found.text()


def test_each_round_is_a_worker_that_visits_all_in_an_order_of_its_own():
    executor = Executor(honest)
    next(reports(executor))
    _, *workers = executor.workers
    plain = [(case.case_id, 0.0) for case in CASES]
    assert all(sorted(visits) == sorted(plain) for visits in workers[:6])
    every = [(case.case_id, slow) for case in CASES for slow in (0.0, 0.05, 0.1)]
    assert all(sorted(visits) == sorted(every) for visits in workers[6:11])
    assert len({tuple(visits) for visits in workers[6:11]}) > 1


def test_suspects_of_all_gates_are_measured_again_together_and_only_they():
    said = []
    executor = Executor(honest)
    next(reports(executor, said=said))
    again = executor.workers[1 + 6 + 5 :]
    assert len(again) == 5
    assert all({slow for _, slow in visits} == {0.05, 0.1} for visits in again)
    assert said == ["cycle 1, 3 cases", "6 visits again, batch 1"]


def test_rounds_of_suspects_begin_as_far_apart_as_those_of_the_baseline(monkeypatch):
    asked = []

    def spaced(rounds, apart_s):
        asked.append((list(rounds), apart_s))
        return iter(rounds)

    monkeypatch.setattr(real_selftest, "spaced", spaced)
    next(reports(Executor(honest)))
    before, candidate, again = asked
    assert (before[1], candidate[1]) == (0.0, 0.0)
    assert again[0] == [5, 6, 7, 8, 9]
    assert again[1] > 0.0


def test_a_gate_that_stays_in_doubt_gets_every_batch():
    rough = Executor(lambda slowdown, round: 1.0 + slowdown * (0.7 + 0.5 * (-1) ** round))
    said = []
    trial = Trial(num_cases=3, num_rounds=6, slowdowns=(0.05,))
    next(reports(rough, trial=trial, said=said))
    assert [text.partition("batch ")[2] for text in said[1:]] == [
        str(batch) for batch in range(1, MOST_BATCHES + 1)
    ]


def test_cycles_follow_each_other_until_the_budget_is_spent():
    """The clock ticks once whenever it is asked, about 17 times a cycle."""
    executor = Executor(honest)
    *_, last = reports(executor, budget_s=70.0)
    gates = last.outcomes[0].false_alarms.num_gates
    assert gates >= 2
    assert last.outcomes[1].detected.num_gates == 3 * gates
    assert f"{gates} cycles" in last.text()


def by_rounds(executor, round_s):
    """A clock that each round takes as long of."""
    return lambda: round_s * (len(executor.workers) - 1)


def test_a_budget_too_short_for_one_cycle_says_what_one_takes():
    executor = Executor(honest)
    with pytest.raises(EnaBenchError, match="so says the pace of 7 rounds") as caught:
        list(reports(executor, budget_s=7.0, now=by_rounds(executor, 1.0)))
    assert "--budget" in caught.value.try_
    assert caught.value.exit_code == 1


def test_a_budget_that_no_cycle_can_keep_is_told_after_one_round():
    executor = Executor(honest)
    with pytest.raises(EnaBenchError, match="20 s do not last for one cycle: so says the pace of"):
        list(reports(executor, budget_s=20.0, now=by_rounds(executor, 4.0)))
    assert len(executor.workers) == 1 + 1


def test_a_case_that_fails_ends_the_self_test():
    class Failing(Executor):
        def measure(self, case, *, round, run_id):
            row = super().measure(case, round=round, run_id=run_id)
            if round < 2:
                return row
            known = {"case_id": row.case_id, "case_path": row.case_path, "round": round}
            return row_without_latency(known, status="crashed", reason="worker died")

    with pytest.raises(EnaBenchError, match="is crashed: worker died"):
        next(reports(Failing(honest)))


def test_no_case_at_all_is_an_error():
    with pytest.raises(UsageError, match="no case can run here"):
        next(reports(Executor(honest), cases=[]))
