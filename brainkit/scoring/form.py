"""What one output consists of: its files, and the contact sheets beside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.scoring.image_list import ImageList
from brainkit.scoring.image_source import ImageSource
from brainkit.scoring.outputs import RowWriter, check_format, make_writer, suffix_of
from brainkit.scoring.resume import Unfinished
from brainkit.scoring.sheets import Sheets, positions_of


class Form:
    """The files of an output, and how they come about.

    Parameters
    ----------
    out : Path
    info : EncoderInfo
    columns : array of int, optional
        Which of the encoder's vertices the columns are; all by default.
    regions : dict of str to array of int
        Where the regions named lie among the columns.
    hemispheres : bool
    top : int, optional

    Raises
    ------
    UsageError
        If the format does not suit the encoder.
    """

    def __init__(
        self,
        out: Path,
        info: EncoderInfo,
        columns: np.ndarray | None,
        regions: dict[str, np.ndarray],
        hemispheres: bool,
        top: int | None,
    ) -> None:
        self.out, self.info, self.columns, self.regions, self.hemispheres = out, info, columns, regions, hemispheres
        self.parts = check_format(out, info, columns, regions, hemispheres)
        self._sheets = None if top is None else Sheets(out, regions, top)
        named = {name: index.tolist() for name, index in regions.items()}
        by_region = named if suffix_of(out) == ".csv" or top is not None else None
        self.digest = hashlib.sha256(json.dumps([hemispheres, top, by_region]).encode()).hexdigest()

    @property
    def sheet_paths(self) -> tuple[Path, ...]:
        """Where the contact sheets go."""
        names = () if self._sheets is None else self._sheets.file_names()
        return tuple(self.out.with_name(name) for name in names)

    def writer(self, rows_path: Path, resume_rows: int) -> RowWriter:
        """What takes the rows, in the folder of the unfinished output."""
        writer = make_writer(
            rows_path,
            self.out,
            self.info,
            self.columns,
            resume_rows=resume_rows,
            hemispheres=self.hemispheres,
            regions=self.regions,
        )
        return writer if self._sheets is None else self._sheets.beside(writer, rows_path.parent, resume_rows)

    def draw_sheets(self, unfinished: Unfinished, listed: ImageList) -> dict[str, Any]:
        """Draw the contact sheets of finished rows; what the JSON says of them."""
        if self._sheets is None:
            return {}

        def positions(rows: list[int]) -> list[int]:
            return positions_of(rows, (position for position, _ in unfinished.skipped()))

        def entry(position: int) -> ImageSource:
            return listed.entries(position, position + 1)[0]

        return {"top": self._sheets.draw(unfinished.folder, self.info, positions, entry)}

    def moves(self, rows_path: Path) -> list[tuple[Path, Path]]:
        """Where each finished file is, and where it belongs."""
        files = [(part.path(rows_path), part.path(self.out)) for part in self.parts]
        return files + [(rows_path.with_name(path.name), path) for path in self.sheet_paths]
