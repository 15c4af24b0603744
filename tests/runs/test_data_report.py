"""Inspecting a subject's data: what `brainkit data` finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subject_folders import save, save_image, write_algonauts, write_own

from brainkit.data import Folder
from brainkit.data.inspection import inspect_subject
from brainkit.errors import DataError, UsageError
from brainkit.runs.data_report import inspect_data, prepare_data, write_data_page


def problems(folder):
    return inspect_subject(Folder(folder), "own data").problems


def test_facts_are_those_of_the_data(tmp_path):
    pytest.importorskip("torch")
    write_algonauts(tmp_path / "subj01", images=40, test=5)
    report = inspect_data(tmp_path / "subj01", backbone="efficientnet_lite0", say=lambda line: None)
    facts = dict(report.inspection.facts)
    assert facts["images"].startswith("45 of 12 x 12")
    assert facts["vertices"].startswith("12 of fsaverage5: 7 left, 5 right")
    assert facts["noise ceilings"] == "none"
    assert "memory" in facts["training"]
    split = report.inspection.split
    assert len(split.test) == 5
    assert len(split.train) + len(split.validation) == 40
    rois = {row[0]: row[1] for table in report.inspection.tables if table.title == "ROIs" for row in table.rows}
    assert rois == {name: str(len(members)) for name, members in report.subject.rois.items()}


def test_sound_data_have_few_problems(tmp_path):
    rng = np.random.default_rng(0)
    write_own(tmp_path)
    for row in range(400):
        save_image(tmp_path / f"images/i{row:03d}.png", 50 + row)
    for path in tmp_path.glob("images/[a-e]*.png"):
        path.unlink()
    save(tmp_path / "responses.npy", rng.standard_normal((400, 4)).astype(np.float32))
    save(tmp_path / "noise_ceiling.npy", np.full(4, 0.5))
    (tmp_path / "rois.json").write_text(json.dumps({"A": [0, 1]}))
    assert problems(tmp_path) == ()
    values = np.load(tmp_path / "responses.npy")
    values[300, 2] = 1e4
    values[:, 3] = 1.0
    save(tmp_path / "responses.npy", values)
    found = problems(tmp_path)
    assert any("i300.png" in line for line in found)
    assert any("1 of 4" in line for line in found)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("images/a0.png", b"\x89PNG broken", "--skip-unreadable"),
        ("rois.json", b'{"A": [], "B": [1]}', "A"),
    ],
)
def test_problems_are_found(tmp_path, name, content, word):
    write_own(tmp_path, n=10)
    (tmp_path / name).write_bytes(content)
    found = problems(tmp_path)
    assert any(word in line for line in found)
    assert any("noise_ceiling.npy" in line for line in found)
    assert any("test stimuli" in line for line in found)


def test_a_page_with_images_and_maps(tmp_path):
    for package in ("torch", "nilearn", "matplotlib", "jinja2"):
        pytest.importorskip(package)
    write_algonauts(tmp_path / "<b>subj", images=40, test=5)
    report = inspect_data(tmp_path / "<b>subj", say=lambda line: None)
    page = write_data_page(report, tmp_path / "data.html").read_text()
    assert "&lt;b&gt;subj" in page
    assert "<b>subj" not in page
    assert page.count("<img src=") == 2  # images and ROIs: there are no ceilings
    with pytest.raises(UsageError, match="exists"):
        write_data_page(report, tmp_path / "data.html")
    with pytest.raises(DataError, match="trials"):
        prepare_data(tmp_path / "<b>subj", tmp_path / "out")


def test_short_sessions_are_said(tmp_path):
    write_own(tmp_path, n=10)
    for trials, said in ((30, True), (750, False)):
        described = {"sessions": {"1": trials, "2": trials}, "standardised": {"within": "session"}}
        (tmp_path / "prepared.json").write_text(json.dumps(described))
        assert any(f"median {trials}" in line for line in problems(tmp_path)) == said
