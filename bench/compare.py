"""Pure: a baseline against a candidate, a verdict for each case and one for all of them.

The verdict on a case rests on an interval that knows rounds differ (`bench.resample`), and on what
is tolerated (`bench.verdict`). False discoveries among many cases are controlled by Benjamini and
Hochberg's procedure. What worked before and does not work now is broken, whatever else is measured.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from bench import units
from bench.cohort import Cohort, cohorts, differences, is_named, software_changes
from bench.comparison import CaseComparison, Comparison, Geomean
from bench.geomean import Compared, geomean
from bench.resample import (
    ASSUMED_SPREAD,
    FEWEST_ROUNDS,
    Ratio,
    Rounds,
    Side,
    compare_sides,
)
from bench.verdict import (
    AMBIGUOUS,
    BROKEN,
    FASTER,
    NOT_COMPARABLE,
    SAME,
    Limits,
    detectable,
    judge,
    judge_memory,
)

FEWEST_CASES = 5
"""Fewer cases do not tell what rounds of a run usually differ by."""


def compare(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    limits: Limits | None = None,
    *,
    relative_to: str | None = None,
    unmeasured: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two frames of `bench.row.Row`, case by case.

    Cases that had no result in the baseline are left out and named in a note. Equal frames and
    seeds give equal results. No case is taken to be steadier than the median case of its run.

    Args:
        relative_to: Compare speed-ups over this contender (`name` or `name/impl`) of the same
            shape in the same run and round, which also holds across machines.
        unmeasured: Cases that the candidate's run plans and has no rows of, by id, and why not: it
            has not come to them, or lost them. Any other case that is missing from it is broken.
    """
    limits = limits or Limits()
    sides = _Sides(cohorts(baseline), cohorts(candidate), limits, relative_to, unmeasured or {})
    drafts = [sides.draft(case_id, seed) for case_id, c in sides.before.items() if c.ok]
    cases, mean = _judged(drafts, limits)
    return Comparison(
        cases=cases,
        geomean=mean,
        limits=limits,
        relative_to=relative_to,
        notes=(*sides.notes(), *_round_notes(cases), *_control_notes(cases)),
    )


def compare_samples(
    baseline_rounds: Rounds, candidate_rounds: Rounds, limits: Limits, seed: int
) -> tuple[float, float, float, float]:
    """(ratio, lo, hi, p_value) of two sets of rounds, each an array of samples in ms.

    Raises:
        ValueError: no rounds, an empty one, or a sample that is not positive and finite.
    """
    return ratio_of(Side(rounds=baseline_rounds), Side(rounds=candidate_rounds), limits, seed)[:4]


def ratio_of(baseline: Side, candidate: Side, limits: Limits, seed: int | list[int]) -> Ratio:
    """The ratio of two sides with its interval, p-value and noise floor.

    Raises:
        ValueError: as `compare_samples`.
    """
    return compare_sides(
        baseline,
        candidate,
        confidence=limits.confidence,
        num_draws=limits.num_draws,
        rng=np.random.default_rng(seed),
    )


class _Draft(NamedTuple):
    """A case before it is known how many others were tested."""

    case: CaseComparison
    compared: Compared | None


