"""The model: gauge, selectors, positional encoding, token grids, folding, and weights in the seed's format."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_models import GRID, arrays_of, coordinates, memory_tokens, small_model, stir
from torch.nn import functional as F

from brainkit.errors import BrainkitError, DataError, UsageError
from brainkit.features.cache import TokenCache
from brainkit.model.factor_topy import FactorTopy
from brainkit.model.selectors import coordinate_bounds, encode_positions, regularity
from brainkit.ops import factor_readout
from brainkit.ops.token_grid import grid_matrix, to_grid
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


def test_a_channel_that_never_varies_is_not_read() -> None:
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


def test_a_layer_whose_tokens_never_vary_gives_no_nan() -> None:
    local, whole = arrays_of(memory_tokens())
    local["early"][:] = 1
    whole["early"][:] = 0
    tokens = TokenCache.of_arrays(local, whole)
    model = small_model(tokens)
    out = model(*tokens.batch(ALL[:4]))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# --- selectors --------------------------------------------------------------------------------------------------


def test_selectors_start_alike_and_in_the_middle() -> None:
    chosen = FactorTopy({"a": 3, "b": 4, "c": 5}, coordinates(9)).selectors()
    torch.testing.assert_close(chosen.layer_weights, torch.full((9, 3), 1 / 3))
    torch.testing.assert_close(chosen.locations, torch.zeros(9, 2))
    torch.testing.assert_close(chosen.scale, torch.full((9,), 0.5))


def test_selectors_are_in_range_and_smooth_on_the_cortex() -> None:
    places = coordinates(40)
    places[1] = places[0] + 1e-3
    model = stir(FactorTopy({"a": 3, "b": 4}, places))
    layer_weights, locations, scale = (getattr(model.selectors(), n) for n in ("layer_weights", "locations", "scale"))
    torch.testing.assert_close(layer_weights.sum(1), torch.ones(40))
    assert layer_weights.min() > 0 and locations.abs().max() < 1 and scale.min() > 0 and scale.max() < 1
    assert locations.std(0).min() > 0.01
    torch.testing.assert_close(locations[0], locations[1], rtol=0, atol=1e-2)


def test_positional_encoding_by_its_formula() -> None:
    places = coordinates(6).astype(np.float64)
    lowest = places.min(0)
    longest = (places.max(0) - lowest).max()
    expected = np.empty((6, 192))
    for v in range(6):
        place = 0
        for axis in range(3):
            x = (places[v, axis] - lowest[axis]) * 100 / longest
            for k in range(32):
                angle = x * 1000 ** -(k / 32)
                expected[v, place : place + 2] = math.sin(angle), math.cos(angle)
                place += 2
    model = FactorTopy({"a": 3}, places)
    np.testing.assert_allclose(model.encoding.numpy(), expected, atol=2e-5)


def test_a_subset_of_vertices_is_encoded_as_the_whole_was() -> None:
    places = torch.from_numpy(coordinates(30))
    bounds = coordinate_bounds(places)
    whole = encode_positions(places, *bounds)
    some = torch.tensor([3, 17, 4])
    assert torch.equal(encode_positions(places[some], *bounds), whole[some])
    assert not torch.allclose(encode_positions(places[some], *coordinate_bounds(places[some])), whole[some], atol=0.1)


def test_state_brings_the_bounds_along() -> None:
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


# --- token grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (8, 8)), ((16, 16), (8, 8)), ((14, 14), (8, 8)), ((7, 7), (8, 8)), ((4, 9), (6, 5)), ((39, 15), (20, 8))],
)
def test_grids_up_to_a_factor_of_two_are_bilinear_as_published(old: tuple[int, int], new: tuple[int, int]) -> None:
    tokens = torch.randn(2, 3, *old, dtype=torch.float64)
    expected = F.interpolate(tokens, new, mode="bilinear", align_corners=False)
    torch.testing.assert_close(to_grid(tokens, new), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ratio", [3, 4, 14])
def test_grids_beyond_a_factor_of_two_are_area_means(ratio: int) -> None:
    tokens = torch.randn(2, 3, 2 * ratio, 3 * ratio, dtype=torch.float64)
    torch.testing.assert_close(to_grid(tokens, (2, 3)), F.avg_pool2d(tokens, ratio), rtol=0, atol=1e-12)


@pytest.mark.parametrize("old", [1, 5, 20, 29, 112])
def test_grid_matrix_keeps_constants_and_the_total(old: int) -> None:
    matrix = grid_matrix(old, old + 2, 8, 8)
    assert matrix.shape == (old * (old + 2), 64)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(0), 1)


def test_tokens_of_any_resolution_are_accepted() -> None:
    model = small_model(TOKENS)
    local, whole = TOKENS.batch(ALL[:3])
    large = {layer: F.interpolate(value, scale_factor=3, mode="nearest") for layer, value in local.items()}
    torch.testing.assert_close(model(large, whole), model(local, whole), rtol=1e-4, atol=1e-4)


# --- forward and folding ----------------------------------------------------------------------------------------


def test_forward_leaves_its_input_alone() -> None:
    model = small_model(TOKENS)
    local, whole = TOKENS.batch(ALL[:3])
    local["unused"], whole["unused"] = torch.zeros(3, 1, 1, 1), torch.zeros(3, 1)
    kept = copy.deepcopy((local, whole))
    model(local, whole)
    for given, was in zip((local, whole), kept, strict=True):
        assert list(given) == list(was)
        assert all(torch.equal(given[layer], was[layer]) for layer in was)


@pytest.mark.parametrize("gauge", ["unit", "published"])
def test_folded_constants_reproduce_the_forward_pass(gauge: str) -> None:
    model = small_model(TOKENS, vertices=40, gauge=gauge)
    draw = np.random.default_rng(1)
    std = draw.uniform(0.5, 3, 40)
    std[7] = 0.0  # a vertex that never varied is left as it is
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


def test_the_border_is_padded_after_the_centring() -> None:
    # At the very corner a vertex reads a quarter of the corner token and three quarters of nothing. Were the mean
    # folded into the vertex's bias, "nothing" would count as minus the mean.
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


def test_names_with_dots() -> None:
    tokens = memory_tokens(widths={"blocks.3": 5, "blocks.11": 4})
    model = small_model(tokens)
    assert model.layers == ("blocks.3", "blocks.11")
    with torch.inference_mode():
        local, _ = model.bottlenecked(*tokens.batch(ALL))
    torch.testing.assert_close(local.square().mean((0, 2, 3, 4)).sqrt(), torch.ones(2), rtol=2e-3, atol=0)
    assert set(model.folded().local_weight) == {"blocks.3", "blocks.11"}
    with pytest.raises(UsageError, match="different names"):
        FactorTopy({"a.b": 3, "a_b": 4}, coordinates(4))


def test_backends_agree() -> None:
    model = small_model(TOKENS)
    outputs = []
    for backend in ("reference", "grouped"):
        model.backend = backend
        outputs.append(predict(model))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("widths", "places", "options", "expected"),
    [
        ({}, coordinates(4), {}, "at least one layer"),
        ({"a": 3}, np.zeros((4, 2)), {}, "coordinates must be"),
        ({"a": 3}, np.zeros((0, 3)), {}, "coordinates must be"),
        ({"a": 3}, np.full((4, 3), np.nan), {}, "coordinates must be"),
        ({"a": 3}, coordinates(4), {"gauge": "free"}, "gauge must be"),
    ],
)
def test_refusals(widths: dict, places: np.ndarray, options: dict, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        FactorTopy(widths, places, **options)


# --- the seed's weights -----------------------------------------------------------------------------------------


def published_state(places: np.ndarray, widths: dict[str, int], bottleneck: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    state = {"weight": normal(len(places), bottleneck), "bias": normal(len(places))}
    for layer, width in widths.items():
        state[f"local_token_bottleneck.{layer}.weight"] = normal(bottleneck, width, 1, 1)
        state[f"global_token_bottleneck.{layer}.weight"] = normal(bottleneck, width)
    for part, outputs in (("space", 2), ("layer", len(widths)), ("scale", 1)):
        for index, (rows, columns) in ((1, (16, 192)), (3, (16, 16))):
            state[f"{part}_selector_mlp.{index}.weight"] = normal(rows, columns)
            state[f"{part}_selector_mlp.{index}.bias"] = normal(rows)
        state[f"{part}_selector_mlp.5.weight"] = normal(outputs, 16)
    return state


def published_forward(
    state: dict[str, torch.Tensor],
    places: np.ndarray,
    local: dict[str, torch.Tensor],
    whole: dict[str, torch.Tensor],
    grid: tuple[int, int],
) -> torch.Tensor:
    """The seed's model written out layer by layer, in float64."""
    state = {key: value.double() for key, value in state.items()}
    places = places.astype(np.float64)
    scaled = (places - places.min(0)) * 100 / np.ptp(places, axis=0).max()
    frequencies = 1000.0 ** (-np.arange(32) / 32)
    columns = []
    for axis in range(3):
        for frequency in frequencies:
            columns += [np.sin(scaled[:, axis] * frequency), np.cos(scaled[:, axis] * frequency)]
    encoding = torch.from_numpy(np.stack(columns, 1))

    def network(part: str) -> torch.Tensor:
        hidden = encoding
        for index in (1, 3):
            hidden = F.gelu(
                hidden @ state[f"{part}_selector_mlp.{index}.weight"].T + state[f"{part}_selector_mlp.{index}.bias"]
            )
        return hidden @ state[f"{part}_selector_mlp.5.weight"].T

    layers, location, scale = network("layer").softmax(-1), network("space").tanh(), network("scale").sigmoid()
    total = torch.zeros(())
    for index, layer in enumerate(local):
        small = F.interpolate(local[layer].double(), grid, mode="bilinear", align_corners=False)
        mapped = F.conv2d(small, state[f"local_token_bottleneck.{layer}.weight"])
        at = location[None, :, None].expand(len(small), -1, -1, -1)
        seen = F.grid_sample(mapped, at, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]
        everywhere = whole[layer].double() @ state[f"global_token_bottleneck.{layer}.weight"].T
        mixed = (1 - scale) * seen.transpose(1, 2) + scale * everywhere[:, None]
        total = total + layers[:, index, None] * mixed
    return (total * state["weight"]).mean(-1) + state["bias"]


