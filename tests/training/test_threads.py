"""Threads of trainings and exports: chosen ones, and those of the environment."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import problem

from brainkit.training.fit import fit
from brainkit.training.threads import limit_threads
from brainkit.utils.system import cores


def test_torch_keeps_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with limit_threads():
            assert torch.get_num_threads() == cores() == 1
        with limit_threads(3):
            assert torch.get_num_threads() == cores() == 3
            with limit_threads():
                assert torch.get_num_threads() == cores() == 3
        monkeypatch.delenv("SLURM_CPUS_PER_TASK")
        torch.set_num_threads(1)
        with limit_threads():  # what torch prefers, if that is less
            assert torch.get_num_threads() == 1
            torch.set_num_threads(2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_each_process_works_with_the_threads_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for threads, expected in ((0, 1), (3, 3)):
        folder = tmp_path / str(threads)
        folder.mkdir()
        module, data = problem(epochs=1, devices=2, threads=threads)
        assert fit(module, data, folder).threads == expected
