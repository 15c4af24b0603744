"""An output being written: a hidden folder next to it, from which the same command resumes after any interruption."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from brainkit.errors import DataError, UsageError
from brainkit.utils.files import read_json, write_all
from brainkit.utils.locks import FileLock

_VERSION = 1
_COUNTS = ("rows", "done", "skipped_bytes")
_MARKS = 100_000  # batches between two states; no writer needs as many
_SAVE_SECONDS = 5.0  # between two states; what was done since the last one is repeated
# What must be equal for the output to be the same byte for byte, and how a difference is described.
_DIFFERENCES = {
    "images": "other images (or they have changed)",
    "encoder": "another encoder file",
    "device": "another device",
    "columns": "other regions",
    "layout": "other files or contact sheets",
}


class PartialOutput:
    """The folder of an output being written; this process alone uses it while it is entered.

    Parameters
    ----------
    out : Path
        The output. The folder is ``.NAME.partial`` next to it.
    identity : mapping of str to str
        What the output is made from: digests of the images, the encoder file and so on.
    batch_size : int, optional
        As requested.
    overwrite : bool
        Start over if the folder belongs to something else.

    Attributes
    ----------
    rows_path : Path
        Where the rows are written.
    rows, done : int
        Rows, and images of the list, that are safe on the disk.
    batch_size : int or None
        Images at once: as in the run that is resumed.
    complete : bool
        Only `move_to` is left to be done.

    Raises
    ------
    UsageError
        If the folder belongs to something else, or another process is writing.
    """

    def __init__(self, out: Path, identity: Mapping[str, str], batch_size: int | None, *, overwrite: bool) -> None:
        self._out, self._identity, self._overwrite = out, dict(identity), overwrite
        self.folder = partial_folder(out)
        self.rows_path = self.folder / out.name
        self.description_path = self.folder / "description.json"
        self._state_path = self.folder / "state.json"
        self._skipped_path = self.folder / "skipped.jsonl"
        self.rows = self.done = self._skipped_bytes = 0
        self.batch_size = self._requested = batch_size
        self.complete = False
        self._marks: collections.deque[tuple[int, int, int]] = collections.deque(maxlen=_MARKS)
        self._saved_at = time.monotonic()

    def __enter__(self) -> PartialOutput:
        self._lock = self._take_lock()
        try:
            self._resume_or_clear()
            self._skipped = self._skipped_path.open("r+b" if self._skipped_path.exists() else "w+b", buffering=0)
            self._skipped.truncate(self._skipped_bytes)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._skipped.close()
        if not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def skipped(self) -> Iterator[tuple[int, str]]:
        """Positions of the images before `done` that could not be read, and why."""
        return ((position, reason) for position, reason in self._recorded() if reason is not None)

    def of_several(self) -> Iterator[int]:
        """Positions of the images before `done` that are the first of several in their file."""
        return (position for position, reason in self._recorded() if reason is None)

    def record(self, skipped: Iterable[tuple[int, str]], of_several: Iterable[int] = ()) -> None:
        """Record images that could not be read, (position, reason), and those that are the first of several."""
        entries = [*skipped, *((position, None) for position in of_several)]
        self._skipped.seek(0, os.SEEK_END)
        write_all(self._skipped, "".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def _recorded(self) -> Iterator[tuple[int, str | None]]:
        with self._skipped_path.open(encoding="utf-8") as lines:
            for line in lines:
                position, reason = json.loads(line)
                yield position, reason

    def is_due(self) -> bool:
        """Whether it is time to save the state again."""
        return time.monotonic() - self._saved_at >= _SAVE_SECONDS

    def mark(self, rows: int, done: int) -> None:
        """Note that with so many rows so many images of the list are done."""
        self._marks.append((rows, done, self._skipped.seek(0, os.SEEK_END)))

    def save(self, rows: int) -> None:
        """Write the state as of the last mark up to which the rows are on the disk."""
        self._saved_at = time.monotonic()
        reached = max((mark for mark in self._marks if mark[0] <= rows), default=None)
        if reached is None:
            return
        os.fsync(self._skipped.fileno())
        self._write_state(*reached)
        # Only now: after an interruption on the way this must be done again.
        self.rows, self.done, self._skipped_bytes = reached
        while self._marks and self._marks[0] <= reached:
            self._marks.popleft()

    def discard(self) -> None:
        """Nothing is worth keeping: the folder is removed at the end."""
        self._marks.clear()
        self.rows = self.done = 0

    def move_to(self, moves: Iterable[tuple[Path, Path]]) -> None:
        """Move the finished files from the folder to their final paths, and remove the folder."""
        # From now on only the moves are left, which can be repeated.
        self.complete = True
        self._write_state(self.rows, self.done, self._skipped_bytes)
        for source, target in moves:
            if source.is_dir() and target.is_dir():
                shutil.rmtree(target)
            if source.exists():
                os.replace(source, target)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _resume_or_clear(self) -> None:
        if not self._state_path.exists():
            self._clear()
            return
        try:
            state = read_json(self._state_path)
            different = self._difference(state)
            self.rows, self.done, self._skipped_bytes = (state[key] for key in _COUNTS)
            self.batch_size, self.complete = state["batch_size"], state["complete"]
        except (DataError, KeyError, TypeError, AttributeError):
            different = "something that cannot be resumed"
        if different is None:
            return
        if not self._overwrite:
            raise UsageError(
                f"{self._out}: {self.folder.name} holds an unfinished output of {different}; --overwrite starts over"
            )
        self.rows = self.done = self._skipped_bytes = 0
        self.batch_size, self.complete = self._requested, False
        self._clear()

    def _difference(self, state: dict[str, Any]) -> str | None:
        if state["version"] != _VERSION:
            return "another version of brainkit"
        for name, value in self._identity.items():
            if state[name] != value:
                return _DIFFERENCES[name]
        if self.batch_size not in (None, state["batch_size"]):
            return f"another batch size ({state['batch_size']})"
        return None

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._lock.path:
                path.unlink()

    def _take_lock(self) -> FileLock:
        while True:
            self.folder.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process has just finished, and removed the folder
                lock = FileLock.take(self.folder / "lock")
                if lock is None:
                    raise UsageError(f"{self._out}: another process is writing it")
                return lock

    def _write_state(self, *counts: int) -> None:
        state = {"version": _VERSION, **self._identity, "batch_size": self.batch_size, "complete": self.complete}
        state |= zip(_COUNTS, counts, strict=True)
        temporary = self._state_path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(json.dumps(state, indent=2).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._state_path)


def partial_folder(out: Path) -> Path:
    """The hidden folder of an output being written."""
    return out.with_name(f".{out.name}.partial")


def was_complete(out: Path) -> bool:
    """Whether an output was finished except for its last moves, which the same command then makes."""
    with contextlib.suppress(DataError):
        state = read_json(partial_folder(out) / "state.json")
        return isinstance(state, dict) and state.get("complete") is True
    return False
