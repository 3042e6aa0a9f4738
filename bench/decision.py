"""The decision of a gate, wherever rows come from: compare, and measure suspects again.

One slow measurement is not a slow kernel. Cases that seem slower are measured again, in batches:

after each batch    a case whose estimate is tolerable by now is let go: that cannot cause an alarm
                    a case that is slower beyond any doubt is not measured any further
after the last one  a case fails if all its rounds together say so and the new ones agree

So most suspects cost one batch, and a slow-down close to the noise gets the rounds that it needs.
Looking early is paid for as Haybittle (1971) and Peto (1976) proposed, by `EARLY_Q_VALUE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from bench import units
from bench.cohort import is_named
from bench.compare import compare
from bench.comparison import CaseComparison, Comparison
from bench.verdict import AMBIGUOUS, FASTER, SLOWER, Limits

MOST_BATCHES = 3
"""How often a suspect is measured again, each time in as many rounds as at first."""
EARLY_Q_VALUE = 0.001
"""A case is slower before the last batch only if chance explains it this rarely."""

Remeasure = Callable[[Sequence[str]], pd.DataFrame]
Rows = tuple[pd.DataFrame, pd.DataFrame]
"""Of a baseline and a candidate."""
Again = Callable[[Sequence[str]], tuple[Rows, Rows]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """How two runs are compared, in every step alike; arguments as of `bench.compare.compare`."""

    limits: Limits
    relative_to: str | None = None
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def compare(self, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Comparison:
        return compare(
            baseline,
            candidate,
            self.limits,
            relative_to=self.relative_to,
            unmeasured=self.unmeasured,
            seed=self.seed,
        )

    def doubtful(self, found: Comparison) -> tuple[str, ...]:
        """Ids of the cases to measure again: suspects, and what they are judged by.

        Empty if there is no suspect and no control moved.
        """
        suspects = {c.case_id for c in (*found.suspects, *found.moved_controls)}
        if not suspects:
            return ()
        return tuple(c.case_id for c in found.cases if c.case_id in suspects or self._judges(c))

    def _judges(self, case: CaseComparison) -> bool:
        anchor = self.relative_to
        return case.is_control or (anchor is not None and is_named(case, anchor))


def decide(
    baseline: pd.DataFrame,
    candidate: pd.DataFrame,
    question: Question,
    remeasure: Remeasure | None = None,
) -> Comparison:
    """The whole decision about a candidate that can be measured again, unlike its baseline.

    Args:
        remeasure: Given case ids, returns rows of rounds that nobody had before; without it the
            first comparison stands.
    """
    if remeasure is None:
        return question.compare(baseline, candidate)
    fresh = candidate.head(0)

    def again(case_ids: Sequence[str]) -> tuple[Rows, Rows]:
        nonlocal fresh
        more = remeasure(case_ids)
        fresh = pd.concat([fresh, more], ignore_index=True) if len(fresh) else more
        pooled = pd.concat([candidate, fresh], ignore_index=True)
        return (baseline, pooled), (baseline, fresh)

    return settled(question, (baseline, candidate), again)


def settled(question: Question, rows: Rows, again: Again) -> Comparison:
    """Compare two runs; what is doubtful is measured again, as often as it stays doubtful.

    Args:
        rows: Of the baseline and the candidate.
        again: Given ids of doubtful cases, measures them in another batch and returns the same
            two of all rounds, and of all rounds but the first ones.
    """
    found = question.compare(*rows)
    seen = doubtful = question.doubtful(found)
    for batch in range(MOST_BATCHES):
        if not doubtful:
            break
        pooled, fresh = again(doubtful)
        found = confirmed(question.compare(*pooled), question.compare(*fresh), seen)
        is_last = batch == MOST_BATCHES - 1
        undecided = () if is_last else question.doubtful(_without(found, _is_certain))
        doubtful = tuple(case_id for case_id in undecided if case_id in doubtful)
    return found


def confirmed(pooled: Comparison, fresh: Comparison, doubtful: Sequence[str]) -> Comparison:
    """What stands after measuring again.

    Args:
        pooled: Of all rounds.
        fresh: Of the new rounds alone.
        doubtful: Ids of the cases that were measured again.
    """
    anew = {case.case_id: case for case in fresh.cases if case.case_id in doubtful}
    cases = tuple(_confirmed(case, anew.get(case.case_id)) for case in pooled.cases)
    return replace(pooled, cases=cases)


def _confirmed(case: CaseComparison, anew: CaseComparison | None) -> CaseComparison:
    if anew is None or case.verdict not in (SLOWER, FASTER) or case.ratio is None:
        return case
    times = f"{units.ratio(case.ratio)} in all, {units.ratio(anew.ratio)} in the new rounds alone"
    slow = 1.0 + (case.bound or 0.0)
    ratio = anew.ratio or 1.0
    if ratio > slow if case.verdict == SLOWER else ratio < 1.0 / slow:
        return replace(case, reason=f"measured again: {times}")
    return replace(case, verdict=AMBIGUOUS, reason=f"{case.verdict}, but not again: {times}")


def _is_certain(case: CaseComparison) -> bool:
    """Whether more rounds are not needed to call it slower, or a control moved."""
    is_clear = case.verdict in (SLOWER, FASTER)
    return is_clear and case.q_value is not None and case.q_value <= EARLY_Q_VALUE


def _without(found: Comparison, is_left_out: Callable[[CaseComparison], bool]) -> Comparison:
    return replace(found, cases=tuple(c for c in found.cases if not is_left_out(c)))
