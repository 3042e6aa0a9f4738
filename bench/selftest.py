"""The comparator measured: how often it cries wolf, and how often it finds what is there.

A gate is a grid of cases compared by `bench.gate.decide`, suspects measured again: the decision of
`ena-bench check`. Runs are drawn from recorded noise (`bench.noise`). Without a slow case every
alarm is false; with one, slowed by scaling its samples, the gate should name it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench import units
from bench.decision import Question, decide
from bench.errors import UsageError
from bench.gate import first_rounds
from bench.noise import NoiseModel, Visit
from bench.verdict import SLOWER, Limits

CONFIDENCE = 0.95
SLOWDOWNS = (0.02, 0.05, 0.10)
_BASELINE, _CANDIDATE = "baseline", "candidate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What is tried.

    Args:
        num_gates: For the false alarms, and for each slow-down anew.
        num_cases: Of a gate; in gates with a slow-down, one of them is slow.
        num_rounds: Of the baseline and of the candidate; suspects get as many again.
    """

    num_gates: int = 100
    num_cases: int = 30
    num_rounds: int = 5
    slowdowns: tuple[float, ...] = SLOWDOWNS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_gates", "num_cases", "num_rounds"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} is {getattr(self, name)}",
                    expected="at least 1",
                    try_=f"--{name.removeprefix('num_')} 30",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How many of the gates did something, with Clopper and Pearson's 95% interval."""

    num_hits: int
    num_gates: int

    @property
    def rate(self) -> float:
        return self.num_hits / self.num_gates

    @property
    def interval(self) -> tuple[float, float]:
        found = stats.binomtest(self.num_hits, self.num_gates).proportion_ci(CONFIDENCE, "exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The gates of one slow-down; 0 means that nothing was slow.

    Args:
        detected: Gates that named the slow case; None where nothing was slow.
        false_alarms: Gates that called a case slower that was not.
    """

    slowdown: float
    detected: Rate | None
    false_alarms: Rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a self-test found."""

    noise: str
    machine: str
    trial: Trial
    limits: Limits
    outcomes: tuple[Outcome, ...]
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        outcomes = [
            {
                "slowdown": outcome.slowdown,
                "false_alarms": _rate_dict(outcome.false_alarms),
                "detected": None if outcome.detected is None else _rate_dict(outcome.detected),
            }
            for outcome in self.outcomes
        ]
        return {
            "noise": self.noise,
            "machine": self.machine,
            "trial": asdict(self.trial),
            "limits": asdict(self.limits),
            "outcomes": outcomes,
            "elapsed_s": self.elapsed_s,
        }

    def text(self) -> str:
        """For a terminal."""
        trial = self.trial
        lines = [
            f"noise        {self.noise}, recorded on {self.machine}",
            f"gates        {trial.num_gates} for each line, {trial.num_cases} cases in "
            f"{trial.num_rounds} rounds on both sides, suspects measured again; simulated",
            f"limits       slower by more than {units.percent(self.limits.max_slowdown)}, "
            f"confidence {units.percent(self.limits.confidence)}",
            "",
            f"{'slow-down of one case':<24}{'gates that found it':<30}gates with a false alarm",
        ]
        for outcome in self.outcomes:
            slow = units.percent(outcome.slowdown) if outcome.slowdown else "none (A/A)"
            found = _rate_text(outcome.detected) if outcome.detected else ""
            lines.append(f"{slow:<24}{found:<30}{_rate_text(outcome.false_alarms)}")
        lines += ["", f"intervals are 95% (Clopper-Pearson); took {self.elapsed_s:.0f} s"]
        return "\n".join(lines)


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
        machine=model.machine,
        trial=trial,
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
            for visit in model.visits(rng, [cases[i] for i in again], batch)
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


def _rate_dict(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {**asdict(rate), "rate": rate.rate, "lo": low, "hi": high}


def _rate_text(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.num_hits} of {rate.num_gates} ({100 * low:.1f}% to {100 * high:.1f}%)"
