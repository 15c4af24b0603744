"""Photographs, and a token cache of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    pytest.importorskip("torch")
    from patch_backbone import write_photos

    return write_photos(tmp_path / "photos")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"
