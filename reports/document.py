"""What a report consists of, before anyone decides how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from reports import (
    claim_text,
    claims,
    facts,
    few_samples,
    findings,
    frames,
    plots,
    run_labels,
    summary,
    tables,
    words,
)
from reports.claim_rules import CLAIMS
from reports.claims_untested import UNTESTED
from reports.metrics import SPEEDUP, has_points
from reports.scaling import Scaling, scaling_table
from reports.theme import Style

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A drawn figure: its files, what it shows in words, and whether the page draws it itself."""

    name: str
    title: str
    caption: str
    alt: str
    is_interactive: bool
    files: tuple[Path, ...]

    def file(self, kind: str) -> Path:
        """The file with a suffix such as `png`."""
        return next(path for path in self.files if path.suffix == f".{kind}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What figures are drawn from: a frame, how its series look, and its place in the report.

    `scope` is one of `figures.SCOPES`.
    """

    scope: str
    anchor: str
    heading: str
    setting: str
    frame: pd.DataFrame
    styles: Mapping[str, Style]
    pictures: list[Picture] = field(default_factory=list)

    @property
    def stills(self) -> list[Picture]:
        """The pictures that the page has no chart for."""
        return [picture for picture in self.pictures if not picture.is_interactive]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One level, mode and setting."""

    level: str
    mode: str
    part: Part
    cases: list[Record]
    tables: list[tuple[str, tables.Table]]
    scalings: list[Scaling]
    notes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Everything a page says, in order."""

    title: str
    machines: list[str]
    differences: list[str]
    facts: tables.Table
    runs: list[str]
    outcome: str
    correctness: str
    sentences: list[str]
    findings: list[str]
    warnings: list[str]
    failures: list[str]
    unsupported: list[str]
    problems: list[str]
    judgements: list[claims.Judgement]
    sections: list[Section]
    overviews: list[Part]
    rows: pd.DataFrame
    tidy: pd.DataFrame
    method: list[str]
    undrawn: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """Everything that has figures, in the order of reading."""
        return [*self.overviews, *(section.part for section in self.sections)]


def compose(
    rows: pd.DataFrame,
    *,
    title: str,
    problems: list[str],
    run_names: Mapping[str, str] | None = None,
) -> Document:
    """The document of a frame of rows; figures are not drawn yet."""
    tidy = frames.tidy(rows, run_names)
    cases = frames.records(tidy)
    styles = _styles(tidy)
    judgements = [claims.judge(claim, cases) for claim in (*CLAIMS, *UNTESTED)]
    return Document(
        title=title,
        machines=list(dict.fromkeys(summary.machine_lines(tidy))),
        differences=run_labels.differences(cases),
        facts=facts.facts_table(cases),
        runs=words.run_lines(cases),
        outcome=summary.outcome_line(cases),
        correctness=summary.correctness_line(cases),
        sentences=[
            *summary.sentences(tidy, scaling_table(tidy)),
            *claim_text.headline(judgements),
        ],
        findings=findings.sentences(tidy),
        warnings=[g.sentence for g in summary.warning_groups(cases)],
        failures=[g.sentence for g in summary.failure_groups(cases)],
        unsupported=[g.sentence for g in summary.unsupported_groups(cases)],
        problems=problems,
        judgements=judgements,
        sections=_sections(tidy, styles),
        overviews=_overviews(rows, tidy, styles),
        rows=rows,
        tidy=tidy,
        method=words.method(cases),
    )


def _styles(tidy: pd.DataFrame) -> dict[str, Style]:
    """Operators and layers never share a figure nor a name, so each kind gets all the colours."""
    is_operator = tidy["level"] == "op"
    parts = (tidy[~is_operator], tidy[is_operator])
    return {name: style for part in parts for name, style in plots.series_styles(part).items()}


def _sections(tidy: pd.DataFrame, styles: Mapping[str, Style]) -> list[Section]:
    found: list[Section] = []
    anchors: list[str] = []
    for level, mode, frame in frames.figure_groups(tidy):
        cases = frames.records(frame)
        lines = scaling_table(frame)
        anchors.append(_unused(f"{words.slug(level)}-{words.slug(mode)}", anchors))
        part = Part(
            scope="mode",
            anchor=anchors[-1],
            heading=words.heading(level, mode),
            setting=_setting(cases),
            frame=frame,
            styles=styles,
        )
        section = Section(
            level=level,
            mode=mode,
            part=part,
            cases=cases,
            tables=_tables(cases, lines),
            scalings=lines,
            notes=_notes(cases),
        )
        found.append(section)
    return found


def _notes(cases: Sequence[Record]) -> list[str]:
    few = [few_samples.page_note()] if few_samples.legend(cases) else []
    return [*words.anchor_notes(cases), *few]


def _tables(cases: list[Record], lines: list[Scaling]) -> list[tuple[str, tables.Table]]:
    """Titles and tables that have anything to say."""
    if not lines:
        return []
    found = [("Latency by sequence length", tables.latency_table(cases))]
    if has_points(cases, SPEEDUP):
        found.insert(0, ("Speed-up by sequence length", tables.speedup_table(cases)))
    found.append(("Exponents, crossovers and largest lengths", tables.scaling_table(lines)))
    for table in tables.analysis_tables(cases):
        name = table.columns[0].name
        found.append((f"{name[0].upper()}{name[1:]}", table))
    return [(title, table) for title, table in found if table.lines]


def _overviews(rows: pd.DataFrame, tidy: pd.DataFrame, styles: Mapping[str, Style]) -> list[Part]:
    """The parts that span modes: each level and setting, all cases, and the rows."""
    if tidy.empty:
        return []
    found: list[Part] = []
    for level, frame in _levels(tidy):
        anchor = _unused(words.slug(level), [part.anchor for part in found])
        heading, setting = words.LEVELS.get(level, level), _setting(frames.records(frame))
        found.append(_part("level", anchor, heading, setting, frame, styles))
    found.append(_part("report", "all-cases", "All cases", "", tidy, styles))
    found.append(_part("rows", "rows-as-measured", "Samples", "", rows, styles))
    return found


def _part(
    scope: str,
    anchor: str,
    heading: str,
    setting: str,
    frame: pd.DataFrame,
    styles: Mapping[str, Style],
) -> Part:
    return Part(
        scope=scope, anchor=anchor, heading=heading, setting=setting, frame=frame, styles=styles
    )


def _levels(tidy: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(level, cases) for each level and setting."""
    groups = tidy.groupby(["level", *frames.FIGURE], sort=False, dropna=False)
    return [(str(key[0]), frame) for key, frame in groups]


def _setting(cases: list[Record]) -> str:
    devices = ", ".join(map(str, frames.unique(c["device_name"] for c in cases)))
    return ", ".join(str(p) for p in (cases[0]["setting"], devices) if p)


def _unused(name: str, taken: list[str]) -> str:
    """The name, with a number if it is taken."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found
