"""The encoder file's container and its JSON: what is written can be read, and nothing hostile gets through."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import tracemalloc
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pytest

from brainkit import encoder_file
from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.data.split import SIDES
from brainkit.encoder_file import EncoderInfo, container, pack_array, unpack_array
from brainkit.encoder_file.describe import as_json, describe
from brainkit.encoder_file.metadata import MAX_IMAGES
from brainkit.errors import DataError, EncoderFileError
from brainkit.images import Preprocessing
from brainkit.metrics.uncertainty import MapUncertainty

# ir_version 10, then a graph of a few bytes: all that the container reads.
MODEL = b"\x08\x0a" + b"\x3a\x05hello" + b"\x42\x02\x10\x14"


def make_info(**changes: object) -> EncoderInfo:
    rng = np.random.default_rng(0)
    layer_weights = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    parts: dict = {
        "vertices": Vertices("fsaverage5", np.array([3, 7, 10, 11_000, 20_483])),
        "rois": RoiTable({"early": [0, 2], "FFA-1": [4], "absent": []}, 5),
        "preprocessing": Preprocessing(16, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), "bicubic", "crop", 0.875),
        "layers": ("stage1", "stage2", "stage3"),
        "grid": (8, 6),
        "bottleneck": 4,
        "layer_weights": layer_weights,
        "locations": rng.uniform(-1, 1, (5, 2)).astype(np.float32),
        "scale": rng.uniform(0, 1, 5).astype(np.float32),
        "r": np.array([0.1, 0.2, np.nan, 0.4, -0.1], np.float32),
        "R2": np.array([0.1, -3.0, np.nan, 0.4, -0.1], np.float32),
        "noise_ceiling": np.full(5, np.nan, np.float32),
        "units": "z-scored percent signal change",
        "note": "SIMULATED subject, not a brain — ügly\nname",
        "licence": "Apache-2.0",
        "backbone": {"name": "tiny", "pretrained": False},
        "provenance": {"seed": 3, "versions": {"numpy": "2"}},
        "certificate": {"largest": 1e-6, "median": 1e-8, "images": 3, "batches": [1, 3], "enforced": False},
        "image_hashes": {side: np.sort(rng.integers(-(2**63), 2**63 - 1, 7)) for side in SIDES},
    }
    return EncoderInfo(**{**parts, **changes})


def sealed(text: bytes, model: bytes = MODEL) -> bytes:
    """A file with any JSON and a digest that is right, so that only the JSON can be at fault."""
    body = model + container.metadata_entry(b"brainkit", text)
    return body + container.metadata_entry(b"brainkit_sha256", hashlib.sha256(body).hexdigest().encode())


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(EncoderFileError) as caught:
        encoder_file.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert message.startswith(str(path))
    return message


@pytest.fixture
def good(tmp_path: Path) -> Path:
    encoder_file.write(tmp_path / "good.onnx", MODEL, make_info())
    return tmp_path / "good.onnx"


def test_what_is_written_can_be_read(good: Path) -> None:
    info, wrote = encoder_file.read(good), make_info()
    assert info.vertices == wrote.vertices
    assert info.rois.to_json() == wrote.rois.to_json()
    assert info.rois.names == ("early", "FFA-1", "absent")
    assert info.preprocessing == wrote.preprocessing
    assert (info.layers, info.grid, info.bottleneck) == (wrote.layers, (8, 6), 4)
    np.testing.assert_array_equal(info.layer_weights, wrote.layer_weights.astype(np.float16).astype(np.float32))
    for name in ("locations", "scale", "r", "R2", "noise_ceiling"):
        array = getattr(info, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, getattr(wrote, name))
    for name in ("units", "gauge", "note", "licence", "backbone", "provenance", "certificate"):
        assert getattr(info, name) == getattr(wrote, name)
    for side in SIDES:
        np.testing.assert_array_equal(info.image_hashes[side], wrote.image_hashes[side])
    assert set(info.selectors) == {"layer_weights", "locations", "scale"}
    assert info.digest == hashlib.sha256(good.read_bytes()[:-85]).hexdigest()
    assert good.read_bytes().startswith(MODEL)


def test_the_same_info_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(MODEL)
    encoder_file.write(tmp_path / "a", MODEL, make_info())
    encoder_file.write(tmp_path / "b", source, make_info())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert source.read_bytes() == MODEL


def test_the_file_is_protobuf_that_onnx_reads(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    path = tmp_path / "x.onnx"
    digest = encoder_file.write(path, model.SerializeToString(), make_info())
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert list(entries) == ["brainkit", "brainkit_sha256"]
    assert entries["brainkit_sha256"] == digest
    assert json.loads(entries["brainkit"])["schema"] == 1


def test_writing_refuses_what_could_not_be_read(tmp_path: Path, good: Path) -> None:
    path = tmp_path / "x.onnx"
    for info in (
        make_info(provenance={"loss": float("nan")}),
        make_info(scale=np.zeros(4, np.float32)),
        make_info(locations=np.full((5, 2), np.nan, np.float32)),
        make_info(layers=("a", "a", "b")),
    ):
        with pytest.raises(EncoderFileError):
            encoder_file.write(path, MODEL, info)
    with pytest.raises(EncoderFileError, match="already"):
        encoder_file.write(path, good, make_info())
    with pytest.raises(EncoderFileError, match="not an ONNX file"):
        encoder_file.write(path, b"nothing of the kind", make_info())
    with pytest.raises(DataError, match="does not exist"):
        encoder_file.write(tmp_path / "nowhere" / "x.onnx", MODEL, make_info())
    assert sorted(os.listdir(tmp_path)) == ["good.onnx"]


def test_a_file_that_would_pass_two_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainkit.encoder_file.container.MAX_FILE", 1000)
    with pytest.raises(EncoderFileError, match="2 GB"):
        encoder_file.write(tmp_path / "x.onnx", MODEL, make_info())
    assert not os.listdir(tmp_path)


def test_every_changed_byte_is_found(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for at in range(0, len(content), 37):
        changed = bytearray(content)
        changed[at] ^= 0x20
        refused(tmp_path / "bad.onnx", bytes(changed))


def test_every_truncation_is_found(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for size in [*range(40), *range(40, len(content), 61), len(content) - 1, len(content) - 85]:
        refused(tmp_path / "bad.onnx", content[:size])


def test_files_that_are_not_encoder_files_are_refused(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    content = good.read_bytes()
    for strange in (
        b"",
        MODEL,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        random.Random(0).randbytes(5000),
        b"\x3a" + b"\xff" * 9 + b"\x01",  # a graph of 2**64 - 1 bytes
        b"\xff" * 50,  # a number without end
        MODEL + b"\x08\x01" * 70_000,  # too many fields
        MODEL.replace(b"hello", b"jello") + content[len(MODEL) :],  # changed, with the old digest
        content + b"\x08\x0a",  # extended by another program
        content + content[len(MODEL) :],  # metadata twice
    ):
        refused(bad, strange)
    for path in (tmp_path, tmp_path / "missing", Path("a\0b")):
        with pytest.raises(EncoderFileError) as caught:
            encoder_file.read(path)
        assert str(caught.value).startswith(f"{path}: ")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(EncoderFileError, match="pipe"):
            encoder_file.read(tmp_path / "pipe")


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    value = json.loads(encoder_file.to_json(make_info()))
    value["schema"] = 2
    message = refused(tmp_path / "bad.onnx", sealed(json.dumps(value).encode()))
    assert "schema 2" in message


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    value = json.loads(encoder_file.to_json(make_info()))
    value["something_new"] = {"a": 1}
    (tmp_path / "x.onnx").write_bytes(sealed(json.dumps(value).encode()))
    assert encoder_file.read(tmp_path / "x.onnx").bottleneck == 4


def test_a_file_without_hashes_of_images_says_so(tmp_path: Path) -> None:
    encoder_file.write(tmp_path / "old.onnx", MODEL, make_info(image_hashes=None))
    assert encoder_file.read(tmp_path / "old.onnx").image_hashes is None
    assert "image_hashes" not in json.loads(encoder_file.to_json(make_info(image_hashes=None)))
    facts = dict(describe(tmp_path / "old.onnx").facts)
    assert "cannot say" in facts["trained on"]
    encoder_file.write(tmp_path / "new.onnx", MODEL, make_info())
    assert dict(describe(tmp_path / "new.onnx").facts)["trained on"].startswith("7 images")
    assert as_json(tmp_path / "new.onnx")["image_hashes"] == dict.fromkeys(SIDES, 7)


def test_hashes_of_images_are_bounded(tmp_path: Path) -> None:
    value = json.loads(encoder_file.to_json(make_info()))
    side = value["image_hashes"]["train"]
    bomb = {**side, "shape": [MAX_IMAGES + 1], "data": b64encode(zlib.compress(bytes(8 * (MAX_IMAGES + 1)))).decode()}
    for bad in (
        [],
        {},
        {**value["image_hashes"], "train": bomb},
        {**value["image_hashes"], "test": {**side, "dtype": "<f8"}},
    ):
        changed = {**value, "image_hashes": bad}
        assert "image_hashes" in refused(tmp_path / "bad.onnx", sealed(json.dumps(changed).encode()))


def test_what_is_not_json_is_refused(tmp_path: Path) -> None:
    for text in (b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 200_000, b'{"format": 1e999}', b"9" * 10_000):
        refused(tmp_path / "bad.onnx", sealed(text))
    good = encoder_file.to_json(make_info())
    for number in ("NaN", "-Infinity", "1e999"):
        refused(tmp_path / "bad.onnx", sealed(good.replace('"seed":3', f'"seed":{number}').encode()))


@pytest.mark.parametrize("dtype", ["u1", "<i4", "<i8", "<f2", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 4), (), (2, 0, 3)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    packed = json.loads(json.dumps(pack_array(array)))
    again = unpack_array(packed, dtype=dtype, shape=shape, what="x")
    assert again.flags.writeable
    np.testing.assert_array_equal(again, array)
    big_endian = pack_array(array.astype(array.dtype.newbyteorder(">"))[...])
    assert big_endian == packed


def test_arrays_of_other_kinds_are_refused() -> None:
    with pytest.raises(EncoderFileError, match="arrays of"):
        pack_array(np.array(["a"]))
    good = pack_array(np.arange(6, dtype="<f4").reshape(2, 3))
    cases = [
        None,
        [],
        "x",
        {},
        {**good, "dtype": "<f8"},
        {**good, "dtype": ["<f4"]},
        {**good, "shape": [3, 2]},
        {**good, "shape": [6]},
        {**good, "shape": [2, -3]},
        {**good, "shape": [2, 3.0]},
        {**good, "shape": [True, 3]},
        {**good, "shape": "23"},
        {**good, "data": 3},
        {**good, "data": "not base64 !"},
        {**good, "data": "é"},
        {**good, "data": ""},
        {**good, "data": good["data"][:-8]},
        {**good, "data": b64encode(b"not zlib").decode()},
        {**good, "data": b64encode(zlib.compress(bytes(23))).decode()},
        {**good, "data": b64encode(zlib.compress(bytes(25))).decode()},
        {**good, "data": b64encode(b64decode(good["data"]) + b"more").decode()},
    ]
    for case in cases:
        with pytest.raises(EncoderFileError, match=r"^it "):
            unpack_array(case, dtype="<f4", shape=(2, 3), what="it")
    with pytest.raises(EncoderFileError, match="at most"):
        unpack_array({**good, "shape": [2**29]}, dtype="<f4", shape=(None,), what="it")


def test_a_zlib_bomb_stays_small() -> None:
    bomb = b64encode(zlib.compress(bytes(64 << 20), 1)).decode()
    tracemalloc.start()
    with pytest.raises(EncoderFileError):
        unpack_array({"dtype": "<f4", "shape": [10], "data": bomb}, dtype="<f4", shape=(10,), what="it")
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


HOSTILE = [
    None,
    True,
    -1,
    0,
    1,
    2.5,
    1e308,
    10**300,
    "",
    "x",
    "\n\x1b[2J",
    "fsaverage5",
    [],
    {},
    [[]],
    {"": 0},
    [0] * 99,
]


def hostile_json(rng: random.Random, text: str) -> bytes:
    """Replace, remove or add something at a random position in the JSON."""
    value = json.loads(text)
    parent, key = None, None
    inside = value
    while isinstance(inside, dict | list) and inside and (parent is None or rng.random() < 0.8):
        parent, key = inside, rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
        inside = parent[key]
    kind = rng.randrange(4)
    if kind == 0 and isinstance(parent, dict):
        del parent[key]
    elif kind == 1 and isinstance(inside, str) and inside:
        at = rng.randrange(len(inside))
        parent[key] = inside[:at] + chr(rng.randrange(1, 255)) + inside[at + 1 :]
    elif kind == 2 and isinstance(inside, int):
        parent[key] = inside + rng.choice([-1, 1, 2**31, 2**63])
    else:
        parent[key] = copy.deepcopy(rng.choice(HOSTILE))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutated(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randrange(1, 200)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 50))
        elif kind == 3:
            data[at:at] = b"\xff" * rng.randrange(1, 12)
        else:
            end = rng.randrange(len(data) + 1)
            data[at:at] = data[min(at, end) : max(at, end)][:500]
    return bytes(data)


# A longer run of the same is: BRAINKIT_FUZZ=5000 pytest tests/encoder_file/test_encoder_file.py -k mutated
@pytest.mark.parametrize("seed", range(int(os.environ.get("BRAINKIT_FUZZ", "100"))))
def test_mutated_files_never_escape(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    text = encoder_file.to_json(make_info())
    content = sealed(hostile_json(rng, text)) if seed % 2 else mutated(rng, sealed(text.encode()))
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    try:
        info = encoder_file.read(path)
    except EncoderFileError as error:
        message = str(error)
    else:
        message = "read"
        assert info.layer_weights.shape == (len(info.vertices), len(info.layers))
    assert len(message.splitlines()) == 1
    assert len(message) < 700


def make_uncertainty(**changes: object) -> MapUncertainty:
    parts = {"depth_se": np.linspace(0, 0.2, 5), "location_se": np.full((5, 2), 0.1), "scale_se": np.zeros(5)}
    return MapUncertainty(**{**parts, "basis": "halves", "runs": 8, "max_se": 0.15, **changes})  # type: ignore[arg-type]


def test_standard_errors_are_kept_and_may_be_absent(good: Path, tmp_path: Path) -> None:
    assert encoder_file.read(good).uncertainty is None
    encoder_file.write(tmp_path / "sure.onnx", MODEL, make_info(uncertainty=make_uncertainty()))
    found = encoder_file.read(tmp_path / "sure.onnx").uncertainty
    assert found is not None
    for name in ("depth_se", "location_se", "scale_se"):
        np.testing.assert_allclose(getattr(found, name), getattr(make_uncertainty(), name), rtol=1e-6)
    assert (found.basis, found.runs, found.max_se) == ("halves", 8, 0.15)


@pytest.mark.parametrize(
    "change",
    [
        {"depth_se": np.array([0, 0, -0.1, 0, 0])},
        {"scale_se": np.array([0, 0, np.nan, 0, 0])},
        {"location_se": np.full((5, 2), np.inf)},
        {"location_se": np.zeros((5, 3))},
        {"depth_se": np.zeros(4)},
        {"basis": "guess"},
        {"runs": 1},
        {"runs": 10**9},
        {"max_se": 0.0},
        {"max_se": 2.0},
    ],
)
def test_standard_errors_that_cannot_be_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    text = encoder_file.to_json(make_info(uncertainty=make_uncertainty(**change)))
    assert "uncertainty" in refused(tmp_path / "x.onnx", sealed(text.encode()))
