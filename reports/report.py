"""Writes a report: figures for papers, a page, and a Markdown file."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from bench.errors import StorageError
from reports import document, frames, html, markdown
from reports.figures import FIGURES, FORMATS, FigureKind

PNG_DPI = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """What was written."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]


def write_report(
    frame: pd.DataFrame, out_dir: Path, *, title: str, problems: list[str] | None = None
) -> Paths:
    """Write `report.html`, `report.md` and `figures/` into a directory.

    Args:
        frame: Columns of `bench.row.Row`, of one or several runs; may be empty.
        problems: What could not be read, to be said in the report.

    Raises:
        StorageError: the directory cannot be written.
    """
    content = document.compose(frame, title=title, problems=list(problems or ()))
    try:
        return _write(content, Path(out_dir))
    except OSError as err:
        raise StorageError(
            f"the report cannot be written to {out_dir}: {err}",
            expected="a directory that can be written, with free space",
            try_="ena-bench report RUN -o another/directory",
        ) from err


def _write(content: document.Document, folder: Path) -> Paths:
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for part in content.parts:
        cases = frames.records(part.frame)
        for kind in FIGURES:
            if kind.scope == part.scope and kind.is_worth(cases):
                picture = _picture(part, kind, kind.alt(cases), figures)
                _save(kind.draw(part.frame, part.styles), picture)
                part.pictures.append(picture)
    paths = Paths(
        html=folder / "report.html",
        markdown=folder / "report.md",
        figures=tuple(f for part in content.parts for p in part.pictures for f in p.files),
    )
    paths.html.write_text(html.page(content), encoding="utf-8")
    paths.markdown.write_text(markdown.page(content, folder=folder), encoding="utf-8")
    return paths


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


def _save(figure: Figure, picture: document.Picture) -> None:
    """Equal data give equal files: no date, and ids that depend on the figure's name only."""
    for path in picture.files:
        if path.suffix == ".png":
            figure.savefig(path, dpi=PNG_DPI)
        else:
            date = "CreationDate" if path.suffix == ".pdf" else "Date"
            with matplotlib.rc_context({"svg.hashsalt": picture.name}):
                figure.savefig(path, metadata={date: None})
