"""Remote images (s3://, gs://, ...) and outputs at URLs, with fsspec's file system in memory."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")
pytest.importorskip("onnxruntime")

from image_inputs import names, picture, png, predict, tar_bytes
from pixel_encoder import V

from brainkit.errors import BrainkitError, DataError, ImageError, MissingDependency, UsageError
from brainkit.predict import Encoder, list_images, predict_to_file
from brainkit.predict.inputs import remote


@pytest.fixture
def bucket(working_folder: Path) -> Any:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for name, seed in (("b.png", 1), ("a.png", 2), ("sub/c.png", 3)):
        system.pipe(f"/bucket/{name}", png(seed))
    system.pipe("/bucket/readme.md", b"text")
    system.pipe("/bucket/s.tar", tar_bytes([("m.png", png(4)), ("n.png", png(5))]))
    system.pipe("/bucket/list.txt", b"b.png\nmemory://bucket/sub/c.png\n")
    yield system
    system.store.clear()


def test_urls_give_what_their_files_give(bucket: Any, encoder: Encoder) -> None:
    rows, description = predict(encoder, "memory://bucket", "memory://bucket/s.tar")
    expected = ["a.png", "b.png", "sub/c.png", "s.tar/m.png", "s.tar/n.png"]
    assert [name.split("bucket/")[1] for name in description["images"]] == expected
    np.testing.assert_allclose(rows, encoder.predict([picture(seed) for seed in (2, 1, 3, 4, 5)]), atol=1e-5)
    assert description["notes"][0]["note"].startswith("3 non-image files ")


def test_remote_patterns_lists_and_single_files(bucket: Any) -> None:
    ends = {
        "memory://bucket/*.png": ["a.png", "b.png"],
        "memory://bucket/{b,a}.png": ["a.png", "b.png"],
        "memory://bucket/b.png": ["b.png"],
        "memory://bucket/list.txt": ["b.png", "sub/c.png"],
    }
    for given, expected in ends.items():
        assert [name.split("bucket/")[1] for name in names(given)] == expected, given
    for given in ("memory://bucket/nothing.png", "memory://bucket/*.gif", "nosuch://bucket/a.png"):
        with pytest.raises(BrainkitError) as caught:
            list_images(given)
        assert "\n" not in str(caught.value)


def test_a_file_url_is_a_path(working_folder: Path) -> None:
    assert names(f"file://{working_folder}/photos/b.png") == [f"{working_folder}/photos/b.png"]


def test_a_network_that_fails_for_a_moment_is_tried_again(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0)
    (entry,) = list_images("memory://bucket/b.png").entries(0, 1)
    read = type(bucket).cat_file
    for failures in (2, 3):
        asked = itertools.count()

        def flaky(self: Any, path: str, failures: int = failures, asked: Any = asked, **part: Any) -> bytes:
            if next(asked) < failures:
                raise TimeoutError("no answer")
            return bytes(read(self, path, **part))

        monkeypatch.setattr(type(bucket), "cat_file", flaky)
        if failures == 2:
            assert entry.open().read() == png(1)  # type: ignore[union-attr]
        else:
            with pytest.raises(ImageError, match="3 tries: no answer"):
                entry.open()


def test_urls_without_fsspec_name_the_pip_line(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingDependency, match=r"brainkit\[remote\]"):
        list_images("s3://bucket/a.png")


def test_maps_are_drawn_of_images_in_shards_and_elsewhere(
    bucket: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("nilearn")
    from brainkit.maps import draw_predictions

    monkeypatch.setattr(draw_predictions, "draw_pixels", lambda maps, response, image: np.asarray(image))
    Path("s.tar").write_bytes(tar_bytes([("k/m.png", png(7))]))
    done = predict_to_file(["s.tar", "memory://bucket/b.png", "photos/b.png"], "out.npy", encoder)
    paths = draw_predictions.draw_prediction_file("out.npy", encoder.info, "figures", images=done.sources, max_maps=3)
    assert [path.stem for path in paths] == ["0000-m", "0001-b", "0002-b"]
    for path, seed in zip(paths, (7, 1, 0), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(picture(seed)))


def test_a_remote_file_that_is_missing_is_told_so(bucket: Any) -> None:
    Path("list.txt").write_text("memory://bucket/nowhere.png\n")
    (entry,) = list_images("list.txt").entries(0, 1)
    with pytest.raises(ImageError) as caught:
        entry.open()
    assert caught.value.missing


def test_archives_that_were_joined_are_read_to_the_end(bucket: Any, encoder: Encoder) -> None:
    bucket.pipe("/bucket/two.tar", tar_bytes([("m.png", png(4))]) + tar_bytes([("n.png", png(5))]) + b"more")
    rows, description = predict(encoder, "memory://bucket/two.tar")
    assert [name.rpartition("/")[2] for name in description["images"]] == ["m.png", "n.png"]
    np.testing.assert_allclose(rows, encoder.predict([picture(seed) for seed in (4, 5)]), atol=1e-5)
    assert "4 bytes" in description["notes"][0]["note"]


def test_lists_at_urls_keep_repeats(bucket: Any, encoder: Encoder) -> None:
    bucket.pipe("/bucket/list.txt", "b.png\r\na.png\r\nb.png\r\n".encode("utf-16"))
    assert [name.rpartition("/")[2] for name in names("memory://bucket/list.txt")] == ["b.png", "a.png", "b.png"]
    rows = encoder.predict("memory://bucket/list.txt")
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    np.testing.assert_allclose(
        encoder.predict(["memory://bucket/a.png", "photos/b.png"]), encoder.predict([picture(2), picture(0)]), atol=1e-5
    )


def test_other_kinds_of_remote_files_are_refused(bucket: Any) -> None:
    bucket.pipe("/bucket/stim.npy", b"x")
    with pytest.raises(UsageError, match=r"stim\.npy: expected images"):
        names("memory://bucket/stim.npy")


# --- web servers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Any]:
    """Starts a server of these files, told what it can do; ``missing`` is what it answers for others."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("fsspec")
    files = {
        "/a.png": png(1),
        "/s.tar": tar_bytes([("m.png", png(3)), ("n.png", png(4))]),
        "/list.txt": b"a.png\na.png\n",
    }
    started = []

    def start(*, ranges: bool, length: bool = True, missing: int = 404) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                content, status = files.get(self.path), 200
                if content is None:
                    content, status = b"<!DOCTYPE html><html>Please log in</html>", missing
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                size = len(content)
                if asked and ranges and status == 200:
                    first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
                    content, status = content[first : last + 1], 206
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                if length:
                    self.send_header("Content-Length", str(len(content)))
                else:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                if body:
                    with contextlib.suppress(OSError):  # a client that has seen enough
                        self.wfile.write(content)

        found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        started.append(found)
        return f"http://127.0.0.1:{found.server_port}"

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.mark.parametrize(("ranges", "length"), [(True, True), (False, True), (False, False)])
def test_a_server_may_send_files_only_whole(
    server: Any, working_folder: Path, encoder: Encoder, ranges: bool, length: bool
) -> None:
    url = server(ranges=ranges, length=length)
    _, description = predict(encoder, f"{url}/list.txt", f"{url}/s.tar", "photos/b.png")
    expected = ["photos/b.png", f"{url}/a.png", f"{url}/a.png"]
    if ranges:
        assert description["images"] == [*expected, f"{url}/s.tar/m.png", f"{url}/s.tar/n.png"]
        assert not description["skipped"]
    else:
        assert description["images"] == expected
        (skipped,) = description["skipped"]
        assert skipped["path"] == f"{url}/s.tar" and "download" in skipped["reason"]
        assert "cut off" not in skipped["reason"] and "truncated" not in skipped["reason"]


