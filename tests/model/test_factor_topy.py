"""FactorTopy: the gauge, the forward pass and its constants."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import GRID, arrays_of, coordinates, memory_tokens, small_model
from torch.nn import functional as F

from brainkit.errors import UsageError
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops import factor_readout
from brainkit.training.token_statistics import fit_statistics

TOKENS = memory_tokens()
ALL = np.arange(len(TOKENS))


def predict(model: FactorTopy, rows: np.ndarray = ALL) -> torch.Tensor:
    with torch.inference_mode():
        return model(*TOKENS.batch(rows))


# --- the gauge --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.0, 1e-4, 300.0])
def test_every_bottleneck_has_unit_rms_over_the_training_tokens(gain: float) -> None:
    model = small_model(TOKENS)
    with torch.no_grad():
        for bottlenecks in (model.local_token_bottleneck, model.global_token_bottleneck):
            bottlenecks["late"].weight.mul_(gain)
        local, whole = model.bottlenecked(*TOKENS.batch(ALL))
    local_rms = local.square().mean((0, 2, 3, 4)).sqrt()
    whole_rms = whole.square().mean((0, 2)).sqrt()
    torch.testing.assert_close(local_rms, torch.ones(2), rtol=2e-3, atol=0)
    torch.testing.assert_close(whole_rms, torch.ones(2), rtol=2e-3, atol=0)
    torch.testing.assert_close(local.mean((0, 3, 4)), torch.zeros(2, 6), rtol=0, atol=2e-3)
    torch.testing.assert_close(whole.mean(0), torch.zeros(2, 6), rtol=0, atol=2e-3)


def test_scaling_a_bottleneck_changes_nothing_in_the_unit_gauge() -> None:
    model = small_model(TOKENS)
    before, chosen = predict(model), model.selectors()
    with torch.no_grad():
        model.local_token_bottleneck["early"].weight.mul_(7.0)
        model.global_token_bottleneck["late"].weight.mul_(0.2)
    torch.testing.assert_close(predict(model), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.selectors().layer_weights, chosen.layer_weights, rtol=0, atol=0)


def test_the_published_gauge_leaves_the_gains_free() -> None:
    model = small_model(TOKENS, gauge="published")
    before = predict(model)
    with torch.no_grad():
        model.local_token_bottleneck["early"].weight.mul_(7.0)
    assert (predict(model) - before).abs().max() > 0.5


def test_the_gauge_is_part_of_the_gradient() -> None:
    # A weight that is only scaled does not change the loss, so the gradient is orthogonal to the weight.
    model = small_model(TOKENS)
    model(*TOKENS.batch(ALL[:8])).square().sum().backward()
    weight = model.local_token_bottleneck["early"].weight
    assert weight.grad is not None
    cosine = F.cosine_similarity(weight.grad.flatten(), weight.detach().flatten(), 0)
    assert weight.grad.norm() > 0
    assert abs(cosine) < 1e-3


def test_a_constant_channel_is_ignored() -> None:
    local, whole = arrays_of(memory_tokens())
    local["early"][:, 2] = whole["early"][:, 2] = 3.1
    tokens = TokenCache.of_arrays(local, whole)
    model = small_model(tokens)
    batch = tokens.batch(ALL[:4])
    before = model(*batch).detach()
    assert before.isfinite().all()
    for part in batch:
        part["early"][:, 2] += 50.0
    torch.testing.assert_close(model(*batch).detach(), before, rtol=0, atol=0)


def test_a_layer_of_constant_tokens_gives_no_nan() -> None:
    local, whole = arrays_of(memory_tokens())
    local["early"][:] = 1
    whole["early"][:] = 0
    tokens = TokenCache.of_arrays(local, whole)
    model = small_model(tokens)
    out = model(*tokens.batch(ALL[:4]))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# --- forward and folding ----------------------------------------------------------------------------------------


def test_tokens_of_any_resolution_are_accepted() -> None:
    model = small_model(TOKENS)
    local, whole = TOKENS.batch(ALL[:3])
    large = {layer: F.interpolate(value, scale_factor=3, mode="nearest") for layer, value in local.items()}
    torch.testing.assert_close(model(large, whole), model(local, whole), rtol=1e-4, atol=1e-4)


def test_forward_does_not_change_its_input() -> None:
    model = small_model(TOKENS)
    local, whole = TOKENS.batch(ALL[:3])
    local["unused"], whole["unused"] = torch.zeros(3, 1, 1, 1), torch.zeros(3, 1)
    kept = copy.deepcopy((local, whole))
    model(local, whole)
    for tokens, before in zip((local, whole), kept, strict=True):
        assert list(tokens) == list(before)
        assert all(torch.equal(tokens[layer], before[layer]) for layer in before)


@pytest.mark.parametrize("gauge", ["unit", "published"])
def test_folded_constants_reproduce_the_forward_pass(gauge: str) -> None:
    model = small_model(TOKENS, vertices=40, gauge=gauge)
    draw = np.random.default_rng(1)
    std = draw.uniform(0.5, 3, 40)
    std[7] = 0.0  # a constant vertex is not scaled
    model.set_response_scale(draw.standard_normal(40) * 5, std)
    assert float(model.response_std[7]) == 1.0
    folded = model.folded()
    local, whole = TOKENS.batch(ALL[:5])
    arrays = {
        "local": [
            np.einsum("dc,bchw->bdhw", folded.local_weight[layer], local[layer].double().numpy())
            + folded.local_bias[layer][:, None, None]
            for layer in folded.layers
        ],
        "whole": [
            whole[layer].double().numpy() @ folded.global_weight[layer].T + folded.global_bias[layer]
            for layer in folded.layers
        ],
    }
    constants = (folded.locations, folded.layer_weights, folded.scale, folded.weight, folded.bias)
    by_hand = factor_readout(
        torch.from_numpy(np.stack(arrays["local"], 1)),
        torch.from_numpy(np.stack(arrays["whole"], 1)),
        *(torch.from_numpy(value) for value in constants),
        backend="reference",
    )
    assert folded.grid == GRID and folded.layers == ("early", "late")
    assert all(value.dtype == np.float64 for value in constants)
    expected = model(local, whole).detach().double()
    torch.testing.assert_close(by_hand, expected, rtol=1e-4, atol=1e-5 * float(expected.std()) + 1e-5)
    assert model.weight.dtype == torch.float32  # folding works on a copy


def test_tokens_are_padded_after_centring() -> None:
    # In the corner, a vertex reads a quarter of the corner token and three quarters of zero padding. If the mean were
    # folded into the vertex's bias, the padding would count as minus the mean.
    tokens = memory_tokens()
    model = small_model(tokens, vertices=3)
    local, whole = tokens.batch(ALL[:4])
    assert float(local["late"].mean().abs()) > 1
    inside, rest = model.bottlenecked(local, whole)
    chosen = model.selectors()
    corner = torch.tensor([[-1.0, -1.0]]).repeat(3, 1)
    found = factor_readout(
        inside, rest, corner, chosen.layer_weights, torch.zeros(3), model.weight, torch.zeros(3), backend="grouped"
    )
    mixed = torch.einsum("vl,bld->bvd", chosen.layer_weights, inside[..., 0, 0] / 4)
    torch.testing.assert_close(found, (mixed * model.weight).mean(-1), rtol=1e-4, atol=1e-5)


def test_layer_names_with_dots() -> None:
    tokens = memory_tokens(widths={"blocks.3": 5, "blocks.11": 4})
    model = small_model(tokens)
    assert model.layers == ("blocks.3", "blocks.11")
    with torch.inference_mode():
        local, _ = model.bottlenecked(*tokens.batch(ALL))
    torch.testing.assert_close(local.square().mean((0, 2, 3, 4)).sqrt(), torch.ones(2), rtol=2e-3, atol=0)
    assert set(model.folded().local_weight) == {"blocks.3", "blocks.11"}
    with pytest.raises(UsageError, match=r"a\.b, a_b"):
        FactorTopy({"a.b": 3, "a_b": 4}, coordinates(4))


def test_backends_agree() -> None:
    model = small_model(TOKENS)
    outputs = []
    for backend in ("reference", "grouped"):
        model.backend = backend
        outputs.append(predict(model))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("widths", "points", "options", "argument"),
    [
        ({}, coordinates(4), {}, "widths"),
        ({"a": 3}, np.zeros((4, 2)), {}, "coordinates"),
        ({"a": 3}, np.zeros((0, 3)), {}, "coordinates"),
        ({"a": 3}, np.full((4, 3), np.nan), {}, "coordinates"),
        ({"a": 3}, coordinates(4), {"gauge": "free"}, "gauge"),
        ({"a": 3}, coordinates(4), {"resize": "nearest"}, "resize"),
        ({"a": 3}, coordinates(4), {"precision": "half"}, "precision"),
    ],
)
def test_wrong_arguments_are_named(widths: dict, points: np.ndarray, options: dict, argument: str) -> None:
    with pytest.raises(UsageError, match=f"^{argument} must "):
        FactorTopy(widths, points, **options)


def test_statistics_are_part_of_the_state() -> None:
    model = small_model(TOKENS)
    fresh = FactorTopy(TOKENS.widths, coordinates(20), bottleneck=6, grid=GRID, selector_width=16)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(predict(fresh), predict(model))
    fit_statistics(fresh, memory_tokens(seed=9), ALL)
    assert not torch.allclose(predict(fresh), predict(model))


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    tokens = memory_tokens()
    model = small_model(tokens)
    local, whole = tokens.batch(np.arange(5))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    truth = model(local, whole)
    found = compiled(local, whole)
    torch.testing.assert_close(found, truth)
    parameters = list(model.parameters())
    for value, true in zip(
        torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(truth.sum(), parameters), strict=True
    ):
        torch.testing.assert_close(value, true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_precisions_of_gpus_are_refused_on_cpus_in_training(precision: str) -> None:
    tokens = memory_tokens()
    model = small_model(tokens, precision=precision)
    local, whole = tokens.batch(np.arange(2))
    with pytest.raises(UsageError, match=f"precision .* cpu, got '{precision}'"):
        model.train()(local, whole)
    plain = small_model(tokens)
    assert torch.equal(model.eval()(local, whole), plain.eval()(local, whole))  # evaluation is float32
