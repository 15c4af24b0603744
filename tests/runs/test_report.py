"""The report of a run, and of several compared."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import quiet

for needed in ("torch", "pytorch_lightning", "timm", "matplotlib", "nilearn", "jinja2"):
    pytest.importorskip(needed)

from small_surface import small_surface, write_freesurfer  # noqa: E402

from brainkit.cortex.volume import Volume  # noqa: E402
from brainkit.errors import DataError, UsageError  # noqa: E402
from brainkit.evaluation.recovery import ROW_NAMES  # noqa: E402
from brainkit.runs.folder import write_volume  # noqa: E402
from brainkit.runs.report import write_report  # noqa: E402
from brainkit.utils.files import read_json, write_json  # noqa: E402

HOSTILE = '<script>alert("x")</script>\n\u202eבדיקה'


class Page(HTMLParser):
    """What a browser would find: sections, the addresses of everything that is loaded, and text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.alternatives: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(values["id"] or "")
        if tag == "img":
            self.alternatives.append(values["alt"] or "")
        self.sources += [values[name] or "" for name in ("src", "href") if name in values]

    def handle_data(self, data: str) -> None:
        self.text += data
        for tag, found in (("h3", self.headings), ("td", self.cells)):
            if self.tags[-1:] == [tag]:
                found.append(data)


