"""Several subjects in one run: the same bottlenecks, their own readouts, every image on one side for all."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import Responses, coordinates, memory_tokens, small_model
from small_runs import PLUG_IN, SMALL, assert_same_run

import brainkit
from brainkit.cli import group
from brainkit.config import Config, DataConfig, TrainConfig
from brainkit.data.joint_splits import make_joint_splits
from brainkit.data.splits import Split, make_split
from brainkit.errors import DataError, UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.runs.folder import finished_run, load_model, run_folders
from brainkit.runs.latest import latest_encoder, latest_run
from brainkit.runs.subjects import subject_folder_names
from brainkit.runs.train import train
from brainkit.training.datamodule import EncodingData, EpochOrder
from brainkit.training.fit import fit
from brainkit.training.joint import SHARED, JointData, JointModule
from brainkit.training.token_statistics import fit_statistics

# --- splits -------------------------------------------------------------------------------------------------------


def joint(groups: list[list[str]], official: list[list[bool]] | None = None, **options: Any) -> list[Split]:
    rows = official or [[False] * len(theirs) for theirs in groups]
    names = [[f"{group}.png" for group in theirs] for theirs in groups]
    subjects = [f"subj{k + 1:02d}" for k in range(len(groups))]
    return make_joint_splits(groups, rows, names=names, subjects=subjects, **options)


def sides(groups: list[str], split: Split) -> dict[str, str]:
    found: dict[str, str] = {}
    for side in ("train", "validation", "test"):
        for row in getattr(split, side):
            assert found.setdefault(groups[row], side) == side
    return found


def test_with_many_groups_every_subject_is_split_as_it_would_be_alone() -> None:
    draw = np.random.default_rng(0)
    groups = [[f"nsd-{k:05d}" for k in draw.permutation(900)[:600]] for _ in range(3)]
    together = joint(groups, seed=5)
    for theirs, split in zip(groups, together, strict=True):
        alone = make_split(theirs, seed=5, names=[f"{group}.png" for group in theirs])
        for side in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(split, side), getattr(alone, side))
        assert split.names_hash == alone.names_hash and not split.notes


@pytest.mark.parametrize("seed", range(20))
def test_an_image_lies_on_the_same_side_for_all_and_no_side_is_empty(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pool = [f"g{k}" for k in range(9)]
    groups = [[str(g) for g in draw.choice(pool, 7, replace=False)] for _ in range(3)]
    together = joint(groups, seed=seed)
    known: dict[str, str] = {}
    for theirs, split in zip(groups, together, strict=True):
        for stimulus, side in sides(theirs, split).items():
            assert known.setdefault(stimulus, side) == side
        assert min(len(split.train), len(split.validation), len(split.test)) >= 1
        assert len(split.train) + len(split.validation) + len(split.test) == len(theirs)


def test_what_one_is_officially_tested_on_nobody_is_trained_on() -> None:
    first = [f"g{k}" for k in range(40)]
    second = [f"g{k}" for k in range(20, 60)]
    official = [[k < 10 for k in range(40)], [k >= 30 for k in range(40)]]  # g0-g9, and g50-g59
    second[0] = "g3"  # on which the first one is tested
    one, two = joint([first, second], official, seed=1)
    np.testing.assert_array_equal(one.test, np.arange(10))
    np.testing.assert_array_equal(two.test, np.arange(30, 40))
    assert 0 not in {*two.train, *two.validation, *two.test}
    assert two.notes == ("1 images left out: their stimuli are in the test set of one of the subjects",)
    assert not one.notes
    assert sides(first, one) | sides(second, two) == {**sides(second, two), **sides(first, one)}


def test_with_and_without_official_tests() -> None:
    """The one without is tested on a hashed side, which the other is not trained on."""
    first, second = [f"g{k}" for k in range(80)], [f"g{k}" for k in range(40, 120)]
    one, two = joint([first, second], [[k < 8 for k in range(80)], [False] * 80], seed=2)
    np.testing.assert_array_equal(one.test, np.arange(8))
    tested = {second[row] for row in two.test}
    used = {first[row] for row in (*one.train, *one.validation)}
    assert len(two.test) and not tested & used
    assert tested & set(first)  # else this shows nothing
    # A group that only the first has seen is not lost to the hashed test side.
    assert {f"g{k}" for k in range(8, 40)} <= used


def test_sides_that_cannot_be_had() -> None:
    with pytest.raises(DataError, match="at least 3 stimulus groups of subj02 beside the official test sets, found 2"):
        joint([["a", "b", "c", "d"], ["a", "b", "a"]])
    with pytest.raises(DataError, match=r"no stimulus group of subj\d\d can be its \w+ side without taking another's"):
        joint([["a", "b", "c"], ["a", "b", "d"], ["a", "c", "d"], ["b", "c", "d"]])
    with pytest.raises(UsageError, match="must have one length"):
        joint([["a", "b", "c"]], [[False]])


# --- module and data ----------------------------------------------------------------------------------------------


def two_subjects(**train: Any) -> tuple[JointModule, JointData]:
    """Subjects of 20 and 12 vertices who saw 24 and 5 training images, made by models of the same kind."""
    parts, models = [], []
    for k, (vertices, images) in enumerate(((20, 24), (12, 5))):
        tokens = memory_tokens(seed=k)
        truth = small_model(tokens, vertices)
        with torch.inference_mode():
            values = truth(*tokens.batch(np.arange(len(tokens)))).numpy()
        split = Split(np.arange(images), np.arange(24, 30 + 2 * k), np.arange(34, 40), seed=0)
        parts.append(EncodingData(tokens, Responses(values), split, batch_size=4, seed=0))
        torch.manual_seed(k)
        model = FactorTopy(tokens.widths, coordinates(vertices), bottleneck=6, grid=tokens.grid, selector_width=16)
        model.set_response_scale(values[:images].mean(0), values[:images].std(0))
        models.append(model)
    data = JointData(parts)
    config = TrainConfig(**({"epochs": 3} | train))
    module = JointModule(models, config, data.steps * config.epochs)
    fit_statistics(models[0], [(part.tokens, part.split.train) for part in parts])  # type: ignore[misc]
    return module, data


def test_bottlenecks_are_the_same_objects_and_are_kept_once() -> None:
    module, _ = two_subjects()
    first, second = module.models()
    for name in SHARED:
        assert getattr(first, name) is getattr(second, name)
    assert first.weight is not second.weight
    state = module.state_dict()
    assert not [key for key in state if "subjects.1.local" in key or "subjects.1.global" in key]
    other, _ = two_subjects()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(state)
    for name, value in module.named_parameters():
        assert torch.equal(dict(other.named_parameters())[name], value)
    # Each is a whole model, as its folder will hold it.
    alone = FactorTopy(second.widths, second.coordinates, bottleneck=6, grid=second.grid, selector_width=16)
    alone.load_state_dict(second.state_dict())
    trained = {id(p) for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert trained == {id(parameter) for parameter in module.parameters()}


def test_every_image_of_every_subject_comes_once_an_epoch() -> None:
    _, data = two_subjects()
    assert data.steps == 6
    for part, sizes in zip(data.parts, ([4] * 6, [1] * 5 + [0]), strict=True):
        order = part._order("train")
        assert len(order) == 6 and [part.share("train", k).images for k in range(6)] == sizes
        seen = [position for k, batch in enumerate(order) for position in batch if part.share("train", k).images]
        assert sorted(seen) == list(range(len(part.split.train)))
    near_equal = EpochOrder(23, 99, seed=0, batches=5)
    assert [len(batch) for batch in near_equal] == [5, 5, 5, 4, 4]
    later = EpochOrder(23, 99, seed=0, start=3, batches=5)
    assert list(later) == list(near_equal)[3:] and len(later) == 2 and later.share(1).images == 4


def test_the_loss_is_the_mean_of_the_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = two_subjects(regulariser=0.0)

    class Attached:
        global_step = 0

    monkeypatch.setattr(JointModule, "trainer", Attached())
    module.shares = data  # type: ignore[assignment]
    batches = list(data.train_dataloader())
    full, without = batches[0], batches[-1]  # in the last step there is no image of the second subject
    alone = [
        module.step_loss(part, None, model).misfit.item() for model, part in zip(module.models(), full, strict=True)
    ]
    assert module.training_step(full, 0).item() == pytest.approx(np.mean(alone), rel=1e-6)
    assert float(module.watch.mean()) == pytest.approx((4 * alone[0] + alone[1]) / 5, rel=1e-6)
    module.zero_grad()
    module.training_step(without, 5).backward()
    first, second = module.models()
    assert first.weight.grad is not None and first.weight.grad.abs().sum() > 0
    assert second.weight.grad is not None and not second.weight.grad.any()


@pytest.mark.parametrize("options", [{}, {"loss": "pearson", "ema": 0.9}])
def test_two_subjects_are_learnt_and_gone_on_with(tmp_path: Path, options: dict[str, Any]) -> None:
    for name in ("through", "halves"):
        (tmp_path / name).mkdir()
    module, data = two_subjects(**options)
    seen: list[dict[str, float]] = []
    fit(module, data, tmp_path / "through", on_epoch=seen.append)  # type: ignore[arg-type]
    assert seen[-1]["train_loss"] < seen[0]["train_loss"]
    assert seen[-1]["step"] == 18

    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 9:
            raise KeyboardInterrupt

    module, data = two_subjects(**options, save_minutes=1e-9)  # every step is kept
    with pytest.raises(KeyboardInterrupt):
        fit(module, data, tmp_path / "halves", on_step=stop)  # type: ignore[arg-type]
    module, data = two_subjects(**options)
    fit(module, data, tmp_path / "halves", resume=True)  # type: ignore[arg-type]
    states = [
        torch.load(tmp_path / name / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]
        for name in ("through", "halves")
        for which in ("last", "best")
    ]
    for through, halves in zip(states[:2], states[2:], strict=True):
        assert list(through) == list(halves)
        assert all(torch.equal(through[key], halves[key]) for key in through)


def test_two_processes_train_two_subjects_as_one_does(tmp_path: Path) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        module, data = two_subjects(epochs=2, devices=count)
        fit(module, data, tmp_path / str(count))  # type: ignore[arg-type]
    assert_same_run(tmp_path / "1", tmp_path / "2")


# --- a run --------------------------------------------------------------------------------------------------------


def make_subject(folder: Path, images: list[int], vertices: int, seed: int) -> Path:
    """Own data: image number k is the same file for every subject that has it."""
    (folder / "images").mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (100, 3), dtype=np.uint8)
    for k in images:
        noise = np.random.default_rng(k).integers(0, 40, (20, 20, 3), dtype=np.uint8)
        shown = np.clip(noise.astype(int) + colours[k], 0, 255).astype(np.uint8)
        Image.fromarray(shown).save(folder / "images" / f"{k:03d}.png")
    draw = np.random.default_rng(seed)
    responses = colours[sorted(images)] / 128.0 @ draw.standard_normal((3, vertices))
    np.save(folder / "responses.npy", responses.astype(np.float32))
    np.save(folder / "coordinates.npy", draw.uniform(-50, 50, (vertices, 3)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects of the same name who share twelve images, and a network."""
    folder = tmp_path_factory.mktemp("joint")
    make_subject(folder / "a" / "subject", list(range(24)), 6, seed=1)
    make_subject(folder / "b" / "subject", list(range(12, 30)), 4, seed=2)
    (folder / "net.py").write_text(PLUG_IN)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> tuple[brainkit.Run, list[str]]:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        data = [place / "a" / "subject", place / "b" / "subject"]
        found = brainkit.fit("net.py:Colours", data, out="both", epochs=4, overrides=SMALL, say=said.append)
        return brainkit.Run.open(found.path / "subject"), said


