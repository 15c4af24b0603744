"""Images: find, decode, resize, crop, normalise. One path for training and prediction.

Resizing differently in the two costs up to a tenth of a prediction's s.d., so nothing else in brainkit turns an image
file into numbers.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from brainkit.errors import DataError, ImageError, UsageError
from brainkit.utils.text import one_line

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Only raster formats: Pillow would pass PostScript to an external program. (MPO files open as JPEG.)
_SUFFIXES_OF = {
    "PNG": ".png .apng",
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "WEBP": ".webp",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "BMP": ".bmp .dib",
    "PPM": ".ppm .pgm .pbm .pnm",
    "AVIF": ".avif",
    "JPEG2000": ".jp2 .j2k",
}
FORMATS = tuple(_SUFFIXES_OF)
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES_OF.values() for suffix in suffixes.split())

# Above the 151 million pixels of the largest cameras, below the limit of Pillow itself.
MAX_PIXELS = 170_000_000

# What `decode` makes of a file: raise it when some files come out with other pixels, because `pixel_hash` is stored.
DECODING = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input.

    Attributes
    ----------
    size : int
        Side of the square input in pixels.
    mean, std : tuple of three floats
        Per channel (red, green, blue), for pixel values in [0, 1].
    interpolation : str
        One of `INTERPOLATIONS`; always with antialiasing, as in Pillow.
    fit : {"whole", "crop"}
        ``whole``: the whole image is resized to size x size, so that locations refer to all that the subject saw.
        ``crop``: timm's evaluation transform, bit for bit: the short side is resized to
        ``floor(size / crop_fraction)``, and the centre is cropped.
    crop_fraction : float
        For ``fit="crop"``: share of the short side that is kept, in (0, 1].

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    fit: str = "whole"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 8192:
            raise UsageError(f"size must be a whole number from 1 to 8192, got {self.size!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_floats(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise UsageError(f"std must be positive, got {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")
        if self.fit not in ("whole", "crop"):
            raise UsageError(f"fit must be 'whole' or 'crop', got {self.fit!r}")
        fraction = self.crop_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
            raise UsageError(f"crop_fraction must lie in (0, 1], got {fraction!r}")
        object.__setattr__(self, "crop_fraction", float(fraction))

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, for `from_json`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Any) -> Preprocessing:
        """Create from the result of `to_json`.

        Raises
        ------
        DataError
            If a key is missing or unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(value) != known:
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"preprocessing: expected the keys {', '.join(sorted(known))}, found {found}")
        try:
            return cls(**value)
        except UsageError as error:
            raise DataError(f"preprocessing: {error}") from None


def _three_floats(name: str, value: Any) -> tuple[float, float, float]:
    try:
        first, second, third = (float(number) for number in value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} must be three numbers, got {value!r}") from None
    if not all(math.isfinite(number) for number in (first, second, third)):
        raise UsageError(f"{name} must be finite, got {value!r}")
    return first, second, third


# The published model's preprocessing, for every backbone.
PUBLISHED = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear", "whole", 1.0)


def find_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Collect image files from files and folders.

    Folders are searched recursively, following links, each folder once. In folders, images are recognised by their
    suffix, and hidden files are skipped. A file given by its path is always included.

    Parameters
    ----------
    paths : path-like or iterable of path-like

    Returns
    -------
    list of Path
        Sorted by path, part by part, upper case before lower case, the same on every system; no path twice.

    Raises
    ------
    UsageError
        If a path does not exist, or nothing is found.
    DataError
        If a folder cannot be listed.
    """
    given = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    if not given:
        raise UsageError("no images given; name image files or folders with images")
    found: dict[str, Path] = {}
    walked: set[str] = set()
    for path in given:
        if path.is_dir():
            for image in _walk(path, walked):
                found.setdefault(_absolute(image), image)
        elif path.is_file():
            found.setdefault(_absolute(path), path)
        elif path.exists():
            raise UsageError(f"{path}: expected an image file or a folder, found neither")
        else:
            raise UsageError(f"{path}: no such file or folder")
    if not found:
        names = ", ".join(str(path) for path in given[:3]) + (" ..." if len(given) > 3 else "")
        raise UsageError(f"{names}: no images found; expected files that end in {' '.join(sorted(SUFFIXES))}")
    return sorted(found.values(), key=lambda path: path.parts)


def decode(path: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Image.Image:
    """Read an image file as 8-bit RGB, upright.

    The orientation in the EXIF data is applied; of an animation, the first frame is used; other modes are converted as
    in `to_rgb`. Images of more than `MAX_PIXELS` pixels are refused before they are decoded.

    Parameters
    ----------
    path : path-like or binary file
        An open file is read from its current position, and must be seekable.
    name : str, optional
        Its name in errors; by default its path.

    Raises
    ------
    ImageError
        If the file cannot be read as an image: one line with its name and the reason.
    """
    with _reading(path, name), _open(path) as image:
        image.load()
        # After load(), because for some formats Pillow rotates the image itself and then removes the tag.
        transpose = _TRANSPOSES.get(_orientation(image))
        rgb = to_rgb(image)
        if transpose is not None:
            return rgb.transpose(transpose)
        return rgb.copy() if rgb is image else rgb  # a copy, because `image` keeps its closed file


def verify(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Check an image file without decoding its pixels: its header, its size, and for PNG the checksum of every chunk.

    Truncated JPEG files pass; only `decode` finds them.

    Returns
    -------
    (width, height) : pixels, before applying the EXIF orientation

    Raises
    ------
    ImageError
        As `decode`.
    """
    with _reading(path), _open(path) as image:
        size = image.size
        image.verify()
        return size


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow image to 8-bit RGB.

    Transparency is composited over white, as on an empty page in a browser. 16-bit grey values are scaled by 255/65535.
    Integer images with other values and floating-point images are refused, because their range is not known. Opaque
    8-bit pixels keep their values exactly.

    Raises
    ------
    ImageError
        If the mode has no defined conversion.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ImageError("expected 8-bit or 16-bit pixels, found floating-point ones, whose range is not known")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # Premultiplied modes can only be converted to their plain ones.
        plain = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode]) if image.mode in ("RGBa", "La") else image
        rgba = plain.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"pixels of mode {image.mode!r} cannot be shown as RGB ({error})") from None


