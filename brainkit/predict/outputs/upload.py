"""Outputs at an address (``s3://...``): made in a folder here, where an interrupted run goes on, and sent whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict.inputs import remote
from brainkit.predict.outputs.formats import description_path
from brainkit.utils.files import cache_folder


class Parcel:
    """An output on its way to an address.

    Parameters
    ----------
    address : str
        Where the output is to lie.
    overwrite : bool
        Replace what lies there.

    Attributes
    ----------
    path : Path
        Where to make it. The folder is the address's own, in the cache: the next call for this address finds there
        what an interrupted one has left.

    Raises
    ------
    UsageError
        If something lies at the address and may not be replaced.
    DataError
        If the place cannot be reached.
    """

    def __init__(self, address: str, overwrite: bool) -> None:
        self.address = address
        name = PurePosixPath(address.split("://", 1)[1]).name
        beside = description_path(Path(name)).name
        for place in (address, self._place(beside)):
            if not overwrite and remote.kind(place) is not None:
                raise UsageError(f"{place}: exists already; --overwrite replaces it")
        digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.folder = cache_folder() / "outputs" / digest
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / name
        self._last = beside

    def send(self) -> list[str]:
        """Send all files of the output, the description last, and forget them here; their addresses.

        Raises
        ------
        DataError
            If one cannot be sent; nothing is lost: the line says where all of it lies.
        """
        entries = sorted(self.folder.iterdir(), key=lambda path: (path.name == self._last, path.name))
        complete = [entry for entry in entries if not entry.name.startswith(".")]
        try:
            for entry in complete:
                self._send_one(entry)
        except BrainkitError as error:
            raise DataError(f"{error}; the output is complete in {self.folder}, send it from there") from None
        shutil.rmtree(self.folder, ignore_errors=True)
        return [self._place(entry.name) for entry in complete]

    def _send_one(self, entry: Path) -> None:
        place = self._place(entry.name)
        if not entry.is_dir():
            remote.send(entry, place)
            return
        remote.remove(place)  # parts of another array would stay in this one
        for path in sorted(entry.rglob("*")):
            if path.is_file():
                remote.send(path, f"{place}/{path.relative_to(entry).as_posix()}")

    def _place(self, name: str) -> str:
        return self.address.rsplit("/", 1)[0] + "/" + name


@contextlib.contextmanager
def parcel_for(out: str | os.PathLike[str], overwrite: bool) -> Iterator[Parcel | None]:
    """The parcel for an output at an address; None for one on this machine."""
    text = os.fspath(out)
    if not remote.is_address(text):
        yield None
        return
    parcel = Parcel(text, overwrite)
    try:
        yield parcel
    finally:
        with contextlib.suppress(OSError):
            parcel.folder.rmdir()  # where nothing was begun
