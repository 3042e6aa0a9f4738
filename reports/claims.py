"""What `ena-bench claims` prints: every claim with its verdict, for people and programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from bench import units
from bench.row import SCHEMA_VERSION
from reports import claim_text, summary
from reports.claim import VERDICTS
from reports.claim_judgement import Finding, Judgement, judge, judge_all

__all__ = ["VERDICTS", "Finding", "Judgement", "document", "judge", "judge_all", "screen", "tally"]


def screen(rows: pd.DataFrame, *, problems: Sequence[str] = (), width: int = 100) -> str:
    """Claims with checks at length, the others in a line each, and the tally."""
    found = judge_all(rows)
    lines = [f"machine      {line}" for line in summary.machine_lines(rows)]
    lines.append("")
    lines += [line for j in found if j.findings for line in claim_text.screen_lines(j, width)]
    rest = [j for j in found if not j.findings]
    lines += ["Not tested here", *(claim_text.short_line(j, width) for j in rest), ""]
    lines += [f"WARNING  {problem}" for problem in problems]
    return "\n".join([*lines, tally(found)])


def tally(found: Sequence[Judgement]) -> str:
    """`42 claims: 4 confirmed, 3 refuted, 6 mixed, 29 not tested`."""
    counts = [f"{sum(j.verdict == v for j in found)} {v}" for v in VERDICTS]
    return f"{units.plural(len(found), 'claim')}: {', '.join(counts)}"


def document(rows: pd.DataFrame, *, problems: Sequence[str] = ()) -> dict[str, Any]:
    """The same for programs, with every reading."""
    return {
        "schema_version": SCHEMA_VERSION,
        "machines": summary.machine_lines(rows),
        "claims": [asdict(j) for j in judge_all(rows)],
        "problems": list(problems),
    }
