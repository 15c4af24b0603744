"""The maps of a run, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

for needed in ("torch", "pytorch_lightning", "timm", "matplotlib", "nilearn"):
    pytest.importorskip(needed)

from dataclasses import replace  # noqa: E402

from small_surface import small_surface  # noqa: E402

from brainkit.errors import DataError  # noqa: E402
from brainkit.maps.style import DEFAULT, Style  # noqa: E402
from brainkit.runs.draw import draw_run, on_own_surface  # noqa: E402


@pytest.mark.slow
def test_maps_are_drawn_in_another_folder(finished: Any) -> None:
    lines: list[str] = []
    figures = draw_run(finished.path, out="figures", say=lines.append)
    assert sorted(path.name for path in figures) == sorted(path.name for path in Path("figures").iterdir())
    assert len(lines) == 1
    with pytest.raises(DataError, match="deep"):
        draw_run(finished.path, out="deep/figures")


def test_an_own_surface_without_a_flatmap_is_drawn_in_another_shape() -> None:
    lines: list[str] = []
    whole = small_surface()
    halves = (replace(half, points={"pial": half.points["pial"]}) for half in (whole.left, whole.right))
    left, right = halves
    bare = replace(whole, left=left, right=right)
    assert on_own_surface(DEFAULT, bare, lines.append).view == "pial"
    assert lines == ["the surface has no flatmap; drawn pial (see --view)"]
    for style, surface in ((DEFAULT, whole), (Style(view="white"), bare)):
        assert on_own_surface(style, surface, lines.append) == style
    assert len(lines) == 1
