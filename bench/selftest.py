"""The comparator measured: how often it cries wolf, and how often it finds what is there.

A gate is a grid of cases compared by `bench.decision.decide`, suspects measured again: the decision
of `ena-bench check`. Here runs are drawn from recorded noise (`bench.noise`), in `real_selftest`
they are measured. Without a slow case every alarm is false; with one, slowed by scaling its
samples, the gate should name it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.decision import Question, decide
from bench.gate import first_rounds
from bench.noise import NoiseModel, Visit
from bench.selftest_report import Outcome, Rate, Report, Trial
from bench.verdict import SLOWER, Limits

_BASELINE, _CANDIDATE = "baseline", "candidate"


def simulate(
    model: NoiseModel,
    trial: Trial,
    limits: Limits | None = None,
    *,
    on_gate: Callable[[int, int], None] | None = None,
) -> Report:
    """Run gates on runs drawn from a noise model.

    Args:
        on_gate: Told after each gate how many of how many are done.
    """
    started_s = time.monotonic()
    limits = limits or Limits()
    total = trial.num_gates * (1 + len(trial.slowdowns))
    outcomes: list[Outcome] = []
    for step, slowdown in enumerate((0.0, *trial.slowdowns)):
        num_found = num_false = 0
        for gate in range(trial.num_gates):
            slow, alarms = _gate(model, trial, limits, slowdown, seed=[trial.seed, step, gate])
            num_found += slow in alarms
            num_false += bool(alarms - {slow})
            if on_gate is not None:
                on_gate(step * trial.num_gates + gate + 1, total)
        outcomes.append(
            Outcome(
                slowdown=slowdown,
                detected=Rate(num_hits=num_found, num_gates=trial.num_gates) if slowdown else None,
                false_alarms=Rate(num_hits=num_false, num_gates=trial.num_gates),
            )
        )
    return Report(
        noise=model.name,
        machine=f"recorded on {model.machine}, {model.recorded}",
        device=model.device,
        how=f"{trial.num_gates} gates for each line, simulated",
        trial=trial,
        candidate_rounds=first_rounds(trial.num_rounds),
        limits=limits,
        outcomes=tuple(outcomes),
        elapsed_s=time.monotonic() - started_s,
    )


def _gate(
    model: NoiseModel, trial: Trial, limits: Limits, slowdown: float, *, seed: Sequence[int]
) -> tuple[str | None, set[str]]:
    """The slow case, None if there is none, and the cases that one gate called slower."""
    rng = np.random.default_rng(seed)
    cases = model.cases(rng, trial.num_cases)
    slow = "0" if slowdown else None
    factors = {"0": 1.0 + slowdown}
    num_rounds = batch = first_rounds(trial.num_rounds)

    def remeasure(case_ids: Sequence[str]) -> pd.DataFrame:
        nonlocal num_rounds
        again = [int(case_id) for case_id in case_ids]
        visits = [
            Visit(str(again[int(visit.case)]), visit.round + num_rounds, visit.samples_ms)
            for visit in model.visits(
                rng, [cases[i] for i in again], batch, round_length=trial.num_cases
            )
        ]
        num_rounds += batch
        return _frame(visits, _CANDIDATE, factors)

    baseline = _frame(model.visits(rng, cases, trial.num_rounds), _BASELINE, {})
    candidate = _frame(model.visits(rng, cases, batch), _CANDIDATE, factors)
    question = Question(limits=limits, seed=int(rng.integers(2**31)))
    found = decide(baseline, candidate, question, remeasure)
    return slow, {case.case_id for case in found.cases if case.verdict == SLOWER}


def _frame(visits: Sequence[Visit], run_id: str, factors: dict[str, float]) -> pd.DataFrame:
    """Rows as a comparison reads them, the samples of some cases scaled."""
    return pd.DataFrame([_row(visit, run_id, factors.get(visit.case, 1.0)) for visit in visits])


def _row(visit: Visit, run_id: str, factor: float) -> dict[str, Any]:
    samples_ms = factor * np.asarray(visit.samples_ms)
    return {
        "run_id": run_id,
        "case_id": visit.case,
        "case_path": f"case {visit.case}",
        "contender": "simulated",
        "impl": "noise",
        "round": visit.round,
        "status": "ok",
        "samples_ms": samples_ms,
        "latency_ms": float(np.median(samples_ms)),
    }
