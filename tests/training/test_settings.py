"""Each setting does what it says: losses, schedules, early stopping, average of the weights, selectors, gauge."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import GRID, coordinates, memory_tokens, problem, small_model

import brainkit
from brainkit.config import Config, TrainConfig
from brainkit.errors import UsageError
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.factor_topy import FactorTopy
from brainkit.model.selectors import regularity
from brainkit.runs.export import export
from brainkit.runs.folder import load_model
from brainkit.runs.train import train
from brainkit.training import schedule
from brainkit.training.calibration import calibrate
from brainkit.training.fit import fit
from brainkit.training.loss import misfit
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics

ROOT = Path(__file__).resolve().parents[2]


class Stop(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return found


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def same(a: Any, b: Any) -> bool:
    """Whether two checkpoints' contents are equal bit for bit; times are left out."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        keys = [key for key in a if key != "seconds"]
        return keys == [key for key in b if key != "seconds"] and all(same(a[key], b[key]) for key in keys)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def weights(module: EncodingModule) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


# --- losses -----------------------------------------------------------------------------------------------------


def test_the_correlation_loss_and_its_gradient_follow_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 12, 7, generator=draw, dtype=torch.float64)
    prediction = (prediction + 0.4).requires_grad_()
    loss, _ = misfit(TrainConfig(loss="pearson"), prediction, target)
    (grad,) = torch.autograd.grad(loss, prediction)

    p, t = prediction.detach().numpy(), target.numpy()
    lengths = np.sqrt((p**2).sum(0)), np.sqrt((t**2).sum(0))
    cosine = (p * t).sum(0) / (lengths[0] * lengths[1])
    assert float(loss.detach()) == pytest.approx(1 - cosine.mean(), rel=1e-12)
    expected = -(t / lengths[1] - cosine * p / lengths[0]) / lengths[0] / p.shape[1]
    np.testing.assert_allclose(grad.numpy(), expected, atol=1e-14)
    gains = torch.linspace(0.5, 3, 7, dtype=torch.float64)
    assert float(misfit(TrainConfig(loss="pearson"), prediction * gains, target)[0].detach()) == pytest.approx(
        float(loss.detach()), rel=1e-12
    )


def test_a_vertex_with_nothing_to_correlate_has_a_finite_loss() -> None:
    target = torch.zeros(4, 3)
    prediction = torch.zeros(4, 3, requires_grad=True)
    loss, _ = misfit(TrainConfig(loss="pearson"), prediction, target)
    loss.backward()
    assert loss.isfinite() and prediction.grad is not None and prediction.grad.isfinite().all()


def test_beta_is_where_the_square_becomes_a_line() -> None:
    prediction, target = torch.tensor([[0.3], [2.0]]), torch.zeros(2, 1)
    loss, _ = misfit(TrainConfig(loss="smooth_l1", smooth_l1_beta=0.5), prediction, target)
    assert float(loss) == pytest.approx((0.3**2 / 1.0 + 2.0 - 0.25) / 2)


def test_after_the_correlation_loss_predictions_have_the_responses_units(tmp_path: Path) -> None:
    module, data = problem(epochs=12, loss="pearson")
    best = fit(module, data, tmp_path).best
    held = best.read_bytes()
    rows = data.split.train
    score = StreamingCorrelation(len(module.model.weight))
    with torch.inference_mode():
        predicted = module.model.eval()(*data.tokens.batch(rows)).double().numpy()
    target = data.responses.rows(rows).astype(float)
    centred = predicted - predicted.mean(0)
    gain = (centred * target).sum(0) / np.square(centred).sum(0)
    np.testing.assert_allclose(gain, 1, atol=1e-3)
    np.testing.assert_allclose(predicted.mean(0), target.mean(0), atol=1e-3 * target.std())
    score.update(predicted, target)
    np.testing.assert_allclose(score.R2, score.r**2, atol=1e-4)  # which holds for least squares alone
    assert score.r.mean() > 0.5

    # The validation score of the table is still this model's, and a resumed run leaves it alone.
    validation = StreamingCorrelation(len(module.model.weight))
    with torch.inference_mode():
        predicted = module.model(*data.tokens.batch(data.split.validation)).numpy()
    validation.update(predicted, data.responses.rows(data.split.validation))
    assert validation.r.mean() == pytest.approx(max(row["val_r"] for row in rows_of(tmp_path)), abs=1e-4)
    module, data = problem(epochs=12, loss="pearson")
    fit(module, data, tmp_path, resume=True)
    assert best.read_bytes() == held


