"""The backbone of a run, and its tokens of a subject's images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from brainkit.config import Config
from brainkit.errors import UsageError
from brainkit.utils.progress import Say, progress_bar
from brainkit.utils.text import plural

if TYPE_CHECKING:
    from torch import nn

    from brainkit.backbones import Backbone
    from brainkit.data.subject import Subject
    from brainkit.features.cache import TokenCache


class SubjectTokens(NamedTuple):
    """Tokens of a subject's images, and the images per second of extracting them; None if they were in the cache."""

    cache: TokenCache
    images_per_second: float | None


def load_network(settings: Config, network: str | nn.Module | None = None, say: Say | None = None) -> Backbone:
    """The network that was given in Python, prepared as the settings say; by default the one they name.

    Parameters
    ----------
    settings : Config
    network : str or Module, optional
    say : callable, optional
        Called with each line that the network has for the user (:attr:`brainkit.backbones.Backbone.notes`).
    """
    loaded = _load(settings, network)
    if say is not None:
        for note in loaded.notes:
            say(note)
    return loaded


def _load(settings: Config, network: str | nn.Module | None) -> Backbone:
    from brainkit.backbones import Backbone, load_backbone, wrap_network
    from brainkit.backbones.probe import other_numbers

    if isinstance(network, Backbone):
        if numbers := other_numbers(network):
            found = f"{network.name}: its weights are {', '.join(numbers)}"
            raise UsageError(f"{found}, and brainkit computes in float32: call .float() on it")
        return network.eval()
    c = settings.backbone
    layers, size, preset = c.layers or None, c.size or None, settings.data.preset or None
    if network is not None and not isinstance(network, str):
        return wrap_network(network, layers=layers, size=size, preset=preset)
    return load_backbone(
        c.name,
        weights=c.weights or None,
        random_weights=c.random_weights,
        layers=layers,
        size=size,
        fit=settings.data.fit,  # type: ignore[arg-type]
        preset=preset,
        seed=settings.seed if c.weights_seed < 0 else c.weights_seed,
    )


def extract_subject_tokens(
    network: Backbone, subject: Subject, *, grid: tuple[int, int], device: str, dtype: str, say: Say
) -> SubjectTokens:
    """Tokens of all images of a subject, from the cache as far as they are there.

    Parameters
    ----------
    network : Backbone
        On the CPU afterwards.
    subject : Subject
    grid : (int, int)
        Rows and columns of the token grid.
    device : str
    dtype : {"float16", "bfloat16"}
        Of tokens in the cache.
    say : callable
        Called with each line of progress.
    """
    from brainkit.features import extract_tokens

    started = time.monotonic()
    with progress_bar("tokens", "images") as advance:
        tokens = extract_tokens(
            network,
            subject.images,
            grid=grid,
            device=device,
            dtype=dtype,
            say=say,
            progress=lambda done: advance(done, len(subject)),
        )
    network.cpu()
    if not tokens.extracted:
        return SubjectTokens(tokens, None)
    rate = round(tokens.extracted / (time.monotonic() - started), 1)
    say(f"tokens of {plural(tokens.extracted, 'image')} extracted: {rate:.1f} images/s on {device}")
    return SubjectTokens(tokens, rate)
