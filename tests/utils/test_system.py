"""Cores and memory of a process: limits of containers, and systems that report less than Linux."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from brainkit.utils import system

MB = 1_000_000


def test_limits_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4_096_000, total=9_000_000))
    monkeypatch.setattr(system, "_OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(system, "_GROUPS", tmp_path / "groups")
    assert system.free_memory() == 4_096_000 and system.total_memory() == 9_000_000
    write(tmp_path / "cgroup", "0::/job/step\n")
    write(tmp_path / "groups/job/step/memory.max", "max\n")
    write(tmp_path / "groups/job/step/memory.current", "1\n")
    write(tmp_path / "groups/job/memory.max", "3000000\n")
    write(tmp_path / "groups/job/memory.current", "2500000\n")
    assert system.free_memory() == 500_000 and system.total_memory() == 3_000_000
    write(tmp_path / "groups/job/memory.stat", "anon 7\ninactive_file 250000\n")
    assert system.free_memory() == 750_000
    write(tmp_path / "cgroup", "5:cpu,memory:/old\n")
    write(tmp_path / "groups/memory/old/memory.limit_in_bytes", "1000\n")
    write(tmp_path / "groups/memory/old/memory.usage_in_bytes", "2000\n")
    assert system.free_memory() == 0
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert system.cores() == 64
    write(tmp_path / "groups/cpu/old/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "groups/cpu/old/cpu.cfs_period_us", "100000\n")
    assert system.cores() == 64
    write(tmp_path / "groups/cpu/old/cpu.cfs_quota_us", "550000\n")
    assert system.cores() == 6
    write(tmp_path / "groups/cpu.max", "max 100000\n")
    assert system.cores() == 6
    write(tmp_path / "groups/cpu.max", "150000 100000\n")
    assert system.cores() == 2


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= system.cores() <= system.available_cores() <= (os.cpu_count() or 1)


def test_variables_limit_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "available_cores", lambda: 8)
    for openmp, slurm, expected in (
        (None, None, 8),
        ("3", None, 3),
        (None, "2", 2),
        ("3", "2", 2),
        ("4,2", "6", 4),  # one number for each level of nesting
        ("64", None, 8),
        ("0", "-1", 8),
        ("many", "", 8),
    ):
        for name, value in (("OMP_NUM_THREADS", openmp), ("SLURM_CPUS_PER_TASK", slurm)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert system.cores() == expected, (openmp, slurm)


def test_chosen_threads_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with system.use_threads(5):
        assert system.cores() == 5
        with system.use_threads(None):
            assert system.cores() == 5
        with pytest.raises(KeyError), system.use_threads(2):
            raise KeyError
        assert system.cores() == 5
    assert system.cores() == 1


def test_more_threads_than_cores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "available_cores", lambda: 2)
    assert system.surplus_threads(None) == system.surplus_threads(2) == ""
    assert system.surplus_threads(99) == "99 threads asked for, but there are only 2 cores"


def test_memory_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = system.memory_now()
    assert now["resident"] is not None and now["resident"] > 10 * MB
    assert now["anonymous"] is None or 0 < now["anonymous"] <= now["resident"]
    assert system.largest([now, {"resident": None, "anonymous": 3}])["resident"] == now["resident"]
    assert 0 < system.free_memory() <= system.total_memory()
    # macOS and Windows do not report shared memory.
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(rss=20 * MB))
    assert system.memory_now() == {"resident": 20 * MB, "anonymous": None}
    assert system.largest([system.memory_now()]) == {"resident": 20 * MB, "anonymous": None}
