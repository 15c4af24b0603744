"""How much memory, disk and time training on some data will take here: a few steps on random numbers are timed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from brainkit.backbones import Backbone, load_backbone
from brainkit.config import Config
from brainkit.model import FactorTopy
from brainkit.runs.checks import choose_precision
from brainkit.runs.folder import model_shape
from brainkit.training.fit import choose_device
from brainkit.training.memory_budget import estimate_memory, free_memory
from brainkit.training.module import EncodingModule
from brainkit.training.threads import limit_threads

_STEPS = 3  # timed, after a first one that sets up
_IMAGES = 8  # of a timed pass of the backbone


@dataclass(frozen=True)
class TrainingEstimate:
    """What training takes.

    Attributes
    ----------
    backbone, device : str
    memory, free : int
        Bytes that it needs on the device, and that are free there.
    disk : int
        Bytes of the tokens of all images in the cache.
    extraction, training : float
        Seconds of all images' tokens, and of all epochs; without starting up, scoring and figures.
    """

    backbone: str
    device: str
    memory: int
    free: int
    disk: int
    extraction: float
    training: float


def estimate_training(
    coordinates: np.ndarray, images: int, training_images: int, settings: Config, *, device: str = "auto"
) -> TrainingEstimate:
    """Estimate what training takes on this machine.

    Parameters
    ----------
    coordinates : array of shape (V, 3), float32
        Of the vertices, in mm.
    images, training_images : int
        All images, and those of the training side.
    settings : Config
        Its backbone is loaded with random weights: the time does not depend on them.
    device : str

    Returns
    -------
    TrainingEstimate
    """
    device = choose_device(device)
    name = settings.backbone.name
    with limit_threads():
        network = load_backbone(name, random_weights=True, size=settings.backbone.size or None)
        torch.manual_seed(0)
        model = FactorTopy(
            network.widths,
            coordinates,
            **model_shape(settings.model),
            backend=settings.model.backend,
            precision=choose_precision(settings, device),
        )
        memory = estimate_memory(model, images, settings.train.batch_size, device)
        steps = -(-training_images // settings.train.batch_size) * settings.train.epochs
        return TrainingEstimate(
            name,
            device,
            memory.work + memory.data,
            free_memory(device),
            memory.tokens,
            images * _seconds_of_an_image(network, device),
            steps * _seconds_of_a_step(model, settings, steps, device),
        )


def _seconds_of_an_image(network: Backbone, device: str) -> float:
    size = network.preprocessing.size
    batch = torch.rand(_IMAGES, 3, size, size, device=device)
    network = network.to(device)
    with torch.inference_mode():
        network.get_tokens(batch[:1])
        started = time.perf_counter()
        network.get_tokens(batch)
        _finish(device)
    return (time.perf_counter() - started) / _IMAGES


def _seconds_of_a_step(model: FactorTopy, settings: Config, steps: int, device: str) -> float:
    module = EncodingModule(model, settings.train, max(steps, 1)).to(device)
    optimizer = module.configure_optimizers()["optimizer"]
    images, (height, width) = settings.train.batch_size, model.grid
    local = {name: torch.randn(images, count, height, width, device=device) for name, count in model.widths.items()}
    whole = {name: torch.randn(images, count, device=device) for name, count in model.widths.items()}
    batch = (local, whole, torch.randn(images, len(model.weight), device=device))
    started = 0.0
    for step in range(_STEPS + 1):
        if step == 1:
            _finish(device)
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        module.step_loss(batch).total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), module.config.clip)
        optimizer.step()
    _finish(device)
    return (time.perf_counter() - started) / _STEPS


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
