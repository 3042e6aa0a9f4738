"""What comparing two runs comes to: a verdict for each case, and one for all of them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from bench.verdict import (
    AMBIGUOUS,
    BROKEN,
    FASTER,
    MORE,
    NOT_COMPARABLE,
    SLOWER,
    UNKNOWN,
    Limits,
)

PASSED = "passed"
REGRESSION = "regression"
UNDECIDED = "undecided"
EXIT_CODES = {PASSED: 0, REGRESSION: 3, NOT_COMPARABLE: 4, UNDECIDED: 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseComparison:
    """One case of the baseline; numbers are None where it could not be compared.

    Args:
        ratio, ratio_lo, ratio_hi: Candidate over baseline with its interval; above 1 is slower.
        noise_floor: What A/A comparisons of its own rounds differ by, as a fraction.
        bound: What the whole interval must lie beyond, as a fraction.
        detectable: A slow-down that would have been found 95 times in 100, as a fraction.
        must_see: A slow-down that has to be visible, or that none was found says nothing.
        baseline_ms, candidate_ms: Medians, also where the ratio is one of speed-ups.
        num_rounds: Successful ones, of the baseline and the candidate.
        is_control: Its code did not change; the machine is judged by it.
        is_anchor: Others are relative to it, and it to itself, which says nothing: it has no ratio.
    """

    case_id: str
    case_path: str
    contender: str
    impl: str
    verdict: str
    reason: str = ""
    ratio: float | None = None
    ratio_lo: float | None = None
    ratio_hi: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    noise_floor: float | None = None
    bound: float | None = None
    detectable: float | None = None
    must_see: float | None = None
    baseline_ms: float | None = None
    candidate_ms: float | None = None
    num_rounds: tuple[int, int] = (0, 0)
    memory_verdict: str = UNKNOWN
    baseline_mib: float | None = None
    candidate_mib: float | None = None
    is_control: bool = False
    is_anchor: bool = False

    @property
    def memory_ratio(self) -> float | None:
        if not self.baseline_mib or self.candidate_mib is None:
            return None
        return self.candidate_mib / self.baseline_mib

    @property
    def is_regression(self) -> bool:
        """Whether it fails a gate."""
        return self.verdict in (SLOWER, BROKEN) or self.memory_verdict == MORE

    @property
    def is_judged(self) -> bool:
        """Whether it is slower, or a slow-down that has to be visible would have been."""
        if self.detectable is None or self.must_see is None:
            return False
        return self.verdict == SLOWER or self.detectable <= self.must_see


class Geomean(NamedTuple):
    """The geometric mean of the ratios of all compared cases, with its interval."""

    ratio: float
    lo: float
    hi: float
    num_cases: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Every case of the baseline with its verdict, and what follows.

    Args:
        relative_to: The contender whose time every ratio is relative to, in its own run.
        notes: What a reader should know besides: other versions, too few rounds, new cases.
    """

    cases: tuple[CaseComparison, ...]
    geomean: Geomean | None
    limits: Limits
    relative_to: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def gated(self) -> tuple[CaseComparison, ...]:
        """The cases that the gate is about: all but controls, or these where there is no other, and
        never anchors."""
        compared = tuple(c for c in self.cases if not c.is_anchor)
        return tuple(c for c in compared if not c.is_control) or compared

    @property
    def moved_controls(self) -> tuple[CaseComparison, ...]:
        """Controls that got faster or slower although their code did not change."""
        return tuple(c for c in self.cases if c.is_control and c.verdict in (SLOWER, FASTER))

    @property
    def verdict(self) -> str:
        """`passed`, `regression`, `not comparable`, or `undecided` where noise hides everything."""
        if any(c.verdict == BROKEN or c.memory_verdict == MORE for c in self.cases):
            return REGRESSION
        if self.moved_controls:
            return NOT_COMPARABLE
        if any(c.verdict == SLOWER for c in self.cases):
            return REGRESSION
        if not self.cases or any(c.verdict == NOT_COMPARABLE for c in self.cases):
            return NOT_COMPARABLE
        return PASSED if any(c.is_judged for c in self.gated) else UNDECIDED

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def suspects(self) -> tuple[CaseComparison, ...]:
        """Cases that more rounds may show to be slower, or not: to measure before any fails."""
        return tuple(c for c in self.cases if self._is_suspect(c))

    def _is_suspect(self, case: CaseComparison) -> bool:
        if case.ratio is None or case.baseline_ms is None:
            return False
        # noise may hide a slow-down; what is tolerated may not
        seems_slow = case.ratio > 1.0 + self.limits.bound(0.0, case.baseline_ms)
        # a control in doubt changes nothing: only one that moved does
        is_doubtful = case.verdict == AMBIGUOUS and seems_slow and not case.is_control
        return case.verdict == SLOWER or is_doubtful
