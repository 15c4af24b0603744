"""Reading and writing encoder files safely.

An encoder file is an ONNX model with two more ``metadata_props`` entries at its end: ``brainkit``, a JSON that
describes it, and ``brainkit_sha256``, the digest of every byte before that entry; or a torch file with the same JSON
(see ``archive.py``). ``docs/encoder-file.md`` is the format. Reading needs no ONNX package and opens no session: the
top-level fields of the file are walked, and the graph is skipped by its length. Nothing in the file is trusted: every
count and length is bounded before it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from brainkit.encoder_file import container
from brainkit.encoder_file.archive import MAGIC, pack_archive, read_archive
from brainkit.encoder_file.container import DIGEST_KEY, METADATA_KEY, ForeignFileError, metadata_entry
from brainkit.encoder_file.info import EncoderInfo
from brainkit.encoder_file.metadata import from_json, to_json
from brainkit.errors import EncoderFileError
from brainkit.utils.file_kind import TORCH, ZIP, file_kind
from brainkit.utils.files import atomic_write


def locate(path: str | os.PathLike[str]) -> Path:
    """The encoder file that a path means: the file itself, or the one in a run folder.

    Parameters
    ----------
    path : path-like
        A file, existing or not, or a folder: its ``encoder.onnx``, else its only ``.onnx`` file.

    Raises
    ------
    EncoderFileError
        If a folder has no encoder file, or several and none of that name; the message says what to do.
    """
    given = Path(path)
    if not given.is_dir():
        return given
    if (file := given / "encoder.onnx").is_file():
        return file
    is_run, found = (given / "run.json").is_file(), onnx_files(given)
    if is_run and not found:
        found = sorted(given.glob("*/encoder.onnx"))  # of a run of several subjects
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise EncoderFileError(f"{given}: has {len(found)} encoder files; name one of them: {names}")
    if found:
        return found[0]
    if is_run:
        raise EncoderFileError(
            f"{given}: is a run that has not been exported; run: brainkit export {shlex.quote(str(given))} --onnx"
        )
    if (given / "config.yaml").is_file():
        raise EncoderFileError(
            f"{given}: is an unfinished run; run: brainkit train --resume --out {shlex.quote(str(given))}"
        )
    if runs := run_names(given):
        raise EncoderFileError(f"{given}: is no run, but holds the runs {runs}; name one")
    raise EncoderFileError(f"{given}: is a folder without an encoder file; brainkit export RUN writes one")


def run_names(folder: Path) -> str:
    """The runs that a folder holds, at most five by name; empty if there is none."""
    names = sorted(entry.parent.name for entry in folder.glob("*/config.yaml"))
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def onnx_files(folder: Path) -> list[Path]:
    """The encoder files of a folder; if none is one, all ``.onnx`` files: reading one of them says what is wrong."""
    files = sorted(file for file in folder.glob("[!.]*.onnx") if file.is_file())
    return [file for file in files if container.has_digest(file)] or files


def read(path: str | os.PathLike[str]) -> EncoderInfo:
    """Read and check the metadata of an encoder file, without opening a session.

    Parameters
    ----------
    path : path-like
        The file (an ONNX file of at most 2 GB), or the run folder it lies in (see `locate`). Read once from start to
        end for the digest.

    Returns
    -------
    EncoderInfo
        With `digest` and `container` set.

    Raises
    ------
    EncoderFileError
        If it is missing, truncated, damaged, not an encoder file, or of a later schema; one sentence says which.
    """
    text, digest, kind = _read(path)
    return dataclasses.replace(from_json(text, source=path), digest=digest, container=kind)


def read_text(path: str | os.PathLike[str]) -> tuple[bytes, str]:
    """The JSON of an encoder file as bytes, and the file's digest (hex), which is checked.

    Raises
    ------
    EncoderFileError
        As `read`, except for errors in the JSON's content.
    """
    text, digest, _ = _read(path)
    return text, digest


def write(path: str | os.PathLike[str], model: bytes | str | os.PathLike[str], info: EncoderInfo) -> str:
    """Write an encoder file atomically: the ONNX model, the metadata and the digest.

    Parameters
    ----------
    path : path-like
        The new file.
    model : bytes or path-like
        A serialised ONNX model, or a file that holds one; it must not be an encoder file already.
    info : EncoderInfo
        The metadata.

    Returns
    -------
    str
        The digest (hex).
    """
    with atomic_write(path) as temporary:
        if isinstance(model, bytes):
            temporary.write_bytes(model)
        else:
            shutil.copyfile(model, temporary)
        return seal(temporary, info)


def seal(path: str | os.PathLike[str], info: EncoderInfo) -> str:
    """Append the metadata and the digest to an ONNX file, in place; returns the digest (hex).

    Protobuf allows a message to be extended by appending fields, so the model's own bytes stay as they are.

    Raises
    ------
    EncoderFileError
        If the file is not an ONNX model, is sealed already, or would exceed 2 GB.
    """
    source = Path(path)
    metadata = metadata_entry(METADATA_KEY.encode(), _checked_json(info, source))
    with source.open("r+b") as stream:
        if container.metadata_entries(stream, source).keys() & {METADATA_KEY.encode(), DIGEST_KEY.encode()}:
            raise EncoderFileError(f"{source}: is an encoder file already; expected a plain ONNX model")
        size = stream.seek(0, os.SEEK_END)
        if size + len(metadata) + container.DIGEST_BYTES > container.MAX_FILE:
            raise EncoderFileError(f"{source}: the encoder file would exceed 2 GB, the limit of ONNX files")
        stream.write(metadata)
        stream.flush()
        digest = container.digest_of(stream, size + len(metadata))
        stream.seek(0, os.SEEK_END)
        stream.write(metadata_entry(DIGEST_KEY.encode(), digest.encode()))
    return digest


def write_archive(path: str | os.PathLike[str], saved: BinaryIO, info: EncoderInfo) -> str:
    """Write an encoder file from what torch saved, in place; returns the digest (hex).

    Parameters
    ----------
    path : path-like
        The new file.
    saved : file
        What ``torch.jit.save`` or ``torch.export.save`` wrote, with an extra file ``brainkit.json``.
    info : EncoderInfo
    """
    return pack_archive(saved, Path(path), _checked_json(info, path))


@contextlib.contextmanager
def unchanged_while(path: str | os.PathLike[str]) -> Iterator[None]:
    """Refuse a file that is replaced or written to while the block checks it and opens it.

    ONNX Runtime opens a file by its path. Giving it the bytes that were checked would keep the file in memory twice for
    as long as the session lives, so the file's `fingerprint` is compared instead.

    Raises
    ------
    EncoderFileError
        At the end of the block, if it changed.
    """
    before = fingerprint(path)
    yield
    if before is not None and fingerprint(path) != before:
        raise EncoderFileError(f"{path}: changed while it was being opened")


def fingerprint(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """A file's device, number, size and both times, of which only the administrator can set back the second.

    None if the file cannot be looked up; opening it then says why.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: str | os.PathLike[str]) -> tuple[bytes, str, str]:
    """The JSON, the digest, and the container: ``"onnx"``, ``"torchscript"`` or ``"pt2"``."""
    source = locate(path)
    try:
        if not source.exists():
            raise EncoderFileError(f"{source}: file not found")
        if not source.is_file():
            raise EncoderFileError(f"{source}: expected an encoder file, found something that is not a regular file")
        with source.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return read_archive(stream, source)
            text = container.find_metadata(stream, source)
            return text, container.check_digest(stream, source), "onnx"
    except ForeignFileError as error:
        raise _name_kind(source, error) from None
    except (OSError, ValueError) as error:
        # A path with a null byte is a ValueError.
        raise EncoderFileError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _name_kind(path: Path, error: EncoderFileError) -> EncoderFileError:
    """The error about a file of another kind: what it is, and what to do with it."""
    kind = file_kind(path)
    if kind in (None, ZIP):  # the error says more
        return error
    advice = ""
    if (description := path.with_name(f"{path.name}.json")).is_file():
        advice = f"; {description} describes it"
    elif kind.endswith("image"):
        advice = "; the response to an image: brainkit predict IMAGE --out FILE"
    elif kind == TORCH:
        return EncoderFileError(f"{error}; brainkit export RUN writes an encoder, brainkit import reads weights")
    return EncoderFileError(f"{path}: expected an encoder file, found {kind}{advice}")


def _checked_json(info: EncoderInfo, path: str | os.PathLike[str]) -> bytes:
    """The JSON to write, which has been read back."""
    text = to_json(info).encode("utf-8")
    from_json(text, source=path)
    return text
