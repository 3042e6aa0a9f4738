"""A comparison as people and programs read it: the screen, and the one JSON document."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.style import Style

from bench import units
from bench.comparison import CaseComparison, Comparison
from bench.resample import FEWEST_ROUNDS
from bench.sensitivity import rounds_wanted, sensitivity
from bench.verdict import (
    AMBIGUOUS,
    BROKEN,
    FASTER,
    LESS,
    MORE,
    NOT_COMPARABLE,
    SAME,
    SLOWER,
    UNKNOWN,
    VERDICTS,
)
from reports.listing import GAP, Line, shorten
from reports.summary import machine_lines

PLAIN_WIDTH = 180
"""Columns where the output is no terminal: a log has room for whole names."""
MAX_PASSED = 60
"""Cases without a finding are listed one by one up to this many."""

_ANCHOR = "anchor"
_LEAD = 13
_LABEL = 16
_STYLES = {
    BROKEN: "bold red",
    SLOWER: "bold red",
    NOT_COMPARABLE: "yellow",
    AMBIGUOUS: "yellow",
    FASTER: "green",
    SAME: "",
}
_HEADINGS = (
    ("baseline", "ms", 9),
    ("candidate", "ms", 9),
    ("ratio", "x", 6),
    ("interval", "x", 14),
    ("bound", "%", 6),
    ("rounds", "", 7),
    ("memory", "x", 7),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One side, for the head of a page: what it is called, and its rows."""

    name: str
    rows: pd.DataFrame

    @property
    def lines(self) -> list[str]:
        """The machine, and how much of it was measured."""
        cases = units.plural(int(self.rows["case_id"].nunique()), "case")
        machines = machine_lines(self.rows) or ["machine unknown"]
        return [f"{self.name} ({cases}, {units.plural(len(self.rows), 'row')})", *machines]


def screen(
    found: Comparison,
    baseline: Run,
    candidate: Run,
    *,
    problems: Sequence[str] = (),
    width: int | None = None,
    colour: bool | None = None,
) -> str:
    """What `compare`, `check` and `ab` print."""
    console = Console()
    width = width or (console.width if console.is_terminal else PLAIN_WIDTH)
    lines = [
        *_side("baseline", baseline, width),
        *_side("candidate", candidate, width),
        *([Line(f"{'relative to':<{_LEAD}}{found.relative_to}")] if found.relative_to else []),
        Line(""),
        *_table(found, width),
        Line(""),
        *_reasons(found, width),
        *(w for note in (*found.notes, *problems) for w in _wrapped("NOTE", note, "", width)),
        *_ending(found, width),
    ]
    if colour is None:
        colour = console.is_terminal and not console.no_color
    return "\n".join(_rendered(line, colour) for line in lines)


