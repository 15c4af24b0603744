"""All files of one output: the predictions, an ensemble's spread, and contact sheets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import UsageError
from brainkit.predict.inputs.image_list import ImageList
from brainkit.predict.inputs.image_source import ImageSource
from brainkit.predict.outputs.formats import format_of, make_layout, open_writer, spread_path
from brainkit.predict.outputs.rows import RowWriter
from brainkit.predict.resume import PartialOutput
from brainkit.predict.top_images.writer import ContactSheets, positions_of


class OutputSet:
    """The files of an output, and how they are written.

    Parameters
    ----------
    out : Path
    info : EncoderInfo
    columns : array of int, optional
        Which of the encoder's vertices the columns are; all by default.
    regions : dict of str to array of int
        Positions of the requested regions among the columns.
    hemispheres : bool
    top : int, optional
    spread : bool
        Also write an ensemble's s.d. over its members: files of the same kind with ``-sd`` in their names. The writer
        then takes rows (b, 2, columns).
    space : str, optional
        Write the predictions at the vertices of another space; the rows taken are still the encoder's.

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
        space: str | None = None,
    ) -> None:
        self.out, self.info = out, info
        self.layout = make_layout(out, info, columns, regions, hemispheres, space)
        means = format_of(out).means
        if spread and info.ensemble is None:
            raise UsageError(f"{out}: a spread needs an ensemble, and this encoder is a single model")
        if spread and means:
            raise UsageError(f"{out}: the spread is over members, at each vertex; {format_of(out).suffix} holds means")
        self.spread = spread_path(out) if spread else None
        self._sheets = None if top is None else ContactSheets(out, regions, top)
        by_region = {name: index.tolist() for name, index in regions.items()} if means or top is not None else None
        # Without a space as before there was one: an interrupted output can be resumed.
        form = [hemispheres, top, by_region, spread, *([] if space is None else [space])]
        self.digest = hashlib.sha256(json.dumps(form).encode()).hexdigest()

    @property
    def file_paths(self) -> tuple[Path, ...]:
        """Files of the predictions, then of their spread."""
        outputs = [self.out] if self.spread is None else [self.out, self.spread]
        return tuple(part.path(output) for output in outputs for part in self.layout.parts)

    @property
    def sheet_paths(self) -> tuple[Path, ...]:
        """Files of the contact sheets."""
        return () if self._sheets is None else tuple(self._sheets.paths)

    def open_writer(self, rows_path: Path, resume_rows: int) -> RowWriter:
        """What takes the rows, in the folder of the partial output."""
        writer = self._open(rows_path, self.out, resume_rows)
        try:
            if self._sheets is not None:
                writer = self._sheets.with_means(writer, rows_path.parent, resume_rows)
            if self.spread is None:
                return writer
            spread_rows = rows_path.with_name(self.spread.name)
            return _MeanAndSpread(writer, self._open(spread_rows, self.spread, resume_rows))
        except BaseException:
            writer.close()
            raise

    def _open(self, rows_path: Path, out: Path, resume_rows: int) -> RowWriter:
        writer = open_writer(rows_path, out, self.layout, resume_rows)
        resampling = self.layout.resampling
        return writer if resampling is None else _Resampled(writer, resampling.sources)

    def describe(self, partial: PartialOutput, images: ImageList) -> dict[str, Any]:
        """Draw the contact sheets of finished rows; what the JSON says about them and about the spread."""
        description: dict[str, Any] = {}
        if self.spread is not None and self.info.ensemble is not None:
            members = self.info.ensemble["members"]
            files = [part.path(self.spread).name for part in self.layout.parts]
            what = f"s.d. over the {members} members of the ensemble (ddof 1); rows, columns and units as above"
            description["spread"] = {"file": files if len(files) > 1 else files[0], "what": what}
        if self._sheets is not None:

            def positions(rows: list[int]) -> list[int]:
                return positions_of(rows, (position for position, _ in partial.skipped()))

            def entry(position: int) -> ImageSource:
                return images.entries(position, position + 1)[0]

            repeated = images.repeated_rows()
            description["top"] = self._sheets.draw(partial.folder, self.info, positions, entry, repeated)
        return description

    def moves(self, rows_path: Path) -> list[tuple[Path, Path]]:
        """Where each finished file is, and its final path."""
        outputs = [(rows_path, self.out)]
        if self.spread is not None:
            outputs.append((rows_path.with_name(self.spread.name), self.spread))
        files = [(part.path(source), part.path(target)) for source, target in outputs for part in self.layout.parts]
        return files + [(rows_path.with_name(path.name), path) for path in self.sheet_paths]


class _Resampled:
    """An output of other columns: each is one of the rows' columns, `sources` says which."""

    def __init__(self, writer: RowWriter, sources: np.ndarray) -> None:
        self._writer, self._sources = writer, sources
        self.checkpoint, self.finish, self.close = writer.checkpoint, writer.finish, writer.close

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        self._writer.append(np.ascontiguousarray(rows[..., self._sources]), names)


class _MeanAndSpread:
    """Two outputs at once: of rows (b, 2, columns) the first goes to the one, the second to the other."""

    def __init__(self, mean: RowWriter, spread: RowWriter) -> None:
        self._writers = (mean, spread)

    def append(self, rows: np.ndarray, names: Sequence[str] = ()) -> None:
        for index, writer in enumerate(self._writers):
            writer.append(np.ascontiguousarray(rows[:, index]), names)

    def checkpoint(self) -> int:
        return min(writer.checkpoint() for writer in self._writers)

    def finish(self, names: Collection[str] = ()) -> None:
        for writer in self._writers:
            writer.finish(names)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
