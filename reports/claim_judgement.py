"""Claims held against measured cases: findings of their checks, and a verdict with its reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import units
from reports import frames
from reports.claim import (
    CONFIRMED,
    FAILS,
    HOLDS,
    MIXED,
    NOT_TESTED,
    REFUTED,
    UNDECIDED,
    Check,
    Claim,
    Need,
    check_verdict,
    claim_verdict,
)
from reports.claim_caveats import caveats_of
from reports.claim_quantities import readings
from reports.claim_readings import Reading
from reports.claim_rules import CLAIMS
from reports.claims_untested import UNTESTED

Record = dict[str, Any]

TOO_FEW = "the cases it needs have too few samples"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One check: its verdict, the readings that hold, fail, and are undecided.

    `unsure` are readings of too few samples, from which nothing is judged.
    `missing` are needs of the check that no reading answers; `reason` says why it is not tested.
    """

    text: str
    rule: str
    verdict: str
    reason: str | None
    missing: tuple[str, ...] = ()
    holding: tuple[Reading, ...] = ()
    failing: tuple[Reading, ...] = ()
    undecided: tuple[Reading, ...] = ()
    unsure: tuple[Reading, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All of them."""
        return (*self.holding, *self.failing, *self.undecided, *self.unsure)

    @property
    def is_contradicted(self) -> bool:
        """Whether readings speak against the check, not merely too few for it."""
        return self.verdict == REFUTED or (self.verdict == MIXED and bool(self.failing))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One claim with its verdict.

    `aspect` is what the verdict is about where that is not the whole statement; `reason` says why
    it, or which part of it, is not tested; `caveats` what makes the numbers themselves doubtful.
    """

    name: str
    source: str
    quotation: str
    verdict: str
    aspect: str | None
    reason: str | None
    caveats: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def judge_all(
    rows: pd.DataFrame, claims: Sequence[Claim] = (*CLAIMS, *UNTESTED)
) -> list[Judgement]:
    """Every claim in the light of rows (columns of `bench.row.Row`, of one or several runs)."""
    cases = frames.records(frames.tidy(rows))
    return [judge(claim, cases) for claim in claims]


def judge(claim: Claim, cases: Sequence[Record]) -> Judgement:
    """One claim in the light of records of `frames.tidy`."""
    findings = tuple(_finding(check, cases) for check in claim.checks)
    verdict = claim_verdict(
        [f.verdict for f in findings],
        is_supported=any(f.holding for f in findings),
        is_contradicted=any(f.is_contradicted for f in findings),
    )
    return Judgement(
        name=claim.name,
        source=claim.source,
        quotation=claim.quotation,
        verdict=verdict,
        aspect=claim.aspect,
        reason=_reason(claim, findings),
        caveats=tuple(caveats_of([r for f in findings for r in f.readings], cases)),
        findings=findings,
    )


def _finding(check: Check, cases: Sequence[Record]) -> Finding:
    known = readings(check.quantity, cases, check.where)
    found = [r for r in known if r.is_sure]
    unsure = tuple(r for r in known if not r.is_sure)
    sides = [check.side(r.lo, r.hi) for r in found]
    holding, failing, undecided = (
        tuple(r for r, side in zip(found, sides, strict=True) if side == wanted)
        for wanted in (HOLDS, FAILS, UNDECIDED)
    )
    missing = tuple(
        need.words + (" (with samples enough)" if _answers(need, unsure) else "")
        for need in check.needs
        if not _answers(need, found)
    )
    verdict = check_verdict(check, sides, is_complete=not missing)
    reason = None
    if verdict == NOT_TESTED:
        reason = TOO_FEW if unsure else "no run has the cases it needs"
        if found:
            reason = "the intervals contain the bound"
        if missing and (holding or failing):
            word = "holds" if holding else "fails"
            reason = f"it {word}, but nothing was measured for {listed(missing)}"
    return Finding(
        text=check.text,
        rule=check.rule,
        verdict=verdict,
        reason=reason,
        missing=missing,
        holding=holding,
        failing=failing,
        undecided=undecided,
        unsure=unsure,
    )


def _answers(need: Need, found: Sequence[Reading]) -> bool:
    return any(getattr(r, need.column) in need.values for r in found)


def _reason(claim: Claim, findings: Sequence[Finding]) -> str | None:
    reasons = [claim.untested] if claim.untested else []
    open_ones = [f for f in findings if f.verdict == NOT_TESTED]
    if findings and len(open_ones) == len(findings):
        reasons = [*dict.fromkeys(str(f.reason) for f in open_ones), *reasons]
    elif open_ones:
        number = units.plural(len(findings), "check")
        why = "; ".join(dict.fromkeys(str(f.reason) for f in open_ones))
        others = {f.verdict for f in findings} - {NOT_TESTED}
        rest = ", the others hold" if others == {CONFIRMED} else ""
        verb = "is" if len(open_ones) == 1 else "are"
        reasons = [f"{len(open_ones)} of {number} {verb} not tested ({why}){rest}", *reasons]
    return "; ".join(reasons) or None


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
