"""The torch forms of an encoder file: right at every batch size, with torch alone, and readable without torch."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs brainkit[train]")
pytest.importorskip("onnxruntime")

from small_encoders import (  # noqa: E402
    SIZE,
    Branching,
    Counting,
    Drifting,
    Tiny,
    in_torch,
    make_backbone,
    make_images,
    make_info,
    make_model,
)

from brainkit import encoder_file, export, predict  # noqa: E402
from brainkit.encoder_file import archive  # noqa: E402
from brainkit.encoder_file.describe import describe  # noqa: E402
from brainkit.errors import BrainkitError, EncoderFileError, UsageError  # noqa: E402

FORMS = {"torchscript": "encoder.pt", "pt2": "encoder.pt2"}


def write(place: Path, form: str, kind: type[Tiny] = Tiny, **options: Any) -> Any:
    model, backbone, images = make_model(), make_backbone(kind), make_images(8)
    path = place / FORMS.get(form, "encoder.onnx")
    options = {"info": make_info(model), "images": images, **options}
    result = export.export_torch(model, backbone, path, form=form, **options)
    return SimpleNamespace(model=model, backbone=backbone, images=images, path=path, result=result)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {form: write(tmp_path_factory.mktemp(form), form) for form in FORMS}


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")


def opened(path: Path, form: str) -> Any:
    return torch.jit.load(path) if form == "torchscript" else torch.export.load(path).module()


@pytest.mark.parametrize("form", FORMS)
def test_the_certificate_is_in_the_file(written: dict[str, Any], form: str) -> None:
    exported = written[form]
    info = encoder_file.read(exported.path)
    assert info.container == form
    assert info.form == "cells"
    assert info.certificate == exported.result.certificate
    assert info.certificate["largest"] < 1e-4 and info.certificate["enforced"] is True
    assert info.certificate["batches"] == [1, 3] and info.certificate["images"] == 8
    assert exported.result.bytes == exported.path.stat().st_size
    assert os.listdir(exported.path.parent) == [FORMS[form]]
    assert info.rois.to_json() == make_info(exported.model).rois.to_json()
    assert info.vertices == make_info(exported.model).vertices


@pytest.mark.parametrize("form", FORMS)
def test_predictions_and_tokens_are_those_of_torch(written: dict[str, Any], form: str) -> None:
    exported = written[form]
    encode = opened(exported.path, form)
    for batch in (1, 2, 3, 8):
        images = exported.images[:batch]
        fmri, tokens = encode(torch.from_numpy(images))
        assert not fmri.requires_grad and fmri.dtype == torch.float32
        expected = in_torch(exported.model, exported.backbone, images)
        np.testing.assert_allclose(fmri.numpy(), expected, atol=2e-5 * expected.std(), rtol=1e-5)
        assert tokens.shape == (batch, 2, 6, 21)


WITHOUT_BRAINKIT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "brainkit":
            raise ImportError("brainkit must not be needed")

sys.meta_path.insert(0, Refuse())
import numpy, torch
script, program, images, out = sys.argv[1:]
images = torch.from_numpy(numpy.load(images))
said = {"brainkit.json": ""}
encoders = {"pt": torch.jit.load(script, _extra_files=said)}
assert b'"format":"brainkit encoder"' in said["brainkit.json"]
said = {"brainkit.json": ""}
encoders["pt2"] = torch.export.load(program, extra_files=said).module()
assert "certificate" in str(said["brainkit.json"])
found = {f"{form}{n}": encode(images[:n])[0].numpy() for form, encode in encoders.items() for n in (1, 3, 8)}
numpy.savez(out, **found)
assert not [name for name in sys.modules if name.split(".")[0] == "brainkit"]
"""


