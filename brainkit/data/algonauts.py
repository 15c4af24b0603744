"""Subject folders of the Algonauts 2023 challenge."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainkit.cortex.vertices import Vertices
from brainkit.data.dataset import NSD, OWN, Dataset, read_dataset
from brainkit.data.noise_ceiling import read_noise_ceiling
from brainkit.data.responses import Responses, open_array
from brainkit.data.roi_mapping import read_mapping
from brainkit.data.subject import Subject, assemble, read_groups, read_note
from brainkit.errors import DataError
from brainkit.images import SUFFIXES
from brainkit.metrics.ceilings import NoiseCeiling

HEMISPHERES = ("lh", "rh")

# The challenge's own order; other classes follow by name.
_CLASSES = ("prf-visualrois", "floc-bodies", "floc-faces", "floc-places", "floc-words", "streams")
_IMAGE_NAME = re.compile(r"(train|test)-(\d+)(?:_(.+))?")

Masks = dict[str, npt.NDArray[np.bool_]]


def Algonauts(root: str | os.PathLike[str]) -> Subject:
    """Read a subject folder in the layout of Algonauts 2023.

    The length of the masks determines the space: 10,242 / 40,962 / 163,842 for fsaverage5 / fsaverage6 / fsaverage.
    Row i of the responses belongs to the image with the i-th number; numbers start at 0 or 1, without gaps, and may be
    unpadded. Test images are used only with their responses (``test_fmri``); their rows follow the training rows, with
    ``official_test`` True. The responses are those of the Natural Scenes Dataset if the images' names have its ids,
    unless ``dataset.json`` states another licence.

    Parameters
    ----------
    root : path-like
        For example ``algonauts_2023/subj01``, with the folders ``training_split`` and ``roi_masks``.

    Returns
    -------
    Subject

    Raises
    ------
    DataError
        If a file is missing or wrong: the message names the file, what was expected and what was found.

    References
    ----------
    Gifford et al. (2023), The Algonauts Project 2023 Challenge: how the human brain makes sense of natural scenes.
    """
    folder = Path(root)
    _need_folder(folder, "a subject folder of the Algonauts 2023 layout")
    dataset = read_dataset(folder)
    vertices, masks = _read_masks(folder / "roi_masks")
    images = _list_images(folder / "training_split" / "training_images", "train", dataset)
    files = [_hemisphere_files(folder / "training_split" / "training_fmri", "training_fmri")]
    counts = [len(images)]
    test_images: list[Path] = []
    test_fmri = folder / "test_split" / "test_fmri"
    if any((test_fmri / f"{side}_test_fmri.npy").exists() for side in HEMISPHERES):
        test_images = _list_images(folder / "test_split" / "test_images", "test", dataset)
        files.append(_hemisphere_files(test_fmri, "test_fmri"))
        counts.append(len(test_images))
    responses = _open_responses(files, counts, vertices)
    all_images = [*images, *test_images]
    names = {path.name for path in all_images} | _file_names(folder / "test_split" / "test_images")
    groups = read_groups(folder / "stimuli.json", names)
    return assemble(
        name=folder.resolve().name,
        root=folder,
        images=all_images,
        responses=responses,
        names=[path.stem for path in all_images],
        groups=[groups.get(path.name) or _group_of(path) for path in all_images],
        official_test=np.arange(len(all_images)) >= len(images),
        vertices=vertices,
        rois=_read_rois(folder / "roi_masks", masks),
        noise_ceiling=_read_ceiling(folder, vertices),
        note=read_note(folder),
        dataset=dataset,
        kind=NSD if any(map(_has_nsd_id, all_images)) and not dataset.licence else OWN,
    )


def _need_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected {what}, found {found}")


def _read_masks(folder: Path) -> tuple[Vertices, Masks]:
    _need_folder(folder, "a folder with lh.all-vertices_fsaverage_space.npy and rh.all-vertices_fsaverage_space.npy")
    masks = {}
    for side in HEMISPHERES:
        path = folder / f"{side}.all-vertices_fsaverage_space.npy"
        raw = open_array(path, "a mask of zeros and ones over a hemisphere")
        if raw.ndim != 1 or raw.dtype.kind not in "fiub" or not np.isin(raw, (0, 1)).all():
            raise DataError(f"{path}: expected a row of zeros and ones, found {raw.dtype} of shape {raw.shape}")
        masks[side] = np.asarray(raw) == 1
    try:
        vertices = Vertices.from_masks(masks["lh"], masks["rh"])
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    if not len(vertices):
        raise DataError(f"{folder}: expected masks with some ones, found only zeros")
    return vertices, masks


def _list_images(folder: Path, kind: str, dataset: Dataset) -> list[Path]:
    """Images in the order of their numbers, which must start at 0 or 1 and have no gaps."""
    example = f"{kind}-0001_nsd-00013.png"
    _need_folder(folder, f"a folder with images such as {example}")
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        match = _IMAGE_NAME.fullmatch(path.stem)
        if match is None or match[1] != kind:
            raise DataError(f"{path}: expected an image named like {example}, found {path.name}")
        number = int(match[2])
        if number in numbered:
            raise DataError(f"{path}: expected one image with number {number}, found also {numbered[number].name}")
        numbered[number] = path
    if not numbered:
        raise DataError(f"{folder}: expected images such as {example}, found none")
    first = 0 if 0 in numbered else 1
    missing = next((number for number in range(first, first + len(numbered)) if number not in numbered), None)
    if missing is not None:
        raise DataError(
            f"{folder}: expected images numbered from {first} to {max(numbered)}, without gaps, "
            f"found no {kind}-{missing:04d} ({len(numbered)} images)"
        )
    # In the other order only if the user has stated it: in this layout, an image's number is its row.
    return sorted(numbered.values()) if dataset.image_order == "text" else [numbered[k] for k in sorted(numbered)]


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _group_of(path: Path) -> str | None:
    """The id after an image's number."""
    match = _IMAGE_NAME.fullmatch(path.stem)
    return match[3] if match else None


