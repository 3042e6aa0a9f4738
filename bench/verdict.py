"""Pure: what a ratio with its interval means, and how much is tolerated."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from bench import units
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.resample import Ratio

SAME = "same"
FASTER = "faster"
SLOWER = "slower"
AMBIGUOUS = "ambiguous"
NOT_COMPARABLE = "not comparable"
BROKEN = "broken"
VERDICTS = (BROKEN, SLOWER, NOT_COMPARABLE, AMBIGUOUS, FASTER, SAME)
"""Of a case, the most alarming first."""

MORE = "more"
LESS = "less"
UNKNOWN = "unknown"
MEMORY_VERDICTS = (MORE, LESS, SAME, UNKNOWN)

DETECTABLE = {"cuda": 0.05, "cpu": 0.10}
"""The slow-down that a gate has to find on a device, which `ena-bench selftest` shows."""

MUST_SEE = {device: 2.0 * size for device, size in DETECTABLE.items()}
"""A slow-down that has to be visible on a device: twice what a gate finds, because first rounds see
less than those in which suspects are measured again."""

POWER = 0.95
"""A slow-down counts as found if this share of comparisons would call it slower."""

METRICS = {"latency_ms": "samples_ms", "wall_ms": "wall_samples_ms"}
"""What may be compared, and the column of its samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How different is too different.

    Args:
        max_slowdown: Tolerated as a fraction; the whole interval must lie beyond it, so a limit
            of 2% finds slow-downs of 5% at a noise of 1% between rounds.
        floor_ms: Differences below this never count, whatever their percentage. CUDA events tick in
            0.03 us, and the shortest kernels on record vary by 0.1 us from round to round.
        max_memory: Tolerated growth of the peak of memory, as a fraction.
        floor_mib: Growth of memory below this never counts.
        must_see: A case whose noise would have hidden a slow-down of this size is not judged; None
            is `MUST_SEE` of its device. Never less than twice what is tolerated.
        metric: One of `METRICS`.
        confidence: Of the interval of a case; false discoveries among cases are held below
            1 - confidence.
        control: Contender whose code did not change, `name` or `name/impl`: where it got faster
            or slower, the machine changed and no verdict stands.
        new_kernels: Compare cases although other kernels run now.
        num_draws: Bootstrap draws for each case.
    """

    max_slowdown: float = 0.02
    floor_ms: float = 0.0002
    max_memory: float = 0.05
    floor_mib: float = 1.0
    must_see: float | None = None
    metric: str = "latency_ms"
    confidence: float = 0.95
    control: str | None = None
    new_kernels: bool = False
    num_draws: int = 2000

    def __post_init__(self) -> None:
        for name in ("max_slowdown", "floor_ms", "max_memory", "floor_mib", "must_see"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(
                    f"{name} {value:g} is not a tolerance",
                    expected="a fraction, 0 or more" if "floor" not in name else "0 or more",
                    try_=f"--{name.replace('_', '-')} 0.05",
                )
        if self.metric not in METRICS:
            raise UsageError(
                f"metric {self.metric!r} is unknown",
                expected=f"one of {', '.join(METRICS)}",
                try_="--metric latency_ms",
            )
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError(
                f"confidence {self.confidence:g} is outside [0.5, 1)",
                expected="a probability, such as 0.95",
                try_="--confidence 0.95",
            )

    def bound(self, noise_floor: float, baseline_ms: float) -> float:
        """What a difference must exceed to count, as a fraction: the largest of three limits."""
        return max(self.max_slowdown, noise_floor, self.floor_ms / baseline_ms)

    def visible(self, device: str | None, baseline_ms: float) -> float:
        """The slow-down that has to be visible in a case of this length on a device."""
        asked = self.must_see
        if asked is None:
            asked = MUST_SEE.get(device or "", max(MUST_SEE.values()))
        return max(asked, 2.0 * self.bound(0.0, baseline_ms))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A verdict and why."""

    verdict: str
    reason: str = ""


def judge(
    found: "Ratio",
    *,
    bound: float,
    q_value: float,
    confidence: float,
    detectable: float,
    must_see: float,
) -> Judgement:
    """The verdict on a ratio: the whole interval decides, not the estimate.

    Args:
        bound: From `Limits.bound`; as a ratio it reaches from 1 / (1 + bound) to 1 + bound.
        q_value: The p-value after Benjamini and Hochberg's procedure over all cases.
        detectable: The slow-down that would have been found; beyond `must_see` (from
            `Limits.visible`) nothing is the same, whatever the bound.
    """
    slow, fast = 1.0 + bound, 1.0 / (1.0 + bound)
    if found.lo > slow or found.hi < fast:
        if q_value <= 1.0 - confidence:
            return Judgement(verdict=SLOWER if found.lo > slow else FASTER)
        return Judgement(
            verdict=AMBIGUOUS,
            reason="beyond the bound, but among so many cases it may be chance",
        )
    if detectable > must_see:
        size = units.percent_label(must_see)
        return Judgement(
            verdict=AMBIGUOUS,
            reason=f"too noisy to tell: a slow-down of {size} could have stayed hidden",
        )
    if fast <= found.lo and found.hi <= slow:
        return Judgement(verdict=SAME)
    return Judgement(
        verdict=AMBIGUOUS, reason="its interval reaches beyond the bound; more rounds narrow it"
    )


def detectable(found: "Ratio", bound: float, confidence: float) -> float:
    """The slow-down of a case that would have been called slower with `POWER`, as a fraction.

    Its whole interval has to lie beyond the bound, and estimates scatter: a normal law is assumed
    whose interval is the one that was found.
    """
    below = math.log(found.ratio / found.lo)
    normal = NormalDist()
    scatter = normal.inv_cdf(POWER) / normal.inv_cdf((1.0 + confidence) / 2.0)
    return (1.0 + bound) * math.exp((1.0 + scatter) * below) - 1.0


def judge_memory(
    baseline_mib: float | None, candidate_mib: float | None, limits: Limits
) -> Judgement:
    """The verdict on two peaks of memory, which do not vary from round to round."""
    if baseline_mib is None or candidate_mib is None:
        return Judgement(verdict=UNKNOWN)
    growth_mib = candidate_mib - baseline_mib
    if abs(growth_mib) <= max(limits.floor_mib, limits.max_memory * baseline_mib):
        return Judgement(verdict=SAME)
    return Judgement(verdict=MORE if growth_mib > 0 else LESS)