@pytest.fixture(autouse=True)
def _workplace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_each_subject_has_a_run_of_its_own(run: tuple[brainkit.Run, list[str]], place: Path) -> None:
    both = place / "both"
    assert latest_run() == Path("runs") / both
    assert [path.name for path in run_folders(both)] == ["subject", "subject-2"]
    assert {path.name for path in both.iterdir()} >= {
        "config.yaml",
        "log.txt",
        "metrics.csv",
        "checkpoints",
        "run.json",
    }
    assert Config.read(both / "config.yaml").data.paths == tuple(str(place / k / "subject") for k in "ab")
    for name, letter, vertices in (("subject", "a", 6), ("subject-2", "b", 4)):
        folder, summary = finished_run(both / name)
        assert {path.name for path in folder.iterdir()} >= {
            *("config.yaml", "split.json", "selectors.npz", "scores.npz", "rois.json", "parity.npz", "run.json"),
        }
        settings = Config.read(folder / "config.yaml").data
        assert settings.path == str(place / letter / "subject") and not settings.paths
        assert summary["vertices"] == vertices and len(summary["trained_with"]) == 1
    summary = json.loads((both / "run.json").read_text())
    assert summary["subjects"] == ["subject", "subject-2"] and set(summary["scores"]) == set(summary["subjects"])
    again = brainkit.api.Run(both, summary)
    assert {name: one.path for name, one in again.subjects.items()} == {n: both / n for n in summary["subjects"]}
    for ask in (lambda: again.selectors, again.model, again.export, lambda: brainkit.Run.open(both)):
        with pytest.raises(DataError, match=r"both: is a run of 2 subjects; .*both/subject, .*-2$"):
            ask()


