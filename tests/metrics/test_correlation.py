"""The streaming correlation, for arrays and tensors, against numpy and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from brainkit.errors import UsageError
from brainkit.metrics.correlation import StreamingCorrelation

KINDS = ["numpy", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def pair(n: int = 83, vertices: int = 7) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    response = random.normal(size=(n, vertices))
    return response * random.uniform(0, 1, vertices) + random.normal(size=(n, vertices)), response


def empty(kind: str, vertices: int = 7, dtype: torch.dtype = torch.float64) -> StreamingCorrelation:
    return StreamingCorrelation(vertices, None if kind == "numpy" else torch.zeros(vertices, dtype=dtype, device=kind))


def of(kind: str, values: np.ndarray) -> Any:
    return values if kind == "numpy" else torch.from_numpy(values).to(kind)


def numbers(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def streamed(prediction: np.ndarray, response: np.ndarray, sizes: list[int], kind: str = "numpy") -> Any:
    score = empty(kind, prediction.shape[1])
    ends = np.cumsum(sizes)
    for start, end in zip([0, *ends], ends, strict=False):
        score.update(of(kind, prediction[start:end]), of(kind, response[start:end]))
    assert score.n == len(prediction) == ends[-1]
    return score


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[83], [1] * 83, [40, 43], [1, 0, 80, 2], [32, 32, 19]])
def test_equals_numpy_and_scikit_learn(sizes: list[int], kind: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    prediction, response = pair()
    score = streamed(prediction, response, sizes, kind)
    expected = [np.corrcoef(prediction[:, v], response[:, v])[0, 1] for v in range(7)]
    np.testing.assert_allclose(numbers(score.r), expected, rtol=1e-12)
    r2 = sklearn.r2_score(response, prediction, multioutput="raw_values")
    np.testing.assert_allclose(numbers(score.R2), r2, rtol=1e-12, atol=1e-13)


def test_does_not_depend_on_the_order_of_rows() -> None:
    prediction, response = pair()
    response[0] += 50  # an extreme first row is the hard case for shifted sums
    order = np.random.default_rng(1).permutation(len(response))
    one = streamed(prediction, response, [10, 73])
    other = streamed(prediction[order], response[order], [50, 33])
    np.testing.assert_allclose(one.r, other.r, rtol=1e-11)
    np.testing.assert_allclose(one.R2, other.R2, rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1e6, -1e9])
def test_large_offsets_do_no_harm(offset: float, kind: str) -> None:
    prediction, response = pair(n=500)
    plain = streamed(prediction, response, [250, 250])
    shifted = streamed(prediction + offset, response + offset, [32] * 15 + [20], kind)
    # The inputs themselves lose digits when the offset is added: 1e9 keeps 1e-7 of a unit.
    np.testing.assert_allclose(numbers(shifted.r), plain.r, atol=1e-6)
    np.testing.assert_allclose(numbers(shifted.R2), plain.R2, atol=1e-6)


def test_float32_state() -> None:
    prediction, response = pair(n=500)
    score = empty("cpu", dtype=torch.float32)
    for rows in np.split(np.arange(500), [3, 100, 333]):
        score.update(torch.from_numpy(prediction[rows] + 1e3), torch.from_numpy(response[rows] - 1e3))
    assert score.r.dtype == torch.float32
    np.testing.assert_allclose(score.r.numpy(), streamed(prediction, response, [500]).r, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e7 / 3])
def test_constant_columns_have_no_correlation(constant: float, kind: str) -> None:
    prediction, response = pair()
    prediction[:, 0] = constant
    response[:, 1] = constant
    score = streamed(prediction, response, [3, 7, 73], kind)
    assert np.isnan(numbers(score.r)).tolist() == [True, True] + [False] * 5
    assert np.isnan(numbers(score.R2)).tolist() == [False, True] + [False] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_stays_in_its_vertex(kind: str) -> None:
    prediction, response = pair()
    clean = streamed(prediction, response, [40, 43], kind)
    prediction[50, 2] = np.nan
    response[3, 4] = np.inf
    score = streamed(prediction, response, [40, 43], kind)
    assert np.isnan(numbers(score.r)[[2, 4]]).all()
    assert np.isnan(numbers(score.R2)[2])
    others = [0, 1, 3, 5, 6]
    np.testing.assert_array_equal(numbers(score.r)[others], numbers(clean.r)[others])


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_scores_one_and_never_more(kind: str) -> None:
    response = pair(n=1000)[1].astype(np.float32)
    score = streamed(response, response, [100] * 10, kind)
    np.testing.assert_allclose(numbers(score.r), 1, atol=1e-14)
    assert (numbers(score.r) <= 1).all()
    assert (numbers(score.R2) == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_several_processes_merge(kind: str) -> None:
    prediction, response = pair()
    response += 1e4
    whole = streamed(prediction, response, [83])
    parts = [streamed(prediction[rows], response[rows], [len(rows)], kind) for rows in np.split(np.arange(83), [1, 50])]
    arrays = [part.to_array() for part in (parts[0], empty(kind), *parts[1:])]
    assert arrays[0].shape == (9, 7)
    merged, other = StreamingCorrelation.from_array(arrays[1]), empty(kind)
    for array in (arrays[0], *arrays[2:]):
        merged.merge_array(array)
    for part in parts:
        other.merge(part)
    assert merged.n == other.n == 83
    np.testing.assert_array_equal(numbers(merged.r), numbers(other.r))
    np.testing.assert_allclose(numbers(merged.r), whole.r, rtol=1e-11)
    np.testing.assert_allclose(numbers(merged.R2), whole.R2, rtol=1e-9)
    copied = StreamingCorrelation.from_array(merged.to_array())
    np.testing.assert_array_equal(numbers(copied.r), numbers(merged.r))
    np.testing.assert_array_equal(numbers(parts[0].to_array()), numbers(arrays[0]))  # merging changes no argument


def test_the_state_shares_no_memory_with_its_batches() -> None:
    prediction, response = (torch.from_numpy(values) for values in pair())
    score = empty("cpu")
    score.update(prediction[:40].requires_grad_(), response[:40])
    before = score.r.clone()
    assert not score.r.requires_grad
    with torch.no_grad():
        prediction.zero_()
    score.update(torch.zeros(0, 7), torch.zeros(0, 7))
    torch.testing.assert_close(score.r, before, rtol=0, atol=0)
    score.update(torch.from_numpy(pair()[0][40:]), response[40:])
    np.testing.assert_allclose(score.r.numpy(), streamed(*pair(), [83]).r, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_data_and_wrong_shapes(kind: str) -> None:
    score = empty(kind, 3)
    assert np.isnan(numbers(score.r)).all()
    assert np.isnan(numbers(score.R2)).all()
    score.update(of(kind, np.zeros((0, 3))), of(kind, np.zeros((0, 3))))
    assert score.n == 0
    with pytest.raises(UsageError, match=r"\(b, 3\)"):
        score.update(of(kind, np.zeros((2, 3))), of(kind, np.zeros((2, 4))))
    with pytest.raises(UsageError, match=r"\(b, 3\)"):
        score.update(of(kind, np.zeros((3,))), of(kind, np.zeros((3,))))
    with pytest.raises(UsageError, match=r"\(3,\)"):
        StreamingCorrelation(3, np.zeros(4))
