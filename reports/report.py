"""Writes a report: figures for papers, a page, and a Markdown file."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from bench.errors import StorageError
from reports import document, drawing, frames, html, markdown
from reports.figures import FIGURES, FORMATS, FigureKind
from reports.run_names import names_of

Found = tuple[FigureKind, document.Part, Callable[[], str]]
"""A figure that is worth drawing, of what, and how to put it in words."""

MAX_FIGURES = 26
"""Every preset has fewer. Those of many settings would take minutes to draw; the charts of the page
show them all."""
MAX_NAME = 100
"""Characters in the name of a directory that nobody named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """What was written."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]


def default_folder(runs: Sequence[Path]) -> Path:
    """Where a report goes unless the user says: `report` inside the run that it is of.

    One of several runs, or of an exported file, belongs into none of them: it gets a directory
    named after all of them, here.
    """
    if len(runs) == 1 and runs[0].is_dir():
        return runs[0] / "report"
    places = [run.resolve() for run in runs]
    names = [place.stem if place.is_file() else place.name for place in places]
    name = "-".join(["report", *names])
    if len(name) > MAX_NAME or len(set(names)) < len(names):
        digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:6]
        name = f"report-of-{len(runs)}-runs-{digest}"
    return Path(name)


def write_report(
    frame: pd.DataFrame,
    out_dir: Path,
    *,
    title: str,
    problems: list[str] | None = None,
    runs: Sequence[Path] = (),
    max_figures: int = MAX_FIGURES,
) -> Paths:
    """Write `report.html`, `report.md` and `figures/` into a directory.

    Args:
        frame: Columns of `bench.row.Row`, of one or several runs; may be empty.
        problems: What was wrong with files or rows, to be said in the report.
        runs: The directories and files that the rows come from: several runs bear their names.
        max_figures: Figures after these are left out, which the report says.

    Raises:
        StorageError: the directory cannot be written.
    """
    content = document.compose(
        frame, title=title, problems=list(problems or ()), run_names=names_of(runs)
    )
    try:
        return _write(content, Path(out_dir), max_figures)
    except OSError as err:
        raise StorageError(
            f"the report cannot be written to {out_dir}: {err}",
            expected="a directory that can be written, with free space",
            try_="ena-bench report RUN -o another/directory",
        ) from err


def _write(content: document.Document, folder: Path, max_figures: int) -> Paths:
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    found = list(_worth_drawing(content))
    for kind, part, _ in found[max_figures:]:
        content.undrawn.append(f"{kind.title}: {part.heading}, {part.setting}")
    jobs = []
    for kind, part, alt in found[:max_figures]:
        picture = _picture(part, kind, alt(), figures)
        part.pictures.append(picture)
        jobs.append(drawing.Job(kind=kind, part=part, picture=picture))
    drawing.draw_all(jobs)
    _remove_others(figures, jobs)
    paths = Paths(
        html=folder / "report.html",
        markdown=folder / "report.md",
        figures=tuple(f for part in content.parts for p in part.pictures for f in p.files),
    )
    paths.html.write_text(html.page(content), encoding="utf-8")
    paths.markdown.write_text(markdown.page(content, folder=folder), encoding="utf-8")
    return paths


def _worth_drawing(content: document.Document) -> Iterator[Found]:
    for part in content.parts:
        cases = frames.records(part.frame)
        for kind in FIGURES:
            if kind.scope == part.scope and kind.is_worth(cases):
                yield kind, part, partial(kind.alt, cases)


def _remove_others(folder: Path, jobs: Sequence[drawing.Job]) -> None:
    """Figures of an earlier report in the same place would be taken for figures of this one."""
    drawn = {path for job in jobs for path in job.picture.files}
    for path in folder.iterdir():
        is_ours = any(path.name.startswith(f"{kind.name}-") for kind in FIGURES)
        if is_ours and path.suffix.removeprefix(".") in FORMATS and path not in drawn:
            path.unlink()


def _picture(part: document.Part, kind: FigureKind, alt: str, folder: Path) -> document.Picture:
    name = f"{kind.name}-{part.anchor}"
    return document.Picture(
        name=name,
        title=kind.title,
        caption=kind.caption,
        alt=alt,
        is_interactive=kind.is_interactive,
        files=tuple(folder / f"{name}.{suffix}" for suffix in FORMATS),
    )
