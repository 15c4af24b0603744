"""Lists of images: one path per line."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator

from brainkit.errors import DataError
from brainkit.utils.file_kind import TEXT, describe_kind

MAX_LINE = 65_536  # bytes; longer than any path
_CHUNK = 1 << 16
_HEAD = 512
# Not the beginning of a list: a page, a Git LFS pointer, control characters. (But PAR1/a.png is no Parquet file.)
_OTHER = re.compile(rb"\A\s*<|\Aversion https:|[\x01-\x08\x0e-\x1f]")


def read_lines(read: Callable[[int], bytes], name: str) -> Iterator[tuple[int, str]]:
    """The paths of a list, each with its line's number: one per line, or separated by zero bytes if it has some.

    Zero bytes are what ``find -print0`` writes. The text is UTF-8 or whatever bytes the file system has; or UTF-16 with
    a byte order mark, as PowerShell writes it. Empty lines are ignored.

    Parameters
    ----------
    read : callable
        Returns up to so many bytes; none at the end.
    name : str
        The list's name in errors.

    Raises
    ------
    DataError
        If the file is another kind of file, or a line is longer than any path.
    """
    chunks = _chunks(read, name)
    rest = next(chunks, b"")
    if _OTHER.search(rest[:_HEAD]) and (kind := describe_kind(rest[:_HEAD], len(rest))) not in (TEXT, None):
        raise DataError(f"{name}: expected a list, one path per line, found {kind}")
    end = b"\0" if b"\0" in rest else b"\n"
    number = 0
    while True:
        *whole, rest = rest.split(end)
        for line in whole:
            number += 1
            if path := _decode(line, end):
                yield number, path
        if len(rest) > MAX_LINE:
            raise DataError(f"{name}: expected one path per line, found a line of more than {MAX_LINE:,} bytes")
        more = next(chunks, None)
        if more is None:
            if path := _decode(rest, end):
                yield number + 1, path
            return
        rest += more


def _chunks(read: Callable[[int], bytes], name: str) -> Iterator[bytes]:
    """The content in pieces, as UTF-8 without a byte order mark."""
    first = read(_CHUNK)
    decoder = None
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")()
    chunk = first.removeprefix(codecs.BOM_UTF8)
    while chunk:
        try:
            yield chunk if decoder is None else decoder.decode(chunk).encode()
        except UnicodeError as error:
            raise DataError(f"{name}: expected text in UTF-16, as its first bytes say ({error})") from None
        chunk = read(_CHUNK)


def _decode(line: bytes, end: bytes) -> str:
    return os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line)
