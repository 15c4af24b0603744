"""The selectors' networks: the C++ path against plain torch in float64, and the factored encoding they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import selector_networks
from brainkit.ops.selector_networks import available_backends

NAMES = (
    "hidden_weight",
    "hidden_bias",
    "second_weight",
    "second_bias",
    "location_head",
    "layer_head",
    "scale_head",
)
RESULTS = ("locations", "layer_weights", "scale")
missing = available_backends()["cpu"]
needs_cpp = pytest.mark.skipif(missing is not None, reason=f"the C++ extension: {missing}")


@dataclass(frozen=True)
class Case:
    """V vertices, F features, H hidden units, L layers; the size of what enters the first GELU."""

    vertices: int = 200
    features: int = 20
    hidden: int = 24
    layers: int = 5
    size: float = 2.0

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(*shape, generator=draw, dtype=torch.float64)).to(dtype)

        f, h = self.features, self.hidden
        return [
            normal(self.vertices, f),
            normal(3, h, f, scale=self.size * f**-0.5),
            normal(3, h, scale=0.5 * self.size),
            normal(3, h, h, scale=1.5 * h**-0.5),
            normal(3, h),
            normal(2, h, scale=h**-0.5),
            normal(self.layers, h, scale=h**-0.5),
            normal(1, h, scale=h**-0.5),
        ]


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


def run(inputs: list[Tensor], backend: str, to: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Results and the seven gradients, in float64, under gradients drawn in the inputs' dtype."""
    features, *weights = (tensor.detach().to(to) for tensor in inputs)
    weights = [weight.requires_grad_() for weight in weights]
    results = selector_networks(features, *weights, backend=backend)
    draw = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=draw).to(inputs[0].dtype).to(to) for result in results]
    found = torch.autograd.grad(results, weights, grads)
    return [result.detach().double() for result in results], [grad.double() for grad in found]


def loss_of_digits(value: Tensor, truth: Tensor) -> float:
    """rms of the error over rms of the truth; of the error alone where the truth is nothing but zeros."""
    error, size = (value - truth).square().mean().sqrt(), truth.square().mean().sqrt()
    return (error / size if size > 0 else error).item()


def assert_close(found: tuple[list[Tensor], list[Tensor]], truth: tuple[list[Tensor], list[Tensor]], dtype) -> None:
    bound, grad_bound = (1e-11, 1e-11) if dtype == torch.float64 else (2e-6, 1e-5)
    for name, value, true in zip(RESULTS, found[0], truth[0], strict=True):
        assert loss_of_digits(value, true) <= bound, name
    for name, value, true in zip(NAMES, found[1], truth[1], strict=True):
        assert loss_of_digits(value, true) <= grad_bound, name


# --- against the reference --------------------------------------------------------------------------------------


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_reference(case, dtype):
    inputs = case.inputs(dtype)
    assert_close(run(inputs, "cpu", dtype), run(inputs, "reference"), dtype)


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gelu_and_its_slope_are_exact_to_rounding(dtype):
    far = torch.logspace(-20, 20, 81)
    x = torch.cat([torch.linspace(-14, 14, 801), far, -far]).to(dtype)
    h, tiny = len(x), 2.0**-100
    # One vertex whose first sums are x. The second layer adds all units up to one that is large, where GELU is linear;
    # the head makes of it almost nothing, where tanh is. So the gradient that comes back to every unit is 1.
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
    expected = exact * 0.5 * torch.special.erfc(-exact * 0.5**0.5)  # as gelu is defined, and good in the tail too
    (expected_slopes,) = torch.autograd.grad(expected.sum(), exact)
    unit = torch.finfo(dtype).eps
    assert ((values - expected).abs() <= unit * exact.abs().clamp(min=1)).all()
    assert ((slopes - expected_slopes).abs() <= 2 * unit).all()
    tail = (exact > -8) & (exact < -1)
    assert ((values - expected).abs() <= 1e-5 * expected.abs())[tail].all()


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_cpp)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_extreme_sums_saturate(backend, dtype):
    inputs = Case(size=1e4).inputs(dtype)
    (locations, layer_weights, scale), grads = run(inputs, backend, dtype)
    assert (locations.abs() <= 1).all()
    assert ((layer_weights >= 0) & (layer_weights <= 1)).all()
    torch.testing.assert_close(layer_weights.sum(-1), torch.ones(200).double(), rtol=0, atol=1e-6)
    assert ((scale >= 0) & (scale <= 1)).all()
    assert all(grad.isfinite().all() for grad in grads)
    if dtype == torch.float64:
        truth = run(inputs, "reference")
        for value, true in zip((locations, layer_weights, scale), truth[0], strict=True):
            torch.testing.assert_close(value, true, rtol=0, atol=1e-9)


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("hidden", [16, 21])
def test_what_is_not_finite_stays_in_its_vertex(hidden, dtype):
    inputs = Case(vertices=120, hidden=hidden).inputs(dtype)
    clean = selector_networks(*inputs, backend="cpu")
    inputs[0][7, 3], inputs[0][50, 0], inputs[0][119, 1] = torch.nan, torch.inf, -torch.inf
    spoilt = [7, 50, 119]
    found = selector_networks(*inputs, backend="cpu")
    truth = selector_networks(*inputs, backend="reference")
    others = torch.tensor([v for v in range(120) if v not in spoilt])
    for value, before, true in zip(found, clean, truth, strict=True):
        assert torch.equal(value[others], before[others])
        assert value[7].isnan().all()
        assert torch.equal(value.isnan(), true.isnan())