def test_a_page_in_place_of_a_file(server: Any, working_folder: Path, encoder: Encoder) -> None:
    """Many servers answer what they lack with a page, and that all is well."""
    url = server(ranges=True, missing=200)
    for name in ("none.png", "none.tar"):
        with pytest.raises(BrainkitError, match="web page"):
            predict(encoder, f"{url}/{name}")
    with pytest.raises(DataError, match="web page"):
        names(f"{url}/none.txt")
    url = server(ranges=True, missing=404)
    with pytest.raises(UsageError, match="no such file"):
        names(f"{url}/none.png")


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """fsspec's file system in memory, empty, and a cache folder of its own."""
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("suffix", [".npy", ".zarr", ".csv"])
def test_outputs_at_a_url(encoder: Encoder, photos: Path, memory: Any, tmp_path: Path, suffix: str) -> None:
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    url = f"memory://bucket/results/fmri{suffix}"
    here = tmp_path / f"fmri{suffix}"
    predict_to_file(photos, here, encoder, batch_size=4)
    result = predict_to_file(photos, url, encoder, batch_size=4)
    assert (result.path, result.files, result.n) == (url, (url,), 10)
    assert result.description == f"{url}.json"
    local = [path for path in (here.rglob("*") if here.is_dir() else [here]) if path.is_file()]
    for path in [*local, tmp_path / f"fmri{suffix}.json"]:
        name = path.relative_to(tmp_path).as_posix()
        assert memory.cat_file(f"/bucket/results/{name}") == path.read_bytes(), name
    assert not list((tmp_path / "cache" / "outputs").iterdir())
    with pytest.raises(UsageError, match=f"{url}: exists"):
        predict_to_file(photos, url, encoder)
    assert predict_to_file(photos / "image-001.png", url, encoder, overwrite=True).n == 1
    assert json.loads(memory.cat_file(f"/bucket/results/fmri{suffix}.json"))["shape"][0] == 1


