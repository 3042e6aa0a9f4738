"""The page: one file, no network, everything from data escaped."""

import base64
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from reports.document import Document, Picture


def page(document: Document) -> str:
    """The document as HTML with its figures inside."""
    return _template().render(document=document, image=_image)


def _image(picture: Picture) -> str:
    """The vector figure as a data address; an image cannot run scripts or load anything."""
    encoded = base64.b64encode(picture.svg.read_bytes()).decode("ascii")
    return f"data:image/svg+xml;base64,{encoded}"


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("reports").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(text)
