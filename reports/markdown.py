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
DETAILS = ("everything", "no tables", "the outline")
"""How much is said, the most first: of the outline, figures have titles only, claims a count, and
the summary its first sentences."""
MAX_SENTENCES = 12


def page(document: Document, *, folder: Path) -> str:
    """The document as Markdown; figures are linked relative to `folder`.

    Of `DETAILS` the first that fits into a comment, else the last.
    """
    text = ""
    for detail in DETAILS:
        text = _text(document, folder, detail)
        if len(text) <= COMMENT_LENGTH:
            break
    return text


def _text(document: Document, folder: Path, detail: str) -> str:
    everything, outline = detail == DETAILS[0], detail == DETAILS[-1]
    blocks = [
        f"# {escape(document.title)}",
        _items(document.machines),
        _items([f"The runs also differ in {text}" for text in document.differences]),
        _items([document.outcome, document.correctness]),
        *_chapter("Summary", _first(document.sentences) if outline else document.sentences),
        *([] if outline else _chapter("Findings", document.findings)),
        *_chapter("Problems with the files", document.problems),
        *_chapter("Cases without a result", document.failures),
        *_chapter("Warnings", document.warnings),
    ]
    for part in document.overviews:
        blocks += _part(part, folder, outline=outline) if part.pictures else []
    if document.undrawn:
        number = units.plural(len(document.undrawn), "figure")
        blocks += _folded(f"{number} left out", [_items(document.undrawn)])
    blocks += ["## Claims", escape(claims.tally(document.judgements))]
    if not outline:
        blocks.append(claim_text.markdown(document.judgements).strip())
    if everything:
        for section in document.sections:
            blocks += _section(section, folder)
    else:
        blocks.append("More would be too long for a comment; it is in report.html.")
    blocks += _chapter("How it was measured", document.method)
    blocks += _folded("On what it was measured", [table(document.facts)])
    blocks += _folded("Runs", [_items(document.runs)])
    if document.unsupported:
        blocks += _folded("Cases that cannot run here", [_items(document.unsupported)])
    return "\n\n".join(b for b in blocks if b) + "\n"


def _first(sentences: list[str]) -> list[str]:
    more = len(sentences) - MAX_SENTENCES
    rest = [f"and {more} more, in report.html"] if more > 0 else []
    return [*sentences[:MAX_SENTENCES], *rest]


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
    yield from _part(section.part, folder, outline=False)
    yield _items(section.notes)
    for title, content in section.tables:
        yield from _folded(title, [table(content)])


def _part(part: Part, folder: Path, *, outline: bool) -> Iterator[str]:
    yield f"## {escape(part.heading)}"
    yield escape(part.setting)
    for picture in part.pictures:
        target = picture.file("png").relative_to(folder).as_posix()
        yield f"**{escape(picture.title)}.** {escape(picture.caption)}"
        yield f"![{escape(picture.title if outline else picture.alt)}]({target})"


def _folded(title: str, blocks: list[str]) -> list[str]:
    """Blocks that a reader opens; GitHub wants an empty line after the summary."""
    return [f"<details><summary>{escape(title)}</summary>", *blocks, "</details>"]
