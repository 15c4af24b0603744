"""Which image belongs to which row: own folders whose names have several orders are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subject_folders import refused, save, save_image, write_algonauts

from brainkit.data import Algonauts, Folder, open_subject
from brainkit.errors import DataError


def own(root, names, **dataset):
    for seed, name in enumerate(names):
        save_image(root / "images" / name, seed)
    save(root / "responses.npy", np.random.default_rng(0).normal(size=(len(names), 4)))
    save(root / "coordinates.npy", np.random.default_rng(1).normal(size=(4, 3)))
    if dataset:
        (root / "dataset.json").write_text(json.dumps(dataset))
    return root


def order_of(root):
    return [image.relative_to(root / "images").as_posix() for image in Folder(root).images]


AMBIGUOUS = {
    "numbers": [f"{i}.png" for i in range(1, 13)],
    "numbers from 0": [f"{i}.png" for i in range(12)],
    "numbers with gaps": ["3.png", "17.png", "120.png"],
    "numbers after a name": [f"img{i}_left.png" for i in (1, 2, 10)],
    "numbers before other numbers": ["run2_trial1.png", "run10_trial1.png"],
    "names of ImageNet": ["n01440764_9981.JPEG", "n01440764_10026.JPEG"],
    "folders": [f"run{i}/a.png" for i in range(1, 11)],
    "numbers in folders": ["a/9.png", "a/10.png", "b/1.png"],
    "upper and lower case": ["Apple.png", "banana.png", "Cherry.png"],
    "upper and lower case of folders": ["Faces/1.png", "houses/1.png", "Objects/1.png"],
    "whole paths": ["faces/1.png", "faces-scrambled/1.png"],
    "a file and a folder": ["a.png", "a/1.png"],
}
CLEAR = {
    "padded": [f"{i:04d}.png" for i in range(1, 13)],
    "few": [f"{i}.png" for i in range(1, 10)],
    "as many digits": [f"{i}.png" for i in range(10, 25)],
    "letters": ["a.png", "b.png", "cat.png"],
    "a name and the same with a number": ["img.png", "img1.png", "img2.png"],
    "a number at the end or not": ["1-2.png", "1.png", "1_2.png", "1a.png"],
    "one case": ["CAT1.PNG", "CAT2.PNG", "DOG.PNG"],
    "hashes": ["0a1b2c3d4e5f60718293.png", "10b2c3d4e5f60718293a.png", "9c2d3e4f5061728394a5.png"],
    "case that changes nothing": ["CAT.png", "Dog.png", "elk.png"],
    "padded folders": [f"run{i:02d}/{j:02d}.png" for i in range(9, 12) for j in range(9, 12)],
}


@pytest.mark.parametrize("names", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("read", [Folder, open_subject])
def test_names_with_several_orders_are_refused_with_the_ways_out(tmp_path, names, read):
    refused(read, own(tmp_path, names), "images", "dataset.json", '"image_order": "numeric"', '"text"')


@pytest.mark.parametrize("names", CLEAR.values(), ids=CLEAR)
def test_names_with_one_order_are_rows_in_that_order(tmp_path, names):
    assert order_of(own(tmp_path, names)) == sorted(names)


def test_the_message_names_a_row_and_both_images(tmp_path):
    refused(Folder, own(tmp_path, ["1.png", "2.png", "10.png"]), "row 1 ", "10.png in text order", "2.png in numeric")


def test_the_order_can_be_stated(tmp_path):
    for name in ("text", "numeric"):
        own(tmp_path / name, [f"run{i}/{j}.png" for i in (2, 10) for j in (9, 10)], image_order=name)
    assert order_of(tmp_path / "text") == ["run10/10.png", "run10/9.png", "run2/10.png", "run2/9.png"]
    assert order_of(tmp_path / "numeric") == ["run2/9.png", "run2/10.png", "run10/9.png", "run10/10.png"]
    own(tmp_path / "case", ["Apple.png", "banana.png", "Cherry.png"], image_order="numeric")
    assert order_of(tmp_path / "case") == ["Apple.png", "banana.png", "Cherry.png"]
    subject = Folder(tmp_path / "numeric")
    values = np.load(tmp_path / "numeric/responses.npy").astype(np.float32)
    np.testing.assert_array_equal(subject[1][1], values[1])  # row 1 is run2/10.png


def test_zero_padding_is_the_other_way_out(tmp_path):
    own(tmp_path, [f"{i}.png" for i in range(1, 13)])
    with pytest.raises(DataError):
        Folder(tmp_path)
    for image in (tmp_path / "images").iterdir():
        image.rename(image.with_name(f"{int(image.stem):04d}.png"))
    assert order_of(tmp_path)[1] == "0002.png"


# --- in Algonauts folders the number of an image is its row

PICTURES = "training_split/training_images"


def renumber(root, form):
    for image in list((root / PICTURES).iterdir()):
        number = int(image.name[6:10])
        image.rename(image.with_name(form(number)))


def test_unpadded_numbers_of_algonauts_are_rows(tmp_path):
    write_algonauts(tmp_path, images=12, test=0)
    renumber(tmp_path, lambda number: f"train-{number}_nsd-{number:05d}.png")
    assert [image.name.split("_")[0] for image in Algonauts(tmp_path).images][:3] == ["train-1", "train-2", "train-3"]
    (tmp_path / "dataset.json").write_text('{"image_order": "text"}')
    assert [image.name.split("_")[0] for image in Algonauts(tmp_path).images][:3] == [
        "train-10",
        "train-11",
        "train-12",
    ]


def test_algonauts_images_numbered_from_0(tmp_path):
    write_algonauts(tmp_path, images=6, test=3)
    for split in ("training_split/training_images", "test_split/test_images"):
        for image in sorted((tmp_path / split).iterdir()):
            kind, number, rest = image.name.replace("_", "-", 1).split("-", 2)
            image.rename(image.with_name(f"{kind}-{int(number) - 1:04d}_{rest}"))
    subject = Algonauts(tmp_path)
    assert (subject.images[0].name, subject.images[6].name) == ("train-0000_nsd-00007.png", "test-0000_nsd-01011.png")
    assert len(subject) == 9


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0, 1, 2, 4, 5, 6], ("0 to 6", "no train-0003")),
        ([2, 3, 4, 5, 6, 7], ("1 to 7", "no train-0001")),
        ([1, 2, 3, 4, 5, 9], ("1 to 9", "no train-0006")),
    ],
)
def test_gaps_in_the_numbers_of_algonauts_name_the_missing_one(tmp_path, numbers, words):
    write_algonauts(tmp_path, images=6, test=0)
    renumber(tmp_path, lambda number: f"x{number}.png")
    for number in range(1, 7):
        (tmp_path / PICTURES / f"x{number}.png").rename(tmp_path / PICTURES / f"train-{numbers[number - 1]:04d}.png")
    refused(Algonauts, tmp_path, "training_images", *words)