def document(
    found: Comparison, baseline: Run, candidate: Run, *, problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything a program may want to know; every value fits into JSON."""
    able = sensitivity(found.cases)
    return {
        "verdict": found.verdict,
        "exit_code": found.exit_code,
        "conclusion": conclusion(found),
        "baseline": baseline.lines,
        "candidate": candidate.lines,
        "relative_to": found.relative_to,
        "limits": asdict(found.limits),
        "geomean": None if found.geomean is None else found.geomean._asdict(),
        "sensitivity": None if able is None else able._asdict(),
        "num_cases": dict(Counter(map(verdict_text, found.cases))),
        "num_judged": sum(case.is_judged for case in found.gated),
        "cases": [
            asdict(case) | {"memory_ratio": case.memory_ratio, "is_judged": case.is_judged}
            for case in found.cases
        ],
        "notes": list(found.notes),
        "problems": list(problems),
    }


def conclusion(found: Comparison) -> str:
    """`30 cases: 2 slower, 28 the same; ...`: counts, how many were judged, and a moved control."""
    counts = Counter(map(verdict_text, found.cases))
    parts = [f"{counts[verdict]} {_plain(verdict)}" for verdict in VERDICTS if counts[verdict]]
    parts += [units.plural(counts[_ANCHOR], _ANCHOR)] if counts[_ANCHOR] else []
    memory = sum(case.memory_verdict == MORE for case in found.cases)
    parts += [f"{memory} with more memory"] if memory else []
    text = f"{units.plural(len(found.cases), 'case')}: {', '.join(parts) or 'none'}"
    if judged := judged_text(found):
        text += f"; {judged}"
    if found.moved_controls:
        moved = max(found.moved_controls, key=lambda c: abs((c.ratio or 1.0) - 1.0))
        text += (
            f"; the control {moved.case_path} is at {units.ratio(moved.ratio)} of its time "
            "although its code did not change, so the machine did"
        )
    return text


def judged_text(found: Comparison) -> str:
    """`27 of 30 could be judged: a slow-down of 9.0% would have shown in each of them, ...`.

    Empty where no case could be compared at all.
    """
    gated = found.gated
    compared = [case for case in gated if case.detectable is not None]
    if not compared:
        return (
            ""
            if gated or not found.cases
            else "none could be judged: nothing is relative to the anchors"
        )
    judged = [case for case in compared if case.is_judged]
    if not judged:
        return _unjudged_text(compared)
    which = "all" if len(judged) == len(gated) else f"{len(judged)} of {len(gated)}"
    if len(gated) == 1:
        which = _the_only_one(found)
    # what is slower despite its noise says nothing about what would have shown
    sizes = sorted(
        case.detectable for case in judged if case.detectable is not None and case.verdict != SLOWER
    )
    if not sizes:
        return f"{which} could be judged"
    text = f"{which} could be judged: a slow-down of {_size(sizes[-1])} would have shown"
    if len(judged) == 1:
        return text
    text += " in each" if len(sizes) == len(judged) else " in each that is not slower"
    return text if len(sizes) == 1 else f"{text}, one of {_size(sizes[0])} in the steadiest"


def _the_only_one(found: Comparison) -> str:
    """What a single case is called whose gate it is."""
    others = [case for case in found.cases if case not in found.gated]
    if not others:
        return "it"
    return f"the one beside the {'control' if any(c.is_control for c in others) else 'anchor'}"


def _unjudged_text(gated: Sequence[CaseComparison]) -> str:
    """Why none was judged, and what would help."""
    steadiest = min(gated, key=lambda case: case.detectable or 0.0)
    text = (
        f"none could be judged: it takes a slow-down of {_size(steadiest.detectable or 0.0)} to "
        f"show in the steadiest, and one of {units.percent_label(steadiest.must_see)} has to"
    )
    if min(steadiest.num_rounds) < FEWEST_ROUNDS:
        return text
    rounds = rounds_wanted(gated)
    cure = f"about {rounds} rounds of both would do" if rounds else "a quieter machine would help"
    return f"{text}; {cure}"


def geomean_text(found: Comparison) -> str:
    """`1.012x (1.004x to 1.021x) over 30 cases`."""
    mean = found.geomean
    if mean is None:
        return "no case could be compared"
    interval = f"{ratio_text(mean.lo)} to {ratio_text(mean.hi)}"
    return f"{ratio_text(mean.ratio)} ({interval}) over {units.plural(mean.num_cases, 'case')}"


def sensitivity_text(found: Comparison) -> str:
    """`finds slow-downs from 3.1% in half of the cases, from 8.0% in all`; empty without cases."""
    able = sensitivity(found.cases)
    if able is None:
        return ""
    median, worst = _size(able.median), _size(able.worst)
    first = f"these rounds find slow-downs from {median}"
    if sum(case.detectable is not None for case in found.cases) == 1:
        return first
    return f"{first} in half of the cases, from {worst} in all (the noisiest is {able.worst_path})"


def _size(slowdown: float) -> str:
    """`8.0%`, and from 100% on `3.1x the time`."""
    if slowdown < 1.0:
        return units.percent(slowdown)
    return f"{units.ratio(1.0 + slowdown)} the time"


def ratio_text(value: float | None) -> str:
    """`1.052`: a ratio near 1 with the digits that tell 5% from 6%."""
    return units.NOT_AVAILABLE if value is None else f"{value:.3f}"


def verdict_text(case: CaseComparison) -> str:
    """Its verdict; an anchor with nothing wrong has none, for it was compared with itself."""
    return _ANCHOR if case.is_anchor and case.verdict == SAME else case.verdict


def memory_text(case: CaseComparison) -> str:
    """`same`, or the ratio of peaks."""
    if case.memory_verdict in (SAME, UNKNOWN):
        return case.memory_verdict if case.memory_verdict == SAME else units.NOT_AVAILABLE
    return ratio_text(case.memory_ratio)


def by_alarm(cases: Sequence[CaseComparison]) -> list[CaseComparison]:
    """The most alarming first; equal ones by falling ratio."""

    def key(case: CaseComparison) -> tuple[int, float]:
        rank = 0 if case.is_regression else 1 + VERDICTS.index(case.verdict)
        return (rank, -(case.ratio or 0.0))

    return sorted(cases, key=key)


def reason_text(case: CaseComparison) -> str:
    """Why a case has its verdict, memory included; empty where there is nothing to say."""
    parts = [case.reason] if case.reason else []
    if case.memory_verdict in (MORE, LESS):
        before, after = units.memory(case.baseline_mib), units.memory(case.candidate_mib)
        parts.append(f"peak memory was {before} and is {after}")
    return "; ".join(parts)


def _side(label: str, run: Run, width: int) -> Iterator[Line]:
    for index, line in enumerate(run.lines):
        yield from _wrapped(label if index == 0 else "", line, "" if index == 0 else "dim", width)


def _table(found: Comparison, width: int) -> Iterator[Line]:
    cases = by_alarm(found.cases)
    quiet = [c for c in cases if c.verdict == SAME and not c.is_regression]
    if len(quiet) > MAX_PASSED:
        cases = [c for c in cases if c not in quiet]
    room = max(width - sum(len(GAP) + size for _, _, size in _HEADINGS) - _LABEL - len(GAP), 24)
    for row in (0, 1):
        text = "".join(f"{GAP}{heading[row]:>{heading[2]}}" for heading in _HEADINGS)
        yield Line(f"{'':<{_LABEL}}{text}{GAP}{'case' if row == 0 else ''}", "bold")
    for case in cases:
        style = _STYLES[case.verdict] or ("bold red" if case.is_regression else "")
        yield Line(
            f"{_label(case):<{_LABEL}}{_numbers(case)}{GAP}{shorten(case.case_path, room)}", style
        )
    if len(quiet) > MAX_PASSED:
        yield Line(f"{units.plural(len(quiet), 'case')} more: same", "dim")


def _label(case: CaseComparison) -> str:
    text = verdict_text(case)
    if case.memory_verdict == MORE and case.verdict not in (BROKEN, SLOWER):
        text = "MEMORY"
    elif case.verdict in (BROKEN, SLOWER):
        text = text.upper()
    return f"{text} *" if case.is_control else text


def _numbers(case: CaseComparison) -> str:
    if case.ratio is None:
        sides = (case.baseline_ms, case.candidate_ms)
        times = [units.significant(ms) if ms else "" for ms in sides]
        return _aligned([*times, *[""] * (len(_HEADINGS) - 2)])
    cells = (
        units.significant(case.baseline_ms),
        units.significant(case.candidate_ms),
        ratio_text(case.ratio),
        f"{ratio_text(case.ratio_lo)} - {ratio_text(case.ratio_hi)}",
        units.percent(case.bound).removesuffix("%"),
        f"{case.num_rounds[0]} / {case.num_rounds[1]}",
        memory_text(case),
    )
    return _aligned(cells)


def _aligned(cells: Sequence[str]) -> str:
    return "".join(
        f"{GAP}{text:>{size}}" for text, (_, _, size) in zip(cells, _HEADINGS, strict=True)
    )


def _reasons(found: Comparison, width: int) -> Iterator[Line]:
    """Why, for each case that is not simply the same; equal reasons once."""
    groups: dict[tuple[str, str], list[CaseComparison]] = {}
    for case in by_alarm(found.cases):
        if reason := reason_text(case):
            groups.setdefault((_label(case), reason), []).append(case)
    for (label, reason), cases in groups.items():
        where = cases[0].case_path
        if len(cases) > 1:
            where = f"{units.plural(len(cases), 'case')}, such as {where}"
        yield from _wrapped(label, f"{reason} ({where})", _STYLES[cases[0].verdict], width)


def _ending(found: Comparison, width: int) -> Iterator[Line]:
    if any(case.is_control for case in found.cases):
        yield Line(f"{'*':<{_LEAD}}the control: its code did not change", "dim")
    yield from _wrapped("geomean", f"{geomean_text(found)}; above 1 is slower", "", width)
    if text := sensitivity_text(found):
        yield from _wrapped("sensitivity", text, "", width)
    style = {0: "bold green", 3: "bold red"}.get(found.exit_code, "bold yellow")
    yield from _wrapped(found.verdict.upper(), conclusion(found), style, width)


def _plain(verdict: str) -> str:
    return "the same" if verdict == SAME else verdict


def _wrapped(label: str, text: str, style: str, width: int) -> Iterator[Line]:
    lead = max(_LEAD, len(label) + 2)
    parts = textwrap.wrap(" ".join(text.split()), max(width - lead, 24), break_on_hyphens=False)
    for index, part in enumerate(parts or [""]):
        yield Line(f"{label if index == 0 else '':<{lead}}{part}", style)


def _rendered(line: Line, colour: bool) -> str:
    text = line.text.rstrip()
    return Style.parse(line.style).render(text) if colour and line.style else text
