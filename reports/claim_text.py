"""Judgements in words: for the screen, the page, a pull request and the table of the rules."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench import units
from reports.claim import CONFIRMED, MIXED, NOT_TESTED, REFUTED, VERDICT_RULES
from reports.claim_judgement import Finding, Judgement, listed
from reports.claim_readings import Reading
from reports.claim_rules import CLAIMS
from reports.claims_untested import UNTESTED

MAX_PLACES = 4
"""Places that a region names; the rest is counted, `--json` has all."""
_PLACES = ("setting", "device_name", "software")
"""What a region names where the readings of a check differ in it."""
_INDENT = " " * 6
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckText:
    """One check in words; `lines` are where it holds, fails or cannot be told, with numbers."""

    text: str
    rule: str
    verdict: str
    lines: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One claim in words, as plain text."""

    name: str
    verdict: str
    source: str
    quotation: str
    sentence: str
    checks: list[CheckText]
    caveats: list[str]


def entries(found: Sequence[Judgement]) -> list[Entry]:
    """Claims in words, those without a verdict last."""
    ordered = sorted(found, key=lambda j: j.verdict == NOT_TESTED)
    return [
        Entry(
            name=j.name,
            verdict=j.verdict,
            source=j.source,
            quotation=j.quotation,
            sentence=sentence(j),
            checks=[
                CheckText(text=f.text, rule=f.rule, verdict=f.verdict, lines=lines_of(f))
                for f in j.findings
            ],
            caveats=[*([f"Not tested: {j.reason}"] if j.reason else []), *j.caveats],
        )
        for j in ordered
    ]


def headline(found: Sequence[Judgement]) -> list[str]:
    """The verdicts by name, for a summary; nothing where no claim was judged."""
    judged = [j for j in found if j.verdict != NOT_TESTED]
    if not judged:
        return []
    number = units.plural(sum(bool(j.findings) for j in found), "claim")
    parts = [
        f"{listed([named(j) for j in judged if j.verdict == verdict])} {verdict}"
        for verdict in (CONFIRMED, REFUTED, MIXED)
        if any(j.verdict == verdict for j in judged)
    ]
    return [f"Of {number} that can be tested, {len(judged)} have a verdict: {'; '.join(parts)}."]


def named(j: Judgement) -> str:
    """`E11 (its cost)`: the claim, and what its verdict is about."""
    return f"{j.name} ({j.aspect})" if j.aspect else j.name


def sentence(j: Judgement) -> str:
    """`E9 is mixed: ...`, with the number of places and the range of values of each check."""
    if not any(f.readings for f in j.findings):
        return f"{named(j)} is not tested: {j.reason}."
    parts = [f"{f.text}: {_places(f)}" for f in j.findings]
    return f"{named(j)} is {j.verdict}. {'; '.join(p[0].upper() + p[1:] for p in parts)}."


def lines_of(finding: Finding) -> list[str]:
    """The numbers and where they are, a line for each side."""
    sides = (
        ("holds", finding.holding),
        ("fails", finding.failing),
        ("undecided", finding.undecided),
        ("not judged for too few samples", finding.unsure),
    )
    lines = [f"{word}: {region(own, finding.readings)}" for word, own in sides if own]
    missing = [f"not measured: {', '.join(finding.missing)}"] if finding.missing else []
    return [*lines, *(missing if finding.readings else [])]


