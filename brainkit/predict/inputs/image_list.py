"""A list of images that lies on disk: of a million images none but those in work is in memory."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from brainkit.errors import BrainkitError
from brainkit.predict.inputs.image_source import ImageSource

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -1024;
PRAGMA temp_store = FILE;
CREATE TABLE seen (ident BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE found (
    part INTEGER, key BLOB, name BLOB, place BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT);
CREATE TABLE images (
    position INTEGER PRIMARY KEY,
    name BLOB, place BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT);
CREATE TABLE notes (name BLOB, note TEXT);
CREATE TABLE folders (number INTEGER PRIMARY KEY, walk BLOB, path BLOB);
CREATE TABLE skipped (position INTEGER PRIMARY KEY, reason TEXT);
"""
_MANY = 256  # rows that are in memory at once


class ImageList:
    """Images in order, in a temporary database that ends with it. It may be used from several threads.

    What finds images adds them with `add`, in any order; `settle` puts them in order, and from then on it is read.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # No name: a file of its own in the folder for temporary files, which goes when it is closed, however that is.
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        with self._said():
            self._base.executescript(_SCHEMA)
        self._count = 0
        self._digest = ""

    def __len__(self) -> int:
        return self._count

    @property
    def digest(self) -> str:
        """SHA-256 over names, places, sizes and times of change, in order."""
        return self._digest

    def close(self) -> None:
        """Forget the list."""
        self._base.close()

    __del__ = close

    # --- while it is made ---------------------------------------------------------------------------------------------

    def first_time(self, ident: str) -> bool:
        """Whether something is met for the first time: what is met again is not listed again."""
        digest = hashlib.blake2b(as_bytes(ident), digest_size=16).digest()
        return self._execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0

    def add(self, part: int, key: bytes, source: ImageSource, stamp: str = "") -> None:
        """Add an image, unless it is in the list already; then that is noted.

        Parameters
        ----------
        part : int
            Images of a lower part come first.
        key : bytes
            Orders the images of a part.
        source : ImageSource
        stamp : str
            Changes when the image does.
        """
        if not self.first_time(f"{source.place}\0{source.offset}"):
            self.note(source.name, "named more than once; scored once")
            return
        row = (part, key, as_bytes(source.name), as_bytes(source.place), source.offset, source.size, stamp)
        self._execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, source.problem))

    def note(self, name: str, note: str) -> None:
        """Keep something to be told of the list in the output's description."""
        self._execute("INSERT INTO notes VALUES (?, ?)", (as_bytes(name), note))

    def push_folder(self, walk: str, path: str) -> None:
        """Keep a folder that a walk is to look into; the last one comes first."""
        self._execute("INSERT INTO folders (walk, path) VALUES (?, ?)", (as_bytes(walk), as_bytes(path)))

    def pop_folder(self, walk: str) -> str | None:
        found = "SELECT number, path FROM folders WHERE walk = ? ORDER BY number DESC LIMIT 1"
        row = self._execute(found, (as_bytes(walk),)).fetchone()
        if row is None:
            return None
        self._execute("DELETE FROM folders WHERE number = ?", (row[0],))
        return as_name(row[1])

    def settle(self) -> None:
        """Put the images in order, and take the digest."""
        columns = "name, place, offset, size, stamp, problem"
        self._execute(f"INSERT INTO images ({columns}) SELECT {columns} FROM found ORDER BY part, key")
        self._execute("DROP TABLE found")
        self._execute("DROP TABLE seen")
        digest = hashlib.sha256()
        for position, *values in self._rows("position, name, place, offset, size, stamp", "images", 1):
            self._count = position
            digest.update(repr(values).encode())
        self._digest = digest.hexdigest()

    # --- once it is made ----------------------------------------------------------------------------------------------

    def entries(self, start: int, stop: int) -> list[ImageSource]:
        """The images at positions start to stop - 1: plain data, which other processes can open too."""
        rows = self._execute(
            "SELECT name, place, offset, size, problem FROM images WHERE position > ? AND position <= ?"
            " ORDER BY position",
            (start, stop),
        )
        return [ImageSource(as_name(row[0]), as_name(row[1]), *row[2:]) for row in rows.fetchall()]

    def names(self, start: int = 0) -> Iterator[str]:
        """Names from a position on, as they were given."""
        for _, name in self._rows("position, name", "images", start + 1):
            yield as_name(name)

    def notes(self) -> Iterator[tuple[str, str]]:
        """What is to be told of the list: (name, note)."""
        for _, name, note in self._rows("rowid, name, note", "notes", 1):
            yield as_name(name), note

    # --- what was not read --------------------------------------------------------------------------------------------

    def skip(self, skipped: Iterable[tuple[int, str]]) -> None:
        """Keep which images could not be read, and why: (position, reason)."""
        for position, reason in skipped:
            self._execute("INSERT OR REPLACE INTO skipped VALUES (?, ?)", (position + 1, reason))

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Images that could not be read, in order: (name, reason)."""
        joined = "(SELECT position, name, reason FROM skipped JOIN images USING (position))"
        for _, name, reason in self._rows("position, name, reason", joined, 1):
            yield as_name(name), reason

    def skipped_count(self) -> int:
        return int(self._execute("SELECT count(*) FROM skipped").fetchone()[0])

    def readable(self) -> Iterator[str]:
        """Names of the images that were read, in order: those of the rows."""
        return (source.name for source in self.readable_sources())

    def readable_sources(self) -> Iterator[ImageSource]:
        """The images that were read, in order."""
        columns = "position, name, place, offset, size, problem"
        left = f"(SELECT {columns} FROM images WHERE position NOT IN (SELECT position FROM skipped))"
        for _, name, place, *values in self._rows(columns, left, 1):
            yield ImageSource(as_name(name), as_name(place), *values)

    def _rows(self, columns: str, table: str, start: int) -> Iterator[tuple[Any, ...]]:
        # In portions, because a cursor that is kept open would hold up whatever changes the list meanwhile.
        by = columns.split(",")[0]
        while True:
            asked = f"SELECT {columns} FROM {table} WHERE {by} >= ? ORDER BY {by} LIMIT {_MANY}"
            rows = self._execute(asked, (start,)).fetchall()
            yield from rows
            if len(rows) < _MANY:
                return
            start = rows[-1][0] + 1

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._lock, self._said():
            return self._base.execute(statement, values)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BrainkitError(
                f"the list of images cannot be kept in the folder for temporary files: {error}"
            ) from None


def as_bytes(name: str) -> bytes:
    """A name as bytes, whatever it is; their order is that of the names."""
    return name.encode("utf-8", "surrogatepass")


def as_name(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")
