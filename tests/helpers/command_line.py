"""Calling commands in this process, and a small encoder file for them, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from brainkit import doctor, encoder_file
from brainkit.cli import group
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.encoder_file import EncoderInfo
from brainkit.images import PUBLISHED

V = 40


def call(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def one_line(result: Result, code: int) -> str:
    """Check that a command failed with one line and this exit code, and return the line."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("brainkit")
    return lines[0]


def encoder_info(**changes: Any) -> EncoderInfo:
    """Metadata of an encoder of 40 vertices."""
    rng = np.random.default_rng(0)
    ids = np.concatenate([np.arange(V // 2), 10242 + np.arange(V // 2)]).astype(np.int32)
    ceiling = np.full(V, 0.5, np.float32)
    values: dict[str, Any] = {
        "vertices": Vertices("fsaverage5", ids),
        "rois": RoiTable({"early": np.arange(10), "nothing": np.arange(0)}, V),
        "preprocessing": PUBLISHED,
        "layers": ("stage1", "stage2"),
        "grid": (8, 8),
        "bottleneck": 4,
        "layer_weights": np.full((V, 2), 0.5, np.float32),
        "locations": rng.uniform(-1, 1, (V, 2)).astype(np.float32),
        "scale": np.full(V, 0.25, np.float32),
        "r": np.full(V, 0.5, np.float32),
        "R2": np.full(V, 0.2, np.float32),
        "noise_ceiling": ceiling,
        "units": "z-scored percent signal change",
        "note": "SIMULATED subject, not a brain",
        "licence": "Apache-2.0",
        "backbone": {"name": "tiny", "weights_hash": "ab" * 32, "pretrained": True, "licence": "MIT"},
        "provenance": {"seed": 7, "data": {"name": "sample", "hash": "cd" * 32}},
        "certificate": {"largest": 2e-6, "median": 1e-7},
    }
    return EncoderInfo(**{**values, **changes})


def write_encoder(path: Path, **changes: Any) -> None:
    """Write an encoder file that can be described, though not run."""
    encoder_file.write(path, doctor._identity_model(), encoder_info(**changes))
