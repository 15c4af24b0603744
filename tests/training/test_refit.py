"""The refitted readout: exact ridge regression on what selectors read, with the most likely penalty."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from scipy.stats import multivariate_normal
from small_models import problem
from torch import Tensor

from brainkit.model.factor_topy import FactorTopy
from brainkit.training import refit as refitting
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.refit import PENALTIES, Sums, refit, ridge


def sums_of(z: np.ndarray, y: np.ndarray) -> Sums:
    """Of features (v, n, D) and responses (n, v)."""
    features, responses = torch.from_numpy(z), torch.from_numpy(y)
    return Sums(
        len(y),
        features.sum(1),
        features.mT @ features,
        torch.einsum("vnd,nv->vd", features, responses),
        responses.sum(0),
        responses.square().sum(0),
    )


def mixed(model: FactorTopy, data: EncodingData, rows: np.ndarray) -> np.ndarray:
    """Mixed tokens (V, n, D): the response to each channel, by the model itself."""
    channels = []
    bias, weight = model.bias.detach().clone(), model.weight.detach().clone()
    with torch.no_grad():
        model.bias.zero_()
        for channel in range(weight.shape[1]):
            model.weight.zero_()
            model.weight[:, channel] = weight.shape[1]
            predicted = model.standardised(*model_inputs(data, rows), model.selectors())
            channels.append(predicted.double().numpy().T)
        model.bias.copy_(bias)
        model.weight.copy_(weight)
    return np.stack(channels, -1)


def model_inputs(data: EncodingData, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    local, whole = data.tokens.batch(rows)
    return local, whole


def test_it_is_ridge_regression_with_the_most_likely_penalty() -> None:
    draw = np.random.default_rng(0)
    n, channels, noise = 40, 5, np.array([0.1, 1.0, 10.0])
    z = draw.standard_normal((3, n, channels)) * [1, 2, 3, 1, 2] + 4
    y = np.einsum("vnd,d->nv", z, [1.0, -1, 0.5, 0, 0]) + noise * draw.standard_normal((n, 3)) + 7
    weight, offset = (part.numpy() for part in ridge(sums_of(z, y)))
    for v in range(3):
        features, response = z[v] - z[v].mean(0), y[:, v] - y[:, v].mean()
        unit = np.trace(features.T @ features) / channels
        likelihoods = []
        for penalty in np.array(PENALTIES) * unit:
            covariance = np.eye(n) + features @ features.T / penalty
            variance = response @ np.linalg.solve(covariance, response) / n  # its most likely value
            likelihoods.append(multivariate_normal(cov=variance * covariance).logpdf(response))
        penalty = PENALTIES[int(np.argmax(likelihoods))] * unit
        expected = np.linalg.solve(features.T @ features + penalty * np.eye(channels), features.T @ response)
        np.testing.assert_allclose(weight[v], expected, rtol=1e-6)
        assert offset[v] == pytest.approx(y[:, v].mean() - z[v].mean(0) @ expected, rel=1e-6)


@pytest.mark.parametrize("slab_bytes", [4 * 6**2 * 7, 10**9])
def test_every_vertex_is_refitted_on_what_it_reads(monkeypatch: pytest.MonkeyPatch, slab_bytes: int) -> None:
    monkeypatch.setattr(refitting, "SLAB_BYTES", slab_bytes)
    module, data = problem()
    model, rows = module.model.eval(), data.split.train
    target = (data.responses.rows(rows) - model.response_mean.numpy()) / model.response_std.numpy()
    weight, offset = ridge(sums_of(mixed(model, data, rows), target.astype(np.float64)))
    refit(model, data.tokens, data.responses, rows, batch_size=9)
    torch.testing.assert_close(model.weight.detach().double() / 6, weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.bias.detach().double(), offset, rtol=1e-3, atol=1e-4)


def test_constant_responses_and_few_images_leave_numbers() -> None:
    draw = np.random.default_rng(0)
    weight, offset = ridge(sums_of(draw.standard_normal((2, 3, 8)), np.array([[2.0, 0], [2, 1], [2, 3]])))
    assert weight.isfinite().all() and not weight[0].abs().max() > 1e-9
    assert float(offset[0]) == pytest.approx(2)
    weight, _ = ridge(sums_of(np.zeros((1, 5, 4)), np.arange(5.0)[:, None]))
    assert not weight.any()


def test_a_training_ends_with_it_once(tmp_path: Path) -> None:
    plain, data = problem(epochs=2)
    (tmp_path / "plain").mkdir()
    fit(plain, data, tmp_path / "plain")
    module, data = problem(epochs=2, refit=True)
    (tmp_path / "refit").mkdir()
    best = fit(module, data, tmp_path / "refit").best
    held = best.read_bytes()
    assert not torch.equal(module.model.weight, plain.model.weight)
    rows = data.split.train
    with torch.inference_mode():
        errors = [
            float(
                (each.model.eval()(*model_inputs(data, rows)) - torch.from_numpy(data.responses.rows(rows)))
                .square()
                .mean()
            )
            for each in (module, plain)
        ]
    assert errors[0] < errors[1]
    module, data = problem(epochs=2, refit=True)
    fit(module, data, tmp_path / "refit", resume=True)
    assert best.read_bytes() == held
