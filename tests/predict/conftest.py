"""What the tests of predicting share: a small encoder file, and images of which one is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file. Read it, and change nothing in it."""
    from pixel_encoder import write_encoder

    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def encoder(path: Path) -> Any:
    from brainkit.predict import load

    return load(path, "cpu")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images, of which number 3 is broken. Read them, and change nothing."""
    from pixel_encoder import save_images

    folder = tmp_path_factory.mktemp("photos")
    save_images(folder, 11, broken=(3,))
    return folder


@pytest.fixture(scope="session")
def readable(photos: Path) -> list[Path]:
    """The ten of them that can be read."""
    return [path for number, path in enumerate(sorted(photos.iterdir())) if number != 3]


@pytest.fixture(scope="session")
def rows(path: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Their predictions as ``.npy`` holds them, which test_to_file.py compares with the definition: (10, V)."""
    from brainkit.predict import predict_to_file

    out = tmp_path_factory.mktemp("rows") / "fmri.npy"
    predict_to_file(photos, out, path, device="cpu", batch_size=4)
    return np.load(out)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images in it that all differ."""
    from image_inputs import save

    monkeypatch.chdir(tmp_path)
    paths = ("b.png", "a.jpg", "B.png", "sub/a.png", "sub/deep/c.png", "sub2/x.png")
    for seed, path in enumerate(paths):
        save(Path("photos", path), seed)
    Path("photos/readme.txt").write_text("no image")
    Path("photos/.hidden.png").write_bytes(b"")
    return tmp_path