def test_a_prediction_that_does_not_vary_is_calibrated_to_the_mean() -> None:
    _, data = problem()
    model = small_model(data.tokens)
    with torch.no_grad():
        model.weight[3] = 0.0
    calibrate(model, data.tokens, data.responses, data.split.train)
    assert model.weight.isfinite().all() and model.bias.isfinite().all()
    assert (model.weight[3] == 0).all()
    assert float(model.bias[3].detach()) == pytest.approx(data.responses.rows(data.split.train)[:, 3].mean(), abs=1e-5)


# --- the course of training -------------------------------------------------------------------------------------


def test_schedules() -> None:
    def course(**options: Any) -> np.ndarray:
        config = TrainConfig(**options)
        return np.array([schedule.learning_rate_factor(config, step, 100) for step in range(101)])

    cosine, linear, constant = (course(schedule=name, warmup=0.0) for name in ("cosine", "linear", "constant"))
    steps = np.arange(101)
    np.testing.assert_allclose(cosine, 0.5 * (1 + np.cos(np.pi * steps / 100)), atol=1e-12)
    np.testing.assert_allclose(linear, 1 - steps / 100, atol=1e-12)
    np.testing.assert_array_equal(constant, 1.0)
    risen = course(schedule="constant", warmup=0.2)
    np.testing.assert_allclose(risen[:21], (steps[:21] + 1) / 21)
    np.testing.assert_array_equal(risen[21:], 1.0)


def test_the_regulariser_ends_at_its_step_or_its_share() -> None:
    def ends(**options: Any) -> int:
        config = TrainConfig(**options)
        return next(step for step in range(9999) if not schedule.regulariser_weight(config, step, 1000))

    assert ends(regulariser_end=0.3) == 300
    assert ends(regulariser_end=0.3, regulariser_steps=2000) == 2000
    config = TrainConfig(regulariser=0.1, regulariser_steps=2000)
    assert schedule.regulariser_weight(config, 500, 7) == pytest.approx(0.075)