@dataclass(frozen=True)
class _Sides:
    """Both runs, case by case."""

    before: Mapping[str, Cohort]
    after: Mapping[str, Cohort]
    limits: Limits
    relative_to: str | None
    unmeasured: Mapping[str, str]

    def draft(self, case_id: str, seed: int) -> _Draft:
        old, new = self.before[case_id], self.after.get(case_id)
        control = self.limits.control
        known = CaseComparison(
            case_id=case_id,
            case_path=old.case_path,
            contender=old.contender,
            impl=old.impl,
            verdict=SAME,
            is_control=control is not None and is_named(old, control),
            is_anchor=self._is_anchor(old),
        )
        if new is None and case_id in self.unmeasured:
            reason = self.unmeasured[case_id]
            return _Draft(replace(known, verdict=NOT_COMPARABLE, reason=reason), None)
        if new is None:
            reason = "was ok and is missing from the candidate"
            return _Draft(replace(known, verdict=BROKEN, reason=reason), None)
        if new.failed or not new.ok:
            reason = f"was ok, now {new.failure()}"
            return _Draft(replace(known, verdict=BROKEN, reason=reason), None)
        known = self._with_memory(known, old, new)
        if reasons := self._obstacles(old, new):
            reason = "; ".join(reasons)
            return _Draft(replace(known, verdict=NOT_COMPARABLE, reason=reason), None)
        return self._compared(known, old, new, seed)

    @cached_property
    def usual_spreads(self) -> tuple[float, float]:
        """What rounds differ by in the median case of each run; 0 where too few cases tell."""
        found: tuple[list[float], list[float]] = ([], [])
        for old in self.before.values():
            new = self.after.get(old.case_id)
            if new is None or self._obstacles(old, new):
                continue
            anchors = self._anchors(old)
            pairs = zip(found, (old, new), anchors or (None, None), strict=True)
            for spreads, case, anchor in pairs:
                if spread := _side(case, anchor, self.limits.metric).spread:
                    spreads.append(spread)
        medians = [float(np.median(s)) if len(s) >= FEWEST_CASES else 0.0 for s in found]
        return medians[0], medians[1]

    def notes(self) -> list[str]:
        """What the verdicts do not say."""
        old, new = self.before.values(), self.after.values()
        lines = software_changes(old, new)
        never_ok = [c for c in old if not c.ok]
        fixed = [c for c in never_ok if c.case_id in self.after and self.after[c.case_id].ok]
        fresh = [c for c in new if c.case_id not in self.before]
        if never_ok:
            lines.append(
                f"{units.plural(len(never_ok), 'case')} had no result in the baseline "
                f"({len(fixed)} of them now ok), such as {never_ok[0].case_path}"
            )
        if fresh:
            lines.append(
                f"{units.plural(len(fresh), 'case')} not in the baseline, such as "
                f"{fresh[0].case_path}"
            )
        control = self.limits.control
        if control is not None and not any(is_named(c, control) for c in old):
            lines.append(f"no case of the baseline is of the control {control}")
        return lines

    def _with_memory(self, known: CaseComparison, old: Cohort, new: Cohort) -> CaseComparison:
        baseline_mib, candidate_mib = old.memory_mib(), new.memory_mib()
        return replace(
            known,
            baseline_mib=baseline_mib,
            candidate_mib=candidate_mib,
            memory_verdict=judge_memory(baseline_mib, candidate_mib, self.limits).verdict,
        )

    def _obstacles(self, old: Cohort, new: Cohort) -> list[str]:
        found = differences(
            old,
            new,
            metric=self.limits.metric,
            across_machines=self.relative_to is not None,
            new_kernels=self.limits.new_kernels,
        )
        metric = self.limits.metric
        if not (old.samples(metric) and new.samples(metric)):
            found.append(f"no samples of {metric}")
        if self.relative_to is not None and not found and self._anchors(old) is None:
            found.append(self._why_no_anchor(old))
        return found

    def _why_no_anchor(self, case: Cohort) -> str:
        for anchor in self._of_its_shape(case):
            if anchor.case_id in self.unmeasured and anchor.ok:
                return f"its anchor {anchor.case_path} is {self.unmeasured[anchor.case_id]}"
        return f"no {self.relative_to} of its shape in the same rounds of both runs"

    def _compared(self, known: CaseComparison, old: Cohort, new: Cohort, seed: int) -> _Draft:
        metric = self.limits.metric
        anchors = self._anchors(old) or (None, None)
        baseline, candidate = (
            replace(_side(case, anchor, metric, (seed, number)), least_spread=usual)
            for number, (case, anchor, usual) in enumerate(
                zip((old, new), anchors, self.usual_spreads, strict=True)
            )
        )
        baseline_ms, candidate_ms = baseline.centre_ms, candidate.centre_ms
        known = replace(
            known,
            baseline_ms=baseline_ms,
            candidate_ms=candidate_ms,
            num_rounds=(len(baseline.rounds), len(candidate.rounds)),
        )
        if known.is_anchor:
            reason = "what others are relative to: not judged itself"
            return _Draft(replace(known, reason=reason), None)
        own_seed = [seed, zlib.crc32(known.case_id.encode())]
        found = ratio_of(baseline, candidate, self.limits, own_seed)
        bound = self.limits.bound(found.noise_floor, baseline_ms)
        judgeable = replace(
            known,
            ratio=found.ratio,
            ratio_lo=found.lo,
            ratio_hi=found.hi,
            p_value=found.p_value,
            noise_floor=found.noise_floor,
            bound=bound,
            detectable=detectable(found, bound, self.limits.confidence),
            must_see=self.limits.visible(old.rows[0]["device"], baseline_ms),
        )
        return _Draft(judgeable, Compared(ratio=found, sides=(baseline, candidate)))

    def _anchors(self, case: Cohort) -> tuple[Cohort, Cohort] | None:
        """What a case is relative to in each run: the fastest of that name in the baseline."""
        metric = self.limits.metric
        new = self.after.get(case.case_id)
        if new is None:
            return None
        found = [
            (old, self.after[old.case_id])
            for old in self._of_its_shape(case)
            if old.case_id in self.after
        ]
        found = [
            (a, b)
            for a, b in found
            if a.samples(metric).keys() & case.samples(metric).keys()
            and b.samples(metric).keys() & new.samples(metric).keys()
        ]
        return min(found, key=lambda pair: _fastest_ms(pair[0]), default=None)

    def _is_anchor(self, case: Cohort) -> bool:
        """Whether a case is relative to itself, or would be if all of both runs were there."""
        if anchors := self._anchors(case):
            return anchors[0] is case
        named = [c for c in self._of_its_shape(case) if c.ok]
        return bool(named) and min(named, key=_fastest_ms) is case

    def _of_its_shape(self, case: Cohort) -> list[Cohort]:
        """What a case may be relative to, in the baseline."""
        name = self.relative_to
        if name is None:
            return []
        return [c for c in self.before.values() if is_named(c, name) and c.shape == case.shape]


