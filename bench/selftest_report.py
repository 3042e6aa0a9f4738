"""What a self-test tried and found, and whether it is good enough."""

from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from bench import units
from bench.errors import UsageError
from bench.verdict import DETECTABLE, Limits

CONFIDENCE = 0.95
SLOWDOWNS = (0.02, 0.05, 0.10)
MOST_FALSE_ALARMS = 0.01
LEAST_DETECTED = 0.95
MOST_GATES = 100_000
"""A rate that so many gates do not tell from a target is as good as on it."""


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
    def bounds(self) -> tuple[float, float]:
        """What the rate is at least, and what it is at most, each with 95% confidence."""
        one_sided = 2.0 * CONFIDENCE - 1.0
        found = stats.binomtest(self.num_hits, self.num_gates).proportion_ci(one_sided, "exact")
        return float(found.low), float(found.high)

    def scaled(self, num_gates: int) -> "Rate":
        """The same share of more gates."""
        return Rate(num_hits=round(self.rate * num_gates), num_gates=num_gates)

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
    """Something that a gate has to reach, and how many gates did.

    Args:
        limit: The rate that is allowed at most, or wanted at least.
        is_ceiling: Whether it is allowed at most.
    """

    text: str
    rate: Rate
    limit: float
    is_ceiling: bool

    @property
    def is_met(self) -> bool | None:
        """Whether the rate keeps the limit, with 95% confidence; None if too few gates tell."""
        return self._judged(self.rate)

    @property
    def num_wanted(self) -> int | None:
        """How many gates would tell if the rate stays as it is; None if no bearable number."""
        enough = low = self.rate.num_gates
        while self._judged(self.rate.scaled(enough)) is None:
            low, enough = enough, 2 * enough
            if enough > MOST_GATES:
                return None
        while enough - low > 1:
            middle = (low + enough) // 2
            if self._judged(self.rate.scaled(middle)) is None:
                low = middle
            else:
                enough = middle
        return enough

    @property
    def line(self) -> str:
        """`met          at most 1 of 100 gates with a false alarm: 0 of 300 (0.0% to 1.2%)`."""
        state = {True: "met", False: "MISSED", None: "undecided"}[self.is_met]
        line = f"{state:<13}{self.text}: {self.rate.text}"
        if self.is_met is not None:
            return line
        wanted = self.num_wanted
        cure = f"{wanted:,} would at this rate" if wanted else "the rate is too close to the target"
        return f"{line}; too few gates to tell, {cure}"

    def _judged(self, rate: Rate) -> bool | None:
        least, most = rate.bounds
        if self.is_ceiling:
            return True if most <= self.limit else False if least > self.limit else None
        return True if least >= self.limit else False if most < self.limit else None


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
        found: list[Target] = []
        for outcome in self.outcomes:
            if outcome.detected is None:
                found.append(
                    Target(
                        text=f"at most {_share(MOST_FALSE_ALARMS)} gates with a false alarm",
                        rate=outcome.false_alarms,
                        limit=MOST_FALSE_ALARMS,
                        is_ceiling=True,
                    )
                )
            elif outcome.slowdown == DETECTABLE[self.device]:
                size = units.percent_label(outcome.slowdown)
                found.append(
                    Target(
                        text=f"a slow-down of {size} found in at least "
                        f"{_share(LEAST_DETECTED)} gates",
                        rate=outcome.detected,
                        limit=LEAST_DETECTED,
                        is_ceiling=False,
                    )
                )
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
        targets = [
            {"text": target.text, "is_met": target.is_met, "num_gates_wanted": target.num_wanted}
            for target in self.targets
        ]
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
        lines += [target.line for target in self.targets]
        took = units.duration(1e3 * self.elapsed_s)
        lines.append(f"             95% intervals (Clopper-Pearson); took {took}")
        return "\n".join(lines)


def _share(value: float) -> str:
    return f"{100 * value:g} of 100"
