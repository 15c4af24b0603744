"""``--top K``: the contact sheets that go beside an output, one a region."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit.encoder_file import EncoderInfo
from brainkit.errors import UsageError
from brainkit.images import decode
from brainkit.scoring.contact_sheet import draw_contact_sheet, sheet_name
from brainkit.scoring.outputs import beside_output
from brainkit.scoring.ranking import MOST, TopImages


class Sheets:
    """The images that drive each of some regions most, drawn when all predictions have gone by.

    Parameters
    ----------
    out : Path
        The output that the sheets go beside: ``fmri.npy`` gives ``fmri-top-FFA.png``.
    rois : sequence of str or None
        Regions as the user named them.
    k : int
        Images of each end.
    overwrite : bool

    Raises
    ------
    UsageError
        If no region is named, `k` is out of range, or a sheet exists and may not be replaced.
    """

    def __init__(self, out: Path, rois: Sequence[str] | None, k: int, overwrite: bool) -> None:
        if not rois:
            raise UsageError("top needs the regions to rank images by: name them with roi")
        if not 1 <= k <= MOST:
            raise UsageError(f"top must be 1 to {MOST} images, got {k}")
        self._k = k
        self._places = {name: beside_output(out, sheet_name(name)) for name in rois}
        for path in self._places.values():
            if path.is_dir():
                raise UsageError(f"{path}: is a folder; the contact sheet must be a file")
            if path.exists() and not overwrite:
                raise UsageError(f"{path}: exists already; --overwrite replaces it")

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self._places.values())

    def begin(self, regions: Mapping[str, np.ndarray]) -> None:
        """Say where each region lies among the columns that will come."""
        self._top = TopImages(regions, self._k)

    def add(self, names: Sequence[str], fmri: np.ndarray, images: Sequence[Any] | None = None) -> None:
        """As :meth:`brainkit.scoring.ranking.TopImages.add`."""
        self._top.add(names, fmri, images)

    def finish(self, info: EncoderInfo, opener: Callable[[Any], Image.Image] = decode) -> dict[str, Any]:
        """Draw the sheets; the rankings for the JSON."""
        found = {}
        for name, ranking in self._top.finish().items():
            path = draw_contact_sheet(
                self._places[name],
                ranking,
                source=str(info.backbone.get("name") or ""),
                units=info.units,
                note=info.note,
                opener=opener,
            )
            found[name] = {"sheet": path.name, **ranking.to_json()}
        return found
