"""Where a result comes from, as every JSON of results states it: names, hashes, seeds and versions, and no dates."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, the platform, and the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hash_texts(texts: Iterable[str]) -> str:
    """SHA-256 over texts in order, such as the hashes of a set of images."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