def prepare(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize an image, and crop it if ``fit="crop"``.

    Parameters
    ----------
    image : PIL.Image.Image
        In any mode; converted as in `to_rgb`.
    preprocessing : Preprocessing

    Returns
    -------
    array of shape (size, size, 3), uint8

    Raises
    ------
    ImageError
        If the image is so elongated that the resized image would exceed `MAX_PIXELS`.
    """
    image = to_rgb(image)
    size = preprocessing.size
    resample = INTERPOLATIONS[preprocessing.interpolation]
    if min(image.size) < 1:
        raise ImageError(f"expected at least one pixel, found an image of {image.width} x {image.height}")
    if preprocessing.fit == "whole":
        return np.array(image.resize((size, size), resample))
    width, height = image.size
    side = math.floor(size / preprocessing.crop_fraction)
    long = int(side * max(width, height) / min(width, height))
    if side * long > MAX_PIXELS:
        raise ImageError(f"an image of {width} x {height} is too elongated for fit=crop; use fit=whole")
    resized = image.resize((side, long) if width <= height else (long, side), resample)
    left, top = (round((n - size) / 2.0) for n in resized.size)
    return np.array(resized.crop((left, top, left + size, top + size)))


def normalise(batch: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Scale prepared images to [0, 1], subtract the mean and divide by the standard deviation, in float32.

    Parameters
    ----------
    batch : array of shape (B, S, S, 3), uint8

    Returns
    -------
    array of shape (B, 3, S, S), float32, contiguous
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise UsageError(f"batch must be uint8 of shape (B, S, S, 3), got {batch.dtype} of shape {batch.shape}")
    out = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32)
    out /= np.float32(255)
    out -= np.asarray(preprocessing.mean, np.float32)[:, None, None]
    out /= np.asarray(preprocessing.std, np.float32)[:, None, None]
    return out


def content_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file's bytes, in hexadecimal. A file that has not changed is read once in a process.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        status = os.stat(path)
        changed = status.st_ctime_ns
        # Within the resolution of its file system's clock, a file may change without a trace.
        if abs(time.time_ns() - changed) < _CLOCK_RESOLUTION:
            return _hash_file(path)
        return _hash_unchanged(os.fspath(path), status.st_dev, status.st_ino, status.st_size, changed)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of an image's size and its pixels as 8-bit RGB, in hexadecimal.

    The same for all files that `decode` reads as the same image, whatever their names, formats and metadata.
    """
    rgb = to_rgb(image)
    digest = hashlib.sha256(f"{rgb.width} x {rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


_CLOCK_RESOLUTION = 3_000_000_000  # nanoseconds


@functools.lru_cache(maxsize=100_000)
def _hash_unchanged(path: str, *_status: int) -> str:
    return _hash_file(path)


def _hash_file(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _reading:
    """Convert any error of a decoder to an ImageError of one line that names the file."""

    def __init__(self, path: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> None:
        self.path = path
        self.name = name or (str(path) if isinstance(path, (str, os.PathLike)) else "image")

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # Decoders raise nearly anything for damaged files: OSError, SyntaxError, struct.error, ...
        if error is None or not isinstance(error, Exception):
            return
        reason = _reason(self.path, error)
        missing = error.missing if isinstance(error, ImageError) else isinstance(error, FileNotFoundError)
        raise ImageError(f"{self.name}: {reason}", reason=reason, missing=missing) from error


def _reason(path: str | os.PathLike[str] | BinaryIO, error: Exception) -> str:
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, UnidentifiedImageError):
        if (Path(path).stat().st_size if isinstance(path, (str, os.PathLike)) else path.seek(0, os.SEEK_END)) == 0:
            return "expected an image, found an empty file (0 bytes)"
        return f"expected an image ({', '.join(FORMATS)}), found something else or a damaged file"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"expected at most {MAX_PIXELS:,} pixels, found more"
    text = one_line(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return f"cannot be decoded: {text}"


def _open(path: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    if isinstance(path, (str, os.PathLike)):
        path = Path(path)
        if not path.is_file():
            # A named pipe would wait forever.
            if path.exists():
                raise ImageError("expected an image file, found a folder or a device")
            raise ImageError("file not found", missing=True)
    image = Image.open(path, formats=_readable())
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        image.close()
        raise ImageError(f"expected 1 to {MAX_PIXELS:,} pixels, found {width} x {height}")
    return image


@functools.cache
def _readable() -> tuple[str, ...]:
    # Pillow loads its less common plug-ins on demand, but not for a list of formats; and not every build has all.
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, zlib.error):
        # Damaged EXIF data next to good pixels: viewers show such an image as it is stored.
        return 1


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"expected grey values from 0 to 65535, found {low} to {high}")
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _absolute(path: Path) -> str:
    # Path.resolve would follow links, and a link next to its target is an image of its own.
    return os.path.abspath(path)


def _walk(folder: Path, walked: set[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")

    for here, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(here)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(here, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            # A broken link is kept, so that it is reported as unreadable and not dropped silently.
            if path.is_file() or path.is_symlink():
                yield path
