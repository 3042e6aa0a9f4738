"""The last screen of a command: what a terminal, a log file or another program is told."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.style import Style

from bench import units
from bench.row import SCHEMA_VERSION
from reports import few_samples, frames
from reports.listing import GAP, Line, case_lines, shorten
from reports.overview import overview_lines
from reports.summary import (
    Group,
    correctness_line,
    failure_groups,
    machine_lines,
    unsupported_groups,
    warning_groups,
)

if TYPE_CHECKING:
    from bench.runner import Summary
    from reports.report import Paths

Record = dict[str, Any]

PLAIN_WIDTH = 100
"""Columns where the output is no terminal."""
MAX_CASES = 48
"""Up to this many cases are listed one by one."""
MAX_LINES = 72
"""An overview of more cases is cut to about this many lines."""
MAX_GROUPS = 8
"""Kinds of warnings or reasons shown."""

_LEAD = 13
_CASE_COLUMNS = (
    "case_id",
    "case_path",
    "series",
    "status",
    "reason",
    "num_rounds",
    "num_samples",
    "is_sure",
    "latency_ms",
    "latency_ms_lo",
    "latency_ms_hi",
    "spread_fraction",
    "tokens_per_s",
    "tflops_per_s",
    "peak_memory_mib",
    "anchor",
    "anchor_case_id",
    "speedup",
    "speedup_lo",
    "speedup_hi",
    "is_speedup_sure",
    "speedup_by_flops",
    "memory_ratio",
    "warnings",
)


def final(
    rows: pd.DataFrame,
    *,
    path: Path,
    summary: "Summary | None" = None,
    problems: Sequence[str] = (),
    report: "Paths | None" = None,
    width: int | None = None,
    colour: bool | None = None,
) -> str:
    """The screen at the end of `ena-bench run`.

    Args:
        rows: Columns of `bench.row.Row`.
        path: The run directory.
        problems: What was wrong with files or rows.
        width, colour: By default those of the terminal; 100 columns without colour elsewhere.
    """
    tidy = frames.tidy(rows)
    cases = frames.records(tidy)
    width = width or _terminal_width()
    lines = [
        *_facts(tidy, cases, width),
        Line(""),
        *_table(cases, width, path),
        *_notes(cases, problems, width),
        *_ending(len(rows), path, summary, report),
    ]
    return _text(lines, colour)


def verification(
    rows: pd.DataFrame, *, width: int | None = None, colour: bool | None = None
) -> str:
    """The screen of `ena-bench verify`: errors against float64, no times."""
    found = frames.records(rows)
    width = width or _terminal_width()
    lines = [
        *_facts(rows, found, width),
        Line(""),
        *_errors_table(found, width),
        *_notes(found, (), width),
    ]
    return _text(lines, colour)


def json_document(
    rows: pd.DataFrame, *, path: Path, problems: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything a program may want to know about a run; every value fits into JSON.

    `rows` are the rows as stored; `cases` have their rounds combined and a speed-up.
    """
    tidy = frames.tidy(rows)
    cases = frames.records(tidy)
    return {
        "schema_version": SCHEMA_VERSION,
        "path": str(path),
        "machines": machine_lines(tidy),
        "correctness": correctness_line(cases),
        "num_cases": dict(Counter(str(c["status"]) for c in cases)),
        "cases": [{name: case[name] for name in _CASE_COLUMNS} for case in cases],
        "rows": frames.records(rows),
        "problems": list(problems),
    }


def verification_json(rows: pd.DataFrame) -> dict[str, Any]:
    """What `ena-bench verify` found, as one document."""
    found = frames.records(rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "machines": machine_lines(rows),
        "correctness": correctness_line(found),
        "num_cases": dict(Counter(str(c["status"]) for c in found)),
        "cases": [{name: case[name] for name in _ERROR_COLUMNS} for case in found],
    }


_ERROR_COLUMNS = (
    "case_id",
    "case_path",
    "status",
    "reason",
    "verified",
    "error_forward",
    "error_gradient",
    "worst_gradient",
    "error_budget_used",
)


def _facts(frame: pd.DataFrame, cases: Sequence[Record], width: int) -> Iterator[Line]:
    for line in machine_lines(frame) or ["unknown"]:
        yield from _wrapped("machine", line, "", width)
    is_wrong = any(c["status"] == "incorrect" for c in cases)
    yield from _wrapped("correctness", correctness_line(cases), "red" if is_wrong else "", width)


