"""The report as Markdown: for a pull request, a wiki or a diff."""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import units
from reports import claim_text, claims
from reports.document import Document, Part, Section
from reports.tables import Table

COMMENT_LENGTH = 65_536
"""Characters of a comment on GitHub."""


def page(document: Document, *, folder: Path) -> str:
    """The document as Markdown; figures are linked relative to `folder`.

    Without its tables where it would be longer than a comment may be.
    """
    text = _text(document, folder, has_tables=True)
    return text if len(text) <= COMMENT_LENGTH else _text(document, folder, has_tables=False)


def _text(document: Document, folder: Path, *, has_tables: bool) -> str:
    blocks = [
        f"# {escape(document.title)}",
        _items(document.machines),
        _items([f"The runs also differ in {text}" for text in document.differences]),
        _items([document.outcome, document.correctness]),
        *_chapter("Summary", document.sentences),
        *_chapter("Files that could not be read", document.problems),
        *_chapter("Cases without a result", document.failures),
        *_chapter("Warnings", document.warnings),
    ]
    for part in document.overviews:
        blocks += _part(part, folder) if part.pictures else []
    if document.undrawn:
        number = units.plural(len(document.undrawn), "figure")
        blocks += _folded(f"{number} left out", [_items(document.undrawn)])
    blocks += ["## Claims", escape(claims.tally(document.judgements))]
    blocks += [claim_text.markdown(document.judgements).strip()]
    for section in document.sections if has_tables else ():
        blocks += _section(section, folder)
    if not has_tables:
        blocks.append("The tables would make this too long for a comment; they are in report.html.")
    blocks += _chapter("How it was measured", document.method)
    blocks += _folded("On what it was measured", [table(document.facts)])
    blocks += _folded("Runs", [_items(document.runs)])
    if document.unsupported:
        blocks += _folded("Cases that cannot run here", [_items(document.unsupported)])
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
    yield _items(section.notes)
    for title, content in section.tables:
        yield from _folded(title, [table(content)])


def _part(part: Part, folder: Path) -> Iterator[str]:
    yield f"## {escape(part.heading)}"
    yield escape(part.setting)
    for picture in part.pictures:
        target = picture.file("png").relative_to(folder).as_posix()
        yield f"![{escape(picture.alt)}]({target})"
        yield f"**{escape(picture.title)}.** {escape(picture.caption)}"


def _folded(title: str, blocks: list[str]) -> list[str]:
    """Blocks that a reader opens; GitHub wants an empty line after the summary."""
    return [f"<details><summary>{escape(title)}</summary>", *blocks, "</details>"]
