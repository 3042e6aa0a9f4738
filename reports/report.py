"""Writes a report: figures as PNG and SVG, a page, and a Markdown file."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from bench.errors import StorageError
from reports import document, frames, html, markdown, plots
from reports.metrics import LATENCY, Metric, has_points, is_drawn

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
    for section in content.sections:
        for metric, draw in plots.METRICS:
            if _is_worth_drawing(section, metric):
                picture = _picture(section, metric, figures)
                _save(draw(section.cases, section.styles), picture)
                section.pictures.append(picture)
    paths = Paths(
        html=folder / "report.html",
        markdown=folder / "report.md",
        figures=tuple(p for s in content.sections for f in s.pictures for p in (f.png, f.svg)),
    )
    paths.html.write_text(html.page(content), encoding="utf-8")
    paths.markdown.write_text(markdown.page(content, folder=folder), encoding="utf-8")
    return paths


def _is_worth_drawing(section: document.Section, metric: Metric) -> bool:
    """Failures alone are drawn once, in the figure of the latency."""
    cases = frames.records(section.cases)
    if metric is LATENCY:
        return any(is_drawn(case, metric) for case in cases)
    return has_points(cases, metric)


def _picture(section: document.Section, metric: Metric, folder: Path) -> document.Picture:
    name = f"{metric.name}-{section.anchor}"
    return document.Picture(
        name=name,
        alt=document.alt_text(section, metric),
        png=folder / f"{name}.png",
        svg=folder / f"{name}.svg",
    )


def _save(figure: Figure, picture: document.Picture) -> None:
    """Equal data give equal files: no date, and ids that depend on the figure's name only."""
    figure.savefig(picture.png, dpi=PNG_DPI)
    with matplotlib.rc_context({"svg.hashsalt": picture.name}):
        figure.savefig(picture.svg, metadata={"Date": None})
