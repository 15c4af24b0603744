"""Some vertices predicted from tokens, by the C++ extension and by NumPy, against the whole and the definition."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the encoders of these tests are built with onnx")

from onnx import helper, numpy_helper  # noqa: E402

from brainkit.errors import EncoderFileError  # noqa: E402
from brainkit.export.onnx_readout import sort_readout  # noqa: E402
from brainkit.predict import readout  # noqa: E402

_C = pytest.importorskip("brainkit._C")

EDGES = [-5.0, -1.25, -1.0, -0.9, -0.25, 0.0, 0.1, 0.75, 1.0, 1.25, 5.0]
# grid, L, D, locations
CASES: dict[str, tuple[tuple[int, int], int, int, np.ndarray]] = {
    "edges": ((4, 5), 3, 7, np.array([(x, y) for x in EDGES for y in EDGES])),
    "one vertex": ((8, 8), 1, 1, np.array([(0.3, -0.2)])),
    "one cell": ((1, 1), 2, 5, np.array([(0.0, 0.0), (1.0, 1.0), (-0.4, 0.6)])),
    "one group": ((8, 8), 2, 130, np.zeros((65, 2))),
    "many": ((8, 8), 12, 64, np.random.default_rng(0).uniform(-1, 1, (500, 2))),
    "a large grid": ((70, 66), 2, 9, np.random.default_rng(1).uniform(-1, 1, (90, 2))),
}


def folded_of(case: str, seed: int = 3) -> Any:
    grid, L, D, locations = CASES[case]
    rng = np.random.default_rng(seed)
    V = len(locations)
    return SimpleNamespace(
        grid=grid,
        layer_weights=rng.dirichlet(np.ones(L), V),
        locations=locations,
        scale=rng.uniform(0, 1, V),
        weight=rng.normal(size=(V, D)),
        bias=rng.normal(size=V),
    )


def write_file(path: Path, members: list[Any], *, dtype: type = np.float32) -> Any:
    """The readouts of one or more members as initializers of an ONNX file, and the metadata that matters."""
    arrays = []
    for index, folded in enumerate(members):
        prefix = "readout" if len(members) == 1 else f"readout.{index}"
        arrays_of = {name: array for name, array in vars(sort_readout(folded)).items() if name != "form"}
        for name, array in arrays_of.items():
            stored = array.astype(dtype) if name in ("weight", "coefficients") else array
            arrays.append(numpy_helper.from_array(stored, f"{prefix}.{name}"))
    path.write_bytes(helper.make_model(helper.make_graph([], "g", [], [], arrays)).SerializeToString())
    first = members[0]
    D = first.weight.shape[1] * len(members)
    return SimpleNamespace(grid=first.grid, layer_weights=first.layer_weights, bottleneck=D)


def definition(folded: Any, tokens: np.ndarray) -> np.ndarray:
    """The operator in plain NumPy, float64: (B, V)."""
    H, W = folded.grid
    cells = tokens[..., : H * W].reshape(*tokens.shape[:3], H, W).astype(np.float64)
    padded = np.pad(cells, [(0, 0)] * 3 + [(1, 1), (1, 1)])
    px = np.clip(((folded.locations[:, 0] + 1) * W - 1) / 2, -1, W)
    py = np.clip(((folded.locations[:, 1] + 1) * H - 1) / 2, -1, H)
    left, upper = np.minimum(np.floor(px), W - 1).astype(int), np.minimum(np.floor(py), H - 1).astype(int)
    fx, fy = px - left, py - upper
    local = sum(
        padded[..., upper + 1 + down, left + 1 + right] * (fx if right else 1 - fx) * (fy if down else 1 - fy)
        for down in (0, 1)
        for right in (0, 1)
    )  # (B, L, D, V)
    z = (1 - folded.scale) * local + folded.scale * tokens[..., H * W].astype(np.float64)[..., None]
    mixed = np.einsum("bldv,vl->bdv", z, folded.layer_weights)
    return np.einsum("bdv,vd->bv", mixed, folded.weight) / folded.weight.shape[1] + folded.bias


@pytest.fixture(params=["C++", "NumPy"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "NumPy":
        monkeypatch.setattr(readout, "_C", None)
    return str(request.param)


def draw_tokens(case: str, batch: int, members: int = 1) -> np.ndarray:
    (H, W), L, D, _ = CASES[case]
    return np.random.default_rng(4).standard_normal((batch, L, members * D, H * W + 1)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_vertices_are_those_of_the_definition(case: str, batch: int, how: str, tmp_path: Path) -> None:
    folded = folded_of(case)
    info = write_file(tmp_path / "e.onnx", [folded])
    tokens = draw_tokens(case, batch)
    every = np.arange(len(folded.bias))
    found = readout.SubsetReadout(tmp_path / "e.onnx", info, every)(tokens)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, definition(folded, tokens), atol=3e-6, rtol=3e-6)


@pytest.mark.parametrize("columns", [[7], [3, 1, 2], list(range(0, 500, 7)), [499, 0], []])
def test_a_subset_comes_in_the_order_asked_for(columns: list[int], how: str, tmp_path: Path) -> None:
    info = write_file(tmp_path / "e.onnx", [folded_of("many")])
    tokens = draw_tokens("many", 2)
    whole = readout.SubsetReadout(tmp_path / "e.onnx", info, np.arange(500))(tokens)
    found = readout.SubsetReadout(tmp_path / "e.onnx", info, np.array(columns, int))(tokens)
    assert found.shape == (2, len(columns))
    np.testing.assert_allclose(found, whole[:, columns], atol=1e-6)


def test_no_images(how: str, tmp_path: Path) -> None:
    info = write_file(tmp_path / "e.onnx", [folded_of("many")])
    found = readout.SubsetReadout(tmp_path / "e.onnx", info, np.array([1, 2]))(draw_tokens("many", 0))
    assert found.shape == (0, 2)


def test_half_precision_storage_is_read_as_it_is(how: str, tmp_path: Path) -> None:
    folded = folded_of("many")
    info = write_file(tmp_path / "e.onnx", [folded], dtype=np.float16)
    tokens = draw_tokens("many", 2)
    found = readout.SubsetReadout(tmp_path / "e.onnx", info, np.arange(500))(tokens)
    difference = np.abs(found - definition(folded, tokens)).max()
    assert 1e-5 < difference < 5e-3  # rounded, and no more than that


def test_an_ensemble_is_the_mean_of_its_members(how: str, tmp_path: Path) -> None:
    members = [folded_of("edges", seed) for seed in (1, 2, 3)]
    info = write_file(tmp_path / "e.onnx", members)
    tokens = draw_tokens("edges", 2, members=3)
    columns = np.array([4, 40, 2])
    subset = readout.SubsetReadout(tmp_path / "e.onnx", info, columns)
    expected = np.stack(
        [definition(m, part)[:, columns] for m, part in zip(members, np.split(tokens, 3, 2), strict=True)]
    )
    np.testing.assert_allclose(subset.members(tokens), expected, atol=3e-6)
    np.testing.assert_allclose(subset(tokens), expected.mean(0), atol=3e-6)


def test_the_same_bits_for_every_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = write_file(tmp_path / "e.onnx", [folded_of("many")])
    tokens = draw_tokens("many", 3)
    subset = readout.SubsetReadout(tmp_path / "e.onnx", info, np.arange(500))
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(readout, "cores", lambda threads=threads: threads)
        found.append(subset(tokens).tobytes())
    assert len(set(found)) == 1


def test_a_nan_token_reaches_only_the_vertices_that_read_it(how: str, tmp_path: Path) -> None:
    folded = folded_of("many")
    info = write_file(tmp_path / "e.onnx", [folded])
    tokens = draw_tokens("many", 1)
    tokens[0, 0, 0, 9] = np.nan
    found = readout.SubsetReadout(tmp_path / "e.onnx", info, np.arange(500))(tokens)
    reads = np.isnan(definition(folded, tokens)[0])
    assert 0 < reads.sum() < 500
    np.testing.assert_array_equal(np.isnan(found[0]), reads)


def test_arrays_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    info = write_file(path, [folded_of("many")])

    def refused(match: str) -> None:
        with pytest.raises(EncoderFileError, match=match) as caught:
            readout.SubsetReadout(path, info, np.array([0]))
        assert "\n" not in str(caught.value)

    whole = onnx.load(path)
    positions = {tensor.name: index for index, tensor in enumerate(whole.graph.initializer)}

    def changed(name: str, array: np.ndarray | None) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        if array is None:
            del model.graph.initializer[positions[name]]
        else:
            model.graph.initializer[positions[name]].CopyFrom(numpy_helper.from_array(array, name))
        path.write_bytes(model.SerializeToString())

    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    for name in ("cells", "order", "counts"):
        array = stored[f"readout.{name}"].copy()
        array.flat[0] = 1 << 40
        changed(f"readout.{name}", array)
        refused("do not fit")
        array.flat[0] = -1
        changed(f"readout.{name}", array)
        refused("do not fit")
    changed("readout.weight", stored["readout.weight"][:, :-1])
    refused("do not fit")
    changed("readout.bias", stored["readout.bias"].astype(np.float64))
    refused("readout.bias must be <f4, found <f8")
    changed("readout.order", None)
    refused(r"expected the readout's array readout\.order, found none")
    changed("readout.weight", None)
    refused(r"expected the readout's arrays \(readout\.weight \.\.\.\), found none")
    changed("readout.bias", stored["readout.bias"])
    assert readout.SubsetReadout(path, info, np.array([0]))(draw_tokens("many", 1)).shape == (1, 1)


# --- the binding ------------------------------------------------------------------------------------------------


def arguments(dtype: type = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.standard_normal((2, 3, 4, 10)).astype(dtype),
        "weight": rng.standard_normal((6, 4)).astype(dtype),
        "coefficients": rng.standard_normal((6, 5, 3)).astype(dtype),
        "bias": rng.standard_normal(6).astype(dtype),
        "taps": np.array([[0, 1, 3, 4, 9], [4, 5, 7, 8, 9]]),
        "starts": np.array([0, 2, 6]),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_binding_computes_its_definition(dtype: type) -> None:
    given = arguments(dtype)
    taps = np.repeat(given["taps"], np.diff(given["starts"]), 0)
    expected = (
        np.einsum("bldik,id,ikl->bi", given["tokens"][..., taps], given["weight"], given["coefficients"])
        + given["bias"]
    )
    found = _C.token_readout(**given)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("taps", np.array([[0, 1, 3, 4, 9], [4, 5, 7, 8, 10]]), r"taps must lie in 0\.\.9, got 10"),
        ("taps", np.array([[0, -1, 3, 4, 9], [4, 5, 7, 8, 9]]), r"taps must lie in 0\.\.9, got -1"),
        ("starts", np.array([0, 2, 7]), "starts must rise from 0 to the number of rows, 6"),
        ("starts", np.array([1, 2, 6]), "starts must rise"),
        ("starts", np.array([0, 8, 6]), "starts must rise"),
        ("starts", np.array([0, 6]), r"starts must have shape \(3\), got \(2\)"),
        ("weight", np.zeros((6, 5), np.float32), r"weight must have shape \(6, 4\), got \(6, 5\)"),
        ("coefficients", np.zeros((6, 4, 3), np.float32), r"coefficients must have shape"),
        ("bias", np.zeros(5, np.float32), r"bias must have shape"),
        ("threads", 0, "threads must be at least 1"),
    ],
)
def test_the_binding_refuses_what_would_read_elsewhere(name: str, value: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        _C.token_readout(**{**arguments(), name: value})


def test_the_binding_copies_nothing_in_silence() -> None:
    for name in ("tokens", "weight", "coefficients", "bias"):
        with pytest.raises(TypeError):
            _C.token_readout(**{**arguments(), name: arguments(np.float64)[name]})
