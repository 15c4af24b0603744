"""The torch containers of an encoder file: zip archives, with the JSON as an entry and the digest as their comment.

The entries are those that torch saved, with ``brainkit.json`` filled in and the debug entries left out, which name
folders of this machine. The archive's comment is its last bytes: ``brainkit_sha256=`` and the SHA-256 (hex) of every
byte before it, so that the file need not be parsed to be checked. Reading needs no torch, and trusts nothing.
"""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from brainkit.encoder_file.container import DIGEST_KEY, MAX_METADATA, ForeignFileError, digest_of
from brainkit.errors import EncoderFileError
from brainkit.utils.text import one_line

MAGIC = b"PK\x03\x04"
ENTRY = "brainkit.json"
_COMMENT = f"{DIGEST_KEY}=".encode()
COMMENT_BYTES = len(_COMMENT) + 64
_MAX_READ = 4 << 20  # bytes read at once; the list of entries must fit: an export's takes some 100 kB
_CHUNK = 1 << 20
_ALIGNMENT = 64  # bytes; torch maps tensors that are aligned so
_PADDING = 0x4246  # the extra field that torch pads with


def pack_archive(saved: BinaryIO, path: Path, text: bytes) -> str:
    """Copy what torch saved, with `text` in the entry ``brainkit.json``, and seal it; returns the digest (hex).

    Parameters
    ----------
    saved : file
        What ``torch.jit.save`` or ``torch.export.save`` wrote, with an extra file ``brainkit.json`` of any content.
    path : Path
        The new file.
    text : bytes
        The JSON.
    """
    with path.open("w+b") as stream:
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(stream, "w") as archive:
            for entry in source.infolist():
                if entry.filename.endswith(".debug_pkl"):
                    continue
                fresh = zipfile.ZipInfo(entry.filename)
                header_bytes = 30 + len(entry.filename.encode()) + 4  # fixed, the name, the padding's own header
                padding = -(stream.tell() + header_bytes) % _ALIGNMENT
                fresh.extra = struct.pack("<HH", _PADDING, padding) + bytes(padding)
                fresh.file_size = entry.file_size
                with archive.open(fresh, "w") as copy:
                    if _is_ours(entry):
                        copy.write(text)
                    else:
                        with source.open(entry) as original:
                            shutil.copyfileobj(original, copy, _CHUNK)
            archive.comment = bytes(COMMENT_BYTES)
        stream.flush()
        digest = digest_of(stream, stream.seek(0, 2) - COMMENT_BYTES)
        stream.seek(-COMMENT_BYTES, 2)
        stream.write(_COMMENT + digest.encode())
    return digest


def read_archive(stream: BinaryIO, source: Path) -> tuple[bytes, str, str]:
    """The JSON, the digest (hex), which is checked, and the container: ``"torchscript"`` or ``"pt2"``.

    Raises
    ------
    EncoderFileError
        If the archive is not an encoder file, truncated or damaged.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - COMMENT_BYTES))
    tail = stream.read(COMMENT_BYTES)
    if not tail.startswith(_COMMENT):
        raise ForeignFileError(
            f"{source}: a zip archive, as torch writes, but not a brainkit encoder, or truncated (no digest at its end)"
        )
    digest = digest_of(stream, size - COMMENT_BYTES)
    if tail[len(_COMMENT) :] != digest.encode():
        raise EncoderFileError(f"{source}: damaged or changed: its content does not match its digest")
    try:
        with zipfile.ZipFile(_Bounded(stream)) as archive:  # type: ignore[arg-type]
            return _content(archive), digest, _kind(archive)
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, LookupError, EOFError) as error:
        raise EncoderFileError(f"{source}: not an encoder file, or damaged ({one_line(error)})") from None


class _Bounded:
    """A file that refuses to read as much at once as a hostile archive asks for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_READ:
            raise ValueError(f"a part of {size} bytes; at most {_MAX_READ} are read")
        return self._stream.read(size if size >= 0 else _MAX_READ)


def _content(archive: zipfile.ZipFile) -> bytes:
    ours = [entry for entry in archive.infolist() if _is_ours(entry)]
    if len(ours) != 1:
        raise ValueError(f"expected one entry {ENTRY}, found {len(ours)}")
    size = ours[0].file_size
    if size > MAX_METADATA:
        raise ValueError(f"{ENTRY} takes {size} bytes; at most {MAX_METADATA} are read")
    if ours[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{ENTRY} must be stored or deflated, found compression method {ours[0].compress_type}")
    parts, left = [], size + 1
    with archive.open(ours[0]) as stream:
        while left and (part := stream.read(min(left, _CHUNK))):
            parts.append(part)
            left -= len(part)
    if left != 1:
        raise ValueError(f"{ENTRY} is not as long as the archive says")
    return b"".join(parts)


def _kind(archive: zipfile.ZipFile) -> str:
    names = {name.rpartition("/")[2] for name in archive.namelist()}
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "pt2"
    if "constants.pkl" in names:
        return "torchscript"
    raise ValueError("neither TorchScript nor a program saved by torch.export")


def _is_ours(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.rpartition("/")[2] == ENTRY
