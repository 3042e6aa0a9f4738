"""The page: one file, no network, everything from data escaped."""

import base64
import hashlib
import io
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from bench import units
from reports import claim_text, claims, page_data
from reports.document import Document, Picture

SCRIPTS = (
    "format",
    "data",
    "scales",
    "marks",
    "tooltip",
    "panel",
    "chart",
    "forms",
    "views",
    "explorer",
    "table",
    "download",
    "main",
)
"""Files of `reports/page` in the order in which they need each other."""
COLOURS = 64
"""Colours of a figure inside the page; with so few it takes a fifth of its file."""
PAGE_MIB = 7.5
"""How large a page may become by its figures; those that do not fit are named, not shown."""


def page(document: Document) -> str:
    """The document as HTML with its data and its figures inside."""
    data = page_data.script_text(page_data.page_data(document.rows, _groups(document)))
    script = "\n".join(_source(f"{name}.js") for name in SCRIPTS)
    style = _source("page.css")
    parts = {
        "document": document,
        "data": Markup(data),
        "script": Markup(script),
        "style": Markup(style),
        "policy": _policy(script, style),
        "num_rows": units.count(len(document.rows)),
        "num_undrawn": units.plural(len(document.undrawn), "figure"),
        "claims": claim_text.entries(document.judgements),
        "tally": claims.tally(document.judgements),
    }
    bare = _template().render(**parts, images={})
    images = _images(document, PAGE_MIB * 2**20 - len(bare))
    return _template().render(**parts, images=images) if images else bare


def _groups(document: Document) -> list[page_data.Group]:
    return [
        page_data.Group(
            level=section.level,
            mode=section.mode,
            heading=section.part.heading,
            setting=section.part.setting,
            cases=section.cases,
            styles=section.part.styles,
            scaling=section.scalings,
            notes=section.notes,
        )
        for section in document.sections
    ]


def _policy(script: str, style: str) -> str:
    """What the browser may do with the page: run this script, use this style, load nothing."""
    return (
        f"default-src 'none'; img-src data:; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _images(document: Document, room: float) -> dict[str, str]:
    """Name to data address of the figures that the page does not draw itself, while they fit."""
    found: dict[str, str] = {}
    for part in document.parts:
        for picture in part.stills:
            address = _image(picture)
            if len(address) > room:
                return found
            room -= len(address)
            found[picture.name] = address
    return found


def _image(picture: Picture) -> str:
    """The figure in few colours as a data address; an image cannot run scripts or load anything."""
    with Image.open(picture.file("png")) as image:
        small = image.convert("RGB").quantize(COLOURS)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _source(name: str) -> str:
    return files("reports").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(autoescape=True, undefined=StrictUndefined, **options)
    return environment.from_string(_source("template.html"))
