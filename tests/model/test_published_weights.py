"""Weights of the published implementation: the same predictions as its model, and damaged state dicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench import published
from bench.cortex import coordinates
from brainkit.errors import DataError, UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.model.published_weights import clean_state, match_layers
from brainkit.ops.token_grid import grid_matrix

WIDTHS = {"0": 12, "1": 20, "2": 16}
COORDINATES = coordinates(320)


def published_model() -> published.FactorTopy:
    """The published model with weights that select differently at every vertex."""
    torch.manual_seed(0)
    model = published.FactorTopy(WIDTHS, torch.from_numpy(COORDINATES), bottleneck=24, selector_width=32)
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            network[5].weight.normal_(std=0.8)
        model.weight.mul_(50)  # as after training: predictions vary by about their own size
        model.bias.normal_()
    return model


def published_predictions(model: published.FactorTopy, local: dict, whole: dict, grid: tuple[int, int]) -> torch.Tensor:
    """Predictions of the published model from resized token maps, in float64."""
    model = model.double()
    small = {
        layer: F.interpolate(value.double(), grid, mode="bilinear", align_corners=False)
        for layer, value in local.items()
    }
    with torch.inference_mode():
        return model(small, {layer: value.double() for layer, value in whole.items()})[0]


def tokens(height: int, width: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tokens of five images, neither centred nor scaled."""
    generator = torch.Generator().manual_seed(1)
    shapes = {layer: (5, channels, height, width) for layer, channels in WIDTHS.items()}
    local = {layer: torch.randn(shape, generator=generator) * 3 + 2 for layer, shape in shapes.items()}
    return local, {layer: torch.randn(5, channels, generator=generator) - 4 for layer, channels in WIDTHS.items()}


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(8, 8, (8, 8)), (14, 14, (8, 8)), (16, 16, (8, 8)), (64, 64, (8, 8)), (6, 5, (4, 4))]
)
def test_the_same_predictions_as_the_published_model_to_1e_5(height: int, width: int, grid: tuple[int, int]) -> None:
    # 64 x 64 is SAM at 1024 pixels: bilinear there too, although it reads few of the cells.
    model = published_model()
    local, whole = tokens(height, width)
    ours = FactorTopy.from_published(model.state_dict(), COORDINATES, grid=grid).eval()
    with torch.inference_mode():
        found = ours(local, whole).double()
    expected = published_predictions(model, local, whole, grid)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.std(0).mean())


def test_published_models_are_exported_with_bilinear_resizing() -> None:
    model = FactorTopy.from_published(published_model().state_dict(), COORDINATES)
    assert (model.gauge, model.resize, model.folded().resize) == ("published", "bilinear", "bilinear")
    assert FactorTopy(WIDTHS, COORDINATES).folded().resize == "area"
    old = torch.randn(2, 3, 40, 24, dtype=torch.float64)
    found = (old.flatten(2) @ torch.from_numpy(grid_matrix(40, 24, 8, 8, "bilinear").copy())).unflatten(2, (8, 8))
    torch.testing.assert_close(found, F.interpolate(old, (8, 8), mode="bilinear", align_corners=False))


def test_statistics_and_bounds_are_those_of_the_published_model() -> None:
    model = FactorTopy.from_published(published_model().state_dict(), COORDINATES)
    for statistics in (*model.local_statistics.values(), *model.global_statistics.values()):
        assert bool((statistics.mean == 0).all()) and bool((statistics.std == 1).all())
    assert bool((model.response_mean == 0).all()) and bool((model.response_std == 1).all())
    np.testing.assert_array_equal(model.coordinate_lower.numpy(), COORDINATES.min(0))
    assert float(model.coordinate_side) == np.ptp(COORDINATES, axis=0).max()
    # The bounds are part of the state: a model with other COORDINATES takes them from there.
    other = FactorTopy(WIDTHS, COORDINATES * 2 + 1, bottleneck=24, selector_width=32, gauge="published")
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.selectors().locations, model.selectors().locations)


