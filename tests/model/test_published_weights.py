"""Weights of the published implementation: the same predictions, whatever the grid, and what their names mean."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F

from bench import published as seed
from brainkit.cortex.surface import SPACES, Vertices, mesh, sphere_coordinates
from brainkit.cortex.vertex_lookup import vertices_on_sphere
from brainkit.errors import DataError, UsageError
from brainkit.model import published_weights as published
from brainkit.model.factor_topy import FactorTopy
from brainkit.ops.token_grid import grid_matrix

WIDTHS = {"0": 12, "1": 20, "2": 16}


def some_vertices(space: str = "fsaverage5", left: int = 150, right: int = 170) -> Vertices:
    draw = np.random.default_rng(2)
    size = SPACES[space]
    sides = [draw.choice(size, left, replace=False), draw.choice(size, right, replace=False) + size]
    return Vertices(space, np.sort(np.concatenate(sides)))


def seed_model(coordinates: np.ndarray, widths: dict[str, int] = WIDTHS, bottleneck: int = 24) -> seed.FactorTopy:
    """The published model with weights that choose differently at every vertex."""
    torch.manual_seed(0)
    model = seed.FactorTopy(widths, torch.from_numpy(coordinates), bottleneck=bottleneck, selector_width=32)
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            network[5].weight.normal_(std=0.8)
        model.weight.mul_(50)  # as after training: predictions vary by about their own size
        model.bias.normal_()
    return model


def seed_predictions(model: seed.FactorTopy, local: dict, whole: dict, grid: tuple[int, int] = (8, 8)) -> torch.Tensor:
    """Token maps brought to the grid as published, then the model; in float64, so that only ours is rounded."""
    model = model.double()
    small = {
        layer: F.interpolate(value.double(), grid, mode="bilinear", align_corners=False)
        for layer, value in local.items()
    }
    with torch.inference_mode():
        return model(small, {layer: value.double() for layer, value in whole.items()})[0]


def tokens(sides: dict[str, int]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tokens of five images with means and scales of their own: nothing must be centred or scaled."""
    generator = torch.Generator().manual_seed(1)
    local = {
        layer: torch.randn(5, width, sides[layer], sides[layer], generator=generator) * 3 + 2
        for layer, width in WIDTHS.items()
    }
    return local, {layer: torch.randn(5, width, generator=generator) - 4 for layer, width in WIDTHS.items()}


@pytest.mark.parametrize("side", [8, 14, 16, 64])
def test_the_same_predictions_as_the_published_model_to_1e_5(side: int) -> None:
    # 64 is SAM at 1024 pixels: bilinear there too, although it reads 4 of 64 cells.
    coordinates = sphere_coordinates(some_vertices())
    model = seed_model(coordinates)
    local, whole = tokens(dict.fromkeys(WIDTHS, side))
    ours = FactorTopy.from_published(model.state_dict(), coordinates).eval()
    with torch.inference_mode():
        found = ours(local, whole).double()
    expected = seed_predictions(model, local, whole)
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.std(0).mean())


def test_the_export_form_keeps_the_published_grid() -> None:
    coordinates = sphere_coordinates(some_vertices())
    model = FactorTopy.from_published(seed_model(coordinates).state_dict(), coordinates)
    assert (model.gauge, model.resize, model.folded().resize) == ("published", "bilinear", "bilinear")
    assert FactorTopy(WIDTHS, coordinates).folded().resize == "area"
    old = torch.randn(2, 3, 40, 24, dtype=torch.float64)
    found = (old.flatten(2) @ torch.from_numpy(grid_matrix(40, 24, 8, 8, "bilinear").copy())).unflatten(2, (8, 8))
    torch.testing.assert_close(found, F.interpolate(old, (8, 8), mode="bilinear", align_corners=False))


def test_statistics_and_bounds_are_those_of_the_published_model() -> None:
    coordinates = sphere_coordinates(some_vertices())
    model = FactorTopy.from_published(seed_model(coordinates).state_dict(), coordinates)
    for statistics in (*model.local_statistics.values(), *model.global_statistics.values()):
        assert bool((statistics.mean == 0).all()) and bool((statistics.std == 1).all())
    assert bool((model.response_mean == 0).all()) and bool((model.response_std == 1).all())
    np.testing.assert_array_equal(model.coordinate_lower.numpy(), coordinates.min(0))
    assert float(model.coordinate_side) == np.ptp(coordinates, axis=0).max()
    # The bounds are part of what is kept: the same model comes back with coordinates that are not yet known.
    other = FactorTopy(WIDTHS, coordinates * 2 + 1, bottleneck=24, selector_width=32, gauge="published")
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.selectors().locations, model.selectors().locations)


