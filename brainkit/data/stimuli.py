"""Who a stimulus is: images with the same pixels, or of one group according to the data, are one stimulus."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL

from brainkit.errors import BrainkitError, DataError, ImageError
from brainkit.images import DECODING, content_hash, decode, perceptual_hash, pixel_hash
from brainkit.utils.files import atomic_write, cache_folder
from brainkit.utils.progress import progress_bar
from brainkit.utils.system import cores

# Images between two files of the cache: what an interruption can lose.
_CHUNK = 4096
_SUFFIX = ".hashes"
_BYTES = 32  # of a SHA-256, and of a perceptual hash
_FORM = 2  # of the files of the cache


class ImageHashes(NamedTuple):
    """Hashes of an image's pixels: `brainkit.images.pixel_hash`, and `brainkit.images.perceptual_hash`."""

    pixels: str
    looks: bytes


def join_stimuli(
    names: Sequence[Sequence[str]], groups: Sequence[Sequence[str | None]], pixels: Sequence[Sequence[str]]
) -> list[tuple[str, ...]]:
    """The stimulus of each image, as the name from which its side of a split follows.

    Images are one stimulus if they have the same pixels, or the data name the same group for them, or a chain of such
    images connects them. The stimulus has the name of its group; without one, the name of its image; of several names,
    the first in alphabetical order. An image's name alone makes no stimulus: ``001.png`` of one subject is often not
    ``001.png`` of another.

    Parameters
    ----------
    names : sequence of sequences of str
        For each subject, the images' names.
    groups : sequence of sequences of str or None
        For each subject, the images' groups according to the data; None where they name none.
    pixels : sequence of sequences of str
        For each subject, a hash of each image's pixels.

    Returns
    -------
    list of tuple of str
        For each subject, the stimulus of each image.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes: dict[tuple[str, str], int] = {}
    edges, labels = [], []
    for own_names, own_groups, own_pixels in zip(names, groups, pixels, strict=True):
        for name, group, hashed in zip(own_names, own_groups, own_pixels, strict=True):
            image = nodes.setdefault(("pixels", hashed), len(nodes))
            edges.append((image, image if group is None else nodes.setdefault(("group", group), len(nodes))))
            labels.append((group is None, name if group is None else group))
    graph = coo_matrix((np.ones(len(edges)), np.transpose(edges)), shape=(len(nodes), len(nodes)))
    of_node = connected_components(graph, directed=False)[1].tolist()
    components = [of_node[image] for image, _ in edges]
    first: dict[int, tuple[bool, str]] = {}
    for component, label in zip(components, labels, strict=True):
        first[component] = min(label, first.get(component, label))
    stimuli = (first[component][1] for component in components)
    return [tuple(itertools.islice(stimuli, len(own))) for own in names]


def short_hashes(pixels: Iterable[str]) -> npt.NDArray[np.int64]:
    """The first 8 bytes of hashes of pixels, as little-endian integers: enough to tell whether images are the same.

    Parameters
    ----------
    pixels : iterable of str
        See :func:`brainkit.images.pixel_hash`.

    Returns
    -------
    array of shape (n,), int64
    """
    return np.frombuffer(b"".join(bytes.fromhex(each[:16]) for each in pixels), "<i8").astype(np.int64)


def hash_pixels(images: Sequence[Path]) -> list[str | ImageError]:
    """The hash of the pixels of each image, in order, or why it cannot be read; see `hash_images`."""
    return [found if isinstance(found, ImageError) else found.pixels for found in hash_images(images)]


def hash_images(images: Sequence[Path]) -> list[ImageHashes | ImageError]:
    """Hash the pixels of images and what they look like, or say why an image cannot be read.

    An image is decoded once: its hashes are kept in the cache folder, by the hash of its file's bytes. While images are
    decoded, a terminal shows progress.

    Parameters
    ----------
    images : sequence of Path

    Returns
    -------
    list of ImageHashes or ImageError
        For each image, in order.
    """
    folder = cache_folder() / "pixels" / f"{DECODING}-pillow-{PIL.__version__}-{_FORM}"
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(cores())
        stack.callback(pool.shutdown, cancel_futures=True)  # Ctrl-C does not wait for the rest
        contents = list(pool.map(_content_hash, images))
        known = _read_cache(folder, set(contents))
        found: dict[int, ImageHashes | ImageError] = {
            row: known[content] for row, content in enumerate(contents) if content in known
        }
        unknown = [row for row in range(len(images)) if row not in found]
        if unknown:
            with progress_bar("comparing images", "images") as advance:
                for start in range(0, len(unknown), _CHUNK):
                    rows = unknown[start : start + _CHUNK]
                    results = pool.map(_hash, [images[row] for row in rows])
                    for done, (row, result) in enumerate(zip(rows, results, strict=True), start + 1):
                        found[row] = result
                        advance(done, len(unknown))
                    _extend_cache(folder, ((contents[row], found[row]) for row in rows))
    return [found[row] for row in range(len(images))]


def _content_hash(image: Path) -> str:
    try:
        return content_hash(image)
    except DataError:
        return ""  # decoding it says why


def _hash(image: Path) -> ImageHashes | ImageError:
    try:
        decoded = decode(image)
        return ImageHashes(pixel_hash(decoded), perceptual_hash(decoded))
    except ImageError as error:
        return error


def _read_cache(folder: Path, contents: set[str]) -> dict[str, ImageHashes]:
    """Hashes of images by those of the files' bytes, for the contents that are in the cache."""
    known = {}
    for file in sorted(folder.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError):
            records = file.read_bytes()
            if hashlib.sha256(records).hexdigest() != file.stem:
                continue  # damaged
            for start in range(0, len(records), 3 * _BYTES):
                content, pixels, looks = (records[at : at + _BYTES] for at in range(start, start + 3 * _BYTES, _BYTES))
                if content.hex() in contents:
                    known[content.hex()] = ImageHashes(pixels.hex(), looks)
    return known


def _extend_cache(folder: Path, found: Iterable[tuple[str, ImageHashes | ImageError]]) -> None:
    """Write what was found as a file of its own, named by its content: processes do not disturb each other."""
    kept = sorted({(content, hashes) for content, hashes in found if content and isinstance(hashes, ImageHashes)})
    records = b"".join(bytes.fromhex(content + pixels) + looks for content, (pixels, looks) in kept)
    if records:
        with contextlib.suppress(OSError, BrainkitError):  # without the cache, images are decoded again
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / f"{hashlib.sha256(records).hexdigest()}{_SUFFIX}") as temporary:
                temporary.write_bytes(records)


def hash_position(seed: int, group: str) -> float:
    """A stimulus's position in [0, 1): uniform over stimuli, and always the same."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode()).digest()
    # 53 bits, so that the quotient is exact and below 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
