"""HTML documents that are one file: templates filled with escaped text, pictures inside as data."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainkit.errors import require
from brainkit.utils.data_uri import data_uri

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template.

    Parameters
    ----------
    template : str
        A file in ``templates``.
    values : mapping
        What the template shows. Text is escaped: names from files cannot become HTML.

    Raises
    ------
    MissingDependency
        If jinja2 is not installed.
    """
    return _environment().get_template(template).render(values)


def thumbnail(image: Image, size: int) -> str:
    """An image, made small, as the address of an ``<img>``; the longer side has `size` pixels."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue())


@functools.cache
def _environment() -> Environment:
    require("jinja2", extra="maps", purpose="writing reports")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # A missing value is an error here, not an empty place on the page.
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
