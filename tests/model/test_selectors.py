"""Selectors: ranges, smoothness, the positional encoding and its factors, and the regulariser."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from small_models import GRID, coordinates, memory_tokens, small_model, stir
from torch import Tensor

from brainkit.model.factor_topy import FactorTopy
from brainkit.model.selectors import (
    FACTOR_ERROR,
    VertexOffsets,
    coordinate_bounds,
    encode_positions,
    factored_encoding,
    regularity,
)

TOKENS = memory_tokens()
NAMES = ("locations", "layer_weights", "scale")


def predict(model: FactorTopy) -> Tensor:
    with torch.inference_mode():
        return model(*TOKENS.batch(np.arange(len(TOKENS))))


def relative_error(value: Tensor, truth: Tensor) -> float:
    """rms of the error over rms of the truth."""
    return ((value - truth).square().mean().sqrt() / truth.square().mean().sqrt()).item()


def test_selectors_start_equal_and_central() -> None:
    chosen = FactorTopy({"a": 3, "b": 4, "c": 5}, coordinates(9)).selectors()
    torch.testing.assert_close(chosen.layer_weights, torch.full((9, 3), 1 / 3))
    torch.testing.assert_close(chosen.locations, torch.zeros(9, 2))
    torch.testing.assert_close(chosen.scale, torch.full((9,), 0.5))


def test_selectors_are_in_range_and_smooth_on_the_cortex() -> None:
    points = coordinates(40)
    points[1] = points[0] + 1e-3
    model = stir(FactorTopy({"a": 3, "b": 4}, points))
    locations, layer_weights, scale = (getattr(model.selectors(), name) for name in NAMES)
    torch.testing.assert_close(layer_weights.sum(1), torch.ones(40))
    assert layer_weights.min() > 0 and locations.abs().max() < 1 and scale.min() > 0 and scale.max() < 1
    assert locations.std(0).min() > 0.01
    torch.testing.assert_close(locations[0], locations[1], rtol=0, atol=1e-2)


def test_positional_encoding_by_its_formula() -> None:
    points = coordinates(6).astype(np.float64)
    lowest = points.min(0)
    longest = (points.max(0) - lowest).max()
    expected = np.empty((6, 192))
    for v in range(6):
        column = 0
        for axis in range(3):
            x = (points[v, axis] - lowest[axis]) * 100 / longest
            for k in range(32):
                angle = x * 1000 ** -(k / 32)
                expected[v, column : column + 2] = math.sin(angle), math.cos(angle)
                column += 2
    model = FactorTopy({"a": 3}, points)
    np.testing.assert_allclose(model.encoding.numpy(), expected, atol=2e-5)


def test_a_subset_of_vertices_is_encoded_with_the_bounds_of_all() -> None:
    points = torch.from_numpy(coordinates(30))
    bounds = coordinate_bounds(points)
    encoded = encode_positions(points, *bounds)
    subset = torch.tensor([3, 17, 4])
    assert torch.equal(encode_positions(points[subset], *bounds), encoded[subset])
    own_bounds = coordinate_bounds(points[subset])
    assert not torch.allclose(encode_positions(points[subset], *own_bounds), encoded[subset], atol=0.1)


def test_the_state_contains_the_bounds() -> None:
    model = small_model(TOKENS, vertices=12)
    other = FactorTopy(TOKENS.widths, coordinates(12, seed=5) * 2, bottleneck=6, grid=GRID, selector_width=16)
    assert not torch.allclose(predict(other), predict(model))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.encoding, model.encoding)
    assert torch.equal(predict(other), predict(model))
    assert "encoding" not in model.state_dict()


def test_one_vertex_has_finite_selectors() -> None:
    model = FactorTopy({"a": 3}, np.zeros((1, 3)))
    assert model.encoding.isfinite().all()
    assert model.selectors().layer_weights.tolist() == [[1.0]]


@pytest.mark.parametrize("n_layers", [1, 2, 5])
def test_regularity_by_its_formula(n_layers: int) -> None:
    draw = np.random.default_rng(n_layers)
    weights = draw.dirichlet(np.ones(n_layers), 11)
    scale = draw.random(11)
    negative_entropy = 0.0
    if n_layers > 1:
        negative_entropy = sum(w * math.log(w + 1e-8) for row in weights for w in row) / 11 / math.log(n_layers)
    expected = negative_entropy + float(np.mean((scale - 0.5) ** 2))
    found = regularity(torch.from_numpy(weights), torch.from_numpy(scale))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_regularity_rises_as_selection_sharpens() -> None:
    half = torch.full((4,), 0.5)
    soft, sharp = torch.full((4, 3), 1 / 3), torch.eye(3)[[0, 1, 2, 0]]
    assert float(regularity(soft, half)) == pytest.approx(-1, abs=1e-5)
    assert float(regularity(sharp, half)) == pytest.approx(0, abs=1e-5)
    assert regularity(soft, torch.ones(4)) > regularity(soft, half)


# --- the factored encoding --------------------------------------------------------------------------------------


def two_spheres(n: int) -> Tensor:
    """Points (n, 3) on two spheres side by side, in mm, like the coordinates of two hemispheres."""
    turn = torch.arange(n, dtype=torch.float64) + 0.5
    height = 1 - 2 * turn / n
    radius, angle = (1 - height**2).sqrt(), turn * 2.399963
    shift = torch.where(torch.arange(n) % 2 == 0, 0.0, 300.0)
    return torch.stack([100 * radius * angle.cos() + shift, 100 * radius * angle.sin(), 100 * height], 1).float()


@pytest.mark.parametrize("n", [1, 2, 63, 10_000])  # the last is factored in two parts
def test_factors_give_the_encoding(n):
    points = two_spheres(n)
    bounds = coordinate_bounds(points)
    features, mix = factored_encoding(points, *bounds)
    assert features.dtype == mix.dtype == torch.float32
    assert features.shape == (n, len(mix))
    assert len(mix) <= min(n, 90)
    exact = encode_positions(points.double(), *(bound.double() for bound in bounds))
    # float32 rounds every factor.
    assert (features.double() @ mix.double() - exact).abs().max() <= FACTOR_ERROR + 3e-7
    torch.testing.assert_close(mix @ mix.T, torch.eye(len(mix)), rtol=0, atol=1e-6)


def test_the_rank_is_minimal_and_the_factors_reproducible():
    points = two_spheres(3000).double()
    bounds = coordinate_bounds(points)
    features, mix = factored_encoding(points, *bounds)
    exact = encode_positions(points, *bounds)
    assert (features @ mix - exact).abs().max() <= FACTOR_ERROR
    assert (features[:, :-1] @ mix[:-1] - exact).abs().max() > FACTOR_ERROR
    assert (mix.gather(1, mix.abs().argmax(1, keepdim=True)) > 0).all()
    for one, other in zip(factored_encoding(points, *bounds), (features, mix), strict=True):
        assert torch.equal(one, other)


def selecting_model(layers: int = 3, n: int = 300) -> FactorTopy:
    torch.manual_seed(0)
    model = FactorTopy({f"layer{i}": 4 for i in range(layers)}, two_spheres(n), bottleneck=6, selector_width=32)
    for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
        torch.nn.init.normal_(network[5].weight, std=0.5)
    return model


def by_encoding(model: FactorTopy) -> tuple[Tensor, Tensor, Tensor]:
    """The selectors as in the published model: each network separately, from the full encoding."""
    bounds = (model.coordinate_lower, model.coordinate_side)
    encoding = encode_positions(model.coordinates, *bounds).to(model.weight.dtype)
    networks = (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp)
    locations, layer_weights, scale = (network(encoding) for network in networks)
    return locations, layer_weights, scale[:, 0]


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_selectors_are_those_of_the_full_encoding(backend):
    model = selecting_model()
    model.backend = backend
    parameters = [p for name, p in model.named_parameters() if "selector" in name]
    exact = copy.deepcopy(model).double()
    exact_parameters = [p for name, p in exact.named_parameters() if "selector" in name]
    chosen, truth = model.selectors(), by_encoding(exact)
    for name, true in zip(NAMES, truth, strict=True):
        assert relative_error(getattr(chosen, name).detach().double(), true.detach()) < 5e-6, name
    grads = torch.autograd.grad(sum(getattr(chosen, name).square().sum() for name in NAMES), parameters)
    true_grads = torch.autograd.grad(sum(true.square().sum() for true in truth), exact_parameters)
    for grad, true in zip(grads, true_grads, strict=True):
        assert relative_error(grad.double(), true) < 5e-5


def test_factors_are_no_part_of_the_state():
    model = selecting_model()
    assert not any(key.startswith(("features", "mix")) for key in model.state_dict())
    double = copy.deepcopy(model).double()
    assert double.selectors().locations.dtype == torch.float64
    expected = model.selectors()
    torch.testing.assert_close(double.selectors().locations.float(), expected.locations, rtol=0, atol=1e-6)
    copied = copy.deepcopy(model).cpu()
    assert torch.equal(copied.selectors().locations, expected.locations)
    features = model.features
    model.load_state_dict(copied.state_dict())
    assert model.features is features  # same coordinates: not computed again


def test_offsets_are_added_before_tanh_softmax_and_sigmoid() -> None:
    draw = torch.Generator().manual_seed(1)
    sums = [torch.randn(7, n, generator=draw, dtype=torch.float64, requires_grad=True) for n in (2, 3, 1)]
    offsets = VertexOffsets(7, 3).double()
    with torch.no_grad():
        for parameter in offsets.parameters():
            parameter.normal_(generator=draw)
    learnt = [*sums, *offsets.parameters()]

    def gradients(selected: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((part.square() * part.exp()).sum() for part in selected), learnt)

    networks = sums[0].tanh(), sums[1].softmax(-1), sums[2][:, 0].sigmoid()
    found = offsets.added(*networks)
    expected = (
        (sums[0] + offsets.location).tanh(),
        (sums[1] + offsets.layer).softmax(-1),
        (sums[2][:, 0] + offsets.scale).sigmoid(),
    )
    for a, b in zip((*found, *gradients(found)), (*expected, *gradients(expected)), strict=True):
        torch.testing.assert_close(a, b)
    location, layer, scale = (
        float(getattr(offsets, name).detach().square().sum()) / 7 for name in ("location", "layer", "scale")
    )
    expected_penalty = 2 * math.log(1 + location / 3e-4) + (layer + scale) / 0.7**2
    assert float(offsets.penalty().detach()) == pytest.approx(expected_penalty)


def test_offsets_stay_finite_where_a_network_is_saturated() -> None:
    offsets = VertexOffsets(2, 2)
    with torch.no_grad():
        for parameter in offsets.parameters():
            parameter.fill_(-3.0)
    layer_weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    saturated = (torch.tensor([[1.0, -1.0], [1.0, 1.0]]), layer_weights, torch.tensor([0.0, 1.0]))
    found = offsets.added(*(part.requires_grad_() for part in saturated))
    for part in (*found, *torch.autograd.grad(sum(part.sum() for part in found), [*saturated, *offsets.parameters()])):
        assert part.isfinite().all()
