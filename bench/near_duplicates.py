"""Near-duplicates among images: how far apart copies and different pictures are, and how long the search takes.

``python -m bench.near_duplicates``: crops of the sample subject's photographs, as large as NSD's pictures. Copies are
made by compression, resizing and cropping; pairs of different pictures are crops of different photographs.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import machine
from bench.report import load_average, write_report
from brainkit.data.leaks import NEAR
from brainkit.data.photographs import crop_of, load_photographs
from brainkit.data.stimuli import hash_images
from brainkit.images import BITS, closest, perceptual_hash
from brainkit.utils.system import cores

_SIDE = 425  # pixels
_BLOCK = 512
GOAL = 60.0  # seconds

Change = Callable[[Image.Image], Image.Image]


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def _cropped(image: Image.Image, share: float, *, corner: bool = False) -> Image.Image:
    """Without a share of its width and height: around, or at two sides."""
    cut = round(image.width * share)
    start = 0 if corner else cut // 2
    box = (start, start, image.width - cut + start, image.height - cut + start)
    return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)


CHANGES: dict[str, Change] = {
    "JPEG, quality 95": lambda image: _compressed(image, 95),
    "JPEG, quality 75": lambda image: _compressed(image, 75),
    "JPEG, quality 30": lambda image: _compressed(image, 30),
    "half the size": lambda image: image.resize((_SIDE // 2, _SIDE // 2), Image.Resampling.BICUBIC),
    "224 x 224, JPEG, quality 85": lambda image: _compressed(image.resize((224, 224), Image.Resampling.BILINEAR), 85),
    "15 % brighter": lambda image: image.point(lambda value: min(255, int(value * 1.15))),
    "2 % cut off around": lambda image: _cropped(image, 0.02),
    "5 % cut off around": lambda image: _cropped(image, 0.05),
    "5 % cut off at two sides": lambda image: _cropped(image, 0.05, corner=True),
    "10 % cut off around": lambda image: _cropped(image, 0.10),
}


def measure(count: int, copies: int, folder: Path) -> dict[str, Any]:
    """Write `count` crops into the folder, change `copies` of them, and search."""
    rng = np.random.default_rng(0)
    photographs = load_photographs()
    names = list(photographs)
    owners = np.arange(count) % len(names)
    crops = [crop_of(rng, photographs[names[owner]], _SIDE) for owner in owners]
    files = [folder / f"{row:05d}.png" for row in range(count)]
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda pair: pair[0].save(pair[1], compress_level=1), zip(crops, files, strict=True)))
    started = time.perf_counter()
    found = hash_images(files)
    hashing = time.perf_counter() - started
    hashes = np.frombuffer(b"".join(each.looks for each in found), np.uint8).reshape(count, -1)  # type: ignore[union-attr]
    started = time.perf_counter()
    _, bits = closest(hashes, hashes, owners, owners)
    searching = time.perf_counter() - started
    started = time.perf_counter()
    for crop in crops[:copies]:
        perceptual_hash(crop)
    alone = (time.perf_counter() - started) / copies
    changed = {name: _distances(crops[:copies], hashes, change) for name, change in CHANGES.items()}
    pairs = _pairs(hashes, owners)
    for limit in range(NEAR + 1):
        assert pairs[limit] == 0 or bits.min() <= limit
    return {
        "hash_seconds": hashing,
        "search_seconds": searching,
        "perceptual_hash_ms": alone * 1000,
        "copies": {
            name: {
                "median": float(np.median(each)),
                "95 %": float(np.quantile(each, 0.95)),
                "largest": int(each.max()),
                "found": float((each <= NEAR).mean()),
            }
            for name, each in changed.items()
        },
        "different_pairs": int(pairs.sum()),
        "different_pairs_within": {str(limit): int(pairs[: limit + 1].sum()) for limit in (32, 40, NEAR, 56, 64)},
    }


def _distances(crops: list[Image.Image], hashes: np.ndarray, change: Change) -> np.ndarray:
    others = np.frombuffer(b"".join(perceptual_hash(change(crop)) for crop in crops), np.uint8).reshape(len(crops), -1)
    return np.unpackbits(hashes[: len(crops)] ^ others, axis=1).sum(1)


def _pairs(hashes: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """How many pairs of different photographs differ in each number of bits, (BITS + 1,)."""
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    counts = np.zeros(BITS + 1, np.int64)
    for start in range(0, len(signs), _BLOCK):
        apart = ((BITS - signs[start : start + _BLOCK] @ signs.T) / 2).astype(np.int64)
        counts += np.bincount(apart[owners[start : start + _BLOCK, None] < owners[None]], minlength=BITS + 1)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--copies", type=int, default=400, help="images that are changed")
    parser.add_argument("--name", default="near_duplicates")
    options = parser.parse_args()
    facts = machine.describe(threads=cores())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BRAINKIT_CACHE"] = str(Path(folder) / "cache")
        measured = measure(options.images, options.copies, Path(folder))
    sizes = {"images": options.images, "copies": options.copies, "near": NEAR, "goal": GOAL}
    report = {"machine": facts | {"load after": load_average()}, "sizes": sizes, **measured}
    write_report(options.name, report, page(report))


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    sizes, facts = report["sizes"], report["machine"]
    rows = "\n".join(
        f"| {name} | {each['median']:.0f} | {each['95 %']:.0f} | {each['largest']} | {100 * each['found']:.0f} % |"
        for name, each in report["copies"].items()
    )
    within = "\n".join(f"| {limit} | {count} |" for limit, count in report["different_pairs_within"].items())
    return f"""# Near-duplicates

{sizes["images"]:,} crops of 19 photographs, {_SIDE} x {_SIDE} pixels, as PNG. Bits of {BITS - 1} in which perceptual
hashes differ; {sizes["near"]} or fewer are taken for the same picture.

| copy of {sizes["copies"]} crops | median | 95 % | largest | found |
|---|---|---|---|---|
{rows}

Of {report["different_pairs"]:,} pairs of crops of different photographs, so many differ in at most:

| bits | pairs |
|---|---|
{within}

| | seconds | goal |
|---|---|---|
| decode all and compute both hashes, once | {report["hash_seconds"]:.1f} | |
| of it perceptual hashes, on one core | {report["perceptual_hash_ms"] * sizes["images"] / 1000:.1f} | |
| search: the nearest of all others, for each image | {report["search_seconds"]:.1f} | {sizes["goal"]:.0f} |

{facts["processor"]}, {facts["cores"]} cores, NumPy {facts["numpy"]}; load {facts["load before"]} before,
{facts["load after"]} after.
"""


if __name__ == "__main__":
    main()