def test_shared_images_pass_the_network_once_and_lie_on_the_same_side(
    run: tuple[brainkit.Run, list[str]], place: Path
) -> None:
    _, said = run
    assert any("tokens of 24 images: 0 in the cache, 24 to extract" in line for line in said)
    assert any("12 in the cache, 6 to extract" in line for line in said)
    known: dict[str, str] = {}
    for name, letter in (("subject", "a"), ("subject-2", "b")):
        images = sorted(path.name for path in (place / letter / "subject" / "images").iterdir())
        split = Split.read(place / "both" / name / "split.json", names=images)
        for side in ("train", "validation", "test"):
            for row in getattr(split, side):
                assert known.setdefault(images[row], side) == side
    assert len(known) == 30


def test_encoders_predict_what_the_joint_model_does(run: tuple[brainkit.Run, list[str]], place: Path) -> None:
    from brainkit.backbones import load_backbone
    from brainkit.features.extract import extract_tokens

    result = CliRunner().invoke(group, ["export", "--onnx", "--out", "one.onnx"])
    assert result.exit_code == 2 and "2 subjects" in result.stderr
    result = CliRunner().invoke(group, ["export", "--onnx"], catch_exceptions=False)
    assert result.exit_code == 0 and result.output.count("torch against ONNX Runtime") == 2
    state = torch.load(place / "both" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    models = [load_model(place / "both" / name) for name in ("subject", "subject-2")]
    shared = "local_token_bottleneck.fine.weight"
    assert torch.equal(state[f"model.subjects.0.{shared}"], models[1].state_dict()[shared])
    for k, (model, letter) in enumerate(zip(models, "ab", strict=True)):
        assert torch.equal(state[f"model.subjects.{k}.weight"], model.weight)
        images = sorted((place / letter / "subject" / "images").iterdir())[-5:]
        tokens = extract_tokens(load_backbone("net.py:Colours"), images)
        with torch.inference_mode():
            expected = model(*tokens.batch(np.arange(5))).numpy()
        encoder = brainkit.load(run_folders("both")[k] / "encoder.onnx")
        np.testing.assert_allclose(encoder.predict(images), expected, atol=2e-2 * expected.std())
    with pytest.raises(DataError, match=r"both: is a run of 2 subjects; name one of their encoders: .*encoder\.onnx,"):
        latest_encoder()


def test_a_joint_run_is_resumed(run: tuple[brainkit.Run, list[str]], place: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options: dict[str, Any] = {"out": tmp_path / "again", "overrides": SMALL, "say": said.append, "resume": True}
    shutil.copytree(place / "both", tmp_path / "again")
    train("net.py:Colours", **options)
    assert said[-1].endswith("is complete, nothing to resume")
    (tmp_path / "again" / "run.json").unlink()
    (tmp_path / "again" / "subject-2" / "run.json").unlink()
    before = (tmp_path / "again" / "subject-2" / "selectors.npz").read_bytes()
    train("net.py:Colours", **options)
    assert (tmp_path / "again" / "run.json").is_file()
    with (
        np.load(tmp_path / "again" / "subject-2" / "selectors.npz") as now,
        np.load(place / "both" / "subject-2" / "selectors.npz") as held,
    ):
        assert before and all(np.array_equal(now[name], held[name]) for name in held.files)
    with pytest.raises(UsageError, match=r"data\.path"):
        train("net.py:Colours", data=place / "a" / "subject", **options)


def test_data_of_several_subjects_in_the_settings() -> None:
    with pytest.raises(UsageError, match="path and paths exclude each other"):
        DataConfig(path="a", paths=("b", "c"))
    with pytest.raises(UsageError, match="at least two subjects"):
        DataConfig(paths=("a",))
    with pytest.raises(UsageError, match="different subjects, got a twice"):
        DataConfig(paths=("a", "b", "a"))
    with pytest.raises(DataError, match=r"gone: expected a data folder, found nothing"):
        train("net.py:Colours", data=["a/subject", "gone"], out="never", say=print)
    assert not Path("never").exists()


def test_folders_have_different_names() -> None:
    assert subject_folder_names(["subj01", "subj02"]) == ["subj01", "subj02"]
    assert subject_folder_names(["s", "S", "s", "maps", "s-2"]) == ["s", "S-2", "s-3", "maps-2", "s-2-2"]