def region(found: Sequence[Reading], known: Sequence[Reading]) -> str:
    """`ENA 70% (flex+fla), layer fwd, 2-D and 3-D, at 4k to 64k: 1.20 to 3.40`.

    Args:
        known: All readings of the check: lengths among them that are not `found` are left out of
            a range.
    """
    told = [n for n in _PLACES if len({getattr(r, n) for r in known}) > 1]
    groups: dict[tuple[Any, ...], list[Reading]] = {}
    for r in found:
        where = ", ".join(str(getattr(r, n)) for n in told)
        groups.setdefault((r.series, r.level, where, r.mode, r.ndim), []).append(r)
    lengths = sorted({r.seq_len for r in known if r.seq_len is not None})
    merged: dict[tuple[Any, ...], list[Reading]] = {}
    for (series, level, where, mode, _), own in groups.items():
        at = _lengths({r.seq_len for r in own if r.seq_len is not None}, lengths)
        merged.setdefault((series, level, where, mode, at), []).extend(own)
    places: dict[tuple[Any, ...], list[Reading]] = {}
    for (series, level, where, _, at), own in merged.items():
        axes = tuple(sorted({r.ndim or 0 for r in own}))
        places.setdefault((series, level, where, axes, at), []).extend(own)
    texts = [_place(key, own) for key, own in places.items()]
    more = len(texts) - MAX_PLACES
    return "; ".join(texts[:MAX_PLACES]) + (f"; and {more} more" if more > 0 else "")


def screen_lines(j: Judgement, width: int) -> list[str]:
    """What a terminal shows of a claim that has checks."""
    aspect = f" ({j.aspect})" if j.aspect else ""
    title = f"{j.name:<4}  {j.verdict.upper()}{aspect}  {j.source}"
    lines = textwrap.wrap(title, width, subsequent_indent=_INDENT, drop_whitespace=False)
    lines += _wrapped(f'"{j.quotation}"', width)
    for finding in j.findings:
        lines += _wrapped(f"- {finding.text} ({finding.rule}): {finding.verdict}", width)
        for line in lines_of(finding):
            lines += _wrapped(line, width, "    ")
    lines += _wrapped(f"not tested: {j.reason}", width) if j.reason else []
    for caveat in j.caveats:
        lines += _wrapped(f"caution: {caveat}", width)
    return [*lines, ""]


def short_line(j: Judgement, width: int) -> str:
    """What a terminal shows of a claim without checks."""
    return textwrap.shorten(f"{j.name:<4} {j.reason}", width, placeholder=" ...")


def markdown(found: Sequence[Judgement]) -> str:
    """A table of the verdicts and a section to open for each claim that has one."""
    told = entries(found)
    judged = [e for e in told if any(c.lines for c in e.checks)]
    lines = ["| claim | verdict | statement |", "|---|---|---|"]
    lines += [f"| {e.name} | {e.verdict} | {escaped(e.quotation)} |" for e in judged]
    blocks = [line for e in judged for line in ("", *_details(e))]
    rest = [e for e in told if e not in judged]
    if rest:
        reasons = [f"- {escaped(e.sentence)}" for e in rest]
        blocks += ["", _summary(f"{len(rest)} claims are not tested"), "", *reasons]
        blocks += ["", "</details>"]
    return "\n".join([*(lines if judged else []), *blocks]).strip() + "\n"


def rules_markdown() -> str:
    """docs/claims.md: what each verdict means, every rule, and what is not tested."""
    lines = [
        "# Claims and the rules of their verdicts",
        "",
        "`ena-bench run --preset claims` measures what the claims of papers need, and",
        "`ena-bench claims RUN...` holds them against runs. This page is generated by `make docs`",
        "from `reports/claim.py`, `reports/claim_rules.py`, `reports/claim_rules_others.py` and",
        "`reports/claims_untested.py`.",
        "",
        "| verdict | when |",
        "|---|---|",
        *(f"| {verdict} | {escaped(words)} |" for verdict, words in VERDICT_RULES),
        "",
        *_PRINCIPLES,
    ]
    for claim in CLAIMS:
        about = f" Judged is {claim.aspect} only." if claim.aspect else ""
        untested = f" Not tested: {escaped(claim.untested)}." if claim.untested else ""
        lines += ["", f"## {claim.name}", "", f"> {escaped(claim.quotation)}", ""]
        lines += [f"Source: {escaped(claim.source)}.{about}{untested}"]
        if claim.checks:
            lines += ["", "| check | bound | must be measured for |", "|---|---|---|"]
        lines += [
            f"| {escaped(c.text)} | {escaped(c.rule)} | "
            f"{escaped(', '.join(n.words for n in c.needs)) or 'any'} |"
            for c in claim.checks
        ]
    lines += ["", "## Not tested here", ""]
    lines += ["| claim | statement | source | why |", "|---|---|---|---|"]
    lines += [
        f"| {c.name} | {escaped(c.quotation)} | {escaped(c.source)} | {escaped(str(c.untested))} |"
        for c in UNTESTED
    ]
    return "\n".join(lines) + "\n"


