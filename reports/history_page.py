"""Writes the pages of a history: history.html, history.md and a figure of the largest changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from bench.errors import StorageError
from reports import history_chart, history_figure, history_text
from reports.history import History, compose
from reports.markdown import escape

PNG_DPI = 150
_FIGURE = "history"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What was written, and what a terminal or a program is told."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]
    screen: str
    document: dict[str, Any]


def write(rows: pd.DataFrame, out_dir: Path, *, problems: Sequence[str] = ()) -> Written:
    """Write the pages of all runs in `rows` (columns of `bench.row.Row`) into a directory.

    Args:
        problems: What was wrong with files or rows, to be said on the pages.

    Raises:
        StorageError: the directory cannot be written.
    """
    history, folder = compose(rows), Path(out_dir)
    page, text = folder / "history.html", folder / "history.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = _draw(history, folder)
        page.write_text(html(history, problems), encoding="utf-8")
        text.write_text(markdown(history, problems), encoding="utf-8")
    except OSError as err:
        raise StorageError(
            f"the history cannot be written to {folder}: {err}",
            expected="a directory that can be written, with free space",
            try_="ena-bench history RUN... -o another/directory",
        ) from err
    return Written(
        html=page,
        markdown=text,
        figures=figures,
        screen=history_text.screen(history, problems, saved=str(page)),
        document=history_text.document(history, problems),
    )


def html(history: History, problems: Sequence[str]) -> str:
    """One page without network; everything from data is escaped."""
    numbers = {run.device_name: run.number for run in history.runs}
    charts = [
        {
            "path": case.case_path,
            "device": case.device_name if len(numbers) > 1 else "",
            "svg": Markup(history_chart.chart(case, num_runs=numbers[case.device_name])),
            "is_changed": bool(case.steps or case.late),
            "steps": [history_chart.change_text(step) for step in case.steps],
            "late": history_chart.change_text(case.late) if case.late else "",
        }
        for case in history.cases
    ]
    return _template().render(
        title="History",
        headline=history_text.headline(history),
        devices=history_text.device_lines(history),
        common=[history_text.common_sentence(c) for c in history.common],
        lates=[history_text.late_sentence(case, step) for case, step in history.lates],
        stopped=history_text.stopped_sentences(history),
        problems=list(problems),
        step_columns=history_text.STEP_COLUMNS,
        steps=[
            (step.is_slower, history_text.step_cells(case, step)) for case, step in history.steps
        ],
        run_columns=history_text.RUN_COLUMNS,
        runs=[history_text.run_cells(run) for run in history.runs],
        charts=charts,
        num_changed=sum(chart["is_changed"] is True for chart in charts),
        method=history_text.METHOD,
        style=Markup(files("reports").joinpath("page", "page.css").read_text(encoding="utf-8")),
    )


def markdown(history: History, problems: Sequence[str]) -> str:
    """The same for a pull request, with a figure of the cases that changed most."""
    blocks = ["# History", escape(history_text.headline(history))]
    blocks += [escape("; ".join(history_text.device_lines(history)))] if history.runs else []
    blocks += [f"- {escape(history_text.common_sentence(c))}" for c in history.common]
    if history.steps:
        lines = [history_text.step_cells(case, step) for case, step in history.steps]
        blocks += ["## Changes", _table(history_text.STEP_COLUMNS, lines)]
    lates = [history_text.late_sentence(case, step) for case, step in history.lates]
    if lates:
        blocks += ["## Shifts of the last runs", "\n".join(f"- {escape(s)}" for s in lates)]
    stopped = history_text.stopped_sentences(history)
    if stopped:
        blocks += ["## Cases that stopped", "\n".join(f"- {escape(s)}" for s in stopped)]
    if problems:
        blocks += ["## Problems with the files", "\n".join(f"- {escape(p)}" for p in problems)]
    if history.cases:
        blocks.append(f"![{escape(_alt(history))}]({_FIGURE}.png)")
    runs = [history_text.run_cells(run) for run in history.runs]
    blocks += ["## Runs", _table(history_text.RUN_COLUMNS, runs)]
    blocks += ["## How changes are found", *map(escape, history_text.METHOD)]
    return "\n\n".join(blocks) + "\n"


def _draw(history: History, folder: Path) -> tuple[Path, ...]:
    """Equal data give equal files: no date, and ids that depend on the name only."""
    if not history.cases:
        return ()
    paths = folder / f"{_FIGURE}.png", folder / f"{_FIGURE}.svg"
    drawn = history_figure.figure(history)
    drawn.savefig(paths[0], dpi=PNG_DPI)
    with matplotlib.rc_context({"svg.hashsalt": _FIGURE}):
        drawn.savefig(paths[1], metadata={"Date": None})
    return paths


def _alt(history: History) -> str:
    told = ". ".join(map(history_chart.described, history_figure.shown(history)))
    return f"Latency over runs. {told}."


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [columns, ["---"] * len(columns), *([escape(c) for c in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


@cache
def _template() -> Template:
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(autoescape=True, undefined=StrictUndefined, **options)
    source = files("reports").joinpath("history.html").read_text(encoding="utf-8")
    return environment.from_string(source)
