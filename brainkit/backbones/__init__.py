"""Vision networks as frozen sources of local and global tokens: timm, aliases, and users' own networks."""

from __future__ import annotations

from brainkit.errors import require

for _needed in ("torch", "timm"):
    require(_needed, extra="train", purpose="a backbone")

from brainkit.backbones.base import Backbone  # noqa: E402
from brainkit.backbones.catalog import ALIASES  # noqa: E402
from brainkit.backbones.loading import load_backbone  # noqa: E402
from brainkit.backbones.plugin import wrap_network  # noqa: E402

__all__ = ["ALIASES", "Backbone", "load_backbone", "wrap_network"]