def _has_nsd_id(image: Path) -> bool:
    return re.fullmatch(r"nsd-?\d+", _group_of(image) or "") is not None


def _hemisphere_files(folder: Path, name: str) -> list[Path]:
    files = [folder / f"{side}_{name}.npy" for side in HEMISPHERES]
    _need_folder(folder, f"a folder with {files[0].name} and {files[1].name}")
    for file, other in zip(files, reversed(files), strict=True):
        if not file.is_file():
            found = f"only {other.name}" if other.is_file() else "neither hemisphere"
            raise DataError(f"{file}: file not found; expected {files[0].name} and {files[1].name}, found {found}")
    return files


def _open_responses(files: list[list[Path]], counts: list[int], vertices: Vertices) -> Responses:
    for block, images in zip(files, counts, strict=True):
        for side, file, columns in zip(HEMISPHERES, block, (len(vertices.left), len(vertices.right)), strict=True):
            array = open_array(file, "responses (images, vertices)")
            if array.ndim == 2 and array.shape[1] != columns:
                raise DataError(
                    f"{file}: expected {columns} columns, as many as there are ones in "
                    f"{side}.all-vertices_fsaverage_space.npy, found {array.shape[1]}"
                )
            if array.ndim == 2 and array.shape[0] != images:
                folder = file.parent.name.replace("_fmri", "_images")
                raise DataError(
                    f"{file}: expected {images} rows, one for each image in {folder}, found {array.shape[0]}"
                )
    return Responses(files)


def _read_ceiling(folder: Path, vertices: Vertices) -> NoiseCeiling | None:
    for parent in (folder / "test_split" / "noise_ceiling", folder / "noise_ceiling"):
        if any((parent / f"{side}_noise_ceiling.npy").exists() for side in HEMISPHERES):
            files = _hemisphere_files(parent, "noise_ceiling")
            return read_noise_ceiling([(files[0], len(vertices.left)), (files[1], len(vertices.right))])
    return None


def _read_rois(folder: Path, masks: Masks) -> dict[str, npt.NDArray[np.int64]]:
    """ROIs of all classes: name -> positions among all challenge vertices, left then right. Empty ones are kept."""
    found = {
        match[1]
        for path in folder.iterdir()
        if (match := re.fullmatch(r"[lr]h\.(.+)_(?:challenge|fsaverage)_space\.npy", path.name))
    } - {"all-vertices"}
    order = [*(name for name in _CLASSES if name in found), *sorted(found.difference(_CLASSES))]
    rois: dict[str, npt.NDArray[np.int64]] = {}
    for roi_class in order:
        mapping_file = folder / f"mapping_{roi_class}.npy"
        mapping = read_mapping(mapping_file)
        labels = np.concatenate([_read_labels(folder, side, roi_class, masks[side]) for side in HEMISPHERES])
        unknown = sorted(set(np.unique(labels).tolist()) - set(mapping) - {0})
        if unknown:
            raise DataError(
                f"{mapping_file}: expected a name for every label of {roi_class}, found none for {unknown[0]}"
            )
        earlier_names = {name.lower() for name in rois}
        for label, name in sorted(mapping.items()):
            if label != 0:
                # A name that an earlier class has too gets its class as a prefix.
                unique = f"{roi_class}.{name}" if name.lower() in earlier_names else name
                rois[unique] = np.flatnonzero(labels == label)
    return rois


def _read_labels(folder: Path, side: str, roi_class: str, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Labels of a hemisphere's challenge vertices, from the challenge file, else from the fsaverage file."""
    challenge = folder / f"{side}.{roi_class}_challenge_space.npy"
    whole = folder / f"{side}.{roi_class}_fsaverage_space.npy"
    if challenge.exists() or not whole.exists():
        path, count, is_whole = challenge, int(mask.sum()), False
    else:
        path, count, is_whole = whole, len(mask), True
    raw = open_array(path, f"labels of {roi_class} for {count} vertices")
    if raw.shape != (count,):
        raise DataError(f"{path}: expected labels of {count} vertices, found shape {raw.shape}")
    labels = _to_integers(path, np.asarray(raw))
    return labels[mask] if is_whole else labels


def _to_integers(path: Path, raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if raw.dtype.kind not in "fiub" or (raw.dtype.kind == "f" and not (raw == np.round(raw)).all()):
        raise DataError(f"{path}: expected whole numbers as labels, found {raw.dtype}")
    return raw.astype(np.int64)
