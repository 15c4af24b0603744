"""Outputs at a URL (``s3://...``): written in a local folder, where an interrupted run is resumed, then uploaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.predict.inputs import remote
from brainkit.predict.outputs.formats import description_path, format_of
from brainkit.utils.files import cache_folder


class Upload:
    """An output on its way to a URL.

    Parameters
    ----------
    url : str
        Where the output is to go.
    overwrite : bool
        Replace what is there.

    Attributes
    ----------
    path : Path
        Where to write it. The folder belongs to this URL, in the cache: the next call for the same URL finds there what
        an interrupted one has left.

    Raises
    ------
    UsageError
        If something exists at the URL and may not be replaced.
    DataError
        If the storage cannot be reached.
    """

    def __init__(self, url: str, overwrite: bool) -> None:
        self.url = url
        name = PurePosixPath(url.split("://", 1)[1]).name
        format_of(Path(name))  # refuses an unknown one
        self._description = description_path(Path(name)).name
        for target in (url, self._sibling(self._description)):
            if not overwrite and remote.kind(target) is not None:
                raise UsageError(f"{target}: exists already; --overwrite replaces it")
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.folder = cache_folder() / "outputs" / digest
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / name

    def send(self) -> dict[str, str]:
        """Upload all files of the output, the description last, and delete them here; name -> URL of each.

        Raises
        ------
        DataError
            If one cannot be uploaded; nothing is lost: the message names the folder that holds all of them.
        """
        entries = sorted(self.folder.iterdir(), key=lambda path: (path.name == self._description, path.name))
        complete = [entry for entry in entries if not entry.name.startswith(".")]
        try:
            for entry in complete:
                self._send_entry(entry)
        except BrainkitError as error:
            raise DataError(f"{error}; the output is complete in {self.folder}, upload it from there") from None
        shutil.rmtree(self.folder, ignore_errors=True)
        return {entry.name: self._sibling(entry.name) for entry in complete}

    def _send_entry(self, entry: Path) -> None:
        target = self._sibling(entry.name)
        if not entry.is_dir():
            remote.upload(entry, target)
            return
        remote.remove(target)  # chunks of an older array would remain in this one
        for path in sorted(entry.rglob("*")):
            if path.is_file():
                remote.upload(path, f"{target}/{path.relative_to(entry).as_posix()}")

    def _sibling(self, name: str) -> str:
        return self.url.rsplit("/", 1)[0] + "/" + name


@contextlib.contextmanager
def upload_for(out: str | os.PathLike[str], overwrite: bool) -> Iterator[Upload | None]:
    """The upload of an output at a URL; None for an output on this machine."""
    text = os.fspath(out)
    if not remote.is_url(text):
        yield None
        return
    upload = Upload(text, overwrite)
    try:
        yield upload
    finally:
        with contextlib.suppress(OSError):
            upload.folder.rmdir()  # if nothing was begun
