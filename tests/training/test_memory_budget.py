"""Memory of a training: what it needs, that it does not grow with the images, and what is reported when it runs out."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem_with_records
from subprocesses import run_python

from brainkit.errors import BrainkitError, TrainingError
from brainkit.training import memory_budget
from brainkit.training.batch_source import DeviceSource
from brainkit.training.fit import fit
from brainkit.training.memory_budget import estimate_memory, explain_out_of_memory
from brainkit.training.module import EncodingModule


def test_what_is_needed_is_counted() -> None:
    module, data, rows = problem_with_records()
    need = estimate_memory(module.model, len(rows), 8, "cpu")
    assert (
        need.tokens
        == 2 * len(rows) * data.tokens.record
        == DeviceSource(data.tokens, data.responses, rows, "cpu").records.nbytes
    )
    assert need.responses == 4 * len(rows) * 20
    parameters = sum(parameter.numel() for parameter in module.model.parameters())
    assert need.state >= 16 * parameters
    assert estimate_memory(module.model, len(rows), 16, "cpu").work >= need.work
    assert estimate_memory(module.model, len(rows), 8, "cuda").step == need.step + memory_budget.GPU_WORKSPACE
    module.model.backend = "reference"
    assert estimate_memory(module.model, len(rows), 800, "cpu").step > 12 * 800 * 20 * 6 * 2
    assert memory_budget.free_memory("cpu") > 10**8


GROWTH = r"""
import gc, re, sys
from pathlib import Path
import numpy as np, torch
from small_models import GRID, Responses, coordinates
from brainkit.config import TrainConfig
from brainkit.training.datamodule import EncodingData
from brainkit.data.split import Split
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule

widths = {"a": 1000, "b": 1000}
record = 2000 * (GRID[0] * GRID[1] + 1)

class Mapped:
    dtype, record = torch.float16, record
    def __init__(self, file, n):
        self.held = np.memmap(file, np.float16, "w+", shape=(n, record))
        for row in range(n):
            self.held[row] = row % 7
        self.held.flush()
        self.held = np.memmap(file, np.float16, "r", shape=(n, record))
    def records(self, rows, out=None):
        return torch.from_numpy(self.held[rows])
    def batch(self, rows):
        return self.expand(self.records(rows))
    def expand(self, records):
        parts = records.float().split([12000, 12000, 1000, 1000], 1)
        return {k: p.view(-1, 1000, *GRID) for k, p in zip("ab", parts)}, dict(zip("ab", parts[2:]))

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

def peak(folder, n):
    folder.mkdir()
    model = FactorTopy(widths, coordinates(10), bottleneck=4, grid=GRID, selector_width=8)
    responses = Responses(np.random.default_rng(0).standard_normal((n, 10)))
    split = Split(np.arange(n - 16), np.arange(n - 16, n - 8), np.arange(n - 8, n), seed=0)
    tokens = Mapped(folder / "tokens", n)
    data = EncodingData(tokens, responses, split, batch_size=16)
    seen = []
    module = EncodingModule(model, TrainConfig(epochs=1), data.steps)
    fit(module, data, folder, on_step=lambda step: seen.append(anonymous()))
    assert len(seen) == data.steps
    return max(seen)

peak(Path(sys.argv[1]) / "first", 200)  # what a process takes once
for n in (200, 1000):
    gc.collect()
    print(peak(Path(sys.argv[1]) / str(n), n), 2 * record * n)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux counts anonymous memory")
def test_anonymous_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    done = run_python(GROWTH, tmp_path)
    assert done.returncode == 0, done.stderr
    (peak, size), (later, larger) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert larger - size > 40e6
    assert later - peak < 0.2 * (larger - size)


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (lambda: torch.empty(1 << 60), r"training ran out of memory \(asked for \d+ bytes\); lower it"),
        (lambda: np.empty(1 << 58), r"training ran out of memory; lower it"),
        (
            lambda: (_ for _ in ()).throw(
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU")
            ),
            r"training ran out of memory of the GPU \(asked for 20\.00 GiB\); lower it",
        ),
        (
            lambda: (_ for _ in ()).throw(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to")),
            r"training ran out of memory of the GPU; lower it",
        ),
    ],
)
def test_memory_that_ran_out_is_one_line(fail: Any, line: str) -> None:
    with pytest.raises(TrainingError) as failure, explain_out_of_memory("training", "lower it"):
        next(fail()) if hasattr(fail, "__next__") else fail()
    assert re.fullmatch(line, str(failure.value))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("training", "lower it"):
        raise RuntimeError("shapes do not fit")


def test_memory_that_ran_out_in_a_networks_code_is_no_error_of_its_code() -> None:
    with pytest.raises(TrainingError, match="ran out of memory"), explain_out_of_memory("training", "lower it"):
        raise BrainkitError("net.py:Net: get_tokens failed") from RuntimeError("can't allocate memory")
    with pytest.raises(BrainkitError, match="net"), explain_out_of_memory("training", "lower it"):
        raise BrainkitError("net.py:Net: get_tokens failed") from RuntimeError("shapes do not fit")


def test_training_that_runs_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data, _ = problem_with_records()
    monkeypatch.setattr(EncodingModule, "step_loss", lambda *_: torch.empty(1 << 60))
    with pytest.raises(
        TrainingError, match=r"lower train\.batch_size \(now 8\), model\.bottleneck \(6\) or model\.grid"
    ):
        fit(module, data, tmp_path)