@pytest.mark.slow
def test_they_load_where_brainkit_is_not(written: dict[str, Any], tmp_path: Path) -> None:
    exported = written["pt2"]
    np.save(tmp_path / "images.npy", exported.images)
    files = [file.path for file in written.values()] + [tmp_path / "images.npy", tmp_path / "out.npz"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_BRAINKIT, *map(str, files)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = in_torch(exported.model, exported.backbone, exported.images)
    with np.load(tmp_path / "out.npz") as found:
        assert len(found.files) == 6
        for name in found.files:
            n = int(name[-1])
            assert found[name].shape == (n, 60)
            np.testing.assert_allclose(found[name], expected[:n], atol=2e-5 * expected.std(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_used_is_stored_and_nothing_of_this_machine(written: dict[str, Any], form: str) -> None:
    exported = written[form]
    with zipfile.ZipFile(exported.path) as entries:
        assert entries.testzip() is None
        content = b"".join(entries.read(name) for name in entries.namelist())
        stored = [name for name in entries.namelist() if not name.endswith(".debug_pkl")]
        assert stored == entries.namelist()
    for trace in (str(Path(export.__file__).parents[1]), str(Path(__file__).parent)):
        assert trace.encode() not in content

    class Deep(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.unread = torch.nn.Linear(1000, 1000)

    deep = write(exported.path.parent, form, Deep)
    assert deep.result.bytes < exported.result.bytes + 50_000
    assert [name for name, value in deep.backbone.named_parameters() if not value.requires_grad] == []


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_differs_from_torch_is_not_written(tmp_path: Path, form: str) -> None:
    class Traced(Drifting):
        def get_tokens(self, images: torch.Tensor) -> Any:
            local, whole = super().get_tokens(images)
            if torch.jit.is_tracing():
                local = {name: tokens * 1.01 for name, tokens in local.items()}
            return local, whole

    with pytest.raises(BrainkitError, match=r"not written: .* differs from torch by") as caught:
        write(tmp_path, form, Traced)
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)
    if form == "torchscript":
        assert write(tmp_path, form, Traced, enforce=False).result.certificate["largest"] > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("form", "said"), [("torchscript", "torch.jit.trace"), ("pt2", "torch.export")])
def test_a_network_that_cannot_be_exported_is_one_line(tmp_path: Path, form: str, said: str) -> None:
    class Failing(Branching):
        def get_tokens(self, images: torch.Tensor) -> Any:
            if torch.jit.is_tracing():
                raise RuntimeError("cannot be traced\nreally")
            return super().get_tokens(images)

    with pytest.raises(BrainkitError, match=rf"backbone tiny: {said} cannot export it: ") as caught:
        write(tmp_path, form, Failing)
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_a_batch_size_that_is_part_of_the_program_is_one_line(tmp_path: Path) -> None:
    class Fixed(Counting):
        def get_tokens(self, images: torch.Tensor) -> Any:
            return super().get_tokens(images.reshape(int(images.shape[0]), *images.shape[1:]))

    with pytest.raises(BrainkitError) as caught:
        write(tmp_path, "pt2", Fixed)
    assert "cannot" in str(caught.value) and "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, form: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(BrainkitError, match="cannot be written: No space left on device"):
        write(tmp_path, form)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_exporter_is_silent(tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str], recwarn: Any) -> None:
    write(tmp_path, form)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_requests_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="form must be one of torchscript, pt2, got 'onnx'"):
        export.export_torch(
            make_model(),
            make_backbone(),
            tmp_path / "x",
            form="onnx",
            info=make_info(make_model()),
            images=make_images(),
        )
    with pytest.raises(UsageError, match="images must be uint8"):
        write(tmp_path, "pt2", images=make_images(2))


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_info_and_scoring_say_what_it_is(written: dict[str, Any], form: str, tmp_path: Path) -> None:
    facts = dict(describe(written[form].path).facts)
    assert facts["form"].startswith({"torchscript": "TorchScript", "pt2": ".pt2"}[form])
    assert "tiny" in facts["backbone"] and facts["note"] == "a test"
    with pytest.raises(UsageError, match=rf"holds the {form} form, .* brainkit export RUN --onnx$"):
        predict.load(written[form].path)
    run = tmp_path / "a run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    shutil.copy(written[form].path, run / FORMS[form])
    with pytest.raises(UsageError, match=f"brainkit export '{re.escape(str(run))}' --onnx$"):
        predict.load(run / FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_or_missing_byte_is_found(written: dict[str, Any], form: str, tmp_path: Path) -> None:
    content, path = written[form].path.read_bytes(), tmp_path / FORMS[form]
    draw = np.random.default_rng(0)
    for at in (5, *draw.integers(4, len(content), 40), len(content) - 1, len(content) - 80, len(content) - 90):
        changed = bytearray(content)
        changed[at] ^= 1 << int(draw.integers(8))
        assert re.search("digest", refused(path, bytes(changed)))
    for size in (10, len(content) // 2, len(content) - 1):
        refused(path, content[:size])


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(EncoderFileError) as caught:
        encoder_file.read(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600 and message.startswith(str(path))
    return message


def sealed(content: bytes) -> bytes:
    """A zip archive with a digest that is right, so that only its content can be at fault."""
    with zipfile.ZipFile(stream := io.BytesIO(content), "a") as entries:
        entries.comment = bytes(archive.COMMENT_BYTES)
    return sealed_again(stream.getvalue()[: -archive.COMMENT_BYTES])


def sealed_again(body: bytes) -> bytes:
    return body + b"brainkit_sha256=" + hashlib.sha256(body).hexdigest().encode()


def packed(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return sealed(stream.getvalue())


JSON = "a/extra/brainkit.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + bytes(200), "not a brainkit encoder"),
        (sealed_again(b"PK\x03\x04" + bytes(200)), "not an encoder file, or damaged"),
        (packed({"a/constants.pkl": b""}), "brainkit.json, found 0"),
        (packed({JSON: b"{}", "b/brainkit.json": b"{}", "a/constants.pkl": b""}), "brainkit.json, found 2"),
        (packed({JSON: b"{}"}), "neither TorchScript nor"),
        (packed({JSON: b"{}", "a/constants.pkl": b""}), "must be a JSON object with format"),
        (packed({JSON: bytes(65 << 20), "a/constants.pkl": b""}, zipfile.ZIP_DEFLATED), "at most 67108864 are read"),
        (packed({JSON: b"{}", "a/constants.pkl": b""}, zipfile.ZIP_BZIP2), "compression method 12"),
        (packed({f"{n:0200d}": b"" for n in range(20_000)}), "at most 4194304 are read"),
    ],
    ids=["no digest", "no zip", "no JSON", "two JSONs", "another zip", "another JSON", "bomb", "bzip2", "many entries"],
)
def test_archives_that_are_not_ours_are_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path / "x.pt", content)


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    good = packed({JSON: b"x" * 1000, "a/constants.pkl": b""}, zipfile.ZIP_DEFLATED)
    entry = good.index(b"PK\x01\x02")
    for field in (20, 24, 28, 30, 42):  # packed size, size, lengths of name and extra field, place
        for value in (0, 1, 0x7F, 0xFF):
            lying = bytearray(good[: -archive.COMMENT_BYTES])
            lying[entry + field : entry + field + 2] = bytes([value, value])
            refused(tmp_path / "x.pt", sealed_again(bytes(lying)))


def test_a_plain_torch_file_is_told_apart(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(EncoderFileError, match=r"weights\.pt: .*brainkit export RUN"):
        encoder_file.read(tmp_path / "weights.pt")


def test_images_of_another_size_fail_in_torch(written: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"\d"):
        opened(written["pt2"].path, "pt2")(torch.zeros((1, SIZE + 8, SIZE, 3), dtype=torch.uint8))
