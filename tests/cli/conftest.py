"""What tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photographs in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 6), (200, 30, 30)).save(folder / name)
    return folder
