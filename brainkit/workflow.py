"""What one command strings together: train -> evaluate -> maps, export, and the same from Python."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import brainkit
from brainkit.config import BackboneConfig, Config, DataConfig
from brainkit.errors import BrainkitError, DataError, UsageError, require
from brainkit.files import read_json, write_json
from brainkit.progress import progress_bar
from brainkit.run_folder import (
    PhaseClock,
    RunLog,
    encoder_info,
    finished_run,
    load_model,
    read_maps,
    write_selectors,
)
from brainkit.runs import RUNS, name_latest

if TYPE_CHECKING:
    from brainkit.backbones import Backbone
    from brainkit.data.splits import Split
    from brainkit.data.subject import Subject
    from brainkit.export import Exported
    from brainkit.features import TokenCache
    from brainkit.model import FactorTopy

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished run, as `fit` returns it.

    Attributes
    ----------
    path : Path
        The run folder.
    summary : dict
        What ``run.json`` holds: backbone, data, versions and scores on the test images.
    """

    path: Path
    summary: dict[str, Any]

    @property
    def scores(self) -> dict[str, Any]:
        """Medians over all vertices and by ROI, see :func:`brainkit.evaluation.summarise`."""
        scores: dict[str, Any] = self.summary["scores"]
        return scores


def train(
    backbone: str | Backbone,
    *,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    random_weights: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> Path:
    """Train an encoder on a frozen backbone, score it on held-out images, and draw its maps.

    Parameters
    ----------
    backbone : str or Backbone
        An alias, a timm model, ``file.py:ClassName``, or a loaded backbone.
    data : path-like, optional
        A subject's folder; else ``$BRAINKIT_DATA``, else the sample subject, and a line says so.
    out : path-like, optional
        The run folder, taken literally; by default ``runs/<date>-<backbone>``.
    weights : path-like, optional
        The backbone's weights from a local file.
    random_weights : bool
        Take seeded random weights.
    epochs, seed : int, optional
        Override the configuration.
    resume : bool
        Go on with the run in `out`.
    config : path-like, optional
        YAML file of settings.
    overrides : sequence of str
        ``section.key=value``; they win over `config`.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Path
        The run folder, complete; ``runs/latest`` names it.

    Raises
    ------
    UsageError, DataError, TrainingError, MissingDependency, BrainkitError
        Each with one line that says what to do.
    """
    require("torch", extra="train", purpose="brainkit train")
    require("pytorch_lightning", extra="train", purpose="brainkit train")
    name = backbone if isinstance(backbone, str) else backbone.name
    settings = _settings(name, data, weights, random_weights, epochs, seed, config, overrides)
    folder = Path(out) if out is not None else RUNS / f"{datetime.date.today().isoformat()}-{_file_name(name)}"
    if resume:
        given = (data, weights, random_weights or None, epochs, seed, config, *overrides)
        settings = _resumed(folder, out, settings, asked=any(value is not None for value in given))
        if (folder / "run.json").is_file():
            say(f"{folder}: is complete, nothing to resume")
            return folder
    elif folder.exists():
        raise UsageError(f"{folder}: exists already; go on with it by --resume, or name another --out")

    with RunLog(say) as log:
        try:
            _train(settings, backbone, folder, resume, log)
        except KeyboardInterrupt:
            if folder.is_dir():
                log(f"stopped; the same command with --resume --out {folder} goes on with it")
            raise
    return folder


def fit(
    backbone: str | Backbone,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> Run:
    """Train an encoder from Python; the same as ``brainkit train``.

    Parameters
    ----------
    backbone : str or Backbone
        A name, or what :func:`brainkit.load_backbone` gives.
    data : path-like, optional
        A subject's folder, as for `train`.
    out, epochs, seed, overrides, say
        As for `train`.

    Returns
    -------
    Run
        With ``path``, ``summary`` and ``scores``.

    Examples
    --------
    >>> run = brainkit.fit("efficientnet_lite0", "algonauts/subj01")  # doctest: +SKIP
    >>> run.scores["all"]["r"]  # doctest: +SKIP
    """
    path = train(backbone, data=data, out=out, epochs=epochs, seed=seed, overrides=overrides, say=say)
    return Run(path, read_json(path / "run.json"))


def export(
    run: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    backbone: Backbone | None = None,
    say: Say = print,
) -> Exported:
    """Write a finished run as one encoder file, checked against torch on the run's validation images.

    Parameters
    ----------
    run : path-like, optional
        A run folder; by default the one that ``runs/latest`` names.
    out : path-like, optional
        The file; by default ``encoder.onnx`` in the run folder.
    backbone : Backbone, optional
        The network that the run was trained on, where its name and settings do not bring it back: one that was made
        in Python. By default it is loaded as ``config.yaml`` says.
    say : callable
        Takes lines of progress.

    Returns
    -------
    Exported
        ``path``, ``bytes`` and ``certificate``.
    """
    require("torch", extra="train", purpose="brainkit export")
    require("onnx", extra="train", purpose="brainkit export")
    from brainkit.data import open_subject
    from brainkit.data.splits import Split
    from brainkit.export import export_onnx
    from brainkit.images import decode, prepare

    folder, summary = finished_run(run)
    target = Path(out) if out is not None else folder / "encoder.onnx"
    if not target.parent.is_dir():
        raise DataError(f"{target}: its folder {target.parent} does not exist; make it first")
    settings = Config.read(folder / "config.yaml")
    subject = open_subject(Path(summary["data"]["path"]))
    network = backbone if backbone is not None else _load_backbone(settings)
    _same_network(folder, summary["backbone"], network)
    model = load_model(folder)
    split = Split.read(folder / "split.json", names=[path.name for path in subject.images])
    rows = _parity_rows(split)
    images = np.stack([prepare(decode(subject.images[row]), network.preprocessing) for row in rows])
    say(f"exporting {folder} with {network.name}, {len(model.weight)} vertices")
    exported = export_onnx(model, network, target, info=encoder_info(folder, summary, model), images=images)
    certificate = exported.certificate
    say(
        f"{exported.path}: {exported.bytes / 1e6:.1f} MB; torch against ONNX Runtime on {len(images)} images: "
        f"largest difference {certificate['largest']:.1e} of a vertex's s.d., median {certificate['median']:.1e}"
    )
    return exported


def draw_run(
    run: str | os.PathLike[str] | None = None, *, out: str | os.PathLike[str] | None = None, say: Say = print
) -> list[Path]:
    """Draw the maps of a finished run: accuracy, explained share, layer, location, scale.

    Parameters
    ----------
    run : path-like, optional
        A run folder or an encoder file; by default the run that ``runs/latest`` names.
    out : path-like, optional
        Folder for the figures; by default ``maps/`` in the run, or beside the encoder file.
    say : callable
        Takes lines of progress.

    Returns
    -------
    list of Path
        The figures.
    """
    if run is not None and Path(run).is_file():
        from brainkit.maps.predicted import draw_encoder_file

        return draw_encoder_file(run, out, say=say)
    from brainkit.maps.static import draw_maps

    folder, summary = finished_run(run)
    place = Path(out) if out is not None else folder / "maps"
    if not place.parent.is_dir():
        raise DataError(f"{place}: its folder {place.parent} does not exist; make it first")
    place.mkdir(exist_ok=True)
    layer_note = "published gauge: depth is not fixed by the data" if summary["gauge"] == "published" else None
    figures = draw_maps(place, title=summary["backbone"]["name"], layer_note=layer_note, **read_maps(folder, summary))
    say(f"{place}: {', '.join(figure.name for figure in figures)}")
    return figures


def _train(settings: Config, backbone: str | Backbone, folder: Path, resume: bool, log: RunLog) -> None:
    import torch

    from brainkit import evaluation, features, training
    from brainkit.data import make_split
    from brainkit.data.module import EncodingData
    from brainkit.model import FactorTopy

    clock = PhaseClock()
    device = training.choose_device(settings.train.device)
    # What can be wrong with the request is found out before a folder is made, and before a sample subject is.
    given = Path(settings.data.path)
    if settings.data.path and not given.is_dir():
        raise DataError(f"{given}: expected a data folder, found {'a file' if given.exists() else 'nothing'}")
    network = backbone if not isinstance(backbone, str) else _load_backbone(settings)
    subject, settings = _subject(settings, log)
    log(subject.describe())
    if not network.pretrained:
        log(f"{network.name}: RANDOM weights, a control: its maps say nothing about a trained network")
    fractions = (settings.data.validation, settings.data.test)
    names = [path.name for path in subject.images]
    split = make_split(subject.groups, subject.official_test, settings.seed, fractions, names=names)
    coordinates = subject.coordinates

    grid = (settings.model.grid, settings.model.grid)
    with _made(folder):
        tokens = _tokens(network, subject, grid, device, log)
        settings.write(folder / "config.yaml")
    clock.lap("tokens")
    log.into(folder / "log.txt")
    if resume and (folder / "split.json").is_file():
        _same_split(folder, split, names)
    else:
        split.write(folder / "split.json")
    log(f"split: {len(split.train)} training, {len(split.validation)} validation, {len(split.test)} test images")
    for note in split.notes:
        log(f"split: {note}")

    torch.manual_seed(settings.seed)
    model = FactorTopy(
        tokens.widths,
        coordinates,
        bottleneck=settings.model.bottleneck,
        grid=grid,
        selector_width=settings.model.selector_width,
        backend=settings.model.backend,
    )
    features.fit_statistics(model, tokens, split.train)
    model.set_response_scale(*_response_scale(subject, split.train))
    data = EncodingData(tokens, subject.responses, split, batch_size=settings.train.batch_size, seed=settings.seed)
    steps = len(data.train_dataloader().sampler) * settings.train.epochs  # type: ignore[arg-type]
    module = training.EncodingModule(model, settings.train, steps)
    best = _fit(module, data, folder, device, resume, settings.train.epochs, log)
    clock.lap("training")

    training.load_best(module, best)
    model.cpu()
    scores = evaluation.score(model, tokens, subject.responses, split.test, subject.noise_ceiling)
    clock.lap("evaluation")
    _write_results(folder, settings, subject, network, model, scores, split, clock, log)
    name_latest(folder)
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("nilearn") is None:
        log("no maps drawn: they need pip install 'brainkit[maps]', then brainkit map")
    elif subject.vertices.space == "custom":
        log("no maps drawn: the vertices lie on no surface that brainkit knows")
    else:
        draw_run(folder, say=log)
    log(f"done in {clock.total():.0f} s: {folder}")


def _settings(
    name: str,
    data: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | None,
    random_weights: bool,
    epochs: int | None,
    seed: int | None,
    config: str | os.PathLike[str] | None,
    overrides: Sequence[str],
) -> Config:
    settings = Config.read(config) if config is not None else Config()
    # What the command line names wins over the file, and --set over both.
    network: BackboneConfig = replace(
        settings.backbone,
        name=name,
        weights="" if random_weights else str(Path(weights).resolve()) if weights else settings.backbone.weights,
        random_weights=random_weights or (settings.backbone.random_weights and weights is None),
    )
    settings = replace(settings, backbone=network)
    if data is not None:
        settings = replace(settings, data=replace(settings.data, path=str(data)))
    if epochs is not None:
        settings = replace(settings, train=replace(settings.train, epochs=epochs))
    if seed is not None:
        settings = replace(settings, seed=seed)
    return settings.replace(overrides)


def _resumed(folder: Path, out: object, settings: Config, *, asked: bool) -> Config:
    """The settings of the run that is gone on with; what else was asked for must not differ from them."""
    if out is None and not folder.is_dir():
        raise UsageError(f"{folder}: no run to resume; name it with --out")
    if not (folder / "config.yaml").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: holds no config.yaml, so it is not a run that can be resumed")
        return settings  # it was stopped before it began
    held = Config.read(folder / "config.yaml")
    if held.backbone.name != settings.backbone.name:
        raise UsageError(
            f"{folder}: was begun with backbone {held.backbone.name!r}, got {settings.backbone.name!r}; "
            "resume with the same, or name another --out"
        )
    if asked:
        # A run keeps its data's place as an absolute path, whatever it was called on the command line.
        path = str(Path(settings.data.path).resolve()) if settings.data.path else held.data.path
        if replace(settings, data=replace(settings.data, path=path)) != held:
            raise UsageError(f"{folder}: was begun with other settings (config.yaml); resume takes them as they are")
    return held


def _same_split(folder: Path, made: Split, names: list[str]) -> None:
    from brainkit.data.splits import Split

    held = Split.read(folder / "split.json", names=names)
    for side in ("train", "validation", "test"):
        if not np.array_equal(getattr(held, side), getattr(made, side)):
            raise DataError(f"{folder / 'split.json'}: the data has changed since the run began; train anew")


def _same_network(folder: Path, held: dict[str, Any], network: Backbone) -> None:
    from brainkit.images import Preprocessing

    if network.weights_hash != held["weights_hash"]:
        raise DataError(
            f"{folder}: was trained on other weights of {held['name']} ({held['weights_hash'][:12]}) than those found "
            f"now ({network.weights_hash[:12]}); give back the file it was trained with, or in Python the network"
        )
    shown = Preprocessing.from_json(held["preprocessing"])
    if list(network.layer_names) != held["layers"] or network.preprocessing != shown:
        raise DataError(
            f"{folder}: was trained on other layers or another preprocessing of {held['name']} than its config.yaml "
            "gives now; in Python, give export the network itself"
        )


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the run folder; where the work inside fails, one that was made here and is empty goes again."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrainkitError(f"{folder}: the run folder cannot be made: {error.strerror}") from None
    try:
        yield
    except Exception:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _parity_rows(split: Split) -> np.ndarray:
    """Up to 12 validation images, spread evenly; a small set is filled up to three from training."""
    rows = split.validation[np.linspace(0, len(split.validation) - 1, min(12, len(split.validation))).astype(int)]
    return np.concatenate([rows, split.train[: max(0, 3 - len(rows))]])


def _subject(settings: Config, say: Say) -> tuple[Subject, Config]:
    """Open the data that was named, or the one that stands in, saying which; its path is kept absolute."""
    from brainkit.data import open_subject

    path = settings.data.path or os.environ.get("BRAINKIT_DATA", "")
    if settings.data.path == "":
        if path:
            say(f"data: {path} ($BRAINKIT_DATA)")
        else:
            from brainkit.sample import default_sample

            path = str(default_sample(say))
            say(f"data: none given, so the simulated sample subject ({path})")
    data: DataConfig = replace(settings.data, path=str(Path(path).resolve()))
    return open_subject(Path(path)), replace(settings, data=data)


def _load_backbone(settings: Config) -> Backbone:
    from brainkit.backbones import load_backbone

    c = settings.backbone
    return load_backbone(
        c.name,
        weights=c.weights or None,
        random_weights=c.random_weights,
        layers=c.layers or None,
        size=c.size or None,
        fit=settings.data.fit,  # type: ignore[arg-type]
        preset=settings.data.preset or None,
        seed=settings.seed,
    )


def _tokens(network: Backbone, subject: Subject, grid: tuple[int, int], device: str, log: RunLog) -> TokenCache:
    from brainkit import features

    if features.tokens_in_cache(network, subject.images, grid):
        log(f"tokens of {len(subject)} images: found in the cache")
        return features.extract_tokens(network, subject.images, grid=grid, device=device)
    started = time.monotonic()
    with progress_bar("tokens", "images") as advance:
        tokens = features.extract_tokens(
            network,
            subject.images,
            grid=grid,
            device=device,
            progress=lambda done: advance(done, len(subject)),
        )
    network.cpu()
    log(f"tokens of {len(subject)} images: {len(subject) / (time.monotonic() - started):.1f} images/s on {device}")
    return tokens


def _response_scale(subject: Subject, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. (V,) of the training responses, streamed in two passes."""
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    mean = sum(subject.responses.rows(block).sum(0, dtype=np.float64) for block in blocks) / len(rows)
    square = sum(np.square(subject.responses.rows(block) - mean).sum(0) for block in blocks)
    return np.asarray(mean), np.sqrt(np.asarray(square) / len(rows))


def _fit(module: Any, data: Any, folder: Path, device: str, resume: bool, epochs: int, log: RunLog) -> Path:
    from brainkit import training

    steps = module.planned_steps
    started = time.monotonic()
    with progress_bar("training", "steps") as advance:

        def epoch_done(row: dict[str, float]) -> None:
            advance(row["step"], steps, f"loss {row['train_loss']:.3f}, validation r {row['val_r']:.3f}")
            log.write(
                f"epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.4f}, validation r {row['val_r']:.4f}, "
                f"{row['seconds']:.1f} s"
            )

        best = training.fit(
            module,
            data,
            folder,
            device=device,
            resume=resume,
            on_epoch=epoch_done,
            on_step=lambda step: advance(step, steps),
        )
    log(f"trained {epochs} epochs, {steps} steps, in {time.monotonic() - started:.1f} s on {device}")
    return best


def _write_results(
    folder: Path,
    settings: Config,
    subject: Subject,
    network: Backbone,
    model: FactorTopy,
    scores: Any,
    split: Split,
    clock: PhaseClock,
    log: RunLog,
) -> None:
    from brainkit import evaluation

    write_selectors(folder, model, subject.vertices)
    scores.write(folder / "scores.npz", subject.vertices)
    write_json(folder / "rois.json", subject.rois.to_json())
    table = evaluation.summarise(scores, subject.rois)
    for line in evaluation.score_lines(table):
        log(line)
    truth = subject.root / "truth.npz"
    if truth.is_file():
        folded = model.folded()
        found = evaluation.recovery(
            truth,
            vertices=subject.vertices,
            layers=model.layers,
            backbone=network.name,
            weights_hash=network.weights_hash,
            layer_weights=folded.layer_weights,
            locations=folded.locations,
            scale=folded.scale,
            scores=scores,
        )
        evaluation.write_summary(folder / "recovery.json", found)
        for line in evaluation.recovery_lines(found):
            log(line)
    # Written last: a run with this file is complete.
    evaluation.write_summary(
        folder / "run.json",
        {
            "brainkit": brainkit.__version__,
            "backbone": {
                "name": network.name,
                "weights_hash": network.weights_hash,
                "pretrained": network.pretrained,
                "licence": network.licence,
                "source": network.source,
                "layers": list(model.layers),
                "widths": model.widths,
                "preprocessing": network.preprocessing.to_json(),
            },
            "data": {
                "name": subject.name,
                "path": str(subject.root.resolve()),
                "hash": subject.data_hash,
                "images": len(subject),
                "excluded": {reason: len(ids) for reason, ids in subject.excluded.items()},
            },
            "split": {
                "train": len(split.train),
                "validation": len(split.validation),
                "test": len(split.test),
                "seed": settings.seed,
            },
            "space": subject.vertices.space,
            "vertices": len(subject.vertices),
            "units": subject.units,
            "note": subject.note,
            "gauge": model.gauge,
            "seed": settings.seed,
            "versions": _versions(),
            "seconds": clock.laps,
            "scores": table,
        },
    )


def _file_name(backbone: str) -> str:
    """A backbone's name as part of a folder's name."""
    last = backbone.rsplit(":", 1)[-1] if ".py:" in backbone else backbone
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "pytorch-lightning", "timm", "numpy", "pillow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
