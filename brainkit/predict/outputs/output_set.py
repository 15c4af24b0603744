"""What one output consists of: its files, and the contact sheets beside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file import EncoderInfo
from brainkit.errors import UsageError
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.outputs.formats import PairRows, RowWriter, check_format, make_writer, spread_path, suffix_of
from brainkit.predict.resume import Unfinished
from brainkit.predict.top_images.writer import Sheets, positions_of


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
    spread : bool
        Also write, of an ensemble, the s.d. over its members: files of the same kind, ``-sd`` in their names. The
        writer then takes rows (b, 2, columns).

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
        spread: bool = False,
    ) -> None:
        self.out, self.info, self.columns, self.regions, self.hemispheres = out, info, columns, regions, hemispheres
        self.parts = check_format(out, info, columns, regions, hemispheres)
        self.spread = spread_path(out) if spread else None
        if spread and info.ensemble is None:
            raise UsageError(f"{out}: a spread needs an ensemble, and this encoder is a single model")
        if spread and suffix_of(out) == ".csv":
            raise UsageError(f"{out}: the spread is of each vertex; .csv has means by region")
        self._sheets = None if top is None else Sheets(out, regions, top)
        named = {name: index.tolist() for name, index in regions.items()}
        by_region = named if suffix_of(out) == ".csv" or top is not None else None
        self.digest = hashlib.sha256(json.dumps([hemispheres, top, by_region, spread]).encode()).hexdigest()

    @property
    def file_paths(self) -> tuple[Path, ...]:
        """Where the predictions go, and their spread."""
        outputs = [self.out] if self.spread is None else [self.out, self.spread]
        return tuple(part.path(output) for output in outputs for part in self.parts)

    @property
    def sheet_paths(self) -> tuple[Path, ...]:
        """Where the contact sheets go."""
        names = () if self._sheets is None else self._sheets.file_names()
        return tuple(self.out.with_name(name) for name in names)

    def writer(self, rows_path: Path, resume_rows: int) -> RowWriter:
        """What takes the rows, in the folder of the unfinished output."""
        writer = self._writer(rows_path, self.out, resume_rows)
        if self._sheets is not None:
            writer = self._sheets.beside(writer, rows_path.parent, resume_rows)
        if self.spread is None:
            return writer
        try:
            return PairRows(writer, self._writer(rows_path.with_name(self.spread.name), self.spread, resume_rows))
        except BaseException:
            writer.close()
            raise

    def _writer(self, rows_path: Path, out: Path, resume_rows: int) -> RowWriter:
        return make_writer(
            rows_path,
            out,
            self.info,
            self.columns,
            resume_rows=resume_rows,
            hemispheres=self.hemispheres,
            regions=self.regions,
        )

    def facts(self) -> dict[str, Any]:
        """What the JSON says of files beside the predictions."""
        if self.spread is None or self.info.ensemble is None:
            return {}
        members = self.info.ensemble["members"]
        files = [part.path(self.spread).name for part in self.parts]
        what = f"s.d. over the {members} members of the ensemble (ddof 1); rows, columns and units as above"
        return {"spread": {"file": files if len(files) > 1 else files[0], "what": what}}

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
        if self.spread is not None:
            beside = rows_path.with_name(self.spread.name)
            files += [(part.path(beside), part.path(self.spread)) for part in self.parts]
        return files + [(rows_path.with_name(path.name), path) for path in self.sheet_paths]
