"""The refitted readout: exact ridge regression on what selectors read, with the most likely penalty."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from scipy.linalg import null_space
from scipy.stats import multivariate_normal
from small_models import coordinates, problem
from torch import Tensor

from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.training import refit as refitting
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.refit import PENALTIES, SHARES, Moments, Sums, refit, ridge
from brainkit.training.token_statistics import fit_statistics


def moments_of(z: np.ndarray, y: np.ndarray) -> Moments:
    """Of features (v, n, D) and responses (n, v)."""
    features, responses = torch.from_numpy(z), torch.from_numpy(y)
    sums = Sums(
        len(y),
        torch.zeros_like(features[:, 0]),
        features.sum(1),
        features.mT @ features,
        torch.einsum("vnd,nv->vd", features, responses),
        responses.sum(0),
        responses.square().sum(0),
    )
    return sums.decomposed()


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


@pytest.mark.parametrize("towards", [False, True])
def test_it_is_ridge_regression_with_the_most_likely_penalty_and_share(towards: bool) -> None:
    draw = np.random.default_rng(0)
    n, channels, noise = 40, 5, np.array([0.1, 10.0, 1.0])
    z = draw.standard_normal((3, n, channels)) * [1, 2, 3, 1, 2] + 4
    y = np.einsum("vnd,d->nv", z, [1.0, -1, 0.5, 0, 0]) + noise * draw.standard_normal((n, 3)) + 7
    target = np.array([[0, 0, 0, 3, -3.0], [0.9, -0.9, 0.6, 0.1, 0], [2.0, -2, 1, 0, 0]]) if towards else None
    weight, offset = (
        part.numpy() for part in ridge(moments_of(z, y), () if target is None else [torch.from_numpy(target)])
    )
    chosen = []
    basis = null_space(np.ones((1, n)))  # of what is left of n numbers without their mean
    for v in range(3):
        features, response = z[v] - z[v].mean(0), y[:, v] - y[:, v].mean()
        unit = np.trace(features.T @ features) / channels
        likelihood = {}
        for share in (0.0, *SHARES) if target is not None else (0.0,):
            start = np.zeros(channels) if target is None else share * target[v]
            left = response - features @ start
            for penalty in np.array(PENALTIES) * unit:
                covariance = np.eye(n) + features @ features.T / penalty
                inside = basis.T @ covariance @ basis
                variance = basis.T @ left @ np.linalg.solve(inside, basis.T @ left) / (n - 1)  # its most likely value
                found = multivariate_normal(cov=variance * inside).logpdf(basis.T @ left)
                solved = np.linalg.solve(features.T @ features + penalty * np.eye(channels), features.T @ left)
                likelihood[share, penalty] = found, start + solved
        best = max(likelihood, key=lambda key: likelihood[key][0])
        chosen.append(best[0])
        expected = likelihood[best][1]
        np.testing.assert_allclose(weight[v], expected, rtol=1e-6)
        assert offset[v] == pytest.approx(y[:, v].mean() - z[v].mean(0) @ expected, rel=1e-6)
    assert not towards or chosen == [0, 1, 0.5]


@pytest.mark.parametrize("slab_bytes", [4 * 6**2 * 7, 10**9])
@pytest.mark.parametrize("topography", [True, False])
@pytest.mark.parametrize("sums", [torch.float64, torch.float32])
def test_every_vertex_is_refitted_on_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, slab_bytes: int, topography: bool, sums: torch.dtype
) -> None:
    monkeypatch.setattr(refitting, "SLAB_BYTES", slab_bytes)
    monkeypatch.setattr(refitting, "sum_dtype", lambda device: sums)  # float32 on Apple's GPUs, which have no float64
    module, data = problem()
    model, rows = module.model, data.split.train
    if not topography:
        model = FactorTopy(data.tokens.widths, coordinates(20), bottleneck=6, grid=data.tokens.grid, topography=False)
        fit_statistics(model, data.tokens, rows)
    model.eval()
    target = (data.responses.rows(rows) - model.response_mean.numpy()) / model.response_std.numpy()
    moments = moments_of(mixed(model, data, rows), target.astype(np.float64))
    weight, offset = ridge(moments)
    if topography:  # shrunk to the mean of the nearest vertices, twice
        places = model.coordinates.double()
        nearest = torch.cdist(places, places).argsort(1)[:, 1:9]
        for _ in range(2):
            weight, offset = ridge(moments, [weight[nearest].mean(1)])
    refit(model, data.tokens, data.responses, rows, batch_size=9)
    torch.testing.assert_close(model.weight.detach().double() / 6, weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.bias.detach().double(), offset, rtol=1e-3, atol=1e-4)


def test_neighbours_that_respond_alike_make_a_noisy_readout_better() -> None:
    draw = np.random.default_rng(1)
    n, channels, vertices = 30, 6, 40
    z = draw.standard_normal((vertices, n, channels))
    planted = draw.standard_normal(channels) + 0.1 * draw.standard_normal((vertices, channels))
    y = np.einsum("vnd,vd->nv", z, planted) + 3 * draw.standard_normal((n, vertices))
    alone, _ = ridge(moments_of(z, y))
    together, _ = ridge(moments_of(z, y), [alone.mean(0).expand(vertices, -1)])
    errors = [np.square(weight.numpy() - planted).mean() for weight in (alone, together)]
    assert errors[1] < 0.5 * errors[0]


def test_a_vertex_is_not_its_own_neighbour_where_many_are_at_one_place() -> None:
    module, _ = problem()
    module.model.coordinates[:15] = module.model.coordinates[0]
    nearest = refitting._nearest(module.model)
    assert nearest is not None and nearest.shape == (20, 8)
    assert not (nearest == torch.arange(20)[:, None]).any()
    assert (nearest[:15] < 15).all()


def test_constant_responses_and_few_images_leave_numbers() -> None:
    draw = np.random.default_rng(0)
    weight, offset = ridge(moments_of(draw.standard_normal((2, 3, 8)), np.array([[2.0, 0], [2, 1], [2, 3]])))
    assert weight.isfinite().all() and not weight[0].abs().max() > 1e-9
    assert float(offset[0]) == pytest.approx(2)
    weight, _ = ridge(moments_of(np.zeros((1, 5, 4)), np.arange(5.0)[:, None]))
    assert not weight.any()


def test_noise_is_not_fitted_where_images_are_fewer_than_channels() -> None:
    draw = np.random.default_rng(0)
    z, y = draw.standard_normal((50, 12, 40)), draw.standard_normal((12, 50))
    weight, _ = ridge(moments_of(z, y))
    fitted = np.einsum("vnd,vd->nv", z - z.mean(1, keepdims=True), weight.numpy())
    assert np.median(fitted.var(0) / y.var(0)) < 0.5


def test_what_varies_little_about_a_large_mean_is_refitted_too() -> None:
    _, data = problem()
    rows, draw = data.split.train, np.random.default_rng(0)
    local, whole = (
        {layer: 1024.0 + draw.integers(0, 4, value.shape) for layer, value in part.items()}
        for part in data.tokens.batch(np.arange(40))
    )
    tokens = TokenCache.of_arrays(local, whole)
    model = FactorTopy(tokens.widths, coordinates(20), bottleneck=6, grid=tokens.grid, topography=False).eval()
    fit_statistics(model, tokens, rows)
    model.leave_tokens_raw()
    responses = data.responses.rows(rows)
    model.set_response_scale(responses.mean(0), responses.std(0))
    z = mixed(model, EncodingData(tokens, data.responses, data.split, batch_size=8), rows)
    target = (responses - responses.mean(0)) / responses.std(0)
    weight, offset = (part.numpy() for part in ridge(moments_of(z, target.astype(np.float64))))
    refit(model, tokens, data.responses, rows, batch_size=9)
    with torch.inference_mode():
        found = model.standardised(*tokens.batch(rows), model.selectors()).numpy()
    np.testing.assert_allclose(found, np.einsum("vnd,vd->nv", z, weight) + offset, atol=0.05)


def test_a_training_ends_with_it_once(tmp_path: Path) -> None:
    plain, data = problem(epochs=2, refit=False)
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


@pytest.mark.parametrize("helps", [True, False])
def test_validation_images_decide_whether_neighbours_are_used(monkeypatch: pytest.MonkeyPatch, helps: bool) -> None:
    module, data = problem()
    model, rows = module.model, data.split.train
    refit(model, data.tokens, data.responses, rows)
    together = model.weight.detach().clone()
    with monkeypatch.context() as alone_patch:
        alone_patch.setattr(refitting, "_nearest", lambda model: None)
        refit(model, data.tokens, data.responses, rows)
    alone = model.weight.detach().clone()
    assert not torch.equal(alone, together)
    scores = iter([0.2, 0.3 if helps else 0.1])
    monkeypatch.setattr(refitting, "mean_r", lambda *given: next(scores))
    refit(model, data.tokens, data.responses, rows, data.split.validation)
    assert torch.equal(model.weight, together if helps else alone)
