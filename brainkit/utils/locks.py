"""Locks between processes, on small files. They end with their process, however it ends: none is ever stale."""

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
    """A lock on a file, held until `release`, until it is forgotten, or until the process ends.

    Where the system or the file system has no such locks, everybody gets every lock: what they guard must stay correct
    without them.

    Attributes
    ----------
    path : Path
    certain : bool
        Whether the lock is one: nobody else has it.
    """

    def __init__(self, path: Path, handle: int, certain: bool) -> None:
        self.path, self.certain, self._handle = path, certain, handle

    @classmethod
    def take(cls, path: Path, *, shared: bool = False, wait: bool = False) -> FileLock | None:
        """Lock `path`, which is made if it is not there; its folder must be there.

        Parameters
        ----------
        path : Path
        shared : bool
            Several may hold it at once, but nobody else may hold it alone.
        wait : bool
            Wait for whoever holds it.

        Returns
        -------
        FileLock or None
            None where somebody else holds it and `wait` is false.

        Raises
        ------
        OSError
            If the file can neither be made nor opened.
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
            except BaseException as error:  # a signal may end the waiting
                if not isinstance(error, OSError):
                    os.close(handle)
                    raise
                return cls(path, handle, certain=False)  # a file system without locks
            # Whoever held it may have removed the file: then this is a lock on something nobody else sees.
            if _is_still(path, handle):
                return cls(path, handle, certain=True)
            os.close(handle)

    def release(self, *, remove: bool = False) -> None:
        """Let it go; with `remove` the file goes too."""
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
        return os.open(path, os.O_RDONLY)  # a folder that can only be read


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
