"""Every implementation of the operator against the reference in float64: outputs and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import CASES, NAMES, Case

from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import available_backends, factor_readout

# Backends for float64 on the CPU. The Triton kernels have their own tests.
HERE = [name for name, reason in available_backends().items() if reason is None and name not in ("reference", "triton")]
needs_cpp = pytest.mark.skipif(
    available_backends()["cpu"] is not None, reason=f"the C++ extension: {available_backends()['cpu']}"
)


def run(backend, inputs, grad=None):
    """Output and the seven gradients, in float64."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = factor_readout(*inputs, backend=backend)
    if grad is None:
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(grad.to(out.dtype))
    return out.detach().double(), [tensor.grad.double() for tensor in inputs]


def relative(value, truth):
    scale = truth.square().mean().sqrt().clamp(min=1e-30)
    return ((value - truth).abs().max() / scale).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("backend", HERE)
def test_matches_reference(backend, case, dtype):
    inputs = case.inputs(dtype)
    # The reference gets the same (rounded) numbers, in float64.
    out, grads = run("reference", [tensor.double() for tensor in inputs])
    got, got_grads = run(backend, inputs)
    # float32 sums of a few thousand terms: rms errors are near 1e-6, the largest of many thousands a little more
    bound, grad_bound = (1e-12, 1e-11) if dtype == torch.float64 else (1e-5, 5e-5)
    assert relative(got, out) < bound
    for name, value, truth in zip(NAMES, got_grads, grads, strict=True):
        if name == "locations" and case.where == "exact":
            continue  # on a cell's edge the gradient is one-sided, and both sides are right
        assert relative(value, truth) < grad_bound, name


@needs_cpp
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_loses_little(case):
    inputs = case.inputs(torch.float32)
    out, grads = run("reference", [tensor.double() for tensor in inputs])
    got, got_grads = run("cpu", inputs)
    assert ((got - out).square().mean() / out.square().mean()).sqrt() < 2e-6
    for name, value, truth in zip(NAMES, got_grads, grads, strict=True):
        if name == "locations" and case.where == "exact":
            continue
        assert (value - truth).square().mean().sqrt() <= 1e-5 * truth.square().mean().sqrt(), name


