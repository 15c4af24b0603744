"""Several processes on one machine train what one trains, and end together."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import problem

from brainkit.training import fit


def test_two_train_what_one_trains(tmp_path: Path) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        module, data = problem()
        data.batch_size = 7
        seen = []
        fit(module, data, tmp_path / str(count), devices=count, on_epoch=seen.append)
        print(seen)
