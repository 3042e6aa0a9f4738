"""The report as Markdown: for a pull request, a wiki or a diff."""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports import claim_text, claims
from reports.document import Document, Part, Section
from reports.tables import Table


def page(document: Document, *, folder: Path) -> str:
    """The document as Markdown; figures are linked relative to `folder`."""
    blocks = [
        f"# {escape(document.title)}",
        _items(document.machines),
        _items([document.outcome, document.correctness]),
        *_chapter("Summary", document.sentences),
        *_chapter("Files that could not be read", document.problems),
        *_chapter("Warnings", document.warnings),
        *_chapter("Cases without a result", document.failures),
        *_chapter("Unsupported cases", document.unsupported),
    ]
    for part in document.overviews:
        if part.pictures:
            blocks += _part(part, folder)
    for section in document.sections:
        blocks += _section(section, folder)
    blocks += [
        "## Claims",
        claims.tally(document.judgements),
        claim_text.markdown(document.judgements),
    ]
    blocks += _chapter("How it was measured", [*document.runs, *document.method])
    return "\n\n".join(b for b in blocks if b) + "\n"


def table(content: Table) -> str:
    """A pipe table; numbers to the right."""
    lines = [
        [column.heading for column in content.columns],
        *content.lines,
    ]
    rule = ["---:" if column.is_number else "---" for column in content.columns]
    cells = [[escape(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))


def escape(text: str) -> str:
    """Text that is only text: no markup, no HTML, no cell or line ends."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain)


def _chapter(heading: str, lines: list[str]) -> list[str]:
    return [f"## {heading}", _items(lines)] if lines else []


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)


def _section(section: Section, folder: Path) -> Iterator[str]:
    yield from _part(section.part, folder)
    for content in (section.speedups, section.latencies, section.scaling):
        if content is not None and content.lines:
            yield table(content)
    yield _items(section.notes)


def _part(part: Part, folder: Path) -> Iterator[str]:
    yield f"## {escape(part.heading)}"
    yield escape(part.setting)
    for picture in part.pictures:
        target = picture.file("png").relative_to(folder).as_posix()
        yield f"![{escape(picture.alt)}]({target})"
