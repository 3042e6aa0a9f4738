"""Writes a report: figures for papers, a page, and a Markdown file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import StorageError
from reports import document, drawing, frames, html, markdown
from reports.figures import FIGURES, FORMATS, FigureKind

MAX_FIGURES = 36
"""More figures than a reader looks at would take minutes to draw; the page's charts show all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """What was written."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]


def write_report(
    frame: pd.DataFrame,
    out_dir: Path,
    *,
    title: str,
    problems: list[str] | None = None,
    max_figures: int = MAX_FIGURES,
) -> Paths:
    """Write `report.html`, `report.md` and `figures/` into a directory.

    Args:
        frame: Columns of `bench.row.Row`, of one or several runs; may be empty.
        problems: What could not be read, to be said in the report.
        max_figures: Figures after these are left out, which the report says.

    Raises:
        StorageError: the directory cannot be written.
    """
    content = document.compose(frame, title=title, problems=list(problems or ()))
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
    for part, kind in found[max_figures:]:
        content.undrawn.append(f"{kind.title}: {part.heading}, {part.setting}")
    jobs = []
    for part, kind in found[:max_figures]:
        picture = _picture(part, kind, figures)
        part.pictures.append(picture)
        jobs.append(drawing.Job(kind=kind, part=part, picture=picture))
    drawing.draw_all(jobs)
    paths = Paths(
        html=folder / "report.html",
        markdown=folder / "report.md",
        figures=tuple(f for part in content.parts for p in part.pictures for f in p.files),
    )
    paths.html.write_text(html.page(content), encoding="utf-8")
    paths.markdown.write_text(markdown.page(content, folder=folder), encoding="utf-8")
    return paths


def _worth_drawing(content: document.Document) -> Iterator[tuple[document.Part, FigureKind]]:
    for part in content.parts:
        cases = frames.records(part.frame)
        yield from ((part, k) for k in FIGURES if k.scope == part.scope and k.is_worth(cases))


def _picture(part: document.Part, kind: FigureKind, folder: Path) -> document.Picture:
    name = f"{kind.name}-{part.anchor}"
    return document.Picture(
        name=name,
        title=kind.title,
        caption=kind.caption,
        alt=kind.alt(frames.records(part.frame)),
        is_interactive=kind.is_interactive,
        files=tuple(folder / f"{name}.{suffix}" for suffix in FORMATS),
    )
