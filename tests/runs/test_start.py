"""A new subject's run that starts from another subject's: what is kept, where it begins, and what is refused."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs brainkit[train]")
pytest.importorskip("pytorch_lightning")

import tiny_encoders as tiny
from PIL import Image

import brainkit
from brainkit.config import Config
from brainkit.cortex.vertices import Vertices
from brainkit.data import open_subject
from brainkit.data.split import Split
from brainkit.errors import DataError, UsageError
from brainkit.runs.folder import read_settings
from brainkit.runs.image_hashes import read_image_hashes
from brainkit.runs.start import Start, open_start, place
from brainkit.training.transfer import SHARED
from brainkit.utils.files import read_json

SMALL = ("train.batch_size=8", "model.bottleneck=4", "model.selector_width=8", "backbone.size=40")


def make_subject(folder: Path, seed: int, images: int = 60, vertices: int = 12) -> Path:
    """Images of one colour each, and responses that follow it, at the same places for every subject."""
    draw = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    colours = draw.integers(0, 256, (images, 3), dtype=np.uint8)
    for row, colour in enumerate(colours):
        noise = draw.integers(0, 40, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(folder / "images" / f"{row:03d}.png")
    weights = np.random.default_rng(7).standard_normal((3, vertices))
    responses = colours / 128.0 @ weights + 0.3 * draw.standard_normal((images, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    places = np.random.default_rng(8).uniform(-50, 50, (vertices, 3))
    np.save(folder / "coordinates.npy", places.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of an old subject, and one of a new subject that starts from it."""
    folder = tmp_path_factory.mktemp("start")
    network, said = tiny.make_backbone(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = {"overrides": SMALL, "maps": False, "say": said.append}
        old_data, new_data = make_subject(folder / "one", 0), make_subject(folder / "two", 1)
        old = brainkit.fit(network, old_data, out=folder / "old", epochs=2, seed=3, **options)
        options["overrides"] = ["train.batch_size=8"]
        new = brainkit.fit(data=new_data, start=old, out=folder / "new", epochs=2, images=30, **options)
    return SimpleNamespace(folder=folder, network=network, old=old, new=new, data=new_data, said=said)


def state_of(run: brainkit.Run) -> dict[str, Any]:
    return dict(run.model().state_dict())


def test_bottlenecks_are_kept_bit_for_bit_and_the_rest_is_fitted(runs: Any) -> None:
    old, new = state_of(runs.old), state_of(runs.new)
    shared = [name for name in old if name.startswith(SHARED)]
    assert len(shared) > 4
    assert all(torch.equal(old[name], new[name]) for name in shared)
    for name in ("weight", "offsets.location", "layer_selector_mlp.3.weight"):
        assert not torch.equal(old[name], new[name])


def test_backbone_model_preprocessing_and_split_are_those_of_the_old_run(runs: Any) -> None:
    old, new = read_settings(runs.old.path), read_settings(runs.new.path)
    assert (new.model, new.backbone.size, new.data.fit) == (old.model, old.backbone.size, old.data.fit)
    assert new.data.split_seed == 3 and new.seed == 0 and new.data.images == 30
    split = Split.read(runs.new.path / "split.json")
    assert len(split.train) + len(split.validation) == 30


def test_a_run_says_what_it_started_from(runs: Any) -> None:
    start = read_json(runs.new.path / "run.json")["start"]
    assert start["run"] == "old" and [each["hash"] for each in start["data"]] == [runs.old.summary["data"]["hash"]]
    assert len(start["checkpoint"]) == 64
    assert set(start["validation_r"]) == {"neutral", "transferred"}
    assert any(line.startswith("start: two begins with") for line in runs.said)
    old, new = (read_image_hashes(run.path) for run in (runs.old, runs.new))
    assert old is not None and new is not None
    assert np.isin(old["train"], new["train"]).all() and len(new["train"]) > len(old["train"])


def test_a_run_that_is_resumed_must_find_the_same_start(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs.new.path / "run.json").rename(runs.folder / "held.json")
    best = (runs.new.path / "checkpoints" / "best.ckpt").read_bytes()
    options: dict[str, Any] = {"out": runs.new.path, "resume": True, "maps": False, "say": lambda line: None}
    again = brainkit.fit(runs.network, **options)
    assert again.summary["scores"] == read_json(runs.folder / "held.json")["scores"]
    assert (runs.new.path / "checkpoints" / "best.ckpt").read_bytes() == best
    (runs.new.path / "run.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("brainkit.runs.start._digest", lambda path: "0" * 64)
        with pytest.raises(DataError, match="other run to start from"):
            brainkit.fit(runs.network, **options)
    brainkit.fit(runs.network, **options)


@pytest.mark.parametrize(
    "override", ["model.bottleneck=8", "model.topography=false", "backbone.size=56", "data.fit=crop"]
)
def test_what_must_be_that_of_the_old_run_is_refused_by_name(runs: Any, override: str) -> None:
    with pytest.raises(UsageError, match=override.partition("=")[0]):
        brainkit.fit(data=runs.data, start=runs.old, out=runs.folder / "other", overrides=[override])
    assert not (runs.folder / "other").exists()


def test_repeats_an_encoder_file_and_another_network_are_refused(runs: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": runs.data, "out": tmp_path / "other"}
    with pytest.raises(UsageError, match="repeats"):
        brainkit.fit(start=runs.old, repeats=2, **options)
    (runs.old.path / "encoder.onnx").write_bytes(b"")
    try:
        with pytest.raises(DataError, match=str(runs.old.path)):
            brainkit.fit(start=runs.old.path / "encoder.onnx", **options)
    finally:
        (runs.old.path / "encoder.onnx").unlink()
    other = tiny.make_backbone()
    with torch.no_grad():
        other.patches.weight.mul_(2)  # type: ignore[operator]
    with pytest.raises(DataError, match="other weights"):
        brainkit.fit(other, start=runs.old, **options)


def test_the_same_vertex_starts_with_the_same_selectors_also_among_others(runs: Any) -> None:
    """A run on both hemispheres of fsaverage5, and a subject with some of its vertices and finer ones."""
    from brainkit.cortex.surface import sphere_coordinates
    from brainkit.model.factor_topy import FactorTopy
    from brainkit.training.transfer import keep_bottlenecks, start_from

    draw = np.random.default_rng(0)
    ids = np.sort(draw.choice(2 * 10_242, 300, replace=False))
    vertices = Vertices("fsaverage5", ids)
    old = FactorTopy({"a": 5}, sphere_coordinates(vertices), bottleneck=3, selector_width=8, offsets=("location",))
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.normal_()
    start = Start(Path("old"), {}, "", old.eval(), vertices)
    kept = np.sort(np.concatenate([ids[::3][ids[::3] < 10_242], ids[ids >= 10_242][::5]]))
    # The same vertices, by their ids in fsaverage6, whose first vertices are those of fsaverage5.
    fine = Vertices("fsaverage6", np.where(kept < 10_242, kept, kept - 10_242 + 40_962))
    placed = place(start, SimpleNamespace(vertices=fine, own_coordinates=None, coordinates=None, name="new"))  # type: ignore[arg-type]
    assert placed.nearest is not None and not placed.notes
    np.testing.assert_array_equal(ids[placed.nearest], kept)
    model = FactorTopy({"a": 5}, placed.coordinates, bottleneck=3, selector_width=8, offsets=("location",)).eval()
    keep_bottlenecks(model, old)
    start_from(model, old, placed.nearest)
    with torch.no_grad():
        found, expected = model.selectors(), old.selectors().of(torch.from_numpy(placed.nearest))
    for name in ("layer_weights", "locations", "scale"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=0)
    assert torch.equal(model.weight, old.weight[torch.from_numpy(placed.nearest)])
    assert not any(each.requires_grad for each in model.local_token_bottleneck.parameters())


def test_spaces_without_common_coordinates_leave_the_bottlenecks(runs: Any) -> None:
    start = open_start(runs.old.path, runs.network)
    subject = open_subject(runs.data)
    assert place(start, subject).nearest is not None
    elsewhere = SimpleNamespace(
        vertices=Vertices("fsaverage5", np.arange(4)),
        own_coordinates=None,
        coordinates=np.zeros((4, 3), np.float32),
        name="x",
    )
    placed = place(start, elsewhere)  # type: ignore[arg-type]
    assert placed.nearest is None and len(placed.notes) == 1
    far = SimpleNamespace(
        vertices=subject.vertices,
        own_coordinates=subject.coordinates + 200,
        coordinates=subject.coordinates + 200,
        name="x",
    )
    nearest = place(start, far).nearest  # type: ignore[arg-type]
    assert nearest is not None and (nearest == -1).all()


def test_no_start_changes_no_default() -> None:
    assert Config().train.start == "" and Config().data.images == 0
