"""Who a stimulus is: its pixels, then the groups that the data name; hashes of pixels are computed once."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from subject_folders import save_image, write_algonauts, write_own

from brainkit.data import Algonauts, Folder, make_split, split_subjects, stimuli
from brainkit.data.splits import common_stimuli, leaked_images
from brainkit.data.stimuli import hash_pixels, join_stimuli
from brainkit.errors import DataError, ImageError
from brainkit.images import content_hash, decode, pixel_hash

SIDES = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_copies(root, images, names):
    """An own folder of these images (numbers, equal ones are the same picture) under these names."""
    write_own(root, n=len(images), columns=4)
    shutil.rmtree(root / "images")
    for image, name in zip(images, names, strict=True):
        save_image(root / "images" / name, image)
    return Folder(root)


def shown(subject, split, side):
    return {pixel_hash(decode(subject.images[row])) for row in getattr(split, side)}


# ---- the names of stimuli


def test_groups_and_pixels_are_joined_in_chains():
    names = [["a", "b", "c", "d", "e"]]
    assert join_stimuli(names, [[None] * 5], [["1", "2", "3", "2", "4"]]) == [("a", "b", "c", "b", "e")]
    # b and d have the same pixels, c and d are one group: all three are one stimulus, with the group's name.
    groups = [[None, None, "zebra", "zebra", None]]
    assert join_stimuli(names, groups, [["1", "2", "3", "2", "4"]]) == [("a", "zebra", "zebra", "zebra", "e")]
    groups = [["nsd-2", None, "nsd-1", None, None]]
    assert join_stimuli(names, groups, [["1", "2", "1", "2", "4"]]) == [("nsd-1", "b", "nsd-1", "b", "e")]


def test_subjects_share_pixels_and_groups_but_not_the_names_of_images():
    names, nothing = [["1.png", "2.png", "3.png"], ["1.png", "2.png", "3.png"]], [[None] * 3] * 2
    first, second = join_stimuli(names, nothing, [["x", "y", "z"], ["w", "x", "v"]])
    assert first[0] == second[1] == "1.png"
    # Had 1.png, 2.png and so on been identities too, one chain would connect all images.
    assert len({*first, *second}) == 3
    first, second = join_stimuli(names, [["face", None, None], [None, None, "face"]], [list("abc"), list("def")])
    assert first[0] == second[2] == "face"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 1), st.none() | st.integers(0, 5), st.integers(0, 9)), min_size=1))
def test_stimuli_are_the_connected_images(images):
    rows = [[k for k, (subject, _, _) in enumerate(images) if subject == s] for s in (0, 1)]
    names = [[f"image {k}" for k in own] for own in rows]
    groups = [[None if images[k][1] is None else f"group {images[k][1]}" for k in own] for own in rows]
    joined = join_stimuli(names, groups, [[str(images[k][2]) for k in own] for own in rows])
    connected = [{k} for k in range(len(images))]
    for _ in images:
        for i, (_, group, pixels) in enumerate(images):
            for k, (_, other_group, other_pixels) in enumerate(images):
                if pixels == other_pixels or (group is not None and group == other_group):
                    connected[i] |= connected[k]
    stimulus = {k: name for own, its in zip(rows, joined, strict=True) for k, name in zip(own, its, strict=True)}
    for i in stimulus:
        assert {k for k in stimulus if stimulus[k] == stimulus[i]} == connected[i]
    for own_groups, own in zip(groups, joined, strict=True):
        assert all(group is None or name.startswith("group") for group, name in zip(own_groups, own, strict=True))


# ---- splits


def test_pictures_stored_twice_lie_on_one_side(tmp_path):
    pictures = [*range(60), *range(60)]
    names = [f"a{k:02d}.png" for k in range(60)] + [f"z{59 - k:02d}.png" for k in range(60)]
    subject = write_copies(tmp_path / "s", pictures, names)
    (split,) = split_subjects([subject])
    sides = [shown(subject, split, side) for side in SIDES]
    assert len(set.union(*sides)) == sum(map(len, sides)) == 60
    assert any("60 images" in note for note in split.notes)
    assert leaked_images([split], [subject.groups]) == 0
    # From Python alike, and the sides of pictures are those they have without their copies.
    again = make_split(subject.groups, subject.official_test)
    once = make_split(names[:60])
    for side in SIDES:
        np.testing.assert_array_equal(getattr(again, side), getattr(split, side))
        assert set(getattr(once, side)) == {row for row in getattr(split, side) if row < 60}
    by_name = make_split(subject.names)
    assert leaked_images([by_name], [subject.groups]) > 0


def test_without_copies_the_split_is_the_one_of_the_names(tmp_path):
    own = write_copies(tmp_path / "own", range(40), [f"{k:02d}.png" for k in range(40)])
    (tmp_path / "own" / "stimuli.json").write_text(json.dumps({"03.png": "x", "07.png": "x"}))
    own = Folder(tmp_path / "own")
    assert own.groups[:4] == ("00.png", "01.png", "02.png", "x") and own.groups[7] == "x"
    write_algonauts(tmp_path / "nsd", images=30, test=0)
    nsd = Algonauts(tmp_path / "nsd")
    assert nsd.groups[:2] == ("nsd-00007", "nsd-00014")
    for subject, expected in ((own, own.groups), (nsd, [f"nsd-{7 * (k + 1):05d}" for k in range(30)])):
        (split,), by_name = split_subjects([subject], seed=3), make_split(expected, seed=3)
        assert not split.notes
        for side in SIDES:
            np.testing.assert_array_equal(getattr(split, side), getattr(by_name, side))


@pytest.mark.parametrize("names", ["numbers", "others"])
def test_two_subjects_with_the_same_pictures_under_other_names(tmp_path, names):
    """Each subject saw them in another order, and numbered them so."""
    order = np.random.default_rng(0).permutation(60)
    other = [f"{k:02d}.png" if names == "numbers" else f"photo {k:02d}.png" for k in range(60)]
    first = write_copies(tmp_path / "a", range(60), [f"{k:02d}.png" for k in range(60)])
    second = write_copies(tmp_path / "b", order, other)
    splits = split_subjects([first, second], seed=1)
    pairs = list(zip((first, second), splits, strict=True))
    used = [shown(subject, split, "train") | shown(subject, split, "validation") for subject, split in pairs]
    tested = [shown(subject, split, "test") for subject, split in pairs]
    assert tested[0] == tested[1] and 1 <= len(tested[0]) <= 14
    assert not (tested[0] | tested[1]) & (used[0] | used[1])
    assert shown(first, splits[0], "validation") == shown(second, splits[1], "validation")
    assert leaked_images(splits, common_stimuli([first, second])) == 0
    alone = [split_subjects([each], seed=1)[0] for each in (first, second)]
    assert leaked_images(alone, common_stimuli([first, second])) > 0  # otherwise this proves nothing
    assert [len(split.train) + len(split.validation) + len(split.test) for split in splits] == [60, 60]


def test_copies_of_official_test_images_do_not_train(tmp_path):
    write_algonauts(tmp_path / "s", images=30, test=5)
    folder = tmp_path / "s"
    copy = Image.open(folder / "test_split/test_images/test-0002_nsd-01022.png")
    copy.save(folder / "training_split/training_images/train-0010_nsd-00070.png", compress_level=0)
    subject = Algonauts(folder)
    (split,) = split_subjects([subject])
    assert 9 not in {*split.train, *split.validation, *split.test}
    assert len(split.train) + len(split.validation) == 29 and split.test.tolist() == list(range(30, 35))
    assert any(note.startswith("1 image left out") for note in split.notes)
    # Nor those of another subject, or one of own data.
    write_algonauts(tmp_path / "t", images=30, test=0)
    names = [f"own {k:02d}.png" for k in range(20)]
    own = write_copies(tmp_path / "own", [*range(200, 219), 0], names)
    copy.save(tmp_path / "own/images/own 07.png")
    row = [path.name for path in own.images].index("own 07.png")
    splits = split_subjects([subject, Algonauts(tmp_path / "t"), own])
    assert row not in {*splits[2].train, *splits[2].validation, *splits[2].test}
    assert any(note.startswith("1 image left out") for note in splits[2].notes)


# ---- hashes of pixels


def test_the_same_picture_in_other_files(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned
    image.save(tmp_path / "0.png")
    image.save(tmp_path / "1.png", compress_level=0)
    image.save(tmp_path / "2.bmp")
    image.save(tmp_path / "3.webp", lossless=True)
    image.convert("RGBA").save(tmp_path / "4.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "5.png", exif=exif)
    files = sorted(tmp_path.glob("[0-9].*"))
    assert len(files) == 6 and len({content_hash(file) for file in files}) == 6
    assert len(set(hash_pixels(files))) == 1
    # The same bytes of another shape, and one other pixel.
    Image.frombytes("RGB", (9, 14), image.tobytes()).save(tmp_path / "7.png")
    image.putpixel((0, 0), (0, 0, 0))
    image.save(tmp_path / "8.png")
    assert len({*hash_pixels([files[0], tmp_path / "7.png", tmp_path / "8.png"])}) == 3


def count_decoding(monkeypatch):
    decoded = []
    monkeypatch.setattr(stimuli, "decode", lambda path: decoded.append(path) or decode(path))
    return decoded


def test_an_image_is_decoded_once(tmp_path, cache, monkeypatch):
    decoded = count_decoding(monkeypatch)
    subject = write_copies(tmp_path / "a", range(20), [f"{k:02d}.png" for k in range(20)])
    assert decoded == []  # opening a subject reads no image
    groups = subject.groups
    assert len(decoded) == 20
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/images/00.png").rename(tmp_path / "b/images/other.png")
    save_image(tmp_path / "b/images/20.png", 20)
    shutil.copy(tmp_path / "a/responses.npy", tmp_path / "b")
    assert len(hash_pixels(sorted((tmp_path / "b/images").iterdir()))) == 21
    assert len(decoded) == 21  # the new one
    assert Folder(tmp_path / "a").groups == groups and len(decoded) == 21
    # Two processes may have found the same; damage and foreign files do no harm.
    files = sorted(cache.rglob("*.hashes"))
    assert sorted(file.stat().st_size for file in files) == [96, 1920]
    largest = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[70] ^= 1
    largest.write_bytes(content)
    (largest.parent / "note.hashes").write_text("x")
    assert Folder(tmp_path / "a").groups == groups and len(decoded) == 41
    assert Folder(tmp_path / "a").groups == groups and len(decoded) == 41


def test_without_a_cache_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "file"))
    save_image(tmp_path / "a.png", 0)
    assert hash_pixels([tmp_path / "a.png"]) == [pixel_hash(decode(tmp_path / "a.png"))]


def test_progress_is_shown_while_images_are_decoded(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    write_own(tmp_path, n=5)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    _ = Folder(tmp_path).groups
    assert "5/5" in terminal.getvalue()
    before = len(terminal.getvalue())
    _ = Folder(tmp_path).groups
    assert len(terminal.getvalue()) == before


def test_a_changed_file_is_another_image(tmp_path):
    for number in (1, 2, 1):  # of one size, and within the resolution of the file system's clock
        save_image(tmp_path / "a.png", number)
        save_image(tmp_path / "b.png", number)
        assert content_hash(tmp_path / "a.png") == content_hash(tmp_path / "b.png")


# ---- unreadable images


def test_unreadable_images_are_counted_and_the_way_out_is_named(tmp_path):
    subject = write_copies(tmp_path, range(12), [f"{k:02d}.png" for k in range(12)])
    (tmp_path / "images/03.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"03\.png: .*1 of 12 images .*--skip-unreadable"):
        _ = subject.groups
    (tmp_path / "images/05.png").unlink()
    (tmp_path / "images/05.png").symlink_to("gone")
    with pytest.raises(DataError, match=r"03\.png: .*2 of 12 images .*--skip-unreadable") as caught:
        split_subjects([subject])
    assert "\n" not in str(caught.value)
    assert [type(found) for found in hash_pixels(subject.images)].count(ImageError) == 2


def test_what_is_left_keeps_its_responses(tmp_path):
    write_algonauts(tmp_path / "s", images=30, test=5)
    subject = Algonauts(tmp_path / "s")
    assert subject.skip_unreadable() is subject
    whole = [(np.asarray(image), responses) for image, responses in map(subject.__getitem__, range(35))]
    broken = (2, 17, 31)
    for row in broken:
        subject.images[row].write_bytes(subject.images[row].read_bytes()[:60])
    subject = Algonauts(tmp_path / "s")
    left = subject.skip_unreadable()
    kept = [row for row in range(35) if row not in broken]
    assert [(image.row, image.name) for image in left.skipped] == [(row, subject.names[row]) for row in broken]
    assert all(image.reason and str(tmp_path) not in image.reason for image in left.skipped)
    assert len(left) == len(left.responses) == left.responses.shape[0] == 32
    for position, row in enumerate(kept):
        image, responses = left[position]
        np.testing.assert_array_equal(np.asarray(image), whole[row][0])
        np.testing.assert_array_equal(responses, whole[row][1])
        assert left.images[position] == subject.images[row]
    np.testing.assert_array_equal(np.concatenate(list(left.responses.blocks())), [whole[row][1] for row in kept])
    assert left.groups == tuple(subject.named_groups[row] for row in kept)
    assert left.official_test.tolist() == [row >= 30 for row in kept]
    # An image that is lost later is counted from the same rows.
    left.images[5].write_bytes(b"")
    again = left.skip_unreadable()
    assert [image.row for image in again.skipped] == [2, 17, 31, 6]
    np.testing.assert_array_equal(again.responses.rows([5]), [whole[7][1]])
    for image in subject.images:
        image.write_bytes(b"")
    with pytest.raises(DataError, match="35 of 35 images"):
        Algonauts(tmp_path / "s").skip_unreadable()


def test_the_data_hash_knows_the_rows(tmp_path):
    subject = write_copies(tmp_path, range(6), [f"{k}.png" for k in range(6)])
    same_images = [subject.take([0, 1, 2]), subject.take([0, 1, 2, 3]).take([0, 1, 2])]
    assert same_images[0].data_hash == same_images[1].data_hash != subject.data_hash
    # The same images with the responses of others are other data.
    shutil.copy(tmp_path / "images/0.png", tmp_path / "images/5.png")
    assert subject.take([0, 1]).data_hash != subject.take([5, 1]).data_hash