def _fastest_ms(case: Cohort) -> float:
    return min(float(row["latency_ms"]) for row in case.ok)


def _side(case: Cohort, anchor: Cohort | None, metric: str, seed: tuple[int, int] = (0, 0)) -> Side:
    """A case of one run; what it has in common with others of the run is drawn alike for all.

    Args:
        seed: Of the comparison, and which of the two runs it is.
    """
    rounds = case.samples(metric)
    others = rounds if anchor is None else anchor.samples(metric)
    # one order in all cases, so that a number means the same round
    keys = sorted((key for key in rounds if key in others), key=lambda key: (str(key[0]), key[1]))
    rounds_seed = (*seed, zlib.crc32(repr(keys).encode()))
    own = [rounds[key] for key in keys]
    if anchor is None:
        return Side(rounds=own, rounds_seed=rounds_seed)
    return Side(
        rounds=own,
        anchors=[others[key] for key in keys],
        rounds_seed=rounds_seed,
        anchors_seed=(*rounds_seed, zlib.crc32(anchor.case_id.encode())),
    )


def _judged(
    drafts: Sequence[_Draft], limits: Limits
) -> tuple[tuple[CaseComparison, ...], Geomean | None]:
    """Verdicts, now that the number of tested cases is known, and the mean of all ratios."""
    tested = [draft for draft in drafts if draft.compared is not None]
    p_values = [draft.case.p_value for draft in tested]
    q_values = iter(stats.false_discovery_control(p_values) if tested else ())
    cases = []
    for case, compared in drafts:
        if compared is None:
            cases.append(case)
            continue
        found = compared.ratio
        q_value = float(next(q_values))
        assert case.bound is not None
        assert case.detectable is not None
        assert case.must_see is not None
        judged = judge(
            found,
            bound=case.bound,
            q_value=q_value,
            confidence=limits.confidence,
            detectable=case.detectable,
            must_see=case.must_see,
        )
        reason = judged.reason
        if judged.verdict == AMBIGUOUS and min(case.num_rounds) < FEWEST_ROUNDS:
            reason = "so few rounds say nothing about the noise between rounds"
        cases.append(replace(case, q_value=q_value, verdict=judged.verdict, reason=reason))
    together = [draft.compared for draft in tested if draft.compared is not None]
    return tuple(cases), geomean(together, limits.confidence)


def _round_notes(cases: Sequence[CaseComparison]) -> list[str]:
    few = [c for c in cases if c.ratio is not None and min(c.num_rounds) < FEWEST_ROUNDS]
    if not few:
        return []
    return [
        f"{units.plural(len(few), 'case')} measured in fewer than {FEWEST_ROUNDS} rounds: how "
        f"much rounds differ is unknown, and taken to be {units.percent_label(ASSUMED_SPREAD)}, "
        "so that only gross differences count; --rounds 5 --fresh-workers measures it"
    ]


def _control_notes(cases: Sequence[CaseComparison]) -> list[str]:
    controls = [c for c in cases if c.is_control]
    if controls and all(c.is_anchor for c in controls):
        return ["the control is what others are relative to: it cannot tell what the machine did"]
    controls = [c for c in controls if c.ratio is not None]
    if not controls or any(c.is_judged or c.verdict == FASTER for c in controls):
        return []
    return ["the control is too noisy to tell whether the machine changed"]