def test_the_two_terms_of_the_regulariser_have_their_own_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = small_model(memory_tokens()).selectors()
    both, entropy, middle = (
        float(regularity(chosen.layer_weights, chosen.scale, entropy=e, middle=m).detach())
        for e, m in ((1, 1), (1, 0), (0, 1))
    )
    weights, scale = chosen.layer_weights.detach().double().numpy(), chosen.scale.detach().double().numpy()
    assert entropy == pytest.approx((weights * np.log(weights)).sum(1).mean() / np.log(2), rel=1e-5)
    assert middle == pytest.approx(np.square(scale - 0.5).mean(), rel=1e-5)
    assert both == pytest.approx(entropy + middle, rel=1e-6)

    module, data = problem(regulariser=0.5, regulariser_entropy=2.0, regulariser_scale=3.0)
    small = module.model.selectors()
    loss = module.step_loss(next(iter(data.train_dataloader())))
    share = loss.total - loss.misfit
    found = regularity(small.layer_weights, small.scale, entropy=2.0, middle=3.0)
    assert float(share.detach()) == pytest.approx(0.5 * float(found.detach()), rel=1e-6)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Validation scores as given, one an epoch."""

    def score(self: EncodingModule) -> None:
        self.log("val_r", torch.tensor(scores[self.current_epoch]))

    monkeypatch.setattr(EncodingModule, "on_validation_epoch_end", score)


def test_training_stops_once_patience_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.9, 0.9])
    module, data = problem(epochs=10, patience=3)
    best = fit(module, data, tmp_path).best
    assert [row["epoch"] for row in rows_of(tmp_path)] == list(range(1, 9))
    assert checkpoint(tmp_path, "best")["epoch"] == 4
    module, data = problem(epochs=10, patience=3)
    held = best.read_bytes()
    fit(module, data, tmp_path, resume=True)  # it has stopped: there is nothing to go on with
    assert len(rows_of(tmp_path)) == 8
    assert best.read_bytes() == held


def test_patience_goes_on_over_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1])

    def stop(step: int) -> None:
        if step == 7:  # in the third epoch
            raise Stop

    module, data = problem(epochs=6, patience=3)
    with pytest.raises(Stop):
        fit(module, data, tmp_path, on_step=stop)
    module, data = problem(epochs=6, patience=3)
    fit(module, data, tmp_path, resume=True)
    assert len(rows_of(tmp_path)) == 4


# --- the average of the weights ---------------------------------------------------------------------------------


def test_the_average_is_what_is_validated_kept_and_left(tmp_path: Path) -> None:
    module, data = problem(epochs=3, ema=0.6)
    average = weights(module)
    seen: list[dict[str, torch.Tensor]] = []

    def follow(step: int) -> None:
        decay = min(0.6, step / (9 + step))
        for name, weight in module.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * weight.detach()
        seen.append({name: value.clone() for name, value in average.items()})

    fit(module, data, tmp_path, on_step=follow)
    assert len(seen) == 9
    held = checkpoint(tmp_path)
    trained = held["callbacks"]["WeightAverage"]["weights"]
    for (name, value), last in zip(module.named_parameters(), trained, strict=True):
        torch.testing.assert_close(value.detach(), seen[-1][name], rtol=1e-5, atol=1e-6)
        assert torch.equal(held["state_dict"][name], value.detach())
        assert not torch.equal(last, value.detach())

    best = int(np.argmax([row["val_r"] for row in rows_of(tmp_path)]))
    state = checkpoint(tmp_path, "best")["state_dict"]
    for name, value in seen[3 * best + 2].items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-6)
    module.load_state_dict(state)
    score = StreamingCorrelation(len(module.model.weight))
    with torch.inference_mode():
        predicted = module.model.eval()(*data.tokens.batch(data.split.validation)).numpy()
    score.update(predicted, data.responses.rows(data.split.validation))
    assert score.r.mean() == pytest.approx(rows_of(tmp_path)[best]["val_r"], abs=1e-6)


def test_the_average_does_not_change_what_is_trained(tmp_path: Path) -> None:
    trained = []
    for name, ema in (("plain", 0.0), ("averaged", 0.9)):
        (tmp_path / name).mkdir()
        module, data = problem(ema=ema)
        fit(module, data, tmp_path / name)
        trained.append(checkpoint(tmp_path / name))
    plain = [trained[0]["state_dict"][name] for name, _ in module.named_parameters()]
    assert same(plain, trained[1]["callbacks"]["WeightAverage"]["weights"])
    assert same(trained[0]["optimizer_states"], trained[1]["optimizer_states"])


@pytest.mark.parametrize("save_minutes", [0.0, 1e-9])  # at the end of every epoch, and at every step
@pytest.mark.parametrize("stop_at", [2, 5, 9])
def test_a_resumed_average_is_the_same_bit_for_bit(tmp_path: Path, stop_at: int, save_minutes: float) -> None:
    for name in ("through", "halves"):
        (tmp_path / name).mkdir()
    module, data = problem(ema=0.9, save_minutes=save_minutes)
    fit(module, data, tmp_path / "through")

    def stop(step: int) -> None:
        if step == stop_at:
            raise Stop

    module, data = problem(ema=0.9, save_minutes=save_minutes)
    with pytest.raises(Stop):
        fit(module, data, tmp_path / "halves", on_step=stop)
    module, data = problem(ema=0.9, save_minutes=save_minutes)
    fit(module, data, tmp_path / "halves", resume=True)
    for name in ("last", "best"):
        one, other = checkpoint(tmp_path / "through", name), checkpoint(tmp_path / "halves", name)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
            assert same(one[part], other[part]), (name, part)


def test_a_trainer_of_ones_own_averages_too(tmp_path: Path) -> None:
    module, data = problem(epochs=3, ema=0.9, patience=50)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)  # with its check of validation before training
    left = weights(module)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    state = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert all(torch.equal(state["state_dict"][name], value) for name, value in left.items())
    assert not same(state["callbacks"]["WeightAverage"]["weights"], list(left.values()))
    trainer.validate(module, datamodule=data, verbose=False)
    assert same(weights(module), left)


# --- selectors, gauge, tokens -----------------------------------------------------------------------------------


def test_without_topography_coordinates_play_no_part(tmp_path: Path) -> None:
    found = []
    for place in (0, 1):
        tokens = memory_tokens()
        module, data = problem(epochs=3)
        torch.manual_seed(5)
        model = FactorTopy(tokens.widths, coordinates(20, seed=place), bottleneck=6, grid=GRID, topography=False)
        fit_statistics(model, tokens, data.split.train)
        (tmp_path / str(place)).mkdir()
        module = EncodingModule(model, module.config, 9)
        fit(module, data, tmp_path / str(place))
        found.append(model)
    assert {name for name, _ in found[0].named_parameters() if "selector" in name} == {
        "free_selectors.location",
        "free_selectors.layer",
        "free_selectors.scale",
    }
    a, b = (model.selectors() for model in found)
    for name in ("locations", "layer_weights", "scale"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.locations.detach().std(0).min() > 0  # they have learnt, each on its own
    torch.testing.assert_close(a.locations, found[0].free_selectors.location.tanh())  # type: ignore[union-attr]
    assert torch.allclose(a.layer_weights.sum(1), torch.ones(20))
    rates = [group["lr"] for group in module.configure_optimizers()["optimizer"].param_groups]
    warmup = module._learning_rate_factor(0)
    assert rates[0] == pytest.approx(TrainConfig().lr_free_selectors * warmup)


def test_without_topography_the_model_folds_and_loads(tmp_path: Path) -> None:
    tokens = memory_tokens()
    torch.manual_seed(0)
    model = FactorTopy(tokens.widths, coordinates(20), bottleneck=6, grid=GRID, topography=False)
    fit_statistics(model, tokens, np.arange(40))
    with torch.no_grad():
        for parameter in model.free_selectors.parameters():  # type: ignore[union-attr]
            parameter.normal_()
    other = FactorTopy(tokens.widths, coordinates(20, seed=3), bottleneck=6, grid=GRID, topography=False)
    other.load_state_dict(model.state_dict())
    batch = tokens.batch(np.arange(5))
    with torch.inference_mode():
        assert torch.equal(model.eval()(*batch), other.eval()(*batch))
    folded = model.folded()
    np.testing.assert_allclose(folded.scale, model.selectors().scale.detach().numpy())


@pytest.mark.parametrize("gauge", ["unit", "published"])
def test_raw_tokens_go_in_as_they_are(gauge: str) -> None:
    tokens = memory_tokens()
    model = small_model(tokens, gauge=gauge)
    model.leave_tokens_raw()
    local, whole = tokens.batch(np.arange(len(tokens)))
    with torch.inference_mode():
        grid, single = model.bottlenecked(local, whole)
    for index, layer in enumerate(tokens.layers):
        bottleneck = model.local_token_bottleneck[layer].weight[:, :, 0, 0]
        plain = torch.einsum("dc,nchw->ndhw", bottleneck.detach(), local[layer])
        power = {name: float(part.square().mean()) for name, part in (("grid", grid[:, index]), ("plain", plain))}
        if gauge == "unit":  # whose unit is then that of the raw tokens, mean and all
            assert power["grid"] == pytest.approx(1, rel=1e-4)
            plain = plain / power["plain"] ** 0.5
            assert float(single[:, index].square().mean()) == pytest.approx(1, rel=1e-4)
        torch.testing.assert_close(grid[:, index], plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


# --- all of it, from one command --------------------------------------------------------------------------------


def test_unusual_settings_hold_from_training_to_the_encoder_file(tmp_path: Path, tiny_sample: Path) -> None:
    settings = [
        *("model.topography=false", "model.gauge=published", "model.standardise=false", "model.bottleneck=9"),
        *("model.grid=5", "backbone.size=96", "backbone.layers=[stage2, stage4, stage6]", "train.ema=0.8"),
        *("train.loss=pearson", "train.schedule=constant", "train.patience=2", "train.batch_size=16"),
    ]
    run = brainkit.fit(
        "efficientnet_lite0", tiny_sample, out=tmp_path / "run", epochs=3, overrides=settings, say=lambda line: None
    )
    assert run.summary["gauge"] == "published"
    assert run.summary["backbone"]["preprocessing"]["size"] == 96
    model = load_model(run.path)
    assert (model.gauge, model.grid, model.layers) == ("published", (5, 5), ("stage2", "stage4", "stage6"))
    assert model.free_selectors is not None and model.weight.shape == (60, 9)
    assert float(model.local_statistics["stage2"].mean.abs().max()) == 0  # type: ignore[union-attr]
    with np.load(run.path / "selectors.npz") as selectors:
        assert str(selectors["gauge"]) == "published"
        np.testing.assert_allclose(selectors["scale"], model.selectors().scale.detach().numpy(), atol=1e-6)
    exported = export(run.path, say=lambda line: None)
    assert exported.certificate["largest"] < 1e-3
    assert brainkit.load(exported.path).info.gauge == "published"
    (run.path / "run.json").unlink()
    with pytest.raises(UsageError, match=r"model\.topography was False, got True"):
        train(
            "efficientnet_lite0",
            data=tiny_sample,
            out=run.path,
            resume=True,
            overrides=["model.topography=true"],
            say=lambda line: None,
        )


def test_the_published_settings_train(tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "examples" / "published.yaml"
    settings = Config.read(file)
    assert (settings.train.loss, settings.train.batch_size, settings.model.gauge) == ("smooth_l1", 8, "published")
    assert {settings.train.lr_weight, settings.train.lr_bottleneck, settings.train.lr_selectors} == {1e-3}
    assert (
        schedule.learning_rate_factor(settings.train, 0, 100)
        == schedule.learning_rate_factor(settings.train, 99, 100)
        == 1
    )
    assert schedule.regulariser_weight(settings.train, 1000, 77) == pytest.approx(0.05)
    monkeypatch.chdir(tmp_path)
    text = file.read_text(encoding="utf-8").replace("name: dinov2", "name: efficientnet_lite0")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    path = train(None, config="mine.yaml", data=tiny_sample, epochs=1, say=lambda line: None)
    assert path.name.endswith("-efficientnet_lite0")
    held = Config.read(path / "config.yaml")
    assert held.model == settings.model
    assert held.data.preset == "published"
    assert (path / "maps" / "layer.png").is_file()


def test_a_run_without_a_network_is_refused() -> None:
    with pytest.raises(UsageError, match="backbone must be named"):
        train(None)


def test_settings_of_older_runs_still_load(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("model:\n  bottleneck: 64\n  grid: 8\ntrain:\n  loss: smooth_l1\n")
    settings = Config.read(tmp_path / "old.yaml")
    assert settings.model.topography and settings.model.gauge == "unit"
    assert (settings.train.smooth_l1_beta, settings.train.schedule, settings.train.ema) == (0.1, "cosine", 0.0)


def test_the_page_of_settings_is_made_of_their_texts() -> None:
    sys.path.insert(0, os.fspath(ROOT / "docs"))
    try:
        import make_settings
    finally:
        sys.path.pop(0)
    text = make_settings.PAGE.read_text(encoding="utf-8")
    assert make_settings.page(text) == text, "make it with: python docs/make_settings.py"
    assert "\n| `ema` | `0` |" in text


@pytest.mark.slow
def test_the_sweep_on_the_page_runs(
    tmp_path: Path, tiny_sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("subject").symlink_to(tiny_sample, target_is_directory=True)
    exec(compile(example, "settings.md", "exec"), {})
    assert capsys.readouterr().out.count("validation r") == 2
