"""GIFTI, and FreeSurfer's MGZ and annot: a file per hemisphere, over its whole surface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainkit.maps.brain_map import Categorical, MapSet
from brainkit.maps.files.values import (
    class_colours,
    class_labels,
    describe,
    hemispheres_of,
    plain,
    save,
    stored_columns,
)
from brainkit.utils.file_names import file_stem
from brainkit.utils.files import atomic_write

_PREFIXES = {"left": "lh", "right": "rh"}
_STRUCTURES = {"left": "CortexLeft", "right": "CortexRight"}


def write_gifti(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``lh.NAME.func.gii`` and ``lh.NAME.label.gii`` for classes, with names and colours; the same for ``rh``."""
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

    for brain_map in maps.maps:
        coding, table = brain_map.coding, GiftiLabelTable()
        if isinstance(coding, Categorical):
            for key, (name, colour) in enumerate(class_labels(coding)):
                label = GiftiLabel(key, *(float(part) / 255 for part in colour))
                label.label = name  # type: ignore[attr-defined]
                table.labels.append(label)
        for hemisphere in hemispheres_of(maps):
            arrays = [
                GiftiDataArray(
                    values,
                    intent="NIFTI_INTENT_LABEL" if isinstance(coding, Categorical) else "NIFTI_INTENT_NONE",
                    datatype="NIFTI_TYPE_INT32" if isinstance(coding, Categorical) else "NIFTI_TYPE_FLOAT32",
                    meta=GiftiMetaData(Name=plain(name)),
                )
                for name, values in stored_columns(brain_map, maps, hemisphere)
            ]
            facts = {"AnatomicalStructurePrimary": _STRUCTURES[hemisphere], "Description": describe(brain_map)}
            if maps.note:
                facts["Note"] = plain(maps.note)
            image = GiftiImage(meta=GiftiMetaData(facts), labeltable=table, darrays=arrays)
            kind = "label" if isinstance(coding, Categorical) else "func"
            yield save(image, folder / f"{_PREFIXES[hemisphere]}.{file_stem(brain_map.name)}.{kind}.gii")


def write_mgz(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``lh.NAME.mgz`` and ``rh.NAME.mgz``, as FreeSurfer stores overlays."""
    from nibabel.freesurfer.mghformat import MGHImage

    for brain_map in maps.maps:
        for hemisphere in hemispheres_of(maps):
            columns = [values for _, values in stored_columns(brain_map, maps, hemisphere)]
            grid = np.stack(columns, axis=-1)[:, None, None]  # (n, 1, 1, columns)
            path = folder / f"{_PREFIXES[hemisphere]}.{file_stem(brain_map.name)}.mgz"
            yield save(MGHImage(grid if len(columns) > 1 else grid[..., 0], np.eye(4)), path)


def write_annot(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``lh.NAME.annot`` and ``rh.NAME.annot``, with the colours of the map."""
    from nibabel.freesurfer import write_annot as save_annot

    for brain_map in maps.maps:
        assert isinstance(brain_map.coding, Categorical)
        names = [plain(name) for name in brain_map.coding.names]
        colours = class_colours(brain_map.coding).astype(np.int64)
        table = np.column_stack([colours, np.zeros(len(colours), np.int64)])  # the last is transparency
        for hemisphere in hemispheres_of(maps):
            ((_, numbers),) = stored_columns(brain_map, maps, hemisphere)
            path = folder / f"{_PREFIXES[hemisphere]}.{file_stem(brain_map.name)}.annot"
            with atomic_write(path) as temporary:
                save_annot(temporary, numbers.astype(np.int64) - 1, table, names, fill_ctab=True)
            yield path
