"""File locks between processes. The system releases them when their process ends, so none is ever stale."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FileLock:
    """A lock on a file, held until `release`, until the object is deleted, or until the process ends.

    If the system or file system has no such locks, every process gets every lock: what they protect must stay correct
    without them.

    Attributes
    ----------
    path : Path
    certain : bool
        Whether the lock is real: no other process has it.
    """

    def __init__(self, path: Path, handle: int, certain: bool) -> None:
        self.path, self.certain, self._handle = path, certain, handle

    @classmethod
    def take(cls, path: Path, *, shared: bool = False, wait: bool = False) -> FileLock | None:
        """Lock `path`, creating the file if necessary; its folder must exist.

        Parameters
        ----------
        path : Path
        shared : bool
            Several processes may hold the lock if all of them share it.
        wait : bool
            Wait until the lock is free.

        Returns
        -------
        FileLock or None
            None if another process holds the lock and `wait` is false.

        Raises
        ------
        OSError
            If the file can be neither created nor opened.
        """
        while True:
            handle = _open(path)
            if fcntl is None:
                return cls(path, handle, certain=False)
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(handle)
                return None
            except OSError:
                return cls(path, handle, certain=False)  # a file system without locks
            except BaseException:  # a signal while waiting
                os.close(handle)
                raise
            # The holder before may have removed the file: then this lock is on a file that no other process can open.
            if _is_same_file(path, handle):
                return cls(path, handle, certain=True)
            os.close(handle)

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; with `remove`, delete the file as well."""
        if self._handle < 0:
            return
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        handle, self._handle = self._handle, -1
        os.close(handle)

    def __del__(self) -> None:
        self.release()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return os.open(path, os.O_RDONLY)  # a read-only folder


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