_PRINCIPLES = (
    "Readings are ratios of medians, or exponents. The interval of a reading is the widest that",
    "the 95% intervals of its medians allow; it counts for or against a claim only if the whole of",
    "it lies on one side of the bounds. Nothing is judged from a median of fewer than 6 samples;",
    "differences of less than 3% do not count as faster or slower. Of several",
    "implementations of one thing the fastest counts. Nothing is compared across machines, commits",
    "or versions of libraries. A verdict holds for the machine and the implementations that were",
    "measured; what makes it doubtful is said with it.",
)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", " ")


def _details(entry: Entry) -> list[str]:
    lines = [_summary(f"{entry.name}: {entry.verdict}"), "", escaped(entry.sentence), ""]
    for check in entry.checks:
        lines.append(f"- {escaped(check.text)} ({escaped(check.rule)}): **{check.verdict}**")
        lines += [f"  - {escaped(line)}" for line in check.lines]
    lines += [f"- {escaped(caveat)}" for caveat in entry.caveats]
    return [*lines, "", "</details>"]


def _summary(text: str) -> str:
    return f"<details><summary>{text}</summary>"


def _places(finding: Finding) -> str:
    """`holds in 3 of 24 places (1.03), fails in 21 (1.14 to 1.96)`."""
    total = units.plural(len(finding.readings), "place")
    sides = (("holds", finding.holding), ("fails", finding.failing))
    parts = [f"{word} in {len(own)} of {total} ({_values(own)})" for word, own in sides if own]
    if finding.undecided:
        own = finding.undecided
        parts.append(f"cannot be told in {len(own)} of {total} ({_values(own)})")
    if finding.unsure:
        parts.append(f"not judged for too few samples in {len(finding.unsure)} of {total}")
    if not parts:
        return str(finding.reason)
    missing = f", not measured for {', '.join(finding.missing)}" if finding.missing else ""
    return ", ".join(parts) + missing


def _place(key: tuple[Any, ...], own: Sequence[Reading]) -> str:
    series, level, where, axes, at = key
    modes = listed(list(dict.fromkeys(r.mode for r in own)))
    text = f"{series}, {level} {modes}, {listed([f'{n}-D' for n in axes])}"
    text += f" ({where})" if where else ""
    return f"{text}{f', at {at}' if at else ''}: {_values(own)}"


def _lengths(own: set[int], known: Sequence[int]) -> str:
    """`2k, 8k to 64k`: ranges without a known length that is not among them."""
    parts: list[list[int]] = []
    previous = None
    for index, length in enumerate(known):
        if length not in own:
            continue
        if parts and previous == index - 1:
            parts[-1].append(length)
        else:
            parts.append([length])
        previous = index
    words = [
        f"{units.tokens(p[0])} to {units.tokens(p[-1])}" if len(p) > 1 else units.tokens(p[0])
        for p in parts
    ]
    return listed(words) if words else ""


def _values(found: Sequence[Reading]) -> str:
    low, high = min(r.value for r in found), max(r.value for r in found)
    ends = dict.fromkeys((units.significant(low), units.significant(high)))
    return " to ".join(ends)


def _wrapped(text: str, width: int, more: str = "") -> list[str]:
    indent = _INDENT + more
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ")