@needs_cpp
def test_infinity_goes_through_as_in_float64():
    one = torch.ones(3, 1, 1)
    weights = [one, torch.zeros(3, 1), one, torch.zeros(3, 1), torch.ones(2, 1), torch.ones(2, 1), torch.ones(1, 1)]
    features = torch.tensor([[torch.inf], [-torch.inf], [3e38], [-3e38], [0.0]])
    found = selector_networks(features, *weights, backend="cpu")
    truth = selector_networks(*(tensor.double() for tensor in (features, *weights)), backend="reference")
    for value, true in zip(found, truth, strict=True):
        torch.testing.assert_close(value.double(), true, equal_nan=True, rtol=0, atol=1e-6)


# --- the same bits ----------------------------------------------------------------------------------------------


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_threads_and_what_is_kept_change_no_bit(dtype, monkeypatch):
    inputs = Case(vertices=2500, hidden=40).inputs(dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, kept in ((1, True), (1, False), (2, True), (3, False), (7, True), (7, True)):
            monkeypatch.setattr(sys.modules["brainkit.ops.selector_networks"], "KEPT_BYTES", 2**30 if kept else 0)
            torch.set_num_threads(threads)
            found.append([tensor for part in run(inputs, "cpu", dtype) for tensor in part])
    finally:
        torch.set_num_threads(before)
    for again in found[1:]:
        for name, one, other in zip((*RESULTS, *NAMES), found[0], again, strict=True):
            assert torch.equal(one, other), name


@needs_cpp
def test_what_is_kept_uses_its_memory_again():
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


@needs_cpp
@pytest.mark.parametrize("cpu", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_answer(cpu, tmp_path):
    script = """if True:
        import sys, torch
        from brainkit import _C
        from brainkit.ops import selector_networks
        try:
            name = _C.instruction_set()
        except RuntimeError as reason:
            sys.exit(f"skipped: {reason}")
        features, grads, weights = torch.load(sys.argv[1])
        results = selector_networks(features, *weights, backend="cpu")
        found = torch.autograd.grad(results, weights, grads)
        torch.save((name, [result.detach() for result in results], found), sys.argv[2])
    """
    inputs = Case(vertices=333, features=30, hidden=83, layers=7).inputs(torch.float32)
    # As run() draws them.
    draw = torch.Generator().manual_seed(1)
    grads = [torch.randn(shape, generator=draw) for shape in ((333, 2), (333, 7), (333,))]
    torch.save((inputs[0], grads, [weight.requires_grad_() for weight in inputs[1:]]), tmp_path / "in.pt")
    command = [sys.executable, "-c", script, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    done = subprocess.run(command, env={**os.environ, "BRAINKIT_CPU": cpu}, capture_output=True, text=True, timeout=120)
    if "skipped" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    name, results, found = torch.load(tmp_path / "out.pt")
    assert name == cpu
    exact = ([value.double() for value in part] for part in (results, found))
    assert_close(tuple(exact), run(inputs, "reference"), torch.float32)


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
def test_one_result_alone_can_be_differentiated():
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
def test_autocast_does_not_reach_them(backend):
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
        (0, lambda x: x[0], r"features must be \(V, F\), got shape \(20,\)"),
        (0, lambda x: x[:0], r"at least one of their vertices \(V\), got 0"),
        (0, lambda x: x[:, :0], r"at least one of their features \(F\), got 0"),
        (0, lambda x: x.requires_grad_(), "features must be constant, got a tensor that requires a gradient"),
        (0, lambda x: x.half(), "features must be float32 or float64, got torch.float16"),
        (1, lambda x: x[:, :, 1:], r"hidden_weight must be \(3, H, F\) = \(3, 24, 20\), got shape \(3, 24, 19\)"),
        (1, lambda x: x.float(), "hidden_weight must be torch.float64 as features, got torch.float32"),
        (1, lambda x: x.long(), "hidden_weight must be float32 or float64, got torch.int64"),
        (1, lambda x: x.to("meta"), "hidden_weight must be on cpu as features, got meta"),
        (2, lambda x: x[0], r"hidden_bias must be \(3, H\), got shape \(24,\)"),
        (2, lambda x: x[:2], r"hidden_bias must be \(3, H\) = \(3, 24\), got shape \(2, 24\)"),
        (3, lambda x: x[:, 1:], r"second_weight must be \(3, H, H\) = \(3, 24, 24\), got shape \(3, 23, 24\)"),
        (4, lambda x: x[:, 1:], r"second_bias must be \(3, H\)"),
        (5, lambda x: x[:1], r"location_head must be \(2, H\) = \(2, 24\), got shape \(1, 24\)"),
        (6, lambda x: x[:0], r"at least one of their layers \(L\), got 0"),
        (6, lambda x: x[:, 1:], r"layer_head must be \(L, H\) = \(5, 24\), got shape \(5, 23\)"),
        (7, lambda x: x[0], r"scale_head must be \(1, H\) = \(1, 24\), got shape \(24,\)"),
    ],
)
def test_bad_input_is_refused_in_one_line(index, change, message):
    with pytest.raises(UsageError, match=message) as refusal:
        selector_networks(*replaced(index, change))
    assert "\n" not in str(refusal.value)


def test_unknown_and_missing_backends_are_refused(monkeypatch):
    inputs = Case().inputs()
    with pytest.raises(UsageError, match="backend must be auto, reference, cpu, triton, got 'gpu'"):
        selector_networks(*inputs, backend="gpu")
    monkeypatch.setattr("brainkit.ops.cpu._missing", ImportError("not built"))
    with pytest.raises(BrainkitError, match="backend 'cpu' cannot run here: the C\\+\\+ extension"):
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
        for spoil in (lambda a: a[..., :0], lambda a: a[None], lambda a: np.repeat(a, 2, axis=-1)):
            spoilt = [*arrays[:i], np.ascontiguousarray(spoil(arrays[i])), *arrays[i + 1 :]]
            with pytest.raises(ValueError, match="must"):
                _C.selector_networks_forward(*spoilt)
            with pytest.raises(ValueError, match="must"):
                _C.selector_networks_backward(*grads, *spoilt, *results)
    with pytest.raises(ValueError, match=r"kept must have shape \(3, 200, 2, 32\), got \(3, 200, 2, 16\)"):
        _C.selector_networks_backward(*grads, *arrays, *results[:3], np.zeros((3, 200, 2, 16)))
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        _C.selector_networks_forward(*arrays, threads=0)
    with pytest.raises(TypeError):
        _C.selector_networks_forward(arrays[0].astype("float32"), *arrays[1:])


# --- the benchmark ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_cpp
def test_the_benchmark_runs_and_checks_itself(tmp_path):
    script = f"""if True:
        import pathlib, sys
        from bench import selectors
        selectors.RESULTS = pathlib.Path({str(tmp_path)!r})
        selectors.QUICK = selectors.Sizes(vertices=300, layers=2, hidden=16)
        sys.argv[1:] = ["--quick", "--rounds", "1", "--name", "tiny"]
        selectors.main()
        problem = selectors.Problem(selectors.QUICK)
        selectors.check(problem, {{"wrong": lambda: tuple(1.001 * result for result in problem.published())}})
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("nothing is reported: wrong is wrong: relative error 0.001 of locations")
    report = json.loads((tmp_path / "tiny.json").read_text())
    assert {"published", "torch", "fused", "fused, factors"} <= set(report["formulations"])
    assert "| fused, factors |" in (tmp_path / "tiny.md").read_text()
