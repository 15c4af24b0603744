"""An encoder of some vertices: the same numbers, and a file that says what it is a part of."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
pytest.importorskip("onnx", reason="export needs brainkit[train]")
pytest.importorskip("onnxruntime")

from small_encoders import in_torch, make_backbone, make_images, make_info, make_model  # noqa: E402

from brainkit import encoder_file, export, predict  # noqa: E402
from brainkit.cortex.vertices import Vertices  # noqa: E402
from brainkit.encoder_file import unpack_array  # noqa: E402
from brainkit.errors import DataError, EncoderFileError, UsageError  # noqa: E402
from brainkit.export.vertex_subset import choose_subset, custom_positions, read_ids, select_vertices  # noqa: E402

INFO = make_info(make_model())  # 60 vertices of fsaverage5, ids 0, 300, ...; regions early (30), one (1), absent (0)


def one_line(given: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(given.value)
    return str(given.value)


# --- which vertices ---------------------------------------------------------------------------------------------


def test_nothing_asked_for_is_all() -> None:
    assert choose_subset(INFO) is None


@pytest.mark.parametrize(
    ("rois", "ids", "positions"),
    [
        (("one",), None, [59]),
        (("ONE", "one"), None, [59]),
        (("early", "one"), None, [*range(30), 59]),
        (("absent", "one"), None, [59]),
        ((), [900, 0, 300], [0, 1, 3]),
        (("one",), [300], [1, 59]),
        (("early",), [300], [*range(30)]),
    ],
)
def test_regions_and_ids_come_in_the_order_of_the_encoder(rois: Any, ids: Any, positions: list[int]) -> None:
    chosen = choose_subset(INFO, rois=rois, vertices=None if ids is None else np.array(ids))
    assert chosen is not None
    assert chosen.positions.tolist() == positions


@pytest.mark.parametrize(
    ("rois", "ids", "said"),
    [
        (("nowhere",), None, "ROI 'nowhere': unknown"),
        (("absent",), None, "ROI absent: has no vertices in this encoder"),
        ((), [], "vertices: must name at least one vertex, got none"),
        ((), [0, 300, 0], "vertices: must name each vertex once, got 0"),
        ((), [0, 301, 7], "2 of 3 ids are not among the encoder's 60 vertices of fsaverage5, the first is 7"),
        ((), [-1], "the first is -1"),
        ((), [10**9], "the first is 1000000000"),
        ((), [0.5], "must be integers"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(rois: Any, ids: Any, said: str) -> None:
    array = None if ids is None else np.array(ids, dtype=None if ids else np.int64)
    with pytest.raises(UsageError) as caught:
        choose_subset(INFO, rois=rois, vertices=array)
    assert said in one_line(caught)


def test_files_of_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([300, 0], np.uint16))
    (tmp_path / "ids.txt").write_text("300\n\n 0 \r\n")
    for name in ("ids.npy", "ids.txt"):
        chosen = choose_subset(INFO, vertices=tmp_path / name)
        assert chosen is not None
        assert chosen.positions.tolist() == [0, 1] and chosen.source == {"file": name}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ids.txt", b"3\nV1\n", "line 2: expected a vertex id, found 'V1'"),
        ("ids.txt", b"3 4\n", "line 1: expected a vertex id, found '3 4'"),
        ("ids.txt", b"-3\n", "line 1: expected a vertex id, found '-3'"),
        ("ids.txt", b"9" * 5000, "line 1: expected a vertex id, found"),
        ("ids.txt", "1\n2\n".encode("utf-16"), "expected vertex ids, one per line, in UTF-8, found UTF-16 text"),
        ("ids.txt", b"\x89HDF\r\n\x1a\n", "found an HDF5 file"),
        ("ids.npy", b"\x89HDF\r\n\x1a\n", "expected vertex ids as .npy, found an HDF5 file"),
        ("ids.npy", b"no array", "expected vertex ids as .npy, found text"),
        ("ids.npy", b"", "expected vertex ids as .npy, found an empty file"),
        ("ids.npy", np.zeros(3), "expected integers of shape (n,), found float64 of shape (3,)"),
        ("ids.npy", np.zeros((3, 1), int), "expected integers of shape (n,), found int64 of shape (3, 1)"),
        ("ids.npy", np.array([{}]), "expected vertex ids as .npy"),
        ("none.txt", None, "cannot be read: No such file"),
    ],
)
def test_files_of_something_else_are_one_line(tmp_path: Path, name: str, content: Any, said: str) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(DataError) as caught:
        read_ids(file)
    assert said in one_line(caught) and str(caught.value).startswith(str(file))
    assert len(str(caught.value)) < 400


# --- what is left -----------------------------------------------------------------------------------------------


def test_the_description_is_cut_down_with_the_model() -> None:
    folded = make_model().folded()
    chosen = choose_subset(INFO, rois=("one",), vertices=np.array([300, 3000, 9000]))
    assert chosen is not None
    constants, info = select_vertices(folded, INFO, chosen)
    kept = [1, 10, 30, 59]
    assert chosen.positions.tolist() == kept
    assert info.vertices == Vertices("fsaverage5", np.array(kept) * 300)
    assert info.rois.to_json() == {"early": [0, 1], "one": [3]}  # "absent" is dropped
    for name in ("layer_weights", "locations", "scale", "r", "R2", "noise_ceiling"):
        np.testing.assert_array_equal(getattr(info, name), getattr(INFO, name)[kept])
    np.testing.assert_array_equal(constants.weight, folded.weight[kept])
    whole = hashlib.sha256(INFO.vertices.ids.astype("<i4").tobytes()).hexdigest()
    said = {"rois": "one", "vertices": 4, "of": 60, "of_sha256": whole}
    assert info.provenance == {"seed": 0, "subset": said}


def test_the_custom_space_is_numbered_anew_and_says_how() -> None:
    info = dataclasses.replace(INFO, vertices=Vertices.custom(60))
    chosen = choose_subset(info, vertices=np.array([7, 3]))
    assert chosen is not None
    _, cut = select_vertices(make_model().folded(), info, chosen)
    assert cut.vertices == Vertices.custom(2)
    positions = unpack_array(cut.provenance["subset"]["positions"], dtype="<i4", shape=(2,), what="positions")
    assert positions.tolist() == [3, 7]
    np.testing.assert_array_equal(custom_positions(cut, 60), [3, 7])
    with pytest.raises(EncoderFileError, match=r"must increase within 0\.\.6"):
        custom_positions(cut, 7)
    assert custom_positions(info, 60) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(("form", "target"), [("onnx", "cpu"), ("torchscript", "gpu"), ("pt2", "gpu")])
def test_every_form_predicts_the_same_for_its_vertices(tmp_path: Path, form: str, target: str) -> None:
    model, backbone, images = make_model(), make_backbone(), make_images()
    chosen = choose_subset(INFO, rois=("one",), vertices=np.array([300, 9000]))
    assert chosen is not None
    path = tmp_path / f"some.{form}"
    options: dict[str, Any] = {"info": INFO, "images": images, "subset": chosen, "target": target}
    if form == "onnx":
        result = export.export_onnx(model, backbone, path, **options)
        found = predict.load(path, "cpu").run(images)
    else:
        path = path.with_suffix(".pt2" if form == "pt2" else ".pt")
        result = export.export_torch(model, backbone, path, form=form, **options)
        opened = torch.export.load(path).module() if form == "pt2" else torch.jit.load(path)
        found = opened(torch.from_numpy(images))[0].numpy()
    expected = in_torch(model, backbone, images)[:, [1, 30, 59]]
    assert result.certificate["largest"] < 1e-4
    np.testing.assert_allclose(found, expected, atol=2e-6 * expected.std(), rtol=2e-6)
    info = encoder_file.read(path)
    assert info.form == {"cpu": "cells", "gpu": "padded"}[target]
    assert len(info.vertices) == 3 and info.rois.names == ("early", "one")
    assert info.provenance["subset"]["of"] == 60
