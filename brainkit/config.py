"""The settings of a run: frozen dataclasses, written as YAML. Unknown keys are refused, naming the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainkit.errors import DataError, UsageError, require
from brainkit.utils.fields import (
    build,
    check_at_least_zero,
    check_below_one,
    check_each_of,
    check_fraction,
    check_one_of,
    check_positive,
    plain,
)
from brainkit.utils.files import atomic_write
from brainkit.utils.text import nearest_name, nearest_names


def _check_seed(settings: object, name: str) -> None:
    """A seed, or -1 for the run's."""
    value = getattr(settings, name)
    if not -1 <= value < 2**63:
        raise UsageError(f"{name} must be -1, or 0 or greater and below 2**63, got {value}")


def is_half(text: object) -> bool:
    """Whether this names a half of the training stimuli as ``data.half`` does, or is empty: all of them."""
    return isinstance(text, str) and re.fullmatch(r"([ab]:\d{1,18})?", text, re.ASCII) is not None


# Of a setting's text, the first paragraph says what it means, the second when to change it: docs/make_settings.py
# writes docs/settings.md from them.
@dataclass(frozen=True)
class ModelConfig:
    """The shape of the encoding model."""

    bottleneck: int = 64
    """Channels D that each layer is reduced to.

    Increase it for large data sets, as long as the score still rises; time and memory grow with it.
    """
    grid: int = 8
    """Side of the common token grid, in cells.

    Increase it for early visual cortex if the network's tokens are finer; the token cache grows with its square.
    """
    selector_width: int = 128
    """Hidden units of the three selector networks.

    Rarely; fewer give smoother maps.
    """
    topography: bool = True
    """Whether selectors are functions of a vertex's cortical coordinates, so that neighbours select alike; false: every
    vertex has free selector parameters, and coordinates are not used.

    false as a control, to see what smoothness adds, or if the coordinates are meaningless.
    """
    offsets: tuple[str, ...] = ("layer", "location")
    """Selectors (layer, location, scale) to which every vertex adds an offset of its own, kept small by
    train.offset_penalty; without topography it has no effect.

    Empty for the smoothest maps, as published; add scale if neighbours differ in it.
    """
    fixed: tuple[str, ...] = ()
    """Selectors that are not learnt but the same for every vertex: layer (all layers weigh the same), location (the
    image's centre), scale (0.5).

    As controls, to see what each selector adds; brainkit baselines trains all three.
    """
    gauge: str = "unit"
    """unit fixes every bottleneck's output at unit RMS over the training tokens, so that layers and scales can be
    compared; published leaves the gains free.

    published only to compare with published results: its layer maps are not determined by the data, and figures say so.
    """
    standardise: bool = True
    """Whether to standardise every token channel with its mean and s.d. over the training images; false: use the raw
    tokens.

    false only to compare with published results: layers with larger tokens then learn faster.
    """
    backend: str = "auto"
    """Implementation of the operator: auto, reference, grouped, cpu or triton.

    For debugging; all give the same result.
    """
    precision: str = "auto"
    """Precision of matrix products while training: float32; faster, tf32 or bfloat16 on a GPU with the Triton kernels,
    bf16x3 on a processor with AMX; auto: tf32 with the Triton kernels, else float32. Sums, locations, weights and all
    scores are always float32.

    bfloat16 or bf16x3 for speed, if the score does not drop.
    """

    def __post_init__(self) -> None:
        check_positive(self, "bottleneck", "grid", "selector_width")
        check_each_of(self, "fixed", ("layer", "location", "scale"))
        check_each_of(self, "offsets", ("layer", "location", "scale"))
        check_one_of(self, "gauge", ("unit", "published"))
        check_one_of(self, "precision", ("auto", "float32", "tf32", "bfloat16", "bf16x3"))
        check_one_of(self, "backend", ("auto", "reference", "grouped", "cpu", "triton"))


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 25
    """Passes over the training images.

    More for few images (below a thousand), fewer for many; the learning rate schedule spans all of them.
    """
    batch_size: int = 32
    """Images per step.

    Larger on a GPU, with more epochs or higher learning rates.
    """
    loss: str = "mse"
    """mse; smooth_l1, as published; or pearson, the correlation of each vertex over the batch: its gain and offset are
    fitted to the training images at the end.

    smooth_l1 for responses with outliers; pearson to compare with work that uses it, with batches of 32 or more: on the
    sample subject mse gives higher correlations.
    """
    smooth_l1_beta: float = 0.1
    """Error at which smooth_l1 changes from quadratic to linear, in s.d. of a vertex's responses.

    Only for the loss smooth_l1.
    """
    lr_weight: float = 0.2
    """Learning rate of the readout weights: large, because the readout is a mean over D channels and the gauge keeps
    the bottlenecks from growing instead.

    Lower it if the loss becomes non-finite, or improves on training images only.
    """
    lr_bottleneck: float = 6e-3
    """Learning rate of the bottlenecks and biases.

    Lower it if the loss becomes non-finite.
    """
    lr_selectors: float = 2e-3
    """Learning rate of the three selector networks.

    Rarely.
    """
    lr_free_selectors: float = 0.05
    """Learning rate of the selector parameters that each vertex has: offsets, or all without topography.

    Only for model.offsets and model.topography=false.
    """
    offset_penalty: float = 0.8
    """Weight of the penalty on offsets (docs/method.md) against the squared errors of all training images; about the
    variance of the noise.

    Only for model.offsets: more for smooth maps, less for vertices that differ from their neighbours.
    """
    weight_decay: float = 0.02
    """AdamW's weight decay of readout and bottlenecks: a step shrinks a weight by this times its learning rate.

    Up to 0.1 for noisy responses, when the best epoch is early; it costs accuracy when they are clean.
    """
    weight_decay_selectors: float = 0.01
    """Weight decay of the selectors.

    Rarely.
    """
    schedule: str = "cosine"
    """Learning rates after the warm-up: cosine and linear fall to zero at the last step, constant does not change.

    constant with early stopping or averaged weights, if the number of epochs is not known in advance.
    """
    warmup: float = 0.05
    """Fraction of the steps over which the learning rates rise from zero.

    Rarely.
    """
    clip: float = 0.5
    """Largest norm of the gradient; 0: no clipping.

    Rarely.
    """
    regulariser: float = 0.1
    """Weight of the regulariser, which keeps selectors soft early in training; without it training can collapse onto
    one layer.

    Increase it if all vertices select the same layer.
    """
    regulariser_entropy: float = 1.0
    """Weight of the entropy of layer selection within the regulariser.

    Increase it if all vertices select the same layer; 0 leaves layer selection free.
    """
    regulariser_scale: float = 1.0
    """Weight of the squared distance of scale from 0.5 within the regulariser.

    0 leaves scale free.
    """
    regulariser_end: float = 0.4
    """Fraction of the steps over which the regulariser decays linearly to zero.

    Increase it if all vertices select the same layer.
    """
    regulariser_steps: int = 0
    """Number of steps over which the regulariser decays, instead of regulariser_end; 0: use regulariser_end.

    To compare with published results; a fixed number of steps is too long for short runs.
    """
    patience: int = 0
    """Stop after this many epochs without a better validation r; 0: train all epochs.

    With schedule constant: the other schedules are best at the end.
    """
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is validated, saved and exported instead of the last
    weights; 0: no averaging. At step n the decay is at most (1 + n) / (10 + n).

    0.99 to 0.999 with schedule constant, or for noisy responses; with a schedule that falls to zero it adds little.
    """
    refit: bool = True
    """Whether to refit the readout of every vertex at the best epoch: ridge regression on what its selectors read,
    shrunk to its neighbours' readouts; penalty and share are those of the largest marginal likelihood.

    false for the weights as they were trained. On a processor the refit takes as long as two epochs with few images,
    and less than one with thousands; with a GPU too, each vertex takes half a millisecond of a processor (64 channels).
    """
    start: str = ""
    """A finished run to start from: its bottlenecks are kept, its selectors and readout are where training begins and
    what the refitted readout is shrunk to; empty: train everything.

    For a new subject with few images. Usually given as --from.
    """
    device: str = "auto"
    """auto, cpu, cuda or mps.

    To leave a GPU free.
    """
    devices: int = 1
    """GPUs per machine, with one process each; on a CPU, processes. Every batch is divided among them, so that the
    result is the same.

    With several GPUs, for large batches: with small ones they wait for each other.
    """
    num_nodes: int = 1
    """Machines; for more than one, torchrun or SLURM starts the processes.

    To use more GPUs than one machine has.
    """
    threads: int = 0
    """Processor threads of each process; 0: one for each core that it may use (the smallest of its affinity, its
    container's quota, OMP_NUM_THREADS and SLURM_CPUS_PER_TASK).

    To leave cores to other programs. Usually given as --threads.
    """
    residency: str = "auto"
    """Where the tokens are while training: device, host (on disk, memory-mapped and streamed), or auto: on a GPU if
    they fit.

    host to leave GPU memory to other programs.
    """
    cuda_graph: str = "auto"
    """Whether steps on a single GPU are captured as a CUDA graph and replayed: on, off, or auto: if possible.

    off for debugging; on to get an error if it is not possible.
    """
    save_minutes: float = 5.0
    """Minutes between checkpoints within an epoch; 0: save at the end of each epoch only.

    Less if jobs are killed without notice.
    """
    maps: bool = True
    """Whether to draw the maps at the end of the run; false: brainkit map draws them later.

    false in loops over seeds or settings, where drawing can take longer than training.
    """
    snapshots: bool = False
    """Whether to keep what vertices select a few dozen times while training, and to draw it as an animation at the end.

    true to see how the maps come about; it changes no result, and takes up to 40 MB.
    """
    tensorboard: str = "auto"
    """Whether to log epochs for TensorBoard, in the run's folder tensorboard: on, off, or auto: if it is installed.

    off if you do not use it.
    """

    def __post_init__(self) -> None:
        check_positive(self, "epochs", "batch_size", "lr_weight", "lr_bottleneck", "lr_selectors", "lr_free_selectors")
        check_positive(self, "smooth_l1_beta", "devices", "num_nodes")
        check_one_of(self, "loss", ("mse", "smooth_l1", "pearson"))
        check_one_of(self, "schedule", ("cosine", "linear", "constant"))
        check_one_of(self, "device", ("auto", "cpu", "cuda", "mps"))
        check_one_of(self, "tensorboard", ("auto", "on", "off"))
        check_at_least_zero(
            self,
            "offset_penalty",
            "weight_decay",
            "weight_decay_selectors",
            "clip",
            "regulariser",
            "regulariser_entropy",
        )
        check_at_least_zero(self, "regulariser_scale", "regulariser_steps", "patience", "save_minutes", "threads")
        check_one_of(self, "residency", ("auto", "device", "host"))
        check_one_of(self, "cuda_graph", ("auto", "on", "off"))
        check_fraction(self, "regulariser_end")
        check_below_one(self, "warmup", "ema")
        if self.loss == "pearson" and self.batch_size < 2:
            raise UsageError(f"batch_size must be 2 or greater for loss 'pearson', got {self.batch_size}")


@dataclass(frozen=True)
class DataConfig:
    """The data, their split, and how images are shown to the backbone."""

    path: str = ""
    """The subject's folder; empty: $BRAINKIT_DATA, else the sample subject.

    Usually given as --data.
    """
    paths: tuple[str, ...] = ()
    """Instead of path, the folders of several subjects to train together: they share bottlenecks, and each has its own
    selectors and readout.

    Usually given as --data, more than once.
    """
    rois: tuple[str, ...] = ()
    """Train, score and export only the vertices of these ROIs, by their names or common ones such as V1; empty: all
    vertices.

    For a run on some regions, which takes less time and memory. Usually given as --roi.
    """
    split: str = ""
    """Which images are for training, validation and test: the name of a split that the data have (nsd-shared1000,
    laion:tau, algonauts), a JSON file of lists of images, or hashed: chosen by hashes of the stimuli; empty:
    splits.json of the data, else hashed.

    To use the split of other work. Usually given as --split.
    """
    validation: float = 0.1
    """Fraction of the stimulus groups used to select the best epoch.

    Increase it for few images.
    """
    test: float = 0.1
    """Fraction of the stimulus groups that scores are reported on, if the data have no official test set.

    Increase it for few images.
    """
    split_seed: int = -1
    """Random seed for the split; -1: the run's seed.

    Set it for runs with different seeds that will form an ensemble: it can be scored only if all have the same test
    images.
    """
    half: str = ""
    """Train on one half of the training stimuli: a:N or b:N, the two halves of draw N; empty: train on all.

    Set by --repeats, which trains on halves to measure how sure the maps are.
    """
    images: int = 0
    """Train and validate on so many images in all, the first by the hash that makes the split, in its proportions; 0:
    on all of them. Fewer images are part of more, and the test images stay.

    To see how accuracy depends on the number of images. Usually given as --images.
    """
    fit: str = "whole"
    """whole shows the backbone the whole image, crop cuts it as timm's evaluation transform does.

    crop to compare with results on crops; locations then refer to the crop.
    """
    preset: str = ""
    """published: the preprocessing of the published code for every backbone (224 pixels, ImageNet mean and s.d.).

    To compare with published results.
    """
    skip_unreadable: bool = False
    """Whether to leave out images that cannot be read; false: they are an error.

    Usually given as --skip-unreadable.
    """
    token_dtype: str = "float16"
    """Data type of the token cache: float16, or bfloat16 for tokens beyond the range of float16.

    If training reports that tokens are too large for float16.
    """

    def __post_init__(self) -> None:
        check_fraction(self, "validation", "test")
        _check_seed(self, "split_seed")
        if self.paths and self.path:
            raise UsageError("path and paths exclude each other: set one of them")
        if len(self.paths) == 1:
            raise UsageError("paths must name at least two subjects, got one; use path for one subject")
        if len(set(self.paths)) < len(self.paths):
            repeated = next(path for path in self.paths if self.paths.count(path) > 1)
            raise UsageError(f"paths must name different subjects, got {repeated} twice")
        if not is_half(self.half):
            raise UsageError(f"half must be empty, a:N or b:N (N: 0 or greater), got {self.half!r}")
        if self.images and self.images < 2:
            raise UsageError(f"images must be 0 (all of them), or 2 or greater, got {self.images}")
        check_one_of(self, "token_dtype", ("float16", "bfloat16"))
        check_one_of(self, "fit", ("whole", "crop"))
        check_one_of(self, "preset", ("", "published"))


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen network that sees the images."""

    name: str = "dinov2"
    """An alias, any timm model name, or file.py:ClassName.

    Usually given as --backbone.
    """
    weights: str = ""
    """A local weights file, instead of the backbone's pretrained weights.

    Usually given as --weights.
    """
    random_weights: bool = False
    """Use seeded random weights: for tests and controls.

    As a control: what the network's architecture alone explains.
    """
    weights_seed: int = -1
    """Random seed of weights that are drawn (random_weights, or a network of your own that is not trained); -1: the
    run's seed.

    Set it for runs with different seeds on one such network. --repeats does.
    """
    layers: tuple[str, ...] = ()
    """Layers to read; empty: the backbone's default layers.

    Fewer for speed; one for the score of a single layer.
    """
    size: int = 0
    """Side of the input in pixels; 0: the backbone's default.

    Larger to resolve small objects; the network's time grows with its square.
    """

    def __post_init__(self) -> None:
        if self.weights and self.random_weights:
            raise UsageError("weights and random_weights exclude each other: set one of them")
        _check_seed(self, "weights_seed")
        check_at_least_zero(self, "size")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seed: int = 0
    """Random seed for the split (unless data.split_seed is set), the initial weights and the shuffling of images."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_at_least_zero(self, "seed")
        if self.seed >= 2**63:
            raise UsageError(f"seed must be below 2 ** 63, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a nested dict, with lists for tuples."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Build from a nested mapping.

        Raises
        ------
        UsageError
            On an unknown key (names the nearest), a wrong type or a value out of range.
        """
        return build(cls, values, source, _hint)

    def replace(self, assignments: Iterable[str]) -> Config:
        """Apply ``section.key=value`` assignments; values are read as YAML.

        Raises
        ------
        UsageError
            If an assignment has no ``=``, or its key or value is not valid.
        """
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        values = self.to_dict()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set must be KEY=VALUE, got {assignment!r}")
            *sections, last = key.strip().split(".")
            section = values
            for name in sections:
                if not isinstance(section.get(name), dict):
                    names = [name for name, value in section.items() if isinstance(value, dict)]
                    hint = _hint(last, ()) if settings_like(last) else nearest_name(name, names)
                    raise UsageError(f"--set {key}: no section {name!r}{hint}")
                section = section[name]
            if last not in section:
                raise UsageError(f"--set {key}: no such key{_hint(last, section, '.'.join(sections))}")
            if isinstance(section[last], dict):
                raise UsageError(f"--set {key}: is a section; its keys: {', '.join(section[last])}")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise UsageError(f"--set {key}: cannot read the value {text!r}") from None
            section[last] = "" if value is None and isinstance(section[last], str) else value
        return build(type(self), values, "--set", _hint)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as YAML."""
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        with atomic_write(path) as temporary:
            temporary.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str], missing: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
        """Read a YAML file; missing keys have their value in `missing` (section -> key -> value), or their default."""
        yaml = require("yaml", extra="train", purpose="a run's configuration")
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            raise DataError(f"{path}: expected YAML, found something else") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
        for section, keys in (missing or {}).items():
            values[section] = {**keys, **(values.get(section) or {})}
        return build(cls, values, str(path), _hint)


# What other programs call a setting -> the beginning of its name here.
_OTHER_NAMES = {
    **dict.fromkeys(("learning_rate", "lrate"), "lr"),
    **dict.fromkeys(("wd", "decay", "l2"), "weight_decay"),
    **dict.fromkeys(("batch", "bs"), "batch_size"),
    **dict.fromkeys(("channels", "dim", "rank"), "bottleneck"),
    **dict.fromkeys(("gpu", "cuda", "accelerator"), "device"),
    **dict.fromkeys(("image_size", "resolution", "img_size"), "size"),
    **dict.fromkeys(("early_stopping",), "patience"),
    **dict.fromkeys(("amp", "fp16", "bf16"), "precision"),
    "scheduler": "schedule",
    "layer": "layers",
}


def settings_like(name: str) -> list[str]:
    """The settings that a name may mean, as ``section.key``: of that name, else with it as a part, else similar."""
    wanted = name.lower().replace("-", "_")
    wanted = _OTHER_NAMES.get(wanted, wanted)
    keys: dict[str, list[str]] = {}
    for section, values in Config().to_dict().items():
        for key in values if isinstance(values, dict) else ():
            keys.setdefault(key, []).append(f"{section}.{key}")
    found = [wanted] if wanted in keys else [key for key in keys if key.startswith(f"{wanted}_")]
    found = found or difflib.get_close_matches(wanted, keys, n=2, cutoff=0.75)
    return [full for key in found for full in keys[key]]


def _hint(name: str, known: Iterable[str], section: str = "") -> str:
    """The end of a message about an unknown key: the nearest of its section, or where such a key is."""
    known, elsewhere = list(known), settings_like(name)
    is_in_another_section = any(full.endswith(f".{name}") for full in elsewhere)
    if elsewhere and (is_in_another_section or not difflib.get_close_matches(name, known, n=1)):
        return f"; did you mean {' or '.join(elsewhere)}?"
    near = nearest_names(name, known, most=1, cutoff=0.6)
    return f"; did you mean {section}.{near[0]}?" if section and near else nearest_name(name, known)