@pytest.fixture
def run(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


def report(*runs: Path, out: str = "report.html", **options: Any) -> Page:
    return Page(write_report(runs, out, cortex=False, say=quiet, **options))


@pytest.mark.slow
def test_a_report_is_one_file_with_all_sections_and_the_same_bytes_again(run: Path) -> None:
    page = report(run)
    expected = ["accuracy", "maps", "channels", "truth", "vertices", "training", "data", "reproduce", "cite"]
    assert page.sections == expected
    assert {"Weight of each layer", "Layers by ROI", "Coverage of the image by ROI"} <= set(page.headings)
    assert set(ROW_NAMES.values()) <= set(page.cells)
    assert "R²" in page.text and "r² / ceiling" in page.text
    assert all(source.startswith(("data:", "#")) for source in page.sources), "something is loaded from elsewhere"
    anchors = {source[1:] for source in page.sources if source.startswith("#")}
    assert anchors == set(page.sections)
    summary = read_json(run / "run.json")
    assert f"{summary['scores']['all']['r']:.2f}" in page.text
    for expected in (*summary["scores"]["rois"], summary["data"]["hash"], summary["backbone"]["weights_hash"]):
        assert expected in page.text
    first = Path("report.html").read_bytes()
    report(run, overwrite=True)
    assert Path("report.html").read_bytes() == first


@pytest.mark.slow
def test_names_from_files_stay_text(run: Path) -> None:
    summary = read_json(run / "run.json")
    summary["backbone"]["name"] = summary["data"]["name"] = HOSTILE
    write_json(run / "run.json", summary)
    page = report(run)
    assert "script" not in page.tags
    assert '<script>alert("x")</script>' in page.text


@pytest.mark.slow
def test_data_that_are_gone_are_said(run: Path, tiny_sample: Path, tmp_path: Path) -> None:
    for name in ("run.json", "config.yaml"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace(str(tiny_sample), str(tmp_path / "gone")))
    without = report(run)
    assert str(tmp_path / "gone") in without.text
    assert "truth" not in without.sections
    moved = report(run, out="moved.html", data=tiny_sample)
    assert "truth" in moved.sections
    assert moved.tags.count("h4") > without.tags.count("h4") == 0
    (told,) = re.findall("Not shown: .*", without.text)
    assert told.endswith(".") and not told.endswith("..")
    assert "What clusters respond to" in moved.headings and "What clusters respond to" not in without.headings


@pytest.fixture
def voxels(own_run: Any, tmp_path: Path) -> Path:
    """A run of voxels in the grey matter of `small_surface`."""
    run = Path(shutil.copytree(own_run.path, tmp_path / "voxels"))
    halves = [small_surface().hemisphere(name).points for name in ("left", "right")]
    middle = np.concatenate([(half["white"] + half["pial"]) / 2 for half in halves])[[0, 1, 2, 66, 67, 68]]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -64
    write_volume(run / "volume.npz", Volume((64, 64, 64), affine, np.rint((middle + 64) / 2).astype(int)))
    write_json(run / "rois.json", {"early": [0, 1, 3]})
    return run


@pytest.mark.slow
def test_voxels_are_drawn_as_projections_or_on_their_surface(voxels: Path, tmp_path: Path) -> None:
    bare = report(voxels)
    write_freesurfer(tmp_path / "subject", small_surface(), ("pial", "white", "inflated"))
    drawn = Page(write_report([voxels], "surface.html", surface=tmp_path / "subject", say=quiet))
    assert "iframe" in drawn.tags and "iframe" not in bare.tags
    for page in (bare, drawn):
        assert "6 voxels" in page.text
        assert {"Map: preferred layer", "Map: clusters of channels"} <= set(page.alternatives)
    assert drawn.alternatives == bare.alternatives
    assert drawn.sources != bare.sources


@pytest.mark.slow
def test_standard_errors_of_all_selectors_are_shown(run: Path) -> None:
    with np.load(run / "selectors.npz") as file:
        ids = file["vertices"]
    small = np.full(len(ids), 0.01)
    errors = {"depth_se": small, "location_se": np.stack([small, small], axis=1), "scale_se": small}
    about = {"basis": np.array("seeds"), "runs": np.array(3), "max_se": np.array(0.1)}
    np.savez(run / "uncertainty.npz", vertices=ids, **errors, **about)
    group = {f"{name}_se": {"median": 0.01} for name in ("depth", "location", "scale")}
    group["reliable"] = {"n": len(ids), "mean": 1.0}
    write_json(run / "uncertainty.json", {"groups": {"all": group}, "runs": 3, "basis": "seeds"})
    page = report(run)
    assert "uncertainty" in page.sections
    assert sum("standard error" in title for title in page.alternatives) == 3


@pytest.mark.slow
def test_damaged_arrays_are_one_line(run: Path) -> None:
    (run / "scores.npz").write_bytes(b"PK half")
    with pytest.raises(DataError, match="scores"):
        report(run)
    assert not Path("report.html").exists()


@pytest.mark.slow
def test_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    page = report(run, other)
    assert page.sections == ["comparison", "side-by-side", "runs"]
    backbone = read_json(run / "run.json")["backbone"]["name"]
    assert f"run other: {backbone} on " in page.text and "seed " in page.text
    assert all(source.startswith(("data:", "#")) for source in page.sources)


def test_what_cannot_be_reported_is_one_line(run: Path) -> None:
    Path("report.html").write_text("mine")
    with pytest.raises(UsageError, match=r"report\.html"):
        report(run)
    assert Path("report.html").read_text() == "mine"
    with pytest.raises(DataError, match="nowhere"):
        report(run, out="other.html", data="nowhere")
    with pytest.raises(DataError, match="deep"):
        report(run, out="deep/report.html")
    (run / "run.json").unlink()
    with pytest.raises(DataError, match="finished"):
        report(run, out="other.html")
    assert not Path("other.html").exists()


@pytest.mark.slow
def test_a_run_without_scores_has_a_report_without_them(run: Path) -> None:
    (run / "scores.npz").unlink()
    page = report(run)
    assert "accuracy" not in page.sections and {"maps", "data"} <= set(page.sections)


@pytest.mark.slow
def test_images_are_shown_as_the_network_sees_them(run: Path) -> None:
    whole = report(run)
    summary = read_json(run / "run.json")
    summary["backbone"]["preprocessing"] |= {"fit": "crop", "crop_fraction": 0.5}
    write_json(run / "run.json", summary)
    cropped = report(run, out="cropped.html")
    seen = [{source for source in page.sources if source.startswith("data:image/jpeg")} for page in (whole, cropped)]
    assert all(seen) and not seen[0] & seen[1]