# --- names and files --------------------------------------------------------------------------------------------


def test_layers_are_renamed_in_the_files_order() -> None:
    state = published_model().state_dict()
    local, whole = tokens(8, 8)
    plain = FactorTopy.from_published(state, COORDINATES)
    named = FactorTopy.from_published(state, COORDINATES, layers=["stage.1", "block4", "head"])
    assert named.layers == ("stage.1", "block4", "head")
    new = dict(zip(WIDTHS, named.layers, strict=True))
    with torch.inference_mode():
        found = named({new[k]: v for k, v in local.items()}, {new[k]: v for k, v in whole.items()})
        assert torch.equal(found, plain(local, whole))
    for wrong in (["a", "b"], ["a", "a", "b"]):
        with pytest.raises(UsageError, match=r"^layers must .*0, 1, 2"):
            FactorTopy.from_published(state, COORDINATES, layers=wrong)


def test_a_shared_prefix_is_removed_and_half_precision_converted() -> None:
    state = published_model().state_dict()
    wrapped = {f"model.{key}": value.half() for key, value in state.items()}
    cleaned = clean_state(wrapped)
    assert list(cleaned) == list(state) and all(value.dtype == torch.float32 for value in cleaned.values())
    with pytest.raises(DataError, match=r"model\.bias"):
        FactorTopy.from_published({**{f"model.{key}": value for key, value in state.items()}, **state}, COORDINATES)


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (lambda state: state["bias"].__setitem__(3, float("nan")), "bias"),
        (lambda state: state.update(bias=torch.zeros(3, dtype=torch.int64)), "bias.*int64"),
        (lambda state: state.update(note="text"), "note.*str"),
        (lambda state: state.pop("bias"), "bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra"),
        (lambda state: state.update(bias=torch.zeros(3)), r"bias.*\(320,\).*\(3,\)"),
        (lambda state: state.pop("global_token_bottleneck.1.weight"), "global_token_bottleneck.1.weight"),
        (lambda state: state.pop("weight"), r"weight \(V, D\)"),
        (lambda state: state.update(weight=torch.zeros(4)), r"weight \(V, D\)"),
        (lambda state: state.clear(), r"weight \(V, D\)"),
    ],
)
def test_state_dicts_that_do_not_fit(damage: Callable[[dict], None], key: str) -> None:
    state = dict(published_model().state_dict())
    damage(state)
    with pytest.raises(DataError, match=f"^weights.pt: .*{key}"):
        FactorTopy.from_published(state, COORDINATES, source="weights.pt")


def test_coordinates_that_do_not_fit() -> None:
    state = published_model().state_dict()
    with pytest.raises(DataError, match=r"^coordinates: expected 320 rows.*found 319"):
        FactorTopy.from_published(state, COORDINATES[1:])


@pytest.mark.parametrize(
    ("in_state", "in_backbone", "expected"),
    [
        (("0", "1", "2"), ("block1", "block2", "block3"), ["block1", "block2", "block3"]),
        (("3", "6", "11"), ("stage1", "stage2", "stage3"), ["stage1", "stage2", "stage3"]),
        (("blocks_0", "blocks_1"), ("block1", "block2"), ["block1", "block2"]),
        (("block3", "block1"), ("block1", "block2", "block3"), ["block3", "block1"]),
        (("a.b", "c"), ("a_b", "c", "d"), ["a_b", "c"]),
        (("2", "5"), ("block1", "block2", "block3"), None),  # counted from 0, or from 1?
        (("1", "0"), ("block1", "block2"), None),  # not in order of depth
        (("early", "late"), ("block1", "block2"), None),
    ],
)
def test_layers_are_matched_by_name_and_depth(
    in_state: tuple[str, ...], in_backbone: tuple[str, ...], expected: list[str] | None
) -> None:
    assert match_layers(in_state, in_backbone) == expected
