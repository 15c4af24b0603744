"""Image files: finding them, and reading them as 8-bit RGB, upright."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from brainkit.errors import DataError, ImageError, UsageError
from brainkit.images import orientation, tiff
from brainkit.images.colour import to_rgb
from brainkit.images.containers import Content, pixels_only
from brainkit.utils.file_kind import file_kind
from brainkit.utils.text import one_line

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
DECODING = 2

# No image of that many bytes can be decoded within the memory that MAX_PIXELS allows; a header that says so lies.
MAX_BYTES = 2_000_000_000


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


def decode(image: str | os.PathLike[str] | BinaryIO | Image.Image, name: str | None = None) -> Image.Image:
    """Read an image as 8-bit RGB, upright.

    The orientation in the EXIF data is applied; of an animation, the first frame is used; other modes are converted as
    in `to_rgb`. Metadata beyond that play no part, damaged or not. Images of more than `MAX_PIXELS` pixels are refused
    before they are decoded.

    Parameters
    ----------
    image : path-like, binary file or PIL.Image.Image
        An open file must be seekable, and is read from its beginning. Of a Pillow image, see `detach`.
    name : str, optional
        Its name in errors; by default its path.

    Raises
    ------
    ImageError
        If it cannot be read as an image: one line with its name and the reason.
    """
    if isinstance(image, Image.Image):
        detached = detach(image, name)
        return detached if isinstance(detached, Image.Image) else decode(detached, name)
    with _reading(image, name), _opened(image) as (opened, content):
        opened.load()
        upright = _upright(opened, content.orientation)
        if upright is opened:
            # Its pixels without its file. A copy would take as long as decoding a JPEG file.
            upright = opened._new(opened.im)
        upright.info = {}  # what it said has been done
        return upright


def verify(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Check an image file without decoding its pixels: its header, its size, and for PNG the checksums.

    Truncated JPEG files pass; only `decode` finds them. A PNG file with a wrong checksum or without an end is decoded.

    Returns
    -------
    (width, height) : pixels, before applying the EXIF orientation

    Raises
    ------
    ImageError
        As `decode`.
    """
    with _reading(path), _opened(path, header_only=True) as (image, content):
        if content.intact:
            return image.size
    return decode(path).size


def detach(image: Image.Image, name: str | None = None) -> BinaryIO | Image.Image:
    """What a Pillow image shows now, for another thread to read: nothing that happens to `image` later changes it.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened but not loaded, it stays so, and is read like its file. Otherwise it is taken as it is: the frame that
        was sought, with the changes that were made. EXIF data that it carries turn it, as they turn a file.
    name : str, optional
        Its name in errors.

    Returns
    -------
    BinaryIO or PIL.Image.Image
        Its file's bytes, for `decode`; or a copy, 8-bit RGB and upright.

    Raises
    ------
    ImageError
        If it was closed before it was loaded, or cannot be loaded.
    """
    with _reading(image, name), _PILLOW:
        if isinstance(image, ImageFile.ImageFile) and image.tile:  # not loaded
            file = image.fp
            if file is None or getattr(file, "closed", False):
                raise ImageError("closed before it was read; keep it open, or load() it before it is closed")
            if _is_as_opened(image):
                at = file.tell()
                file.seek(0)
                data = file.read()
                file.seek(at)
                return io.BytesIO(data)
        image.load()
        upright = _upright(image, orientation.of_pillow(image.info))
        if upright is image:
            upright = image.copy()
        upright.info = {}
        return upright


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


# Opened images may share a file, and one that two threads load at once is mixed up.
_PILLOW = threading.Lock()


def _is_as_opened(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded is its file's first frame, in full: neither sought nor reduced."""
    reduced = getattr(image, "decoderconfig", ()) or image.__dict__.get("_reduce")
    return image.format in (*FORMATS, "MPO") and image.tell() == 0 and not reduced


def _upright(image: Image.Image, turned: int | None) -> Image.Image:
    """An image as 8-bit RGB, upright; `turned`: its orientation, if it is not Pillow that tells it."""
    return orientation.turn(to_rgb(image), orientation.of_pillow(image.info) if turned is None else turned)


@contextlib.contextmanager
def _reading(image: str | os.PathLike[str] | BinaryIO | Image.Image, name: str | None = None) -> Iterator[None]:
    """Convert any error of a decoder to an ImageError of one line that names the image."""
    try:
        yield
    except Exception as error:  # decoders raise nearly anything for damaged files: OSError, SyntaxError, struct.error
        name = name or (str(image) if isinstance(image, (str, os.PathLike)) else "image")
        missing = error.missing if isinstance(error, ImageError) else isinstance(error, FileNotFoundError)
        raise ImageError(f"{name}: {_reason(error)}", reason=_reason(error), missing=missing) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, FileNotFoundError):
        return "file not found"
    return f"cannot be decoded: {error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)}"


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike[str] | BinaryIO, header_only: bool = False
) -> Iterator[tuple[ImageFile.ImageFile, Content]]:
    """An image, not loaded, and what Pillow was given of its file."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            # A named pipe would wait forever.
            if path.exists():
                raise ImageError("expected an image file, found a folder or a device")
            raise ImageError("file not found", missing=True)
        with path.open("rb") as file, _opened(file, header_only) as opened:
            yield opened
        return
    form = _format(source)
    content = pixels_only(source, form, header_only=header_only)
    content.file.seek(0)
    try:
        # Not Image.open, which would warn of large images: their limit is here.
        image = Image.OPEN[form][0](content.file, "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as in Image.open
        details = "; ".join(filter(None, (content.kind, one_line(error))))
        raise ImageError(
            f"damaged, or a kind of {form} that cannot be read ({details}); "
            "if other programs show it, save it as an 8-bit PNG"
        ) from error
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ImageError(f"expected 1 to {MAX_PIXELS:,} pixels, found {width} x {height}")
    if form == "TIFF":
        image.im = Image.new(image.mode, image.size).im  # otherwise Pillow would, and warn of large ones
    if content.white_is_zero:
        vars(image)["tag_v2"][tiff.PHOTOMETRIC] = 0
    yield image, content


def _format(file: BinaryIO) -> str:
    """The format of a file, told by its first bytes."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise ImageError("expected an image, found an empty file (0 bytes)")
    if size > MAX_BYTES:
        raise ImageError(f"expected at most {MAX_BYTES:,} bytes, found {size:,}")
    file.seek(0)
    start = file.read(16)
    for form in _readable():
        accept = Image.OPEN[form][1]
        if accept is not None and accept(start) is True:  # a text, if this build of Pillow lacks what it takes
            return form
    found = file_kind(file) or "something else or a damaged file"
    raise ImageError(f"expected an image ({', '.join(FORMATS)}), found {found}")


@functools.cache
def _readable() -> tuple[str, ...]:
    # Pillow loads its less common plug-ins on demand, but not for a list of formats; and not every build has all.
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


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
