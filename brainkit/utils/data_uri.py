"""Files inside HTML: an address that holds their bytes."""

from __future__ import annotations

import base64

_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp", b"<?xml": "image/svg+xml"}


def data_uri(content: bytes, kind: str | None = None) -> str:
    """The address of a file in an HTML page that holds the file itself.

    Parameters
    ----------
    content : bytes
        Of the file.
    kind : str, optional
        Its MIME type; by default that of a picture (PNG, JPEG, WebP or SVG) by its first bytes.

    Raises
    ------
    ValueError
        If no kind is given, and it is none of these pictures.
    """
    if kind is None:
        kind = next((name for start, name in _PICTURES.items() if content.startswith(start)), None)
        if kind is None:
            raise ValueError("expected a PNG, JPEG, WebP or SVG picture")
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
