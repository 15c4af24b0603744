"""A list of images that lives on disk: of a million images only the ones being processed are in memory."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any, NoReturn

from brainkit.errors import BrainkitError
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.inputs.row_order import OrderCheck
from brainkit.utils.text import plural, printable

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -1024;
PRAGMA temp_store = FILE;
CREATE TABLE seen (id BLOB PRIMARY KEY, once INTEGER, named INTEGER) WITHOUT ROWID;
CREATE TABLE found (
    part INTEGER, key BLOB, name BLOB, file BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT,
    list INTEGER, line INTEGER, again INTEGER, figure BLOB);
CREATE TABLE images (
    position INTEGER PRIMARY KEY, name BLOB, file BLOB, offset INTEGER, size INTEGER, stamp TEXT, problem TEXT,
    part INTEGER, list INTEGER, line INTEGER, again INTEGER);
CREATE TABLE figures (position INTEGER PRIMARY KEY, number INTEGER, file BLOB, name BLOB, id BLOB);
CREATE TABLE notes (name BLOB, note TEXT, said INTEGER);
CREATE TABLE lists (number INTEGER PRIMARY KEY, name BLOB, lines INTEGER, empty INTEGER);
CREATE TABLE folders (number INTEGER PRIMARY KEY, search BLOB, path BLOB);
CREATE TABLE skipped (position INTEGER PRIMARY KEY, reason TEXT);
CREATE TABLE several (position INTEGER PRIMARY KEY);
"""
_CHUNK = 256  # rows in memory at once
_MOST_SAID = 5  # remarks for the terminal; the others are counted
_MOST_LINES = 20  # lines of a list that a note names


