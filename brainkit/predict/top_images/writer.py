"""``--top K``: the contact sheets next to an output, one per region."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import UsageError
from brainkit.images import decode
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.outputs.formats import sibling
from brainkit.predict.outputs.npy import NpyRows
from brainkit.predict.outputs.rows import RowWriter
from brainkit.predict.regions import region_means
from brainkit.predict.top_images.contact_sheet import draw_contact_sheet, sheet_name
from brainkit.predict.top_images.ranking import TopImages, check_count
from brainkit.utils.files import check_new
from brainkit.utils.text import as_text

_SHOWN = 6  # regions that an error lists
_BLOCK = 65_536  # rows of means that are ranked at once


class ContactSheets:
    """The images that drive some regions most, drawn when all images are predicted.

    The regions' means wait in a file next to the rows, so that an interrupted run can be resumed.

    Parameters
    ----------
    out : Path
        The output next to which they go: ``fmri.npy`` gives ``fmri-top-FFA.png``.
    regions : mapping of str to array of int
        Positions of each among the columns of the rows.
    k : int
        Images at each end of the ranking.

    Raises
    ------
    UsageError
        As :class:`brainkit.predict.top_images.ranking.TopImages`.
    """

    def __init__(self, out: Path, regions: Mapping[str, np.ndarray], k: int) -> None:
        TopImages(regions, k)
        self._out, self._regions, self._k = out, regions, k

    @property
    def paths(self) -> list[Path]:
        """Where the sheets go."""
        return [sibling(self._out, sheet_name(name)) for name in self._regions]

    def with_means(self, writer: RowWriter, folder: Path, resume_rows: int) -> RowWriter:
        """A writer that also keeps the means, in `folder`."""
        return _WithMeans(writer, self._regions, NpyRows(_means_path(folder), len(self._regions), resume_rows))

    def draw(
        self,
        folder: Path,
        info: EncoderInfo,
        positions: Callable[[list[int]], list[int]],
        entry: Callable[[int], ImageSource],
        repeated: Iterable[int],
    ) -> dict[str, Any]:
        """Draw the sheets in `folder`; the rankings for the JSON.

        Parameters
        ----------
        folder : Path
            Where the means are.
        info : EncoderInfo
        positions : callable
            Positions in the list of the images of some rows (ascending).
        entry : callable
            The image at a position.
        repeated : iterable of int
            Rows (ascending) of images that have another row too: they are not ranked a second time.
        """
        top = TopImages(self._regions, self._k)
        means = np.load(_means_path(folder), mmap_mode="r")
        again = iter(repeated)
        upcoming = next(again, None)
        for start in range(0, len(means), _BLOCK):
            block = np.array(means[start : start + _BLOCK])
            while upcoming is not None and upcoming < start + len(block):
                block[upcoming - start] = np.nan
                upcoming = next(again, None)
            top.add(block)
        ranked = [one for ranking in top.finish(_nameless).values() for one in ranking.highest + ranking.lowest]
        rows = sorted({one.row for one in ranked})
        sources = dict(zip(rows, map(entry, positions(rows)), strict=True))
        rankings = top.finish(lambda row: (as_text(sources[row].name), sources[row]))
        description = {}
        for (name, ranking), final_path in zip(rankings.items(), self.paths, strict=True):
            path = draw_contact_sheet(
                folder / final_path.name,
                ranking,
                source=str(info.backbone.get("name") or ""),
                units=info.units,
                note=info.note,
                opener=_open,
            )
            description[name] = {"sheet": path.name, **ranking.to_json()}
        return description


def check_sheets(out: Path, rois: Sequence[str] | None, k: int, overwrite: bool, known: Sequence[str] = ()) -> None:
    """Refuse what cannot be drawn or written, before any work is done; `known` are the encoder's regions.

    Raises
    ------
    UsageError
        If no region is named, `k` is out of range, or a sheet exists and may not be replaced.
    """
    if not rois:
        hidden = len(known) - _SHOWN
        shown = ", ".join(known[:_SHOWN]) + f" and {hidden} more" if hidden > 1 else ", ".join(known)
        has = f"this encoder has {shown}" if known else "this encoder file has no regions"
        raise UsageError(f"--top ranks images by a region: name it with --roi NAME; {has}")
    check_count(k)
    sheets: dict[str, str] = {}
    for name in rois:
        other = sheets.setdefault(sheet_name(name), name)
        if other.strip().lower() != name.strip().lower():
            raise UsageError(
                f"ROI {other} and {name}: their contact sheets would have the same file name; draw them one by one"
            )
        path = sibling(out, sheet_name(name))
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; the contact sheet must be a file")
        check_new(path, overwrite)


def positions_of(rows: Iterable[int], skipped: Iterable[int]) -> list[int]:
    """Positions of rows in the list that they come from, where skipped images count too; both are ascending."""
    found, remaining = [], iter(skipped)
    before, upcoming = 0, next(remaining, None)
    for row in rows:
        while upcoming is not None and upcoming <= row + before:
            before, upcoming = before + 1, next(remaining, None)
        found.append(row + before)
    return found


class _WithMeans:
    """A writer, and a file of the regions' means of the same rows."""

    def __init__(self, writer: RowWriter, regions: Mapping[str, np.ndarray], means: NpyRows) -> None:
        self._writer, self._regions, self._means = writer, regions, means

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        self._writer.append(rows, names)
        self._means.append(region_means(rows, self._regions))

    def checkpoint(self) -> int:
        return min(self._writer.checkpoint(), self._means.checkpoint())

    def finish(self, names: Collection[str] = ()) -> None:
        self._writer.finish(names)
        self._means.finish()

    def close(self) -> None:
        self._writer.close()
        self._means.close()


def _means_path(folder: Path) -> Path:
    return folder / "means.npy.rows"


def _nameless(row: int) -> tuple[str, Any]:
    return "", None


def _open(source: ImageSource) -> Any:
    return decode(source.open(), source.name)