def _table(cases: Sequence[Record], width: int, path: Path) -> Iterator[Line]:
    shown = [c for c in cases if c["status"] != "unsupported"]
    if not shown:
        yield Line("No case could run here.", "red")
    elif len(shown) <= MAX_CASES:
        yield from case_lines(shown, width)
    else:
        yield Line(f"{units.plural(len(shown), 'case')}; each of them is in {path}", "dim")
        yield from overview_lines(shown, width, MAX_LINES)
    if legend := few_samples.legend(shown):
        yield Line(legend, "dim")


def _errors_table(found: Sequence[Record], width: int) -> Iterator[Line]:
    shown = [c for c in found if c["status"] != "unsupported"]
    longest = max((len(str(c["case_path"])) for c in shown), default=4)
    label = min(longest, max(width - 44, 20))
    heading = ("forward", "gradient", "of budget", "compared")
    yield Line("case".ljust(label) + "".join(f"{GAP}{h:>9}" for h in heading), "bold")
    for case in shown:
        name = shorten(str(case["case_path"]), label).ljust(label)
        if case["status"] == "ok":
            errors = (case["error_forward"], case["error_gradient"])
            cells = [units.NOT_AVAILABLE if e is None else f"{e:.1e}" for e in errors]
            cells += [units.percent(case["error_budget_used"], 0), str(case["verified"])]
            yield Line(name + "".join(f"{GAP}{c:>9}" for c in cells))
        else:
            why = " ".join(f"{case['status']}: {case['reason'] or 'no reason given'}".split())
            yield Line(shorten(f"{name}{GAP}{why}", width), "red")


def _notes(cases: Sequence[Record], problems: Sequence[str], width: int) -> Iterator[Line]:
    """Warnings, failures and what cannot run: what, how often, an example."""
    yield Line("")
    for label, groups, style in (
        ("WARNING", warning_groups(cases), "yellow"),
        ("FAILED", failure_groups(cases), "red"),
        ("unsupported", unsupported_groups(cases), "dim"),
    ):
        yield from _group_lines(label, groups, style, width)
    for problem in problems:
        yield from _wrapped("WARNING", problem, "yellow", width)


def _group_lines(label: str, groups: Sequence[Group], style: str, width: int) -> Iterator[Line]:
    for group in groups[:MAX_GROUPS]:
        yield from _wrapped(label, group.sentence, style, width)
    if len(groups) > MAX_GROUPS:
        yield from _wrapped(label, f"and {len(groups) - MAX_GROUPS} kinds more", style, width)


def _ending(
    num_rows: int, path: Path, summary: "Summary | None", report: "Paths | None"
) -> Iterator[Line]:
    yield Line(f"{'saved':<{_LEAD}}{path} ({_saved(num_rows, summary)})")
    if report is not None:
        yield Line(f"{'report':<{_LEAD}}{report.html}")
    if summary is not None and summary.num_left:
        left = f"{units.plural(summary.num_left, 'visit')} for which the budget did not last"
        yield Line(f"{'left':<{_LEAD}}{left}", "yellow")
        yield Line(f"{'next':<{_LEAD}}ena-bench run --resume {path}")
    elif report is None:
        yield Line(f"{'next':<{_LEAD}}ena-bench report {path}")


def _saved(num_rows: int, summary: "Summary | None") -> str:
    text = units.plural(num_rows, "row")
    if summary is None:
        return text
    if summary.num_skipped:
        text += f", {summary.num_skipped} of them from before"
    return f"{text}, {units.duration(summary.elapsed_s * 1e3)}"


def _wrapped(label: str, text: str, style: str, width: int) -> Iterator[Line]:
    room = max(width - _LEAD, 20)
    parts = textwrap.wrap(" ".join(text.split()), room, break_on_hyphens=False) or [""]
    for index, part in enumerate(parts):
        yield Line(f"{label if index == 0 else '':<{_LEAD}}{part}", style)


def _text(lines: Sequence[Line], colour: bool | None) -> str:
    console = Console()
    if colour is None:
        colour = console.is_terminal and not console.no_color
    if not colour:
        return "\n".join(line.text.rstrip() for line in lines)
    return "\n".join(
        Style.parse(line.style).render(line.text.rstrip()) if line.style else line.text.rstrip()
        for line in lines
    )


def _terminal_width() -> int:
    console = Console()
    return console.width if console.is_terminal else PLAIN_WIDTH
