"""``--top K``: the contact sheets that go beside an output, one a region."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.errors import UsageError
from brainkit.images import decode
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.outputs.csv import region_means
from brainkit.predict.outputs.formats import RowWriter, beside_output
from brainkit.predict.outputs.npy import NpyRows
from brainkit.predict.top_images.contact_sheet import draw_contact_sheet, sheet_name
from brainkit.predict.top_images.ranking import MOST, TopImages
from brainkit.utils.text import as_text

_BLOCK = 65_536  # rows of means that are ranked at once


class Sheets:
    """The images that drive each of some regions most, drawn when all predictions have gone by.

    The regions' means wait in a file of their own beside the rows, so that interrupted work goes on.

    Parameters
    ----------
    out : Path
        The output that the sheets go beside: ``fmri.npy`` gives ``fmri-top-FFA.png``.
    regions : mapping of str to array of int
        Positions of each among the columns of the rows.
    k : int
        Images of each end.

    Raises
    ------
    UsageError
        As :class:`brainkit.predict.top_images.ranking.TopImages`.
    """

    def __init__(self, out: Path, regions: Mapping[str, np.ndarray], k: int) -> None:
        TopImages(regions, k)
        self._out, self._regions, self._k = out, regions, k

    def file_names(self) -> list[str]:
        return [beside_output(self._out, sheet_name(name)).name for name in self._regions]

    def beside(self, writer: RowWriter, folder: Path, resume_rows: int) -> RowWriter:
        """A writer that also keeps the means, in `folder`."""
        return _WithMeans(writer, self._regions, NpyRows(_means(folder), len(self._regions), resume_rows))

    def draw(
        self, folder: Path, info: EncoderInfo, positions: Callable[[list[int]], list[int]], entry: Callable[[int], Any]
    ) -> dict[str, Any]:
        """Draw the sheets in `folder`; the rankings for the JSON.

        Parameters
        ----------
        folder : Path
            Where the means are.
        info : EncoderInfo
        positions : callable
            Where the images of some rows (ascending) stand in the list.
        entry : callable
            The :class:`ImageSource` at a position.
        """
        top = TopImages(self._regions, self._k)
        means = np.load(_means(folder), mmap_mode="r")
        for start in range(0, len(means), _BLOCK):
            top.add(means[start : start + _BLOCK])
        rows = sorted(
            {one.row for ranking in top.finish(_nameless).values() for one in ranking.highest + ranking.lowest}
        )
        sources = dict(zip(rows, map(entry, positions(rows)), strict=True))
        rankings = top.finish(lambda row: (as_text(sources[row].name), sources[row]))
        found = {}
        for name, ranking in rankings.items():
            path = draw_contact_sheet(
                folder / beside_output(self._out, sheet_name(name)).name,
                ranking,
                source=str(info.backbone.get("name") or ""),
                units=info.units,
                note=info.note,
                opener=_open,
            )
            found[name] = {"sheet": path.name, **ranking.to_json()}
        return found


def check_sheets(out: Path, rois: Sequence[str] | None, k: int, overwrite: bool) -> None:
    """Refuse what cannot be drawn or written, before any work is done.

    Raises
    ------
    UsageError
        If no region is named, `k` is out of range, or a sheet exists and may not be replaced.
    """
    if not rois:
        raise UsageError("top needs the regions to rank images by: name them with roi")
    if not 1 <= k <= MOST:
        raise UsageError(f"top must be 1 to {MOST} images, got {k}")
    sheets: dict[str, str] = {}
    for name in rois:
        other = sheets.setdefault(sheet_name(name), name)
        if other.strip().lower() != name.strip().lower():
            raise UsageError(f"ROI {other} and {name}: their contact sheets would be one file; draw them one by one")
        path = beside_output(out, sheet_name(name))
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; the contact sheet must be a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; --overwrite replaces it")


def positions_of(rows: Iterable[int], skipped: Iterable[int]) -> list[int]:
    """Where rows stand in the list that they come from, both ascending, the skipped images between them counted."""
    found, bad = [], iter(skipped)
    before, upcoming = 0, next(bad, None)
    for row in rows:
        while upcoming is not None and upcoming <= row + before:
            before, upcoming = before + 1, next(bad, None)
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


def _means(folder: Path) -> Path:
    return folder / "means.npy.rows"


def _nameless(row: int) -> tuple[str, Any]:
    return "", None


def _open(source: ImageSource) -> Any:
    return decode(source.open(), source.name)
