"""Files whose content is of another kind than their name says."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brainkit.utils.file_kind import file_kind


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def _tar(stream: io.BytesIO) -> None:
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))


def _zip(stream: io.BytesIO) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", b"")


def _image(stream: io.BytesIO, form: str) -> None:
    Image.new("RGB", (2, 2)).save(stream, form)


CASES = {
    ".npy": _written(lambda stream: np.save(stream, np.zeros(3))),
    ".npz": _written(lambda stream: np.savez(stream, a=np.zeros(3))),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "MATLAB": b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(600),
    "MATLAB 7.3": b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600),
    "NIfTI": bytes(344) + b"n+1\0" + bytes(200),
    "GIFTI": b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE GIFTI SYSTEM "gifti.dtd">\n<GIFTI Version="1.0">',
    "gzip": gzip.compress(b"x"),
    "tar": _written(_tar),
    "zip archive": _written(_zip),
    "PNG": _written(lambda stream: _image(stream, "PNG")),
    "JPEG": _written(lambda stream: _image(stream, "JPEG")),
    "pickle": pickle.dumps({1: 2}),
    "UTF-16": "image\n".encode("utf-16"),
    "HTML": b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "text": "größe\n".encode() * 200,
    "empty": b"",
    "zero bytes": bytes(5000),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_kind_is_told_by_the_first_bytes(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "responses.npy"
    file.write_bytes(CASES[kind])
    assert kind in (file_kind(file) or "")


def test_what_is_not_known_has_no_kind(tmp_path: Path) -> None:
    assert file_kind(tmp_path / "missing") is None
    assert file_kind(tmp_path) is None
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(2000))
    assert file_kind(tmp_path / "noise") is None
