"""What a run is made of: frozen dataclasses that travel as YAML. Unknown keys are refused, with the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from brainkit.errors import DataError, UsageError, require
from brainkit.files import write_beside


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the encoding model."""

    bottleneck: int = 64
    """Channels D that each layer is brought to."""
    grid: int = 8
    """Side of the common token grid, in cells."""
    selector_width: int = 128
    """Hidden units of the three selector networks."""
    backend: str = "auto"
    """Implementation of the operator: auto, reference, grouped, cpu or triton."""
    precision: str = "auto"
    """What training multiplies: float32; or, faster, tf32 or bfloat16 on a GPU with the Triton kernels, bf16x3 on a
    processor with AMX; auto is tf32 with the Triton kernels and float32 elsewhere. Sums, locations, weights and all
    scores are float32 in any case."""

    def __post_init__(self) -> None:
        _positive(self, "bottleneck", "grid", "selector_width")
        _one_of(self, "precision", ("auto", "float32", "tf32", "bfloat16", "bf16x3"))
        _one_of(self, "backend", ("auto", "reference", "grouped", "cpu", "triton"))


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 25
    """Passes over the training images."""
    batch_size: int = 32
    """Images of one step."""
    loss: str = "mse"
    """mse, or smooth_l1 (beta 0.1) as published."""
    lr_weight: float = 0.2
    """Learning rate of the readout weights: large, because the readout is a mean over D channels and the gauge keeps
    the bottlenecks from growing in their place."""
    lr_bottleneck: float = 6e-3
    """Learning rate of the bottlenecks and biases."""
    lr_selectors: float = 2e-3
    """Learning rate of the three selector networks."""
    weight_decay: float = 0.003
    """Weight decay of readout and bottlenecks."""
    weight_decay_selectors: float = 0.01
    """Weight decay of the selector networks."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises, before its cosine fall to zero."""
    clip: float = 0.5
    """Largest norm of the gradient; 0 leaves it alone."""
    regulariser: float = 0.1
    """Weight of the term that keeps selectors soft early on; without it training can collapse onto one layer."""
    regulariser_end: float = 0.4
    """Share of the steps at which the regulariser has decayed to nothing."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    residency: str = "auto"
    """Where the tokens lie while training: device, host (on the disk, mapped and streamed), or auto, on a GPU if they
    fit there."""
    cuda_graph: str = "auto"
    """Whether steps on one GPU are captured once and replayed: on, off, or auto, where it can be done."""
    save_minutes: float = 5.0
    """Minutes after which the state is saved within an epoch too; 0: at the ends of epochs only."""

    def __post_init__(self) -> None:
        _positive(self, "epochs", "batch_size", "lr_weight", "lr_bottleneck", "lr_selectors")
        _one_of(self, "loss", ("mse", "smooth_l1"))
        _one_of(self, "device", ("auto", "cpu", "cuda", "mps"))
        _one_of(self, "residency", ("auto", "device", "host"))
        _one_of(self, "cuda_graph", ("auto", "on", "off"))
        _at_least_zero(self, "weight_decay", "weight_decay_selectors", "clip", "regulariser", "save_minutes")
        _share(self, "regulariser_end")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup must be at least 0 and below 1, got {self.warmup}")


@dataclass(frozen=True)
class DataConfig:
    """Which images are for what, and how they are shown to the backbone."""

    path: str = ""
    """The subject's folder; empty: $BRAINKIT_DATA, else the sample subject."""
    validation: float = 0.1
    """Share of the stimulus groups that selection looks at."""
    test: float = 0.1
    """Share of the stimulus groups that scores are reported on, where the data brings no test set of its own."""
    fit: str = "whole"
    """whole shows the backbone the whole image, crop cuts as timm's evaluation transform does."""
    preset: str = ""
    """published: the seed's preprocessing for every backbone (224 pixels, ImageNet mean and s.d.)."""

    def __post_init__(self) -> None:
        _share(self, "validation", "test")
        _one_of(self, "fit", ("whole", "crop"))
        _one_of(self, "preset", ("", "published"))


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen network that sees the images."""

    name: str = "dinov2"
    """An alias, any timm model name, or file.py:ClassName."""
    weights: str = ""
    """A local weights file, in place of the published ones."""
    random_weights: bool = False
    """Take seeded random weights: for tests and controls."""
    layers: tuple[str, ...] = ()
    """Layers to read; empty: the backbone's own choice."""
    size: int = 0
    """Side of the input in pixels; 0: the backbone's own."""

    def __post_init__(self) -> None:
        if self.weights and self.random_weights:
            raise UsageError("weights and random_weights exclude each other: give a file or ask for random weights")
        _at_least_zero(self, "size")


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result."""

    seed: int = 0
    """Decides the split, the order of the images and the initial weights."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _at_least_zero(self, "seed")
        if self.seed >= 2**63:
            raise UsageError(f"seed must be below 2 ** 63, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, lists for tuples."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Build from a nested mapping.

        Raises
        ------
        UsageError
            On an unknown key (the nearest is named), a wrong type or a value out of range.
        """
        return _build(cls, values, source)

    def replace(self, assignments: Iterable[str]) -> Config:
        """Apply ``section.key=value`` assignments; values are read as YAML.

        Raises
        ------
        UsageError
            If an assignment has no ``=``, or its key or value is refused.
        """
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        values = self.to_dict()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set must be KEY=VALUE, got {assignment!r}")
            *sections, last = key.strip().split(".")
            place = values
            for section in sections:
                if not isinstance(place.get(section), dict):
                    raise UsageError(f"--set {key}: no section {section!r}{_nearest(section, place)}")
                place = place[section]
            if last not in place or isinstance(place[last], dict):
                raise UsageError(f"--set {key}: no such key{_nearest(last, place)}")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise UsageError(f"--set {key}: cannot read the value {text!r}") from None
            place[last] = "" if value is None and isinstance(place[last], str) else value
        return _build(type(self), values, "--set")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as YAML."""
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        with write_beside(path) as beside:
            beside.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Config:
        """Read a YAML file; keys that are left out keep their defaults."""
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise DataError(f"{path}: expected YAML, found something else") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
        return _build(cls, values, str(path))


def _build(cls: type[Any], values: Mapping[str, Any], source: str) -> Any:
    hints = get_type_hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UsageError(f"{source}: unknown key {key!r}{_nearest(str(key), fields)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"{source}: {key} must be a section of keys, got {value!r}")
            arguments[key] = _build(hint, value, f"{source}: {key}")  # type: ignore[arg-type]
        else:
            arguments[key] = _value(hint, key, value, source)
    return cls(**arguments)


def _value(hint: Any, key: str, value: Any, source: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is str and isinstance(value, str):
        return value
    if hint is str and isinstance(value, bool):  # YAML reads on and off as true and false
        return "on" if value else "off"
    if hint == tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)) and all(isinstance(item, str) for item in items):
            return tuple(items)
    name = {"tuple[str, ...]": "a list of names"}.get(str(hint), getattr(hint, "__name__", str(hint)))
    raise UsageError(f"{source}: {key} must be {name}, got {value!r}")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise UsageError(f"{name} must be greater than 0, got {getattr(config, name)}")


def _at_least_zero(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UsageError(f"{name} must be 0 or greater, got {getattr(config, name)}")


def _share(config: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise UsageError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")


def _one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    if getattr(config, name) not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(repr(a) for a in allowed)}, got {getattr(config, name)!r}")
