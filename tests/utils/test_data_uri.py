"""Files inside HTML."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from brainkit.utils.data_uri import data_uri


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_known_by_their_bytes(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, kind)
    start, content = data_uri(file.getvalue()).split(",")
    assert start == f"data:image/{kind};base64"
    assert base64.b64decode(content) == file.getvalue()


def test_other_files_have_the_kind_that_is_given() -> None:
    assert data_uri(b'<?xml version="1.0"?><svg/>').startswith("data:image/svg+xml;base64,")
    assert data_uri(b"anything", "font/woff").startswith("data:font/woff;base64,")
    with pytest.raises(ValueError, match="picture"):
        data_uri(b"anything")