class ImageList:
    """Images in order, in a temporary database that is deleted with the object. Several threads may use it.

    Searches add images with `add`, in any order; `sort` puts them in order, after which the list is only read.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # No name: a private file in the folder for temporary files, deleted by the system however the process ends.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for statement in _SCHEMA.split(";"):
            self._execute(statement)
        self._count = self._dropped = 0
        self._first_dropped = self._digest = ""
        self.first_ignored = ""  # the first file or member that is not an image by its name

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> NoReturn:
        # A copy would delete the database of the original.
        raise TypeError("an ImageList stays in its process and cannot be copied; send its images: entries(start, stop)")

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
        return self._execute("INSERT OR IGNORE INTO seen VALUES (?, 1, 0)", (_hash(text),)).rowcount > 0

    def add(
        self,
        part: int,
        key: bytes,
        source: ImageSource,
        stamp: str = "",
        *,
        identity: str = "",
        once: bool = True,
        line: tuple[int | None, int | None] = (None, None),
        named: bool = True,
        is_figure: bool = False,
    ) -> None:
        """Add an image.

        Parameters
        ----------
        part : int
            Images of a lower part come first.
        key : bytes
            Orders the images of a part.
        source : ImageSource
        stamp : str
            Changes when the image does.
        identity : str
            The same for the same image; by default its file.
        once : bool
            Drop it if it was added with `once` before.
        line : tuple of (int, int)
            The list (its number from `add_list`) and the line of it that names the image.
        named : bool
            It is named itself, not found in a folder.
        is_figure : bool
            It is a figure of brainkit's own (`figures`).
        """
        identifier = _hash(identity or f"{source.file}\0{source.offset}")
        new = self._execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (identifier, once, named)).rowcount > 0
        if not new and named:
            self._execute("UPDATE seen SET named = 1 WHERE id = ?", (identifier,))
        if not new and once:
            only_repeated = self._execute("UPDATE seen SET once = 1 WHERE id = ? AND NOT once", (identifier,))
            if only_repeated.rowcount == 0:
                self.drop(source.name)
                return
        row = (part, key, _encode(source.name), _encode(source.file), source.offset, source.size, stamp)
        more = (source.problem, *line, None if new else 1, identifier if is_figure else None)
        self._execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *more))

    def drop(self, name: str) -> None:
        """Note that an image or shard is given once more, and not listed again."""
        self.note(name, "given more than once; predicted once")
        self._dropped += 1
        self._first_dropped = self._first_dropped or name

    def add_list(self, name: str) -> int:
        """A number for a list whose lines are added."""
        return int(self._execute("INSERT INTO lists (name) VALUES (?)", (_encode(name),)).lastrowid or 0)

    def end_list(self, number: int, lines: int, empty: int) -> None:
        """Note how many lines a list has, and how many of them are empty."""
        self._execute("UPDATE lists SET lines = ?, empty = ? WHERE number = ?", (lines, empty, number))

    def note(self, name: str, note: str, *, say: bool = False) -> None:
        """Add a remark about the list to the output's JSON; `say`: it is for the terminal too."""
        self._execute("INSERT INTO notes VALUES (?, ?, ?)", (_encode(name), note, say))

    def note_ignored(self, name: str, count: int, unit: str, first: str) -> None:
        """Note how many files or members are not images by their names."""
        self.first_ignored = self.first_ignored or first
        self.note(name, f"{plural(count, f'non-image {unit}')} ignored; the first: {first}")

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

    def figures(self) -> Iterator[tuple[int, str, str, bool]]:
        """Figures of brainkit's own, before `sort`, in the order of the list.

        Yields
        ------
        (int, str, str, bool) : a number for `remove`, the name, the file, and whether it is named itself
        """
        figures = "SELECT rowid, file, name, figure FROM found WHERE figure IS NOT NULL ORDER BY part, key"
        self._execute(f"INSERT INTO figures (number, file, name, id) {figures}")
        for _, number, file, name, identifier in self._rows("position, number, file, name, id", "figures", 1):
            (named,) = self._execute("SELECT named FROM seen WHERE id = ?", (identifier,)).fetchone()
            yield number, _decode(name), _decode(file), bool(named)
        self._execute("DROP TABLE figures")

    def remove(self, number: int) -> None:
        """Remove a figure."""
        self._execute("DELETE FROM found WHERE rowid = ?", (number,))

    def sort(self, *, check_order: bool = True) -> None:
        """Put the images in order, and compute the digest; note if it is not the order of the numbers in the names."""
        columns = "name, file, offset, size, stamp, problem, part, list, line, again"
        self._execute(f"INSERT INTO images ({columns}) SELECT {columns} FROM found ORDER BY part, key")
        self._execute("DROP TABLE found")
        self._execute("DROP TABLE seen")
        digest, order = hashlib.sha256(), OrderCheck()
        columns = "position, name, file, offset, size, stamp, part, list"
        for position, *values, part, number in self._rows(columns, "images", 1):
            self._count = position
            digest.update(repr(values).encode())
            if check_order:
                is_sorted_by_name = number is None and values[2] < 0  # not in the order of a list or shard
                order.add(part if is_sorted_by_name else None, values[0])
        self._digest = digest.hexdigest()
        if order.example:
            example = [PurePath(_decode(name)) for name in order.example]
            names = ", ".join(path.name for path in example)
            note = f"rows are in text order, not in the order of the numbers in the names: {names}"
            self.note(str(example[0].parent), note, say=True)

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
        yield from self.notes_of_reading()

    def remarks(self) -> list[str]:
        """What a user should know before the images are predicted: a few lines for the terminal."""
        said = self._execute("SELECT name, note FROM notes WHERE said ORDER BY rowid").fetchmany(_MOST_SAID)
        lines = [printable(f"{_decode(name)}: {note}") for name, note in said]
        if len(said) == _MOST_SAID:
            (count,) = self._execute("SELECT count(*) FROM notes WHERE said").fetchone()
            if count > len(said):
                lines.append(f"{plural(count - len(said), 'more remark')}; the output's .json lists them")
        if self._dropped:
            count = plural(self._dropped, "image is", "images are")
            first = printable(self._first_dropped)
            lines.append(f"{count} given more than once, and predicted once; the first repeat: {first}")
        return lines

    def only_problems(self) -> ImageSource | None:
        """The first image, if it is known of all that they cannot be read."""
        some = self._execute("SELECT 1 FROM images WHERE problem IS NULL LIMIT 1").fetchone()
        return self.entries(0, 1)[0] if some is None else None

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

    def mark_of_several(self, positions: Iterable[int]) -> None:
        """Record images that are the first of several in their file."""
        for position in positions:
            self._execute("INSERT OR IGNORE INTO several VALUES (?)", (position + 1,))

    def notes_of_reading(self) -> Iterator[tuple[str, str]]:
        """Remarks that are known when the images have been read: (name, note)."""
        yield from self._incomplete_lists()
        count, first = self._execute("SELECT count(*), min(position) FROM several").fetchone()
        if count:
            more = f", as are {count - 1:,} more" if count > 1 else ""
            note = f"an animation or a file with pages{more}: only its first image is predicted"
            yield self.entries(first - 1, first)[0].name, note

    def _incomplete_lists(self) -> Iterator[tuple[str, str]]:
        """Lists whose lines are not the rows, because images could not be read."""
        unread = "SELECT position, list, line FROM skipped JOIN images USING (position)"
        for number, name, lines, empty in self._execute("SELECT number, name, lines, empty FROM lists").fetchall():
            query = f"SELECT DISTINCT line FROM ({unread}) WHERE list = ? ORDER BY line"
            found = [line for (line,) in self._execute(query, (number,)).fetchmany(_MOST_LINES + 1)]
            if found:
                rows = "SELECT count(*) FROM images WHERE list = ? AND position NOT IN (SELECT position FROM skipped)"
                count = self._execute(rows, (number,)).fetchone()[0]
                shown = ", ".join(map(str, found[:_MOST_LINES])) + (", ..." if len(found) > _MOST_LINES else "")
                of_lines = plural(lines, "line") + (f" ({empty:,} empty)" if empty else "")
                yield _decode(name), f"{of_lines}, {plural(count, 'row')}; could not be read: line {shown}"

    def readable(self) -> Iterator[str]:
        """Names of the images that were read, in order: those of the rows."""
        return (source.name for source in self.readable_sources())

    def readable_sources(self) -> Iterator[ImageSource]:
        """The images that were read, in order."""
        columns = "position, name, file, offset, size, problem"
        remaining = f"(SELECT {columns} FROM images WHERE position NOT IN (SELECT position FROM skipped))"
        for _, name, file, *values in self._rows(columns, remaining, 1):
            yield ImageSource(_decode(name), _decode(file), *values)

    def repeated_rows(self) -> Iterator[int]:
        """Rows of images that have another row too: of each image's rows, all but one."""
        if self._execute("SELECT 1 FROM images WHERE again LIMIT 1").fetchone() is not None:
            remaining = "(SELECT position, again FROM images WHERE position NOT IN (SELECT position FROM skipped))"
            yield from (row for row, (_, again) in enumerate(self._rows("position, again", remaining, 1)) if again)

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
        with self._lock:
            try:
                return self._database.execute(statement, values)
            except sqlite3.OperationalError as error:
                raise BrainkitError(
                    f"the list of images cannot be stored in the folder for temporary files: {error}"
                ) from None


def _hash(text: str) -> bytes:
    return hashlib.blake2b(_encode(text), digest_size=16).digest()


def _encode(name: str) -> bytes:
    """A name as bytes, whatever it contains; the bytes sort as the names do."""
    return name.encode("utf-8", "surrogatepass")


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")
