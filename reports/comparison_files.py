"""Where a comparison goes besides the screen: files that were asked for, and GitHub's pages."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bench.comparison import Comparison
from bench.disk import unwritable
from reports import comparison_junit, comparison_markdown, github
from reports.comparison import Run, document, screen


def write(
    found: Comparison,
    baseline: Run,
    candidate: Run,
    *,
    problems: Sequence[str] = (),
    markdown: Path | None = None,
    junit: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Write what was asked for; return lines for stderr: what was saved, and annotations.

    Raises:
        StorageError: a file cannot be written.
    """
    page = comparison_markdown.page(found, baseline, candidate, problems=problems)
    lines = []
    for path, text in ((markdown, page), (junit, comparison_junit.page(found))):
        if path is not None:
            _save(path, text)
            lines.append(f"saved    {path}")
    github.add_summary(page, environment)
    return [*lines, *github.annotations(found, environment)]


def tell(
    found: Comparison, runs: tuple[Run, Run], options: Mapping[str, Any], problems: Sequence[str]
) -> None:
    """Print the screen or the one JSON document, and write whatever else was asked for."""
    if options["as_json"]:
        click.echo(json.dumps(document(found, *runs, problems=problems)))
    else:
        click.echo(screen(found, *runs, problems=problems))
    pages = {name: options[name] for name in ("markdown", "junit")}
    for line in write(found, *runs, problems=problems, **pages):
        click.echo(line, err=True)


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise unwritable(err, path) from err
