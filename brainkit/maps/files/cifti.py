"""CIFTI: one file for both hemispheres, on the cortex of fs_LR 32k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.fs_lr import FS_LR_SIZE, STRUCTURES, fs_lr_cortex
from brainkit.cortex.resampling import to_fs_lr
from brainkit.cortex.surface import HEMISPHERES
from brainkit.maps.brain_map import BrainMap, Categorical, MapSet
from brainkit.maps.files.values import (
    class_labels,
    class_numbers,
    column_names,
    describe,
    on_hemisphere,
    plain,
    save,
)
from brainkit.utils.file_names import file_stem


def write_cifti(folder: Path, maps: MapSet) -> Iterator[Path]:
    """``NAME.dscalar.nii``, or ``NAME.dlabel.nii`` for classes, on the cortex of fs_LR 32k."""
    from nibabel.cifti2 import Cifti2Image
    from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis, ScalarAxis

    cortex = {side: np.flatnonzero(fs_lr_cortex(side)) for side in HEMISPHERES}
    models = [BrainModelAxis.from_surface(cortex[side], FS_LR_SIZE, STRUCTURES[side]) for side in HEMISPHERES]
    for brain_map in maps.maps:
        names = [plain(name) for name in column_names(brain_map)]
        meta = [{"Description": describe(brain_map), **({"Note": plain(maps.note)} if maps.note else {})}]
        axis: Any = ScalarAxis(names, meta * len(names))
        whole = {}
        for side in HEMISPHERES:
            values = on_hemisphere(brain_map.values, maps, side)
            whole[side] = to_fs_lr(maps.vertices.space, side, values)[cortex[side]]
        rows = np.concatenate([whole["left"], whole["right"]])  # (59412,) or (59412, n)
        if isinstance(brain_map.coding, Categorical):
            shares = BrainMap(brain_map.name, brain_map.title, rows, brain_map.coding)
            rows = class_numbers(shares)
            labels = {
                key: (name, tuple(float(part) / 255 for part in colour))
                for key, (name, colour) in enumerate(class_labels(brain_map.coding))
            }
            axis = LabelAxis(names, [labels], meta)
        data = np.ascontiguousarray(rows.reshape(len(rows), -1).T, np.float32)
        image = Cifti2Image(data, (axis, models[0] + models[1]))
        kind = "Label" if isinstance(brain_map.coding, Categorical) else "Scalar"
        image.nifti_header.set_intent(f"ConnDense{kind}", name=f"ConnDense{kind}")
        yield save(image, folder / f"{file_stem(brain_map.name)}.d{kind.lower()}.nii")
