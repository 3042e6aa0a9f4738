"""What a report consists of, before anyone decides how it looks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bench import units
from reports import frames, plots, summary, tables, words
from reports.metrics import SPEEDUP, Metric, has_points
from reports.scaling import Scaling, scaling_table
from reports.theme import Style

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn figure: its files and what it shows in words."""

    name: str
    alt: str
    png: Path
    svg: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One level, mode and setting."""

    anchor: str
    heading: str
    setting: str
    num_panels: int
    cases: pd.DataFrame
    speedups: tables.Table | None
    latencies: tables.Table | None
    scaling: tables.Table
    notes: list[str]
    styles: dict[str, Style]
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Everything a page says, in order."""

    title: str
    machines: list[str]
    runs: list[str]
    outcome: str
    correctness: str
    sentences: list[str]
    warnings: list[str]
    failures: list[str]
    unsupported: list[str]
    problems: list[str]
    sections: list[Section]
    rows: tables.Table
    method: list[str]


def compose(rows: pd.DataFrame, *, title: str, problems: list[str]) -> Document:
    """The document of a frame of rows; figures are not drawn yet."""
    tidy = frames.tidy(rows)
    cases = frames.records(tidy)
    lines = scaling_table(tidy)
    return Document(
        title=title,
        machines=summary.machine_lines(tidy),
        runs=words.run_lines(cases),
        outcome=summary.outcome_line(cases),
        correctness=summary.correctness_line(cases),
        sentences=summary.sentences(tidy, lines),
        warnings=[g.sentence for g in summary.warning_groups(cases)],
        failures=[g.sentence for g in summary.failure_groups(cases)],
        unsupported=[g.sentence for g in summary.unsupported_groups(cases)],
        problems=problems,
        sections=_sections(tidy),
        rows=tables.rows_table(rows, tidy),
        method=words.method(cases),
    )


def alt_text(section: Section, metric: Metric) -> str:
    """What the figure shows, with the values at each series' largest length."""
    best: dict[str, Record] = {}
    for case in frames.records(section.cases):
        if metric.value(case) is not None and case["is_squarest"]:
            best[f"{case['ndim']}-D {case['series']}"] = case
    values = [
        f"{name}: {metric.tick_label(metric.value(case) or 0.0)} at {units.tokens(case['seq_len'])}"
        for name, case in best.items()
    ]
    lead = f"{section.heading}: {metric.axis} over sequence length."
    return " ".join([lead, *([f"At the largest lengths: {'; '.join(values)}."] if values else [])])


def _sections(tidy: pd.DataFrame) -> list[Section]:
    is_operator = tidy["level"] == "op"
    styles = {
        op: plots.series_styles(part)
        for op, part in ((True, tidy[is_operator]), (False, tidy[~is_operator]))
    }
    found: list[Section] = []
    for level, mode, part in frames.figure_groups(tidy):
        number = sum(s.heading == words.heading(level, mode) for s in found) + 1
        suffix = f"-{number}" if number > 1 else ""
        anchor = f"{words.slug(level)}-{words.slug(mode)}{suffix}"
        found.append(_section(anchor, level, mode, part, styles[level == "op"]))
    return found


def _section(
    anchor: str, level: str, mode: str, part: pd.DataFrame, styles: dict[str, Style]
) -> Section:
    cases = frames.records(part)
    lines: list[Scaling] = scaling_table(part)
    has_speedups = has_points(cases, SPEEDUP)
    return Section(
        anchor=anchor,
        heading=words.heading(level, mode),
        setting=", ".join(str(p) for p in (cases[0]["setting"], cases[0]["device_name"]) if p),
        num_panels=max(len({c["ndim"] for c in cases}), 1),
        cases=part,
        speedups=tables.speedup_table(cases) if has_speedups else None,
        latencies=tables.latency_table(cases) if lines else None,
        scaling=tables.scaling_table(lines),
        notes=words.anchor_notes(cases),
        styles=styles,
    )
