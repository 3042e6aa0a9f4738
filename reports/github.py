"""What GitHub Actions shows by itself: the summary of a job, and annotations on its page."""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.comparison import Comparison
from bench.verdict import NOT_COMPARABLE
from reports.comparison import by_alarm, conclusion, ratio_text, reason_text

MAX_ANNOTATIONS = 10
"""GitHub shows no more of one step."""


def add_summary(page: str, environment: Mapping[str, str] = os.environ) -> None:
    """Append a Markdown page to the summary of the job, where there is one."""
    path = environment.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(page)


def annotations(found: Comparison, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Lines that GitHub Actions turns into annotations; none elsewhere."""
    if environment.get("GITHUB_ACTIONS") != "true" or found.exit_code == 0:
        return []
    lines = [_command("error", f"ena-bench: {found.verdict}", conclusion(found))]
    for case in by_alarm(found.cases):
        if case.is_regression or case.verdict == NOT_COMPARABLE:
            ratio = "" if case.ratio is None else f"{ratio_text(case.ratio)} of its time; "
            level = "error" if case.is_regression else "warning"
            text = f"{case.case_path}: {ratio}{reason_text(case) or case.verdict}"
            lines.append(_command(level, f"ena-bench: {case.verdict}", text))
    return lines[:MAX_ANNOTATIONS]


def _command(level: str, title: str, text: str) -> str:
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={title}::{_escaped(text)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
