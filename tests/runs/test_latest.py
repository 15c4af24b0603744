"""``runs/latest`` names the newest run."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainkit.errors import DataError
from brainkit.runs.latest import default_encoder, latest_run, name_latest


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo\n"])
def test_latest_must_be_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "latest").write_text(content)
    with pytest.raises(DataError, match="expected one line"):
        latest_run(tmp_path)


def test_latest_finds_runs_inside_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, elsewhere = tmp_path / "runs" / "a", tmp_path / "other" / "b"
    inside.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert name_latest(inside).read_text() == "a\n"
    assert latest_run().resolve() == inside
    name_latest("other/b")
    assert latest_run() == elsewhere
    (elsewhere / "encoder.onnx").touch()
    assert default_encoder(pytest.fail) == elsewhere / "encoder.onnx"  # type: ignore[arg-type]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["a", "latest"]
