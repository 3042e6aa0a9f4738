"""What a self-test tried and found, and whether it is good enough."""

from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from bench import units
from bench.errors import UsageError
from bench.verdict import Limits

CONFIDENCE = 0.95
SLOWDOWNS = (0.02, 0.05, 0.10)
MOST_FALSE_ALARMS = 0.01
LEAST_DETECTED = 0.95
DETECTABLE = {"cpu": 0.10, "cuda": 0.05}
"""The slow-down that a gate has to find on a device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What is tried.

    Args:
        num_gates: For the false alarms, and for each slow-down anew.
        num_cases: Of a gate; in gates with a slow-down, one of them is slow.
        num_rounds: Of the baseline; the candidate gets what `bench.gate.first_rounds` says.
    """

    num_gates: int = 100
    num_cases: int = 30
    num_rounds: int = 10
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

    @property
    def text(self) -> str:
        """`97 of 100 (91.5% to 99.4%)`."""
        low, high = self.interval
        shown = f"{100 * low:.1f}% to {100 * high:.1f}%"
        return f"{self.num_hits} of {self.num_gates} ({shown})"

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {**asdict(self), "rate": self.rate, "lo": low, "hi": high}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The gates of one slow-down; 0 means that nothing was slow.

    Args:
        detected: Gates that named the slow case; None where nothing was slow.
        false_alarms: Gates that called a case slower that was not.
        injected: What the slow-down was by all samples, where it was injected for real.
    """

    slowdown: float
    detected: Rate | None
    false_alarms: Rate
    injected: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Something that a gate has to reach, and how many gates did."""

    text: str
    rate: Rate
    is_met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a self-test found.

    Args:
        noise: What the runs were drawn from, or `real`.
        how: One line on where the numbers come from.
        candidate_rounds: Of the candidate at first; suspects get more.
    """

    noise: str
    machine: str
    device: str
    how: str
    trial: Trial
    candidate_rounds: int
    limits: Limits
    outcomes: tuple[Outcome, ...]
    elapsed_s: float

    @property
    def targets(self) -> tuple[Target, ...]:
        """The false alarms of gates without a slow-down, and what this device has to find."""
        found = []
        for outcome in self.outcomes:
            if outcome.detected is None:
                rate = outcome.false_alarms
                text = f"at most {_share(MOST_FALSE_ALARMS)} gates with a false alarm"
                found.append(Target(text=text, rate=rate, is_met=rate.rate <= MOST_FALSE_ALARMS))
            elif outcome.slowdown == DETECTABLE[self.device]:
                rate, what = outcome.detected, units.percent_label(outcome.slowdown)
                text = f"a slow-down of {what} found in at least {_share(LEAST_DETECTED)} gates"
                found.append(Target(text=text, rate=rate, is_met=rate.rate >= LEAST_DETECTED))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        outcomes = [
            {
                "slowdown": outcome.slowdown,
                "injected": outcome.injected,
                "false_alarms": outcome.false_alarms.to_dict(),
                "detected": None if outcome.detected is None else outcome.detected.to_dict(),
            }
            for outcome in self.outcomes
        ]
        targets = [{"text": target.text, "is_met": target.is_met} for target in self.targets]
        return {
            "noise": self.noise,
            "machine": self.machine,
            "device": self.device,
            "how": self.how,
            "trial": asdict(self.trial),
            "candidate_rounds": self.candidate_rounds,
            "limits": asdict(self.limits),
            "outcomes": outcomes,
            "targets": targets,
            "elapsed_s": self.elapsed_s,
        }

    def text(self) -> str:
        """For a terminal."""
        trial, limits = self.trial, self.limits
        lines = [
            f"noise        {self.noise}, {self.machine}",
            f"gates        {units.plural(trial.num_cases, 'case')}; the baseline has "
            f"{units.plural(trial.num_rounds, 'round')}, the candidate {self.candidate_rounds} and "
            "more of what is suspect",
            f"             {self.how}",
            f"limits       slower by more than {units.percent_label(limits.max_slowdown)}, "
            f"confidence {units.percent_label(limits.confidence)}",
            "",
            f"{'slow-down of one case':<24}{'gates that found it':<30}gates with a false alarm",
        ]
        for outcome in self.outcomes:
            slow = units.percent_label(outcome.slowdown) if outcome.slowdown else "none (A/A)"
            if outcome.injected is not None:
                slow += f" (was {units.percent(outcome.injected)})"
            found = outcome.detected.text if outcome.detected else ""
            lines.append(f"{slow:<24}{found:<30}{outcome.false_alarms.text}")
        lines.append("")
        for target in self.targets:
            state = "met" if target.is_met else "MISSED"
            lines.append(f"{state:<13}{target.text}: {target.rate.text}")
        lines.append(f"             95% intervals (Clopper-Pearson); took {self.elapsed_s:.0f} s")
        return "\n".join(lines)


def _share(value: float) -> str:
    return f"{100 * value:g} of 100"
