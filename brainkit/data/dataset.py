"""``dataset.json``: what users state about their data, and the order of the images that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainkit.errors import DataError, UsageError
from brainkit.utils.fields import build
from brainkit.utils.files import read_json
from brainkit.utils.numeric_order import numeric_order

FILE = "dataset.json"

# What the responses are: of the Natural Scenes Dataset, simulated, or anything else.
NSD, SIMULATED, OWN = "nsd", "simulated", "own"

NSD_PAPER = (
    "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, "
    "Nature Neuroscience 25, 116-126, doi:10.1038/s41593-021-00962-x"
)
ALGONAUTS_PAPER = (
    "Gifford et al. (2023), The Algonauts Project 2023 Challenge: How the Human Brain Makes Sense of Natural Scenes, "
    "arXiv:2301.03198"
)


@dataclass(frozen=True)
class Dataset:
    """The content of ``dataset.json``; what is not stated is empty.

    Attributes
    ----------
    name : str
        Of the data set.
    licence : str
        Of the responses, as their authors name it.
    citation : tuple of str
        What to cite, one reference each.
    image_order : str
        Order of the rows: ``text`` or ``numeric`` order of the images' names; "" if not stated.
    """

    name: str = ""
    licence: str = ""
    citation: tuple[str, ...] = ()
    image_order: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "licence"):
            object.__setattr__(self, field, " ".join(getattr(self, field).split()))
        object.__setattr__(self, "citation", tuple(" ".join(one.split()) for one in self.citation if one.strip()))

    def to_json(self) -> dict[str, Any]:
        """Name, licence and citation."""
        return {"name": self.name, "licence": self.licence, "citation": list(self.citation)}


def read_dataset(folder: Path) -> Dataset:
    """Read ``dataset.json``; empty if there is no such file.

    Raises
    ------
    DataError
        If it has other keys or values; names the nearest key.
    """
    path = folder / FILE
    if not path.exists():
        return Dataset()
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f'{path}: expected an object such as {{"name": ..., "licence": ...}}, found something else')
    try:
        dataset: Dataset = build(Dataset, value, str(path))
    except UsageError as error:  # the request is right, the file is not
        raise DataError(str(error)) from None
    if dataset.image_order not in ("", "text", "numeric"):
        raise DataError(f"{path}: expected the image_order text or numeric, found {dataset.image_order!r:.40}")
    return dataset


def in_row_order(names: Sequence[Path], folder: Path, dataset: Dataset) -> list[Path]:
    """The images of a folder in the order of the rows of the responses.

    Parameters
    ----------
    names : sequence of Path
        Their paths in the folder, in text order, part by part.
    folder : Path
    dataset : Dataset

    Raises
    ------
    DataError
        If the order is not stated, and the names have different orders: the rows may be in any of them.
    """
    if dataset.image_order == "numeric":
        return sorted(names, key=numeric_order)
    if not dataset.image_order:
        _check_order(names, folder)
    return list(names)


def _check_order(names: Sequence[Path], folder: Path) -> None:
    """Raise DataError if another order that the user's programs may have used differs from the text order."""
    others: tuple[tuple[str, Callable[[Path], Any], str], ...] = (
        ("numeric order", numeric_order, "pad the numbers with zeros (0001.png) and use one case"),
        ("text order of the whole paths", Path.as_posix, "rename the folders"),
    )
    for order, key, remedy in others:
        for row, (name, other) in enumerate(zip(names, sorted(names, key=key), strict=True)):
            if name != other:
                raise DataError(
                    f"{folder}: expected names whose order is clear, found that row {row} of the responses is "
                    f"{name.as_posix()} in text order and {other.as_posix()} in {order}; {remedy}, or state the order "
                    f'of the rows in {FILE}: {{"image_order": "numeric"}} or {{"image_order": "text"}}'
                )