def test_the_right_hemisphere_is_shifted_as_published() -> None:
    vertices = some_vertices()
    left = mesh("fsaverage5", "left", "sphere")[0][vertices.left]
    right = mesh("fsaverage5", "right", "sphere")[0][vertices.right].copy()
    lowest, highest = left[:, 0].min(), left[:, 0].max()
    if right[:, 0].min() < lowest + 1.5 * (highest - lowest):
        right[:, 0] += lowest + 1.5 * (highest - lowest) - right[:, 0].min()
    np.testing.assert_allclose(sphere_coordinates(vertices), np.concatenate([left, right]), atol=1e-4)


# --- names and files --------------------------------------------------------------------------------------------


def test_layers_are_renamed_in_the_files_order() -> None:
    coordinates = sphere_coordinates(some_vertices())
    state = seed_model(coordinates).state_dict()
    local, whole = tokens(dict.fromkeys(WIDTHS, 8))
    plain = FactorTopy.from_published(state, coordinates)
    named = FactorTopy.from_published(state, coordinates, layers=["stage.1", "block4", "head"])
    assert named.layers == ("stage.1", "block4", "head")
    new = dict(zip(WIDTHS, named.layers, strict=True))
    with torch.inference_mode():
        found = named({new[k]: v for k, v in local.items()}, {new[k]: v for k, v in whole.items()})
        assert torch.equal(found, plain(local, whole))
    for wrong in (["a", "b"], ["a", "a", "b"]):
        with pytest.raises(UsageError, match="layers must name each of the 3 layers 0, 1, 2 once"):
            FactorTopy.from_published(state, coordinates, layers=wrong)


def test_a_prefix_that_all_keys_share_and_half_precision_are_taken() -> None:
    coordinates = sphere_coordinates(some_vertices())
    state = seed_model(coordinates).state_dict()
    wrapped = {f"model.{key}": value.half() for key, value in state.items()}
    bare = published.bare(wrapped)
    assert list(bare) == list(state) and all(value.dtype == torch.float32 for value in bare.values())
    with pytest.raises(DataError, match="keys are unknown"):
        FactorTopy.from_published({**{f"model.{key}": value for key, value in state.items()}, **state}, coordinates)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda state: state["bias"].__setitem__(3, float("nan")), "bias must be finite"),
        (
            lambda state: state.update(bias=torch.zeros(3, dtype=torch.int64)),
            "floating point numbers, found torch.int64",
        ),
        (lambda state: state.update(note="text"), "note must hold floating point numbers, found str"),
        (lambda state: state.update(weight=torch.zeros(4)), "found none"),
    ],
)
def test_states_that_are_no_weights(damage: Callable[[dict], None], expected: str) -> None:
    coordinates = sphere_coordinates(some_vertices())
    state = dict(seed_model(coordinates).state_dict())
    damage(state)
    with pytest.raises(DataError, match=expected):
        FactorTopy.from_published(state, coordinates)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
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
def test_which_layers_are_meant(theirs: tuple[str, ...], ours: tuple[str, ...], expected: list[str] | None) -> None:
    assert published.match_layers(theirs, ours) == expected


# --- vertices found by their coordinates ------------------------------------------------------------------------


@pytest.mark.parametrize("space", list(SPACES))
def test_vertices_are_found_by_their_coordinates(space: str) -> None:
    vertices = some_vertices(space)
    coordinates = sphere_coordinates(vertices)
    noise = np.random.default_rng(0).normal(0, 0.01, coordinates.shape)  # as a sphere read from elsewhere differs
    assert vertices_on_sphere(coordinates + noise) == vertices
    assert vertices_on_sphere(coordinates + [0, 1, 0]) is None


def test_coordinates_that_name_no_vertices() -> None:
    vertices = some_vertices()
    coordinates = sphere_coordinates(vertices)
    left, right = coordinates[: vertices.n_left], coordinates[vertices.n_left :]
    assert vertices_on_sphere(left) is None  # either hemisphere's
    assert vertices_on_sphere(coordinates[::-1]) is None
    assert vertices_on_sphere(np.concatenate([left, right[:5], right])) is None
    assert vertices_on_sphere(np.random.default_rng(0).uniform(-80, 80, (40, 3))) is None
    assert vertices_on_sphere(np.ones((4, 3))) is None