def test_contact_sheets_are_uploaded_too(encoder: Encoder, photos: Path, memory: Any) -> None:
    result = predict_to_file(photos, "memory://bucket/fmri.npy", encoder, rois=["PPA"], top=2)
    assert result.sheets == ("memory://bucket/fmri-top-PPA.png",)
    assert memory.cat_file("/bucket/fmri-top-PPA.png").startswith(b"\x89PNG")


def test_remote_images_and_a_remote_output(encoder: Encoder, photos: Path, rows: np.ndarray, memory: Any) -> None:
    for path in sorted(photos.iterdir()):
        memory.pipe_file(f"/photos/{path.name}", path.read_bytes())
    predict_to_file("memory://photos", "memory://results/fmri.npy", encoder, batch_size=4)
    assert memory.cat_file("/results/fmri.npy")[-rows.nbytes :] == rows.tobytes()


def test_what_cannot_be_uploaded_is_not_lost(
    encoder: Encoder, photos: Path, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, path: str, url: str, **more: Any) -> None:
        raise OSError("no room in the bucket")

    monkeypatch.setattr(type(memory), "put_file", refuse)
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    with pytest.raises(DataError, match="no room in the bucket") as caught:
        predict_to_file(photos, "memory://bucket/fmri.npy", encoder, batch_size=4)
    (folder,) = (tmp_path / "cache" / "outputs").iterdir()
    assert str(folder) in str(caught.value)
    assert np.load(folder / "fmri.npy").shape == (10, V)
    assert (folder / "fmri.npy.json").is_file()


def test_an_interrupted_output_at_a_url_is_resumed(
    encoder: Encoder, photos: Path, rows: np.ndarray, memory: Any
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise Stopped

    url = "memory://bucket/fmri.npy"
    with pytest.raises(Stopped):
        predict_to_file(photos, url, encoder, batch_size=4, progress=stop)
    seen: list[int] = []
    predict_to_file(photos, url, encoder, batch_size=4, progress=lambda done, total: seen.append(done))
    assert seen[0] == 8
    assert memory.cat_file("/bucket/fmri.npy")[-rows.nbytes :] == rows.tobytes()
