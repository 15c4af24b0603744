"""The selector networks in C++ against plain torch in float64: results, gradients, the same bits, refusals."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
import torch
from selector_cases import RESULTS, WEIGHTS, Case, reference, relative_errors, run
from torch import Tensor

from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import selector_networks
from brainkit.ops.selector_networks import available_backends

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
missing = available_backends()["cpu"]
needs_cpp = pytest.mark.skipif(missing is not None, reason=f"the C++ extension: {missing}")

CASES = [
    Case(),
    Case(vertices=1),
    Case(vertices=1, features=1, hidden=1, layers=1),
    Case(vertices=63, features=1, hidden=8, layers=1),
    Case(vertices=96, features=6, hidden=64),
    Case(vertices=97, features=7, hidden=65, layers=40),
    Case(vertices=1000, features=72, hidden=128, layers=12),
    Case(vertices=63, features=192, hidden=100, layers=12),
    Case(vertices=1000, features=192, hidden=8, layers=40),
    Case(vertices=3000, features=33, hidden=20, layers=3),
    Case(vertices=500, size=20.0),
]


# --- against the reference --------------------------------------------------------------------------------------


@needs_cpp
@DTYPES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_reference(case, dtype):
    errors = relative_errors(run(case.inputs(dtype), case.grads(dtype), "cpu"), reference(case, dtype))
    bound, grad_bound = (1e-11, 1e-11) if dtype == torch.float64 else (2e-6, 1e-5)
    assert {name: error for name, error in errors.items() if error > (bound if name in RESULTS else grad_bound)} == {}


@needs_cpp
@DTYPES
def test_gelu_and_its_slope_are_exact_to_rounding(dtype):
    far = torch.logspace(-20, 20, 81)
    x = torch.cat([torch.linspace(-14, 14, 801), far, -far]).to(dtype)
    h, tiny = len(x), 2.0**-100
    # One vertex whose first sums are x. The second layer adds all units to one large number, where GELU is linear; the
    # head scales it down to where tanh is linear. So the gradient of every unit is 1.
    second = torch.zeros(3, h, h, dtype=dtype)
    second[0, 0] = 1
    head = torch.zeros(2, h, dtype=dtype)
    head[0, 0] = tiny
    biases, heads = torch.zeros(2, 3, h, dtype=dtype), torch.zeros(2, 1, h, dtype=dtype)
    weights = [x.expand(3, h)[..., None].contiguous(), biases[0], second, biases[1], head, *heads]
    weights = [weight.requires_grad_() for weight in weights]
    locations, _, _ = selector_networks(torch.ones(1, 1, dtype=dtype), *weights, backend="cpu")
    grads = torch.autograd.grad(locations[0, 0] / tiny, weights)
    slopes, values = grads[0][0, :, 0].double(), grads[2][0, 0].double()

    exact = x.double().requires_grad_()
    expected = exact * 0.5 * torch.special.erfc(-exact * 0.5**0.5)  # GELU by its definition, accurate in the tail
    (expected_slopes,) = torch.autograd.grad(expected.sum(), exact)
    unit = torch.finfo(dtype).eps
    assert ((values - expected).abs() <= unit * exact.abs().clamp(min=1)).all()
    assert ((slopes - expected_slopes).abs() <= 2 * unit).all()
    tail = (exact > -8) & (exact < -1)
    assert ((values - expected).abs() <= 1e-5 * expected.abs())[tail].all()


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_cpp)])
@DTYPES
def test_extreme_sums_saturate(backend, dtype):
    case = Case(size=1e4)
    locations, layer_weights, scale, *grads = run(case.inputs(dtype), case.grads(dtype), backend)
    assert (locations.abs() <= 1).all()
    assert ((layer_weights >= 0) & (layer_weights <= 1)).all()
    torch.testing.assert_close(layer_weights.sum(-1), torch.ones(200, dtype=dtype), rtol=0, atol=1e-6)
    assert ((scale >= 0) & (scale <= 1)).all()
    assert all(grad.isfinite().all() for grad in grads)
    if dtype == torch.float64:
        truth = reference(case)
        for value, true in zip((locations, layer_weights, scale), truth[:3], strict=True):
            torch.testing.assert_close(value, true, rtol=0, atol=1e-9)


@needs_cpp
@DTYPES
@pytest.mark.parametrize("hidden", [16, 21])
def test_nan_and_infinity_stay_in_their_vertex(hidden, dtype):
    inputs = Case(vertices=120, hidden=hidden).inputs(dtype)
    clean = selector_networks(*inputs, backend="cpu")
    inputs[0][7, 3], inputs[0][50, 0], inputs[0][119, 1] = torch.nan, torch.inf, -torch.inf
    found = selector_networks(*inputs, backend="cpu")
    truth = selector_networks(*inputs, backend="reference")
    others = torch.tensor([v for v in range(120) if v not in (7, 50, 119)])
    for value, before, true in zip(found, clean, truth, strict=True):
        assert torch.equal(value[others], before[others])
        assert value[7].isnan().all()
        assert torch.equal(value.isnan(), true.isnan())


@needs_cpp
def test_infinite_features_give_the_results_of_float64():
    one = torch.ones(3, 1, 1)
    weights = [one, torch.zeros(3, 1), one, torch.zeros(3, 1), torch.ones(2, 1), torch.ones(2, 1), torch.ones(1, 1)]
    features = torch.tensor([[torch.inf], [-torch.inf], [3e38], [-3e38], [0.0]])
    found = selector_networks(features, *weights, backend="cpu")
    truth = selector_networks(*(tensor.double() for tensor in (features, *weights)), backend="reference")
    for value, true in zip(found, truth, strict=True):
        torch.testing.assert_close(value.double(), true, equal_nan=True, rtol=0, atol=1e-6)


# --- the same bits ----------------------------------------------------------------------------------------------


@needs_cpp
@DTYPES
def test_threads_and_kept_results_change_no_bit(dtype, monkeypatch):
    case = Case(vertices=2500, hidden=40)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, kept in ((1, True), (1, False), (2, True), (3, False), (7, True), (7, True)):
            monkeypatch.setattr(sys.modules["brainkit.ops.selector_networks"], "KEPT_BYTES", 2**30 if kept else 0)
            torch.set_num_threads(threads)
            found.append(run(case.inputs(dtype), case.grads(dtype), "cpu"))
    finally:
        torch.set_num_threads(before)
    for again in found[1:]:
        for name, one, other in zip((*RESULTS, *WEIGHTS), found[0], again, strict=True):
            assert torch.equal(one, other), name


@needs_cpp
def test_memory_of_kept_results_is_reused():
    from brainkit.ops import cpu

    inputs = Case(vertices=5000, hidden=40).inputs(torch.float32)
    first = cpu.networks_forward(*inputs, keep=True)[3]
    second = cpu.networks_forward(*inputs, keep=True)[3]
    assert first.shape == (3, 5000, 2, cpu.kept_width(40))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    address = first.data_ptr()
    del first
    assert cpu.networks_forward(*inputs, keep=True)[3].data_ptr() == address
    assert cpu.networks_forward(*inputs, keep=False)[3].numel() == 0


# --- autograd ---------------------------------------------------------------------------------------------------


@needs_cpp
@pytest.mark.parametrize("keep", [True, False])
def test_custom_op_is_well_formed(keep):
    from brainkit.ops.selector_networks import _cpu_backward, _cpu_networks

    features, *weights = Case(vertices=5, features=3, hidden=4, layers=3).inputs()
    inputs = (features, *(weight.requires_grad_() for weight in weights))
    torch.library.opcheck(_cpu_networks, (*inputs, keep))
    constants = [tensor.detach() for tensor in (*inputs, *_cpu_networks(*inputs, keep))]
    grads = [torch.ones_like(result) for result in constants[8:11]]
    torch.library.opcheck(_cpu_backward, (*grads, *constants))


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_cpp)])
def test_gradcheck(backend):
    features, *weights = Case(vertices=5, features=3, hidden=4, layers=3).inputs()
    weights = [weight.requires_grad_() for weight in weights]
    assert torch.autograd.gradcheck(partial(selector_networks, features, backend=backend), weights)


@needs_cpp
def test_a_single_result_can_be_differentiated():
    inputs = Case().inputs()
    found = []
    for backend in ("cpu", "reference"):
        weights = [weight.clone().requires_grad_() for weight in inputs[1:]]
        scale = selector_networks(inputs[0], *weights, backend=backend)[2]
        found.append(torch.autograd.grad(scale.sum(), weights[:4]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@needs_cpp
def test_non_contiguous_weights():
    inputs = Case().inputs()
    expected = selector_networks(*inputs, backend="cpu")
    strided = [tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor for tensor in inputs]
    for one, other in zip(selector_networks(*strided, backend="cpu"), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_cpp)])
def test_autocast_changes_nothing(backend):
    inputs = Case().inputs(torch.float32)
    expected = selector_networks(*inputs, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = selector_networks(*inputs, backend=backend)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# --- arguments --------------------------------------------------------------------------------------------------


def replaced(index: int, change) -> list[Tensor]:
    inputs = Case().inputs()
    inputs[index] = change(inputs[index])
    return inputs


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda x: x[0], r"^features .*\(20,\)"),
        (0, lambda x: x[:0], r"vertices \(V\)"),
        (0, lambda x: x[:, :0], r"features \(F\)"),
        (0, lambda x: x.requires_grad_(), "^features .*gradient"),
        (0, lambda x: x.half(), "^features .*torch.float16"),
        (1, lambda x: x[:, :, 1:], r"^hidden_weight .*\(3, 24, 20\), got shape \(3, 24, 19\)"),
        (1, lambda x: x.float(), "^hidden_weight .*torch.float64 .*torch.float32"),
        (1, lambda x: x.long(), "^hidden_weight .*torch.int64"),
        (1, lambda x: x.to("meta"), "^hidden_weight .*cpu .*meta"),
        (2, lambda x: x[0], r"^hidden_bias .*\(24,\)"),
        (2, lambda x: x[:2], r"^hidden_bias .*\(3, 24\), got shape \(2, 24\)"),
        (3, lambda x: x[:, 1:], r"^second_weight .*\(3, 24, 24\), got shape \(3, 23, 24\)"),
        (4, lambda x: x[:, 1:], r"^second_bias .*\(3, 24\), got shape \(3, 23\)"),
        (5, lambda x: x[:1], r"^location_head .*\(2, 24\), got shape \(1, 24\)"),
        (6, lambda x: x[:0], r"layers \(L\)"),
        (6, lambda x: x[:, 1:], r"^layer_head .*\(5, 24\), got shape \(5, 23\)"),
        (7, lambda x: x[0], r"^scale_head .*\(1, 24\), got shape \(24,\)"),
    ],
)
def test_wrong_arguments_are_named(index, change, message):
    with pytest.raises(UsageError, match=message) as refusal:
        selector_networks(*replaced(index, change))
    assert "\n" not in str(refusal.value)


def test_unknown_and_missing_backends_are_refused(monkeypatch):
    inputs = Case().inputs()
    with pytest.raises(UsageError, match=r"^backend .*'gpu'"):
        selector_networks(*inputs, backend="gpu")
    monkeypatch.setattr("brainkit.ops.cpu._missing", ImportError("not built"))
    with pytest.raises(BrainkitError, match=r"^backend 'cpu' cannot run here"):
        selector_networks(*inputs, backend="cpu")
    expected = selector_networks(*inputs, backend="reference")
    for one, other in zip(selector_networks(*inputs), expected, strict=True):
        assert torch.equal(one, other)


@needs_cpp
def test_the_extension_checks_shapes_itself():
    from brainkit import _C

    arrays = [tensor.numpy() for tensor in Case().inputs()]
    results = _C.selector_networks_forward(*arrays, threads=1, keep=True)
    grads = [np.zeros_like(result) for result in results[:3]]
    for i in range(len(arrays)):
        for change in (lambda a: a[..., :0], lambda a: a[None], lambda a: np.repeat(a, 2, axis=-1)):
            wrong = [*arrays[:i], np.ascontiguousarray(change(arrays[i])), *arrays[i + 1 :]]
            with pytest.raises(ValueError, match="must"):
                _C.selector_networks_forward(*wrong)
            with pytest.raises(ValueError, match="must"):
                _C.selector_networks_backward(*grads, *wrong, *results)
    with pytest.raises(ValueError, match=r"^kept .*\(3, 200, 2, 32\), got \(3, 200, 2, 16\)"):
        _C.selector_networks_backward(*grads, *arrays, *results[:3], np.zeros((3, 200, 2, 16)))
    with pytest.raises(ValueError, match=r"^threads "):
        _C.selector_networks_forward(*arrays, threads=0)
    with pytest.raises(TypeError):
        _C.selector_networks_forward(arrays[0].astype("float32"), *arrays[1:])
