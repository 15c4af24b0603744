"""Weights from local files and from the network, each failure in one line."""

from __future__ import annotations

import argparse
import pickle
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brainkit.backbones.conversions import readings
from brainkit.errors import BrainkitError, DataError
from brainkit.utils.text import first_line

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
# Where training code keeps the state dict.
_CONTAINERS = (
    "state_dict",
    "model",
    "teacher",
    "model_state_dict",
    "state_dict_ema",
    "encoder",
    "target_encoder",
    "module",
)
# Parts that a backbone has no use for: classifiers, decoders, projection heads, the token that hides patches.
_HEADS = re.compile(
    r"^(head|heads|head_dist|fc|classifier|last_linear|fc_norm|decoder|predictor|projector|mask_token)\b|^decoder_"
)
# What training code saves beside the weights, and what runs nothing as it is read: options and single numbers.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "b1")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_PROBE_SECONDS = 6


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict, without running any code that a pickle may hold.

    Parameters
    ----------
    path : path-like
        A .safetensors file, or what ``torch.save`` wrote. The state dict may lie under "state_dict", "model",
        "teacher" and the like.

    Returns
    -------
    dict of str to tensor
        On the CPU, in the file's order.

    Raises
    ------
    DataError
        If the file is missing, damaged, holds more than tensors and plain values, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: weight file not found")
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                content = load_file(path)
            except SafetensorError as error:
                raise DataError(f"{path}: not a readable safetensors file ({first_line(error)})") from None
        else:
            # Mapped where the format allows it: I-JEPA's file has 10 GB, of which the encoder is a quarter.
            with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what follows as an error
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: expected a state dict of tensors, found a damaged file or one that runs code as it loads; "
            "save it again with torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a weight file ({', '.join(SUFFIXES)}): {first_line(error)}") from None
    return _unwrap(content, path)


def load_weights_file(model: nn.Module, path: str | Path, *, label: str, allow_unexpected: bool = False) -> None:
    """Fill `model` from a local file; every parameter of the model must be in it.

    Parameters
    ----------
    model : nn.Module
        A timm or torchvision model.
    path : path-like
        See :func:`read_state_dict`. Wrapper prefixes ("module.", "backbone." ...) are stripped, formats of the
        original authors that timm can convert are converted, classifier heads are dropped.
    label : str
        What to call the network in the message.
    allow_unexpected : bool
        Leave out what the model does not have: published files carry parts that only their authors' tasks need.

    Raises
    ------
    DataError
        If parameters are missing, unexpected or of another shape: one line with the counts and an example each.
    """
    own = model.state_dict()
    best: dict[str, torch.Tensor] | None = None
    best_faults: tuple[list[str], list[str], list[str]] = ([], [], [])
    for candidate in readings(read_state_dict(path), model):
        candidate = {k: v for k, v in candidate.items() if k in own or not (allow_unexpected or _HEADS.match(k))}
        faults = _faults(own, candidate)
        if best is None or sum(map(len, faults)) < sum(map(len, best_faults)):
            best, best_faults = candidate, faults
        if not any(faults):
            break
    missing, unexpected, misshapen = best_faults
    if missing or unexpected or misshapen:
        parts = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
            if keys
        ]
        raise DataError(f"{path}: does not fit {label} ({len(own)} tensors): {', '.join(parts)}")
    assert best is not None
    model.load_state_dict(best)


def hub_file(repository: str, filename: str | None, *, label: str) -> Path:
    """A file of a Hugging Face repository: from the local cache, else downloaded.

    Raises
    ------
    BrainkitError
        If it is neither cached nor reachable; the line names the three ways out.
    """
    import huggingface_hub
    from huggingface_hub import constants

    names = _hub_names(filename)
    sought = f"{repository}/{filename or names[0]} on {constants.ENDPOINT}"
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(label, sought, "HF_HUB_OFFLINE is set and they are not in the local cache")
    _check_reachable(constants.ENDPOINT, label, sought)
    reason = ""
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except (huggingface_hub.errors.GatedRepoError, huggingface_hub.errors.RepositoryNotFoundError) as error:
            raise _unavailable(
                label, sought, f"the hub refuses access ({type(error).__name__}); accept its terms and log in"
            ) from None
        except huggingface_hub.errors.EntryNotFoundError as error:
            reason = first_line(error)
        # Every network failure of the hub's client is an OSError or one of these; httpx's own are neither.
        except (OSError, huggingface_hub.errors.HfHubHTTPError, RuntimeError) as error:
            raise _unavailable(label, sought, first_line(error)) from None
    raise _unavailable(label, sought, reason)


def url_file(url: str, *, label: str) -> Path:
    """A file behind a plain address, kept in torch's cache of downloads.

    Raises
    ------
    BrainkitError
        If it is neither cached nor reachable; the line names the three ways out.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    _check_reachable(url, label, url)
    found = re.search(r"-([a-f0-9]{8,})\.", target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # It writes beside and renames, and compares the hash that the name carries.
        torch.hub.download_url_to_file(
            url, str(target), found.group(1) if found else None, progress=sys.stderr.isatty()
        )
    except (OSError, RuntimeError) as error:
        raise _unavailable(label, url, first_line(error)) from None
    return target


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if tensors and (inner is None or len(tensors) > len(inner)):
            return tensors
        content = inner
    raise DataError(f"{path}: expected a state dict of tensors, found none")


def _faults(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[str], list[str]]:
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    misshapen = [key for key in own if key in given and own[key].shape != given[key].shape]
    return missing, unexpected, misshapen


def _hub_names(filename: str | None) -> tuple[str, ...]:
    """The safetensors form first, as timm does."""
    if filename is None:
        return ("model.safetensors", "pytorch_model.bin")
    if filename == "open_clip_pytorch_model.bin":
        return ("open_clip_model.safetensors", filename)
    return (filename,)


def _check_reachable(url: str, label: str, sought: str) -> None:
    """One quick request: the hub's client would try for the better part of a minute before it gives up.

    It runs in a thread of its own, because a time limit on a connection counts anew for every address of a host,
    and does not count while the name is looked up.
    """
    failure: list[str] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                failure.append(f"the server answers {error.code}")
        except OSError as error:
            reason = getattr(error, "reason", error)
            # The hub's client brings its own certificates, so a refusal of the system's proves nothing.
            if not isinstance(reason, ssl.SSLError):
                failure.append(f"no connection ({first_line(reason)})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS + 2)
    if thread.is_alive():
        failure.append(f"no connection (no answer within {_PROBE_SECONDS + 2} s)")
    if failure:
        raise _unavailable(label, sought, failure[0])


def _unavailable(label: str, sought: str, reason: str) -> BrainkitError:
    return BrainkitError(
        f"{label}: no weights: sought {sought}: {reason}. Connect once to download them, "
        "or give a local file with --weights FILE, or try without training with --random-weights"
    )