@needs_cpp
def test_the_number_of_threads_changes_no_gradient():
    inputs = Case("many", images=3, layers=5, channels=70, vertices=900).inputs(torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(run("cpu", inputs))
    finally:
        torch.set_num_threads(before)
    for out, grads in found[1:]:
        assert torch.equal(out, found[0][0])
        for name, grad, alone in zip(NAMES, grads, found[0][1], strict=True):
            assert torch.equal(grad, alone), name


@pytest.mark.parametrize("backend", HERE)
def test_gradcheck(backend):
    inputs = [t.requires_grad_() for t in Case("small", channels=3, height=3, width=4, vertices=5).inputs()]
    assert torch.autograd.gradcheck(lambda *x: factor_readout(*x, backend=backend), inputs)


@needs_cpp
def test_custom_op_is_well_formed():
    from brainkit.ops.factor_readout import _cpu_operator

    inputs = [t.requires_grad_() for t in Case("small", channels=3, height=3, width=4, vertices=5).inputs()]
    torch.library.opcheck(_cpu_operator, (*inputs, "float32"))


@pytest.mark.parametrize("backend", ["reference", *HERE])
def test_strided_inputs(backend):
    inputs = Case("plain").inputs()
    local = inputs[0].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    strided = [local, *(torch.stack([x, x], -1)[..., 0] for x in inputs[1:])]
    assert not any(x.is_contiguous() for x in strided if x.numel() > 1)
    torch.testing.assert_close(factor_readout(*strided, backend=backend), factor_readout(*inputs, backend=backend))


@pytest.mark.parametrize("backend", ["reference", *HERE])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_numbers_stay_in_their_place(backend, value):
    clean = Case("plain").inputs()
    base = factor_readout(*clean, backend=backend)

    def changed(index, place):
        inputs = [tensor.clone() for tensor in clean]
        inputs[index][place] = value
        return ~torch.isclose(factor_readout(*inputs, backend=backend), base).nan_to_num(False)

    # a location: its vertex is NaN for every image, and no other vertex
    inputs = [tensor.clone() for tensor in clean]
    inputs[2][5, 0] = value
    out = factor_readout(*inputs, backend=backend)
    assert out[:, 5].isnan().all() and torch.equal(out.isnan().sum(1), torch.ones(2, dtype=torch.long))
    torch.testing.assert_close(out[:, :5], base[:, :5])
    # a weight, a bias, a scale: that vertex only
    for index in (5, 6, 4):
        hit = changed(index, (7, 0) if index == 5 else 7)
        assert hit[:, 7].all() and hit.sum() == 2
    # a global token: that image only
    hit = changed(1, (1, 0, 0))
    assert hit[1].all() and not hit[0].any()
    # a local token: that image's vertices with a tap on that cell only
    hit = changed(0, (0, 1, 2, 3, 4))
    position = (clean[2] + 1) * 4 - 0.5
    near = ((position - torch.tensor([4.0, 3.0])).abs() < 1).all(-1)
    assert not hit[1].any() and torch.equal(hit[0], near)


@pytest.mark.parametrize("backend", ["reference", *HERE])
def test_a_vertex_without_location_has_no_gradient(backend):
    inputs = Case("plain").inputs()
    inputs[2][5] = float("nan")
    _, grads = run(backend, inputs)
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[5][5] == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 4),
    layers=st.integers(1, 5),
    channels=st.integers(1, 20),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    vertices=st.integers(1, 90),
    where=st.sampled_from(["spread", "border", "beyond", "centre", "corner"]),
    seed=st.integers(0, 2**16),
)
def test_any_size(images, layers, channels, height, width, vertices, where, seed):
    inputs = Case("any", images, layers, channels, height, width, vertices, where).inputs(seed=seed)
    out, grads = run("reference", inputs)
    for backend in HERE:
        got, got_grads = run(backend, inputs)
        assert torch.allclose(got, out, atol=1e-11)
        for value, truth in zip(got_grads, grads, strict=True):
            assert torch.allclose(value, truth, atol=1e-9)


@pytest.mark.parametrize("backend", ["reference", *HERE])
def test_deterministic(backend):
    inputs = Case("plain", vertices=500).inputs(torch.float32)
    first, second = run(backend, inputs), run(backend, inputs)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda x: x[0], r"^local_tokens .*\(3, 8, 8, 8\)"),
        (1, lambda x: x[:, :2], r"^global_tokens .*\(2, 3, 8\), got shape \(2, 2, 8\)"),
        (2, lambda x: x[:, :1], r"^locations .*\(63, 1\)"),
        (3, lambda x: x[:5], r"^layer_weights .*\(63, 3\), got shape \(5, 3\)"),
        (4, lambda x: x[:, None], r"^scale .*\(63, 1\)"),
        (5, lambda x: x[:, :3], r"^weight .*\(63, 3\)"),
        (6, lambda x: x[:3], r"^bias .*\(3,\)"),
        (6, lambda x: x.int(), "^bias .*torch.int32"),
        (5, lambda x: x.float(), "^weight .*torch.float64 .*torch.float32"),
        (4, lambda x: x.to("meta"), "^scale .*cpu .*meta"),
        (2, lambda x: x[:0], r"vertices \(V\)"),
        (0, lambda x: x[:0], r"images \(B\)"),
    ],
)
def test_wrong_arguments_are_named(index, change, message):
    inputs = Case("plain").inputs()
    inputs[index] = change(inputs[index])
    with pytest.raises(UsageError, match=message):
        factor_readout(*inputs)


def test_unknown_and_missing_backends_are_refused():
    inputs = Case("plain").inputs()
    with pytest.raises(UsageError, match=r"^backend .*'magic'"):
        factor_readout(*inputs, backend="magic")
    for name, reason in available_backends().items():
        if reason is not None:
            with pytest.raises(BrainkitError, match=f"backend '{name}' cannot run here"):
                factor_readout(*inputs, backend=name)
