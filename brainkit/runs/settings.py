"""The settings of a run: defaults or a file, then what the caller names; or those of the run that is resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainkit.config import BackboneConfig, Config, DataConfig
from brainkit.cortex.roi_expressions import with_absolute_files
from brainkit.data.readers import locate
from brainkit.data.subject import Subject
from brainkit.errors import DataError, UsageError
from brainkit.runs.folder import read_settings
from brainkit.utils.files import users_path

PathLike = str | os.PathLike[str]
Data = PathLike | Subject  # a subject's folder, or the subject opened

# Where and how a run is computed does not change its result: these may differ when it is resumed.
MAY_CHANGE = (
    "device",
    "devices",
    "num_nodes",
    "threads",
    "residency",
    "cuda_graph",
    "save_minutes",
    "maps",
    "snapshots",
    "tensorboard",
)


@dataclass(frozen=True)
class Overrides:
    """What a caller asks for; None and empty values leave the setting as it is.

    Attributes
    ----------
    backbone : str, optional
    data : tuple of path-like or Subject
    skip_unreadable : bool
    weights : path-like, optional
        A weights file for the backbone.
    random_weights : bool
    weights_seed : int, optional
        Of random weights.
    epochs, seed, devices, num_nodes, threads : int, optional
    images : int, optional
        How many images to train and validate on.
    start : path-like, optional
        A finished run to start from.
    rois : sequence of str
        Train only the vertices of these ROIs.
    split : str or path-like, optional
        Name or file of the split.
    maps : bool, optional
        Whether to draw the maps.
    snapshots : bool, optional
        Whether to keep snapshots for an animation.
    config : path-like, optional
        A YAML file of settings; everything else here wins over it.
    assignments : tuple of str
        ``section.key=value``; they win over everything else.
    """

    backbone: str | None = None
    data: tuple[Data, ...] = ()
    skip_unreadable: bool = False
    weights: PathLike | None = None
    random_weights: bool = False
    weights_seed: int | None = None
    epochs: int | None = None
    seed: int | None = None
    devices: int | None = None
    num_nodes: int | None = None
    threads: int | None = None
    images: int | None = None
    start: PathLike | None = None
    rois: Sequence[str] = ()
    split: PathLike | None = None
    maps: bool | None = None
    snapshots: bool | None = None
    config: PathLike | None = None
    assignments: tuple[str, ...] = ()

    def apply(self, base: Config) -> Config:
        """The settings asked for, with absolute paths, so that the run can be used from any folder.

        Parameters
        ----------
        base : Config
            The settings to start from, unless there is a `config`.
        """
        settings = base if self.config is None else self._read_config(base)
        seed = settings.seed if self.seed is None else self.seed
        names = ("epochs", "devices", "num_nodes", "threads", "maps", "snapshots")
        given = {name: getattr(self, name) for name in names}
        given["start"] = os.fspath(self.start) if self.start else None
        train = replace(settings.train, **{name: value for name, value in given.items() if value is not None})
        settings = replace(
            settings, seed=seed, train=train, data=self._data(settings.data), backbone=self._backbone(settings.backbone)
        )
        return _with_absolute_paths(settings.replace(self.assignments))

    def _read_config(self, base: Config) -> Config:
        """The file's settings; of a run that is resumed, those whose default has changed are as they were for it."""
        assert self.config is not None
        kept: dict[str, dict[str, Any]] = {
            "model": {"offsets": list(base.model.offsets)},
            "train": {"refit": base.train.refit},
        }
        if base.train.start:  # a file of settings changes only what it names
            sections = base.to_dict()
            kept = {name: sections[name] for name in ("backbone", "model", "data", "train")}
        return Config.read(self.config, missing=kept)

    def _backbone(self, base: BackboneConfig) -> BackboneConfig:
        weights = os.fspath(self.weights) if self.weights else base.weights
        return replace(
            base,
            name=base.name if self.backbone is None else self.backbone,
            weights="" if self.random_weights else weights,
            random_weights=self.random_weights or (base.random_weights and self.weights is None),
            weights_seed=base.weights_seed if self.weights_seed is None else self.weights_seed,
        )

    def _data(self, base: DataConfig) -> DataConfig:
        base = replace(base, skip_unreadable=base.skip_unreadable or self.skip_unreadable)
        rois = (self.rois,) if isinstance(self.rois, str) else tuple(self.rois)
        split = base.split if self.split is None else os.fspath(self.split)
        images = base.images if self.images is None else self.images
        base = replace(base, rois=rois or base.rois, split=split, images=images)
        paths = tuple(
            (each.location or str(each.root)) if isinstance(each, Subject) else os.fspath(each) for each in self.data
        )
        if not paths:
            return base
        return replace(base, path=paths[0], paths=()) if len(paths) == 1 else replace(base, path="", paths=paths)


def resumed_settings(folder: Path, overrides: Overrides, new: Config | None = None) -> Config:
    """The settings of the run in `folder`, checked against what the caller asks for now.

    Parameters
    ----------
    folder : Path
    overrides : Overrides
    new : Config, optional
        The settings of a run that begins, if this one was stopped before it wrote anything; by default those of
        `overrides`.

    Raises
    ------
    UsageError
        If `overrides` change a setting that decides the result.
    DataError
        If the folder is not a run.
    """
    if not (folder / "config.yaml").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: expected a run to resume, found no config.yaml in it")
        if overrides.backbone is None and overrides.config is None and overrides.start is None:
            raise UsageError(f"{folder}: no run to resume; to start one, name the backbone")
        return new or overrides.apply(Config())  # it was stopped before it wrote anything
    stored = _with_absolute_paths(read_settings(folder))
    wanted = overrides.apply(stored)
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        return wanted  # nothing was trained yet, so no setting is fixed
    free: dict[str, Any] = {name: getattr(wanted.train, name) for name in MAY_CHANGE}
    stored = replace(stored, train=replace(stored.train, **free))
    if changed := _differences(stored.to_dict(), wanted.to_dict()):
        raise UsageError(
            f"{folder}: the run was started with other settings: {'; '.join(changed)}; resume with the same settings, "
            "or name another --out"
        )
    return stored


def _differences(stored: dict[str, Any], wanted: dict[str, Any], section: str = "") -> list[str]:
    """Settings that differ, as ``key was A, got B``."""
    found = []
    for key, value in stored.items():
        if isinstance(value, dict):
            found += _differences(value, wanted[key], f"{section}{key}.")
        elif value != wanted[key]:
            found.append(f"{section}{key} was {value!r}, got {wanted[key]!r}")
    return found


def _with_absolute_paths(settings: Config) -> Config:
    data, backbone = settings.data, settings.backbone
    name = backbone.name
    if ".py:" in name:
        file, _, kind = name.rpartition(":")
        name = f"{_absolute(file)}:{kind}"
    return replace(
        settings,
        data=replace(
            data,
            path=_absolute_data(data.path),
            paths=tuple(map(_absolute_data, data.paths)),
            rois=tuple(map(with_absolute_files, data.rois)),
            split=_absolute(data.split) if users_path(data.split).is_file() else data.split,
        ),
        backbone=replace(backbone, name=name, weights=_absolute(backbone.weights)),
        train=replace(settings.train, start=_absolute(settings.train.start)),
    )


def _absolute_data(path: str) -> str:
    return str(locate(path).absolute()) if path else ""


def _absolute(path: str) -> str:
    return str(users_path(path).resolve()) if path else ""
