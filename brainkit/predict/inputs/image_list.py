"""A list of images that lives on disk: of a million images only the ones being processed are in memory."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from brainkit.errors import BrainkitError
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.utils.text import plural

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -1024;
PRAGMA temp_store = FILE;
CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE found (
    part INTEGER, key BLOB, name BLOB, file BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT);
CREATE TABLE images (
    position INTEGER PRIMARY KEY, name BLOB, file BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT);
CREATE TABLE notes (name BLOB, note TEXT);
CREATE TABLE folders (number INTEGER PRIMARY KEY, search BLOB, path BLOB);
CREATE TABLE skipped (position INTEGER PRIMARY KEY, reason TEXT);
"""
_CHUNK = 256  # rows in memory at once


class ImageList:
    """Images in order, in a temporary database that is deleted with the object. Several threads may use it.

    Searches add images with `add`, in any order; `sort` puts them in order, after which the list is only read.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # No name: a private file in the folder for temporary files, deleted by the system however the process ends.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        with self._translate_errors():
            self._database.executescript(_SCHEMA)
        self._count = 0
        self._digest = ""

    def __len__(self) -> int:
        return self._count

    @property
    def digest(self) -> str:
        """SHA-256 over names, files, sizes and modification times, in order."""
        return self._digest

    def close(self) -> None:
        """Delete the list."""
        self._database.close()

    __del__ = close

    # --- while it is being built --------------------------------------------------------------------------------------

    def first_time(self, text: str) -> bool:
        """Whether something is met for the first time; used so that nothing is listed twice."""
        digest = hashlib.blake2b(_encode(text), digest_size=16).digest()
        return self._execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0

    def add(self, part: int, key: bytes, source: ImageSource, stamp: str = "") -> None:
        """Add an image, unless it is in the list already; a repetition is noted.

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
        if not self.first_time(f"{source.file}\0{source.offset}"):
            self.note(source.name, "listed more than once; predicted once")
            return
        row = (part, key, _encode(source.name), _encode(source.file), source.offset, source.size, stamp)
        self._execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, source.problem))

    def note(self, name: str, note: str) -> None:
        """Add a remark about the list to the output's JSON."""
        self._execute("INSERT INTO notes VALUES (?, ?)", (_encode(name), note))

    def note_ignored(self, name: str, count: int, unit: str, first: str) -> None:
        """Note how many files or members are not images by their names."""
        self.note(name, f"{plural(count, unit)} ignored, not images by their names; the first: {first}")

    def push_folder(self, search: str, path: str) -> None:
        """Remember a folder that a search is to enter; the last one pushed comes first."""
        self._execute("INSERT INTO folders (search, path) VALUES (?, ?)", (_encode(search), _encode(path)))

    def pop_folder(self, search: str) -> str | None:
        query = "SELECT number, path FROM folders WHERE search = ? ORDER BY number DESC LIMIT 1"
        row = self._execute(query, (_encode(search),)).fetchone()
        if row is None:
            return None
        self._execute("DELETE FROM folders WHERE number = ?", (row[0],))
        return _decode(row[1])

    def sort(self) -> None:
        """Put the images in order, and compute the digest."""
        columns = "name, file, offset, size, stamp, problem"
        self._execute(f"INSERT INTO images ({columns}) SELECT {columns} FROM found ORDER BY part, key")
        self._execute("DROP TABLE found")
        self._execute("DROP TABLE seen")
        digest = hashlib.sha256()
        for position, *values in self._rows("position, name, file, offset, size, stamp", "images", 1):
            self._count = position
            digest.update(repr(values).encode())
        self._digest = digest.hexdigest()

    # --- once it is sorted --------------------------------------------------------------------------------------------

    def entries(self, start: int, stop: int) -> list[ImageSource]:
        """The images at positions start to stop - 1: plain data that other processes can open too."""
        rows = self._execute(
            "SELECT name, file, offset, size, problem FROM images WHERE position > ? AND position <= ?"
            " ORDER BY position",
            (start, stop),
        )
        return [ImageSource(_decode(row[0]), _decode(row[1]), *row[2:]) for row in rows.fetchall()]

    def names(self, start: int = 0) -> Iterator[str]:
        """Names from a position on, as they were given."""
        for _, name in self._rows("position, name", "images", start + 1):
            yield _decode(name)

    def notes(self) -> Iterator[tuple[str, str]]:
        """Remarks about the list: (name, note)."""
        for _, name, note in self._rows("rowid, name, note", "notes", 1):
            yield _decode(name), note

    # --- images that could not be read --------------------------------------------------------------------------------

    def skip(self, skipped: Iterable[tuple[int, str]]) -> None:
        """Record images that could not be read: (position, reason)."""
        for position, reason in skipped:
            self._execute("INSERT OR REPLACE INTO skipped VALUES (?, ?)", (position + 1, reason))

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Images that could not be read, in order: (name, reason)."""
        joined = "(SELECT position, name, reason FROM skipped JOIN images USING (position))"
        for _, name, reason in self._rows("position, name, reason", joined, 1):
            yield _decode(name), reason

    def skipped_count(self) -> int:
        return int(self._execute("SELECT count(*) FROM skipped").fetchone()[0])

    def readable(self) -> Iterator[str]:
        """Names of the images that were read, in order: those of the rows."""
        return (source.name for source in self.readable_sources())

    def readable_sources(self) -> Iterator[ImageSource]:
        """The images that were read, in order."""
        columns = "position, name, file, offset, size, problem"
        remaining = f"(SELECT {columns} FROM images WHERE position NOT IN (SELECT position FROM skipped))"
        for _, name, file, *values in self._rows(columns, remaining, 1):
            yield ImageSource(_decode(name), _decode(file), *values)

    def _rows(self, columns: str, table: str, start: int) -> Iterator[tuple[Any, ...]]:
        # In chunks: an open cursor would block whatever changes the list in the meantime.
        key = columns.split(",")[0]
        while True:
            query = f"SELECT {columns} FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT {_CHUNK}"
            rows = self._execute(query, (start,)).fetchall()
            yield from rows
            if len(rows) < _CHUNK:
                return
            start = rows[-1][0] + 1

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._lock, self._translate_errors():
            return self._database.execute(statement, values)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BrainkitError(
                f"the list of images cannot be stored in the folder for temporary files: {error}"
            ) from None


def _encode(name: str) -> bytes:
    """A name as bytes, whatever it contains; the bytes sort as the names do."""
    return name.encode("utf-8", "surrogatepass")


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")
