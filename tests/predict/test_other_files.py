"""What is no image is called what it is, and how to get to images is said; lists in UTF-16, and file:// addresses."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner
from image_inputs import listed, names, picture, png, predict, save, tar_bytes

from brainkit.cli import group
from brainkit.errors import DataError, ImageError, UsageError
from brainkit.predict import Encoder, list_images, predict_to_file


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 8, 8, 3), np.uint8))
    return stream.getvalue()


def archive(mode: str) -> bytes:
    stream = io.BytesIO()
    if mode == "zip":
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.png", png(1))
    else:
        with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo("a.png")
            member.size = len(png(1))
            tar.addfile(member, io.BytesIO(png(1)))
    return stream.getvalue()


# Name -> content, what the error names.
KINDS = {
    "stim.npy": (npy(), "encoder.predict"),
    "stim.npz": (archive("zip"), "encoder.predict"),
    "nsd_stimuli.hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
    "stim.mat": (b"MATLAB 5.0 MAT-file" + bytes(600), "MATLAB"),
    "i.zip": (archive("zip"), "unzip i.zip"),
    "i.tar.gz": (archive("w:gz"), "gunzip -k i.tar.gz"),
    "i.tgz": (archive("w:gz"), "gunzip -k i.tgz"),
    "my images.tar.xz": (archive("w:xz"), "unxz -k 'my images.tar.xz'"),
    "list.csv": (b"image\na.png\n", "one per line"),
    "trials.lst": (b"photos/a.jpg\n", "@trials.lst"),
    "labels.json": (b'{"a.png": 1}', "one per line"),
    "train-0.parquet": (b"PAR1" + bytes(100), "encoder.predict"),
    "bold.nii.gz": (b"\x1f\x8b" + bytes(100), "brain"),
    "paper.PDF": (b"%PDF-1.7 " + bytes(100), "pages"),
    "movie.mp4": (b"\0\0\0\x20ftypisom" + bytes(100), "ffmpeg -i movie.mp4"),
    "encoder.onnx": (b"\x08\x0a" + bytes(100), "--encoder encoder.onnx"),
    "last.ckpt": (archive("zip"), "brainkit export"),
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_other_kinds_of_files_that_are_named(path: Path, working_folder: Path, name: str) -> None:
    content, named = KINDS[name]
    Path(name).write_bytes(content)
    done = CliRunner().invoke(group, ["predict", "photos", name, "--encoder", str(path), "--out", "out.npy"])
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert f"{name}: expected images" in done.stderr and named in done.stderr
    assert not list(Path().glob("out*")) and not list(Path().glob(".out*"))
    with pytest.raises(UsageError, match="expected images"):
        list_images([name])


@pytest.mark.parametrize("name", sorted(KINDS))
def test_other_kinds_of_files_that_are_found(working_folder: Path, encoder: Encoder, name: str) -> None:
    content, _ = KINDS[name]
    Path("photos", name).write_bytes(content)
    Path("list.txt").write_text(f"photos/b.png\nphotos/{name}\n")
    rows, description = predict(encoder, "list.txt", "photos/sub")
    assert len(rows) == 3
    (skipped,) = description["skipped"]
    assert skipped["path"] == f"photos/{name}" and "\n" not in skipped["reason"]
    with pytest.raises(ImageError, match=r"expected an image"):
        encoder.predict([f"photos/{name}"])
    _, description = predict(encoder, "photos")
    assert description["notes"][0]["note"].startswith("2 non-image files")
    Path("alone").mkdir()
    Path("alone", name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        names("alone")
    assert str(caught.value).startswith("alone: no images found") and f"alone/{name}" in str(caught.value)


def test_the_content_says_what_a_line_names(working_folder: Path, encoder: Encoder) -> None:
    contents = {
        "a.png": (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
        "b.jpg": (npy(), "npy"),
        "c.png": (archive("zip"), "zip"),
        "d.png": (b"<!DOCTYPE html><html>log in</html>", "web page"),
        "e.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        "f.png": (bytes(500), "zero"),
        "g.png": (b"", "empty"),
        "h.dat": (archive("w:gz"), "gzip"),
        "i.jpg": (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        "j.png": (b"\0\0\0\x18ftypisom" + bytes(50), "video"),
        "k.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "l.png": (bytes(128) + b"DICM" + bytes(50), "DICOM"),
    }
    for name, (content, _) in contents.items():
        Path(name).write_bytes(content)
    Path("list.txt").write_text("\n".join(["photos/b.png", *contents]))
    _, description = predict(encoder, "list.txt")
    reasons = {entry["path"]: entry["reason"] for entry in description["skipped"]}
    assert reasons.keys() == contents.keys()
    for name, (_, named) in contents.items():
        assert named in reasons[name], (name, reasons[name])


def test_folders_of_shards_and_lists_say_how_to_read_them(working_folder: Path) -> None:
    Path("shards").mkdir()
    Path("shards/0.tar").write_bytes(archive("w"))
    with pytest.raises(UsageError, match=r"'\*\.tar'"):
        names("shards")
    assert names("shards/*.tar") == ["shards/0.tar/a.png"]


def test_an_image_is_read_whatever_its_name(working_folder: Path, encoder: Encoder) -> None:
    for name in ("photo", "photo.dat", "photo.png.bak"):
        save(Path(name), 3)
        assert len(encoder.predict(name)) == 1 and names(name) == [name]


# --- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_lists_of_other_encodings(working_folder: Path, encoder: Encoder, encoding: str) -> None:
    """PowerShell writes UTF-16 with a byte order mark, and lines that end in two characters."""
    save(Path("photos/ü 日本.png"), 9)
    mark = "\ufeff" if encoding.endswith("e") else ""
    Path("list.txt").write_bytes((mark + "photos/b.png\r\nphotos/ü 日本.png\r\n").encode(encoding))
    assert names("list.txt") == ["photos/b.png", "photos/ü 日本.png"]
    assert len(encoder.predict("list.txt")) == 2
    Path("list.txt").write_bytes("\ufeffphotos/b.png\nx".encode("utf-16-le")[:-1])
    assert names("list.txt")[0] == "photos/b.png"
    Path("list.txt").write_bytes(b"\xff\xfe\x00\xd8\x00\xd8")
    with pytest.raises(DataError, match=r"list\.txt.*UTF-16"):
        names("list.txt")


def test_what_is_no_list_is_called_what_it_is(working_folder: Path) -> None:
    for content, named in ((archive("zip"), "zip"), (b"<html>Not found</html>", "web page"), (npy(), "npy")):
        Path("list.txt").write_bytes(content)
        with pytest.raises(DataError, match=named):
            names("list.txt")
    Path("photos/sub/list.txt").write_text("photos/b.png\nphotos/a.jpg\n")  # relative to the wrong folder
    (remark,) = listed("photos/sub/list.txt", "photos/b.png").remarks()
    assert remark.startswith("photos/sub/list.txt: none of its 2 lines") and "photos/sub" in remark
    Path("list.txt").write_bytes(b"")
    with pytest.raises(UsageError, match="no images"):
        names("list.txt")


# --- file:// --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="paths as POSIX has them")
def test_file_addresses_are_decoded(working_folder: Path, encoder: Encoder) -> None:
    save(Path("my photos/ü 50%.png"), 5)
    plain = f"{working_folder}/my photos/ü 50%.png"
    encoded = f"{working_folder}/my%20photos/%C3%BC%2050%25.png"
    addresses = [f"file://{encoded}", f"file://localhost{encoded}", f"file:{encoded}", f"FILE://{encoded}"]
    for address in addresses:
        assert names(address) == [plain]
    Path("list.txt").write_text("\n".join([*addresses, f"local://{plain}", "photos/b.png"]) + "\n")
    assert names("list.txt") == [plain] * 5 + ["photos/b.png"]
    assert names(f"file://{working_folder}/my%20photos") == [plain]
    assert names(f"file://{working_folder}/my%20photos/*.png") == [plain]
    expected = encoder.predict([picture(5)])
    np.testing.assert_allclose(encoder.predict(addresses), expected.repeat(4, 0), atol=1e-6)
    np.testing.assert_allclose(encoder.predict(addresses[0]), expected, atol=1e-6)
    assert encoder.top(addresses, "PPA", k=3)[0].row == 0 and len(encoder.top(addresses, "PPA", k=3)) == 1
    done = predict_to_file(addresses[0], f"file://{working_folder}/my%20photos/out.npy", encoder)
    assert done.path == Path(f"{working_folder}/my photos/out.npy") and done.path.is_file()
    with pytest.raises(UsageError, match="no such file"):
        names(f"file://{working_folder}/my%20photo")
    odd = os.fsdecode(b"photos/\xff.png")
    try:
        save(Path(odd), 6)
    except OSError:  # the file system takes UTF-8 only
        return
    assert names(f"file://{working_folder}/photos/%FF.png") == [f"{working_folder}/{odd}"]


# --- files that hold several images -----------------------------------------------------------------------------------


def animation(form: str, frames: int) -> bytes:
    stream = io.BytesIO()
    images = [Image.new("RGB", (9, 7), (40 * index, 200, 90)) for index in range(frames)]
    images[0].save(stream, form, save_all=frames > 1, append_images=images[1:])
    return stream.getvalue()


SEVERAL = {"a.gif": "GIF", "b.tif": "TIFF", "c.webp": "WEBP", "d.apng": "PNG"}


def test_only_the_first_of_several_images_is_predicted_and_that_is_told(working_folder: Path, encoder: Encoder) -> None:
    Path("single").mkdir()
    for name, form in SEVERAL.items():
        Path("single", name).write_bytes(animation(form, 1))
        Path(name).write_bytes(animation(form, 3))
        said: list[str] = []
        predict_to_file([name, "photos/b.png", name], "out.npy", encoder, say=said.append, overwrite=True)
        assert len(said) == 1 and said[0].startswith(f"{name}: ") and "1 more" in said[0], name
        with pytest.warns(UserWarning, match=name):
            rows = encoder.predict([name])
        np.testing.assert_allclose(np.load("out.npy")[0], rows[0], atol=1e-6)
        if form != "WEBP":  # which is not lossless
            np.testing.assert_allclose(rows, encoder.predict([f"single/{name}"]), atol=1e-6)
    said = []
    predict_to_file("single", "out.npy", encoder, say=said.append, overwrite=True)
    assert not said


def test_several_images_in_shards_and_after_an_interruption(working_folder: Path, encoder: Encoder) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise Stop

    members = [("a.png", png(1)), ("b.gif", animation("GIF", 2)), ("c.gif", b"GIF89a"), ("d.tif", animation("TIFF", 2))]
    Path("s.tar").write_bytes(tar_bytes(members))
    _, whole = predict(encoder, "s.tar")
    with pytest.raises(Stop):
        predict_to_file("s.tar", "out.npy", encoder, batch_size=1, progress=stop)
    said: list[str] = []
    predict_to_file("s.tar", "out.npy", encoder, say=said.append)
    assert "s.tar/b.gif" in said[-1]
    description = json.loads(Path("out.npy.json").read_text())
    assert description["notes"] == whole["notes"] and len(whole["notes"]) == 1
    assert [entry["path"] for entry in description["skipped"]] == ["s.tar/c.gif"]
