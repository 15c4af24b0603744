"""The loss and its schedule: formulas, gradients, shares of a batch, and the calibration after training."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import memory_tokens, problem, small_model
from small_runs import rows_of

from brainkit.config import TrainConfig
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.model.selectors import regularity
from brainkit.training import schedule
from brainkit.training.calibration import calibrate
from brainkit.training.fit import fit
from brainkit.training.loss import misfit
from brainkit.training.module import EncodingModule
from brainkit.training.shares import positions_of, share_of


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


@pytest.mark.parametrize("loss", ["mse", "smooth_l1"])
def test_the_loss_is_on_responses_in_units_of_their_spread(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = problem(loss=loss, regulariser=0.0)
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    with torch.no_grad():
        miss = (module.model(*batch[:2]) - batch[2]) / module.model.response_std
    size = miss.abs()
    expected = miss.square() if loss == "mse" else torch.where(size < 0.1, miss.square() / 0.2, size - 0.05)
    assert float(module.training_step(batch, 0).detach()) == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "pearson"])
@pytest.mark.parametrize(("images", "processes"), [(7, 2), (7, 3), (2, 4)])  # unequal shares, and empty ones
def test_the_mean_over_processes_is_the_loss_of_the_batch(loss: str, images: int, processes: int) -> None:
    draw = torch.Generator().manual_seed(0)
    config = TrainConfig(loss=loss)
    prediction, target = torch.randn(2, images, 5, generator=draw, dtype=torch.float64)
    prediction.requires_grad_()
    whole, _ = misfit(config, prediction, target)
    (expected,) = torch.autograd.grad(whole, prediction)
    totals: list[Any] = []
    misfit(config, prediction.detach(), target, None, lambda sums: totals.append(sums) or sums)

    def all_reduce(sums: Any) -> Any:
        """As torch's: its gradient is the sum of the processes' gradients, which are equal."""
        return totals[0] + processes * (sums - sums.detach())

    found, losses = torch.zeros_like(expected), []
    for rank in range(processes):
        rows = positions_of(np.arange(images), rank, processes)
        own = prediction.detach()[rows].requires_grad_()
        minimised, _ = misfit(config, own, target[rows], share_of(images, rank, processes), all_reduce)
        found[rows] += torch.autograd.grad(minimised, own)[0] / processes
        losses.append(minimised.detach())
    torch.testing.assert_close(torch.stack(losses).mean(), whole.detach())
    torch.testing.assert_close(found, expected)


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


def test_the_regulariser_decays_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = problem(epochs=10, regulariser=0.5, regulariser_end=0.4)
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    found = {}
    for step in (0, 3, 6, 11, 12, 20):
        monkeypatch.setattr(EncodingModule, "global_step", step)
        found[step] = float(module.training_step(batch, 0).detach())
    bare, term = found[20], float(module.model.selectors().regularity().detach())
    for step, loss in found.items():  # 30 steps are planned, so that it ends at step 12
        assert loss == pytest.approx(bare + 0.5 * max(0.0, 1 - step / 12) * term, rel=1e-5)
    assert term != 0


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


def test_after_the_correlation_loss_predictions_have_the_responses_units(tmp_path: Path) -> None:
    module, data = problem(epochs=12, loss="pearson", refit=False)
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
    module, data = problem(epochs=12, loss="pearson", refit=False)
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
