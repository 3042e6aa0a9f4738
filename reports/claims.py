"""Claims held against runs: numbers, verdicts and where they hold, for screen and program."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from bench import units
from bench.row import SCHEMA_VERSION
from reports import frames, summary
from reports.claim_quantities import Reading, readings
from reports.claim_rules import CLAIMS, Check, Claim
from reports.claims_untested import UNTESTED

VERDICTS = ("confirmed", "refuted", "mixed", "not tested")
TOLERANCE = 1e-9
MAX_PLACES = 4
"""Places that a region names; the rest is counted, `--json` has all."""
_INDENT = " " * 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One check: its verdict, the readings that hold, fail, and are undecided.

    Undecided is a reading whose interval contains a bound.
    """

    text: str
    rule: str
    verdict: str
    reason: str | None
    holding: tuple[Reading, ...] = ()
    failing: tuple[Reading, ...] = ()
    undecided: tuple[Reading, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The numbers and their region, for people."""
        named = (("holds", self.holding), ("fails", self.failing), ("undecided", self.undecided))
        return [f"{word}: {region(found)}" for word, found in named if found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One claim with its verdict; `reason` says why it, or which part of it, is not tested."""

    name: str
    source: str
    quotation: str
    verdict: str
    reason: str | None
    findings: tuple[Finding, ...] = ()


def judge_all(
    rows: pd.DataFrame, claims: Sequence[Claim] = (*CLAIMS, *UNTESTED)
) -> list[Judgement]:
    """Every claim in the light of rows (columns of `bench.row.Row`, of one or several runs)."""
    cases = frames.records(frames.tidy(rows))
    return [judge(claim, cases) for claim in claims]


def judge(claim: Claim, cases: Sequence[dict[str, Any]]) -> Judgement:
    """One claim; checks without a decided reading do not count, but are named."""
    findings = tuple(_finding(check, cases) for check in claim.checks)
    verdicts = {f.verdict for f in findings} - {"not tested"}
    open_ones = [f for f in findings if f.verdict == "not tested"]
    verdict = verdicts.pop() if len(verdicts) == 1 else "mixed" if verdicts else "not tested"
    reasons = [claim.untested] if claim.untested else []
    if findings and verdict == "not tested":
        reasons = list(dict.fromkeys(str(f.reason) for f in open_ones))
    elif open_ones:
        number = units.plural(len(findings), "check")
        reasons.append(f"{len(open_ones)} of {number} could not be decided")
    return Judgement(
        name=claim.name,
        source=claim.source,
        quotation=claim.quotation,
        verdict=verdict,
        reason="; ".join(reasons) or None,
        findings=findings,
    )


def screen(rows: pd.DataFrame, *, problems: Sequence[str] = (), width: int = 100) -> str:
    """What `ena-bench claims` prints."""
    found = judge_all(rows)
    lines = [f"machine      {line}" for line in summary.machine_lines(rows)]
    lines += ["", *(line for j in found if j.findings for line in _judgement_lines(j, width))]
    lines += ["Not tested here", *(_short_line(j, width) for j in found if not j.findings), ""]
    lines += [f"WARNING  {problem}" for problem in problems]
    return "\n".join([*lines, tally(found)])


def tally(found: Sequence[Judgement]) -> str:
    """`62 claims: 4 confirmed, 3 refuted, 6 mixed, 49 not tested`."""
    counts = [f"{sum(j.verdict == v for j in found)} {v}" for v in VERDICTS]
    return f"{units.plural(len(found), 'claim')}: {', '.join(counts)}"


def document(rows: pd.DataFrame, *, problems: Sequence[str] = ()) -> dict[str, Any]:
    """What `ena-bench claims --json` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "machines": summary.machine_lines(rows),
        "claims": [asdict(j) for j in judge_all(rows)],
        "problems": list(problems),
    }


def region(found: Sequence[Reading]) -> str:
    """`ENA 70% (flex+fla), layer fwd, 2-D, at 4k to 64k: 1.20 to 3.40`."""
    several = len({(r.setting, r.device_name) for r in found}) > 1
    groups: dict[str, list[Reading]] = {}
    for r in found:
        place = f"{r.series}, {r.level} {r.mode}, {r.ndim}-D"
        place += f" ({r.setting}, {r.device_name})" if several else ""
        groups.setdefault(place, []).append(r)
    texts = [f"{place}{_lengths(g)}: {_values(g)}" for place, g in groups.items()]
    more = len(texts) - MAX_PLACES
    return "; ".join(texts[:MAX_PLACES]) + (f"; and {more} more" if more > 0 else "")


def _finding(check: Check, cases: Sequence[dict[str, Any]]) -> Finding:
    found = readings(check.quantity, cases, check.where)
    sides = [_side(check, r) for r in found]
    parts = [
        tuple(r for r, side in zip(found, sides, strict=True) if side == wanted)
        for wanted in ("holds", "fails", "undecided")
    ]
    verdict = _verdict(check, len(parts[0]), len(parts[1]))
    missing = "the intervals contain the bound" if found else "no run has the cases it needs"
    return Finding(
        text=check.text,
        rule=_rule(check),
        verdict=verdict,
        reason=missing if verdict == "not tested" else None,
        holding=parts[0],
        failing=parts[1],
        undecided=parts[2],
    )


def _side(check: Check, reading: Reading) -> str:
    low, high = check.low - TOLERANCE, check.high + TOLERANCE
    if low <= reading.lo and reading.hi <= high:
        return "holds"
    return "fails" if reading.hi < low or reading.lo > high else "undecided"


def _verdict(check: Check, num_holding: int, num_failing: int) -> str:
    if not num_holding + num_failing:
        return "not tested"
    if check.holds == "somewhere":
        return "confirmed" if num_holding else "refuted"
    if not num_failing:
        return "confirmed"
    return "mixed" if num_holding else "refuted"


def _rule(check: Check) -> str:
    low = f"at least {check.low:.3g}" if check.low > float("-inf") else ""
    high = f"at most {check.high:.3g}" if check.high < float("inf") else ""
    return f"{' and '.join(filter(None, (low, high)))}, {check.holds}"


def _judgement_lines(j: Judgement, width: int) -> list[str]:
    lines = [f"{j.name:<4}  {j.verdict.upper():<10}  {j.source}"]
    lines += _wrapped(f'"{j.quotation}"', width)
    for finding in j.findings:
        lines += _wrapped(f"- {finding.text} ({finding.rule}): {finding.verdict}", width)
        for line in finding.lines:
            lines += _wrapped(line, width, "    ")
    return [*lines, *(_wrapped(f"not tested: {j.reason}", width) if j.reason else []), ""]


def _short_line(j: Judgement, width: int) -> str:
    return textwrap.shorten(f"{j.name:<4} {j.reason}", width, placeholder=" ...")


def _wrapped(text: str, width: int, more: str = "") -> list[str]:
    indent = _INDENT + more
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ")


def _lengths(found: Sequence[Reading]) -> str:
    lengths = sorted({r.seq_len for r in found if r.seq_len is not None})
    if not lengths:
        return ""
    if len(lengths) <= 2:
        return f", at {' and '.join(map(units.tokens, lengths))}"
    return f", at {units.tokens(lengths[0])} to {units.tokens(lengths[-1])}"


def _values(found: Sequence[Reading]) -> str:
    low, high = min(r.value for r in found), max(r.value for r in found)
    ends = dict.fromkeys((units.significant(low), units.significant(high)))
    return " to ".join(ends)
