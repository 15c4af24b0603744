"""The maps of a run, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

for needed in ("torch", "pytorch_lightning", "timm", "matplotlib", "nilearn"):
    pytest.importorskip(needed)

from brainkit.errors import DataError  # noqa: E402
from brainkit.runs.draw import draw_run  # noqa: E402


@pytest.mark.slow
def test_maps_are_drawn_in_another_folder(finished: Any) -> None:
    lines: list[str] = []
    figures = draw_run(finished.path, out="figures", say=lines.append)
    assert sorted(path.name for path in figures) == sorted(path.name for path in Path("figures").iterdir())
    assert len(lines) == 1
    with pytest.raises(DataError, match="deep"):
        draw_run(finished.path, out="deep/figures")
