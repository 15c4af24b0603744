"""``dataset.json``: what data are, and under which terms; nothing is guessed from names."""

from __future__ import annotations

import json

import pytest
from subject_folders import refused, write_algonauts, write_own

from brainkit.data import Algonauts, Folder


def state(root, **content):
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")


def test_names_with_nsd_in_an_own_folder_say_nothing_about_the_data(tmp_path):
    write_own(tmp_path)
    for number, image in enumerate(sorted((tmp_path / "images").iterdir())):
        image.rename(image.with_name(f"train-{number:04d}_nsd-{number:05d}.png"))
    subject = Folder(tmp_path)
    assert (subject.kind, subject.dataset.licence) == ("own", "")


def test_what_is_stated_of_an_own_folder(tmp_path):
    write_own(tmp_path)
    state(tmp_path, name=" My\n data ", licence="CC0", citation="Me (2024)")
    dataset = Folder(tmp_path).dataset
    assert (dataset.name, dataset.licence, dataset.citation) == ("My data", "CC0", ("Me (2024)",))
    state(tmp_path, citation=["A (2020)", "B (2021)"])
    assert Folder(tmp_path).dataset.to_json() == {"name": "", "licence": "", "citation": ["A (2020)", "B (2021)"]}


def test_the_layout_of_algonauts_with_ids_of_nsd_is_nsd(tmp_path):
    write_algonauts(tmp_path / "a")
    assert Algonauts(tmp_path / "a").kind == "nsd"
    state(tmp_path / "a", name="a subject")
    assert Algonauts(tmp_path / "a").kind == "nsd"
    state(tmp_path / "a", name="Ours", licence="CC BY 4.0")
    subject = Algonauts(tmp_path / "a")
    assert (subject.kind, subject.dataset.name, subject.dataset.licence) == ("own", "Ours", "CC BY 4.0")
    write_algonauts(tmp_path / "b", test=0)
    for image in (tmp_path / "b/training_split/training_images").iterdir():
        image.rename(image.with_name(image.name.split("_")[0] + ".png"))
    assert Algonauts(tmp_path / "b").kind == "own"


@pytest.mark.parametrize(("read", "write"), [(Folder, write_own), (Algonauts, write_algonauts)])
def test_simulated_data_are_known_by_their_note(tmp_path, read, write):
    write(tmp_path)
    (tmp_path / "simulated.json").write_text('{"note": "SIMULATED"}', encoding="utf-8-sig")
    assert read(tmp_path).kind == "simulated"


@pytest.mark.parametrize(("read", "write"), [(Folder, write_own), (Algonauts, write_algonauts)])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"license": "CC0"}', ("'license'", "'licence'")),
        ('{"image_oder": "text"}', ("'image_oder'", "'image_order'")),
        ('{"image_order": "random"}', ("image_order", "text", "numeric", "'random'")),
        ('{"name": 3}', ("name",)),
        ('{"citation": [3]}', ("citation",)),
        ("[]", ("expected an object",)),
        ("{", ("expected JSON",)),
    ],
)
def test_other_content_is_refused(tmp_path, read, write, content, words):
    write(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    refused(read, tmp_path, "dataset.json", *words)


def test_utf16_is_named(tmp_path):
    write_own(tmp_path)
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-16")
    refused(Folder, tmp_path, "dataset.json", "UTF-16")


def test_every_json_may_start_with_a_byte_order_mark(tmp_path):
    write_own(tmp_path)
    for name, content in (("rois.json", {"A": [0]}), ("stimuli.json", {"a0.png": "x"}), ("vertices.json", None)):
        file = tmp_path / name
        text = file.read_text() if content is None else json.dumps(content)
        file.write_text(text, encoding="utf-8-sig")
    (tmp_path / "SIMULATED.txt").write_text("Not a brain", encoding="utf-8-sig")
    subject = Folder(tmp_path)
    assert (subject.rois.names, subject.groups[0], subject.note) == (("A",), "x", "Not a brain")
