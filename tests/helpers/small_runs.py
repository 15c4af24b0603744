"""What tests of whole runs share: small settings, data and a plug-in network, and whether two runs are the same."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

SMALL = ("train.batch_size=16", "model.bottleneck=4", "model.selector_width=8")

PLUG_IN = """
import torch


class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(6, 3, 8, 8, generator=generator) * 0.2)

    def get_tokens(self, images):
        fine = torch.relu(torch.nn.functional.conv2d(images, self.weight, stride=8))
        coarse = torch.nn.functional.avg_pool2d(fine, 2) ** 2
        local = {"fine": fine, "coarse": coarse}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}
"""

# Sums in another order, over some dozen steps of AdamW, whose first steps divide by their own size.
SAME = {"rtol": 1e-3, "atol": 1e-4}


def quiet(line: str) -> None:
    """A `say` that reports nothing."""


def draw_one_map(folder: Path, *_: object, **__: object) -> list[Path]:
    """In place of `brainkit.maps.draw.draw_maps`, which takes seconds: one empty figure."""
    figure = Path(folder) / "layer.png"
    figure.write_bytes(b"")
    return [figure]


def make_own_data(folder: Path, images: int = 24, vertices: int = 6) -> Path:
    """A subject on no known surface, whose responses follow the mean colour of its images."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    colours = draw.integers(0, 256, (images, 3), dtype=np.uint8)
    for row, colour in enumerate(colours):
        noise = draw.integers(0, 40, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / "images" / f"{row:03d}.png")
    responses = colours / 128.0 @ draw.standard_normal((3, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (vertices, 3)).astype(np.float32))
    return folder


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def checkpoint_of(folder: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint_of(folder, name)["state_dict"]
    return state


def assert_same_run(one: Path, other: Path) -> None:
    left, right = weights_of(one), weights_of(other)
    assert list(left) == list(right)
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, **SAME)
    for a, b in zip(rows_of(one), rows_of(other), strict=True):
        assert (a["epoch"], a["step"]) == (b["epoch"], b["step"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_r"] == pytest.approx(b["val_r"], abs=1e-4)
    files = [sorted(path.relative_to(place).as_posix() for path in place.rglob("*")) for place in (one, other)]
    assert files[0] == files[1]


def identical(a: object, b: object) -> bool:
    """Whether the contents of two checkpoints, or two batches, are equal bit for bit; seconds are left out."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, dict):
        keys = [key for key in a if key != "seconds"]
        assert isinstance(b, dict)
        return keys == [key for key in b if key != "seconds"] and all(identical(a[key], b[key]) for key in keys)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(identical, a, b))
    return a == b
