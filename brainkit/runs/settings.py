"""Which settings a run has: defaults, file, command line, and those of the run that is gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from brainkit.config import BackboneConfig, Config
from brainkit.errors import DataError, UsageError

# Where and how a run is computed, not what comes of it: these may change when it is gone on with.
FREE = ("device", "devices", "num_nodes", "residency", "cuda_graph", "save_minutes", "tensorboard")


def choose_settings(
    base: Config,
    *,
    name: str | None,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
    weights: str | os.PathLike[str] | None,
    random_weights: bool,
    epochs: int | None,
    seed: int | None,
    config: str | os.PathLike[str] | None,
    overrides: Sequence[str],
    devices: int | None = None,
    num_nodes: int | None = None,
) -> Config:
    """The settings asked for: `base`, or the file `config`; then what is named; then the ``key=value`` of `overrides`.

    Without a `name` the network is the one that `config` names. Paths are made absolute, so that the run is found again
    from elsewhere.
    """
    settings = Config.read(config) if config is not None else base
    # What the command line names wins over the file, and --set over both.
    name = settings.backbone.name if name is None else name
    if ".py:" in name:  # found again from wherever the run is exported
        file, _, kind = name.rpartition(":")
        name = f"{Path(file).expanduser().resolve()}:{kind}"
    network: BackboneConfig = replace(
        settings.backbone,
        name=name,
        weights="" if random_weights else str(Path(weights).resolve()) if weights else settings.backbone.weights,
        random_weights=random_weights or (settings.backbone.random_weights and weights is None),
    )
    settings = replace(settings, backbone=network)
    if data is not None:
        named_data = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        places = tuple(str(Path(place).resolve()) for place in named_data)
        path, paths = (places[0], ()) if len(places) == 1 else ("", places)
        settings = replace(settings, data=replace(settings.data, path=path, paths=paths))
    named = {"epochs": epochs, "devices": devices, "num_nodes": num_nodes}
    chosen: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    settings = replace(settings, train=replace(settings.train, **chosen))
    if seed is not None:
        settings = replace(settings, seed=seed)
    settings = settings.replace(overrides)
    if settings.data.paths:
        places = tuple(str(Path(place).resolve()) for place in settings.data.paths)
        settings = replace(settings, data=replace(settings.data, paths=places))
    if weights_file := settings.backbone.weights:
        settings = replace(settings, backbone=replace(settings.backbone, weights=str(Path(weights_file).resolve())))
    return settings


def resumed_settings(folder: Path, out: object, fresh: Config, given: Callable[[Config], Config]) -> Config:
    """The settings of the run that is gone on with; what is named now must not differ from them."""
    if out is None and not folder.is_dir():
        raise UsageError(f"{folder}: no run to resume; name it with --out")
    if not (folder / "config.yaml").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: holds no config.yaml, so it is not a run that can be resumed")
        return fresh  # it was stopped before it began
    held = Config.read(folder / "config.yaml")
    wanted = given(held)
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        return wanted  # nothing was trained yet, so that nothing contradicts other settings
    chosen: dict[str, Any] = {name: getattr(wanted.train, name) for name in FREE}
    held = replace(held, train=replace(held.train, **chosen))
    if differing := _differences(held.to_dict(), wanted.to_dict()):
        raise UsageError(
            f"{folder}: was begun with other settings: {'; '.join(differing)}; resume with the same, or name "
            "another --out"
        )
    return held


def _differences(held: dict[str, Any], wanted: dict[str, Any], section: str = "") -> list[str]:
    """Settings that differ, as ``key was A, got B``."""
    found = []
    for key, value in held.items():
        if isinstance(value, dict):
            found += _differences(value, wanted[key], f"{section}{key}.")
        elif value != wanted[key]:
            found.append(f"{section}{key} was {value!r}, got {wanted[key]!r}")
    return found
