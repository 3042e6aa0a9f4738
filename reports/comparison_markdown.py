"""A comparison as Markdown: the comment on a pull request, the summary of a CI job."""

from collections.abc import Sequence

from bench import units
from bench.comparison import CaseComparison, Comparison
from bench.verdict import BROKEN, MORE, SAME, SLOWER
from reports.comparison import (
    Run,
    by_alarm,
    conclusion,
    geomean_text,
    memory_text,
    ratio_text,
    reason_text,
    sensitivity_text,
    verdict_text,
)
from reports.markdown import escape, table
from reports.tables import Column, Table

_COLUMNS = (
    Column("case", is_number=False),
    Column("verdict", is_number=False),
    Column("baseline", "ms"),
    Column("candidate", "ms"),
    Column("ratio"),
    Column("interval"),
    Column("bound", "%"),
    Column("memory"),
)


def page(found: Comparison, baseline: Run, candidate: Run, *, problems: Sequence[str] = ()) -> str:
    """The verdict first, then what needs a look, then everything else folded away."""
    cases = by_alarm(found.cases)
    loud = [c for c in cases if c.verdict != SAME or c.is_regression]
    quiet = [c for c in cases if c not in loud]
    over = f" of speed-ups over {found.relative_to}" if found.relative_to else ""
    blocks = [
        f"## ena-bench: {found.verdict}",
        escape(conclusion(found)) + ".",
        f"Geometric mean of candidate over baseline{over}: {escape(geomean_text(found))}; "
        "above 1 is slower.",
        *([f"Sensitivity: {escape(able)}."] if (able := sensitivity_text(found)) else []),
        *([table(_table(loud))] if loud else []),
        _items([f"{case.case_path}: {reason_text(case)}" for case in loud if reason_text(case)]),
        *_folded(f"{units.plural(len(quiet), 'case')} without a difference", quiet),
        _items([*found.notes, *problems]),
        _items([f"baseline: {' | '.join(baseline.lines)}"]),
        _items([f"candidate: {' | '.join(candidate.lines)}"]),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _folded(title: str, cases: list[CaseComparison]) -> list[str]:
    if not cases:
        return []
    return ["<details>", f"<summary>{escape(title)}</summary>", table(_table(cases)), "</details>"]


def _table(cases: list[CaseComparison]) -> Table:
    return Table(
        columns=_COLUMNS,
        lines=[_cells(case) for case in cases],
        marks=[case.verdict for case in cases],
    )


def _cells(case: CaseComparison) -> list[str]:
    verdict = verdict_text(case)
    if case.memory_verdict == MORE and verdict not in (SLOWER, BROKEN):
        verdict = f"{verdict}, more memory"
    name = f"{case.case_path} (control)" if case.is_control else case.case_path
    if case.ratio is None:
        return [name, verdict, *[""] * (len(_COLUMNS) - 2)]
    return [
        name,
        verdict,
        units.significant(case.baseline_ms),
        units.significant(case.candidate_ms),
        ratio_text(case.ratio),
        f"{ratio_text(case.ratio_lo)} to {ratio_text(case.ratio_hi)}",
        units.percent(case.bound).removesuffix("%"),
        memory_text(case),
    ]


def _items(lines: list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)
