"""What a run is made of: frozen dataclasses that travel as YAML. Unknown keys are refused, with the nearest name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainkit.errors import DataError, UsageError, require
from brainkit.utils.fields import (
    built,
    check_at_least_zero,
    check_below_one,
    check_one_of,
    check_positive,
    check_share,
    plain,
)
from brainkit.utils.files import write_beside
from brainkit.utils.text import nearest_name


# The first paragraph of a setting's text says what it means, the second when to change it: docs/settings.md is made of
# them by docs/make_settings.py.
@dataclass(frozen=True)
class ModelConfig:
    """The shape of the encoding model."""

    bottleneck: int = 64
    """Channels D that each layer is brought to.

    More where there are many images and the score still rises; time and memory grow with it.
    """
    grid: int = 8
    """Side of the common token grid, in cells.

    Finer where early visual cortex matters and the network's tokens are finer; the token cache grows with its square.
    """
    selector_width: int = 128
    """Hidden units of the three selector networks.

    Hardly ever; fewer give smoother maps.
    """
    topography: bool = True
    """Selectors are networks of a vertex's place on the cortex, so that neighbours choose alike; false: every vertex
    has free parameters of its own, and coordinates play no part.

    False as a control, to see what smoothness adds, or where coordinates say nothing.
    """
    gauge: str = "unit"
    """unit holds every bottleneck's output at unit RMS over the training tokens, so that layers and scales compare;
    published leaves the gains free.

    published only to compare with published results: its layer maps are not determined, and figures say so.
    """
    standardise: bool = True
    """Centre and scale every channel of the tokens by the training images; false: tokens as the network gives them.

    False only to compare with published results: layers of unlike size then learn at unlike speed.
    """
    backend: str = "auto"
    """Implementation of the operator: auto, reference, grouped, cpu or triton.

    To find an error; all give the same.
    """
    precision: str = "auto"
    """What training multiplies: float32; or, faster, tf32 or bfloat16 on a GPU with the Triton kernels, bf16x3 on a
    processor with AMX; auto is tf32 with the Triton kernels and float32 elsewhere. Sums, locations, weights and all
    scores are float32 in any case.

    bfloat16 or bf16x3 for speed, where the score stays.
    """

    def __post_init__(self) -> None:
        check_positive(self, "bottleneck", "grid", "selector_width")
        check_one_of(self, "gauge", ("unit", "published"))
        check_one_of(self, "precision", ("auto", "float32", "tf32", "bfloat16", "bf16x3"))
        check_one_of(self, "backend", ("auto", "reference", "grouped", "cpu", "triton"))


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 25
    """Passes over the training images.

    More for few images (below a thousand), fewer for many; the schedule is stretched to them.
    """
    batch_size: int = 32
    """Images of one step.

    Larger on a GPU, with more epochs or higher learning rates.
    """
    loss: str = "mse"
    """mse; smooth_l1, as published; or pearson, which looks at each vertex's correlation over the batch alone, and
    learns its gain and offset from the training images at the end.

    smooth_l1 for responses with outliers; pearson to compare with work that uses it, in batches of 32 and more: on the
    sample subject mse finds the higher correlations.
    """
    smooth_l1_beta: float = 0.1
    """Miss at which smooth_l1 turns from a square into a line, in s.d. of a vertex's responses.

    With the loss smooth_l1 alone.
    """
    lr_weight: float = 0.2
    """Learning rate of the readout weights: large, because the readout is a mean over D channels and the gauge keeps
    the bottlenecks from growing in their place.

    Lower if the loss is no longer finite, or falls on training images alone.
    """
    lr_bottleneck: float = 6e-3
    """Learning rate of the bottlenecks and biases.

    Lower if the loss is no longer finite.
    """
    lr_selectors: float = 2e-3
    """Learning rate of the three selector networks.

    Hardly ever.
    """
    lr_free_selectors: float = 0.05
    """Learning rate of the vertices' own selectors, where topography is off.

    With model.topography=false alone.
    """
    weight_decay: float = 0.02
    """Weight decay of readout and bottlenecks: AdamW's, so a step shrinks a weight by this times its learning rate.

    More, up to 0.1, for noisy responses, where the best epoch comes early; it costs accuracy where they are clean.
    """
    weight_decay_selectors: float = 0.01
    """Weight decay of the selectors.

    Hardly ever.
    """
    schedule: str = "cosine"
    """How the learning rates go on after the warm-up: cosine and linear fall to zero at the last step, constant stays.

    constant with early stopping or an average of the weights, where the number of epochs is open.
    """
    warmup: float = 0.05
    """Share of the steps over which the learning rates rise at first.

    Hardly ever.
    """
    clip: float = 0.5
    """Largest norm of the gradient; 0 leaves it alone.

    Hardly ever.
    """
    regulariser: float = 0.1
    """Weight of the term that keeps selectors soft early on; without it training can collapse onto one layer.

    More if all vertices choose one layer.
    """
    regulariser_entropy: float = 1.0
    """Factor, within the regulariser, of the entropy of layer selection.

    More if all vertices choose one layer, 0 to leave layer selection free.
    """
    regulariser_scale: float = 1.0
    """Factor, within the regulariser, of the squared distance of scale from 0.5.

    0 leaves scale free.
    """
    regulariser_end: float = 0.4
    """Share of the steps at which the regulariser has decayed, in a line, to nothing.

    Later if all vertices choose one layer.
    """
    regulariser_steps: int = 0
    """Step at which it has decayed to nothing, in place of regulariser_end; 0: the share holds.

    To compare with published results; a fixed number of steps is too long for short runs.
    """
    patience: int = 0
    """Stop after so many epochs without a better validation r; 0: train all epochs.

    With schedule constant: the others reach their best at the end.
    """
    ema: float = 0.0
    """Decay of a running average of the weights over the steps, which is validated, kept and exported in place of the
    last weights; 0: none. Over its first steps n the decay is at most (1 + n) / (10 + n).

    0.99 to 0.999 with schedule constant, or for noisy responses; with a schedule that falls to zero it adds little.
    """
    device: str = "auto"
    """auto, cpu, cuda or mps.

    To keep a GPU free.
    """
    devices: int = 1
    """GPUs of each machine, each with a process; on a CPU, processes. Each has its share of every batch, so that the
    result is the same.

    With several GPUs, for large batches: with small ones they wait for each other.
    """
    num_nodes: int = 1
    """Machines; for more than one torchrun or SLURM starts the processes.

    With more GPUs than one machine has.
    """
    residency: str = "auto"
    """Where the tokens lie while training: device, host (on the disk, mapped and streamed), or auto, on a GPU if they
    fit there.

    host to leave memory of the GPU to others.
    """
    cuda_graph: str = "auto"
    """Whether steps on one GPU are captured once and replayed: on, off, or auto, where it can be done.

    off to find an error; on to be told where it cannot be done.
    """
    save_minutes: float = 5.0
    """Minutes after which the state is saved within an epoch too; 0: at the ends of epochs only.

    Less where jobs are ended without notice.
    """
    tensorboard: str = "auto"
    """Whether epochs are written for TensorBoard, in the run's folder tensorboard: on, off, or auto, where it is
    installed.

    off where nobody looks.
    """

    def __post_init__(self) -> None:
        check_positive(self, "epochs", "batch_size", "lr_weight", "lr_bottleneck", "lr_selectors", "lr_free_selectors")
        check_positive(self, "smooth_l1_beta", "devices", "num_nodes")
        check_one_of(self, "loss", ("mse", "smooth_l1", "pearson"))
        check_one_of(self, "schedule", ("cosine", "linear", "constant"))
        check_one_of(self, "device", ("auto", "cpu", "cuda", "mps"))
        check_one_of(self, "tensorboard", ("auto", "on", "off"))
        check_at_least_zero(
            self, "weight_decay", "weight_decay_selectors", "clip", "regulariser", "regulariser_entropy"
        )
        check_at_least_zero(self, "regulariser_scale", "regulariser_steps", "patience", "save_minutes")
        check_one_of(self, "residency", ("auto", "device", "host"))
        check_one_of(self, "cuda_graph", ("auto", "on", "off"))
        check_share(self, "regulariser_end")
        check_below_one(self, "warmup", "ema")
        if self.loss == "pearson" and self.batch_size < 2:
            raise UsageError(f"batch_size must be 2 or greater for loss 'pearson', got {self.batch_size}")


@dataclass(frozen=True)
class DataConfig:
    """Which images are for what, and how they are shown to the backbone."""

    path: str = ""
    """The subject's folder; empty: $BRAINKIT_DATA, else the sample subject.

    Commonly given as --data.
    """
    paths: tuple[str, ...] = ()
    """In place of path, the folders of several subjects that are trained together: with shared bottlenecks, each with
    selectors and a readout of its own.

    Commonly given as --data, more than once.
    """
    validation: float = 0.1
    """Share of the stimulus groups that selection looks at.

    More for few images.
    """
    test: float = 0.1
    """Share of the stimulus groups that scores are reported on, where the data brings no test set of its own.

    More for few images.
    """
    split_seed: int = -1
    """Decides the split alone; -1: the run's seed does.

    The same for runs with several seeds that will be one ensemble: it can be scored only where all of them left the
    same test images out.
    """
    fit: str = "whole"
    """whole shows the backbone the whole image, crop cuts as timm's evaluation transform does.

    crop to compare with results on crops; locations then refer to the crop.
    """
    preset: str = ""
    """published: the seed's preprocessing for every backbone (224 pixels, ImageNet mean and s.d.).

    To compare with published results.
    """
    token_dtype: str = "float16"
    """What the token cache keeps: float16, or bfloat16 for tokens that float16 cannot hold.

    If training says that tokens are too large for float16.
    """

    def __post_init__(self) -> None:
        check_share(self, "validation", "test")
        if not -1 <= self.split_seed < 2**63:
            raise UsageError(f"split_seed must be -1, or 0 or greater and below 2**63, got {self.split_seed}")
        if self.paths and self.path:
            raise UsageError("path and paths exclude each other: give one subject or several")
        if len(self.paths) == 1:
            raise UsageError("paths must name at least two subjects, got one; it is for path")
        if len(set(self.paths)) < len(self.paths):
            twice = next(place for place in self.paths if self.paths.count(place) > 1)
            raise UsageError(f"paths must name different subjects, got {twice} twice")
        check_one_of(self, "token_dtype", ("float16", "bfloat16"))
        check_one_of(self, "fit", ("whole", "crop"))
        check_one_of(self, "preset", ("", "published"))


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen network that sees the images."""

    name: str = "dinov2"
    """An alias, any timm model name, or file.py:ClassName.

    Commonly given as --backbone.
    """
    weights: str = ""
    """A local weights file, in place of the published ones.

    Commonly given as --weights.
    """
    random_weights: bool = False
    """Take seeded random weights: for tests and controls.

    As a control: what the network's architecture alone explains.
    """
    layers: tuple[str, ...] = ()
    """Layers to read; empty: the backbone's own choice.

    Fewer for speed; a score per layer is a run with one.
    """
    size: int = 0
    """Side of the input in pixels; 0: the backbone's own.

    Larger where small things matter; the network's time grows with its square.
    """

    def __post_init__(self) -> None:
        if self.weights and self.random_weights:
            raise UsageError("weights and random_weights exclude each other: give a file or ask for random weights")
        check_at_least_zero(self, "size")


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's result."""

    seed: int = 0
    """Decides the split (unless data.split_seed does), the order of the images and the initial weights."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_at_least_zero(self, "seed")
        if self.seed >= 2**63:
            raise UsageError(f"seed must be below 2 ** 63, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, lists for tuples."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Build from a nested mapping.

        Raises
        ------
        UsageError
            On an unknown key (the nearest is named), a wrong type or a value out of range.
        """
        return built(cls, values, source)

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
                    raise UsageError(f"--set {key}: no section {section!r}{nearest_name(section, place)}")
                place = place[section]
            if last not in place or isinstance(place[last], dict):
                raise UsageError(f"--set {key}: no such key{nearest_name(last, place)}")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise UsageError(f"--set {key}: cannot read the value {text!r}") from None
            place[last] = "" if value is None and isinstance(place[last], str) else value
        return built(type(self), values, "--set")

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
        return built(cls, values, str(path))
