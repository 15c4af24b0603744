"""Small images, tar shards and lists of them, for the tests of what can be predicted."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit.predict import Encoder, ImageList, list_images, predict_to_file


def png(seed: int) -> bytes:
    """A small image as a PNG file's bytes; the seed decides its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def picture(seed: int) -> Image.Image:
    """The same, decoded."""
    return Image.open(io.BytesIO(png(seed)))


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(seed))


def tar_bytes(members: list[tuple[str, bytes]], format: int = tarfile.DEFAULT_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def listed(*arguments: Any) -> ImageList:
    """The list that these arguments of the command line name."""
    return list_images(arguments, order="sorted")


def names(*arguments: Any) -> list[str]:
    return list(listed(*arguments).names())


def notes(*arguments: Any) -> dict[str, str]:
    return dict(listed(*arguments).notes())


def predict(encoder: Encoder, *arguments: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows and the JSON of an output in the working folder, of arguments of the command line."""
    out = Path("result.npy")
    predict_to_file(arguments, out, encoder, overwrite=True, order="sorted")
    return np.load(out), json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