def test_published_weights_predict_as_published() -> None:
    widths = {"3": 6, "11": 4}
    places = coordinates(15)
    state = published_state(places, widths)
    generator = torch.Generator().manual_seed(4)
    local = {layer: torch.randn(3, c, 6, 5, generator=generator) + 1 for layer, c in widths.items()}
    whole = {layer: torch.randn(3, c, generator=generator) - 1 for layer, c in widths.items()}
    model = FactorTopy.from_published(state, places, grid=(4, 4))
    assert model.gauge == "published"
    with torch.inference_mode():
        found = model(local, whole)
    expected = published_forward(state, places, local, whole, (4, 4))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    # The bounds are frozen: fewer vertices, placed in the same box, predict the same.
    assert torch.equal(model.coordinate_lower, torch.from_numpy(places.min(0)))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda state: state.pop("bias"), "1 keys are missing, the first is bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 keys are unknown, the first is extra"),
        (lambda state: state.update(bias=torch.zeros(3)), r"bias must be \(15,\), found \(3,\)"),
        (lambda state: state.pop("weight"), "found none"),
        (lambda state: state.pop("global_token_bottleneck.3.weight"), "global_token_bottleneck.3.weight"),
        (lambda state: state.update(weight=torch.zeros(9, 5)), "expected 9 rows"),
        (lambda state: state.clear(), "found none"),
    ],
)
def test_published_weights_that_do_not_fit(damage, expected: str) -> None:  # type: ignore[no-untyped-def]
    places = coordinates(15)
    state = published_state(places, {"3": 6, "11": 4})
    damage(state)
    with pytest.raises(DataError, match=expected) as refusal:
        FactorTopy.from_published(state, places)
    assert isinstance(refusal.value, BrainkitError) and "\n" not in str(refusal.value)


def test_statistics_are_kept_with_the_model() -> None:
    model = small_model(TOKENS)
    fresh = FactorTopy(TOKENS.widths, coordinates(20), bottleneck=6, grid=GRID, selector_width=16)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(predict(fresh), predict(model))
    fit_statistics(fresh, memory_tokens(seed=9), ALL)
    assert not torch.allclose(predict(fresh), predict(model))


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
def test_a_precision_of_gpus_is_for_gpus(precision: str) -> None:
    tokens = memory_tokens()
    model = small_model(tokens, precision=precision)
    local, whole = tokens.batch(np.arange(2))
    with pytest.raises(UsageError, match=f"precision must be float32 or bf16x3 for a model on cpu, got '{precision}'"):
        model.train()(local, whole)
    plain = small_model(tokens)
    assert torch.equal(model.eval()(local, whole), plain.eval()(local, whole))  # scores are float32
