"""The C++ extension on every instruction set, each in a process of its own, against the reference in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import operator_cases
import pytest
import selector_cases
import torch
from operator_cases import NAMES
from selector_cases import RESULTS, relative_errors
from subprocesses import run_python

from brainkit.ops import cpu, factor_readout

pytestmark = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=f"the C++ extension: {cpu.why_unavailable()}")

OPERATOR = operator_cases.Case("many channels", images=3, layers=7, channels=83, vertices=333)
NETWORKS = selector_cases.Case(vertices=333, features=30, hidden=83, layers=7)
SCRIPT = """
import numpy
from brainkit import _C

try:
    name = _C.instruction_set()
except RuntimeError as reason:
    sys.exit(f"skipped: {reason}")
arrays = numpy.load(sys.argv[1])
grad, *inputs = (arrays[f"operator{i}"] for i in range(8))
operator = [_C.factor_readout_forward(*inputs, threads=2)]
operator += _C.factor_readout_backward(grad, *inputs[:-1], threads=2)
inputs, grads = ([arrays[f"{part}{i}"] for i in range(n)] for part, n in (("networks", 8), ("grads", 3)))
results = _C.selector_networks_forward(*inputs, threads=2, keep=True)
networks = [*results[:3], *_C.selector_networks_backward(*grads, *inputs, *results, threads=2)]
parts = {"operator": operator, "networks": networks}
numpy.savez(sys.argv[2], name=name, **{f"{part}{i}": a for part, of in parts.items() for i, a in enumerate(of)})
"""


def response_grad() -> torch.Tensor:
    return torch.randn(OPERATOR.images, OPERATOR.vertices, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["portable", "avx2", "avx512"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    parts = {
        "operator": [response_grad(), *OPERATOR.inputs(torch.float32)],
        "networks": NETWORKS.inputs(torch.float32),
        "grads": NETWORKS.grads(torch.float32),
    }
    arrays = {f"{part}{i}": tensor.numpy() for part, tensors in parts.items() for i, tensor in enumerate(tensors)}
    np.savez(folder / "in.npz", **arrays)
    done = run_python(SCRIPT, folder / "in.npz", folder / "out.npz", env={"BRAINKIT_CPU": request.param})
    if "skipped" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    found = dict(np.load(folder / "out.npz"))
    assert found.pop("name") == request.param
    return found


def test_the_operator(results: dict[str, np.ndarray]) -> None:
    leaves = [tensor.double().requires_grad_() for tensor in OPERATOR.inputs(torch.float32)]
    out = factor_readout(*leaves, backend="reference")
    truth = [out.detach(), *torch.autograd.grad(out, leaves, response_grad().double())]
    for i, (name, expected) in enumerate(zip(("response", *NAMES), truth, strict=True)):
        error = np.sqrt(np.mean((results[f"operator{i}"] - expected.numpy()) ** 2) / np.mean(expected.numpy() ** 2))
        assert error < (2e-6 if name == "response" else 1e-5), name


def test_the_selector_networks(results: dict[str, np.ndarray]) -> None:
    found = [torch.from_numpy(results[f"networks{i}"]) for i in range(10)]
    errors = relative_errors(found, selector_cases.reference(NETWORKS, torch.float32))
    assert {name: error for name, error in errors.items() if error > (2e-6 if name in RESULTS else 1e-5)} == {}


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run_python("from brainkit import _C; _C.instruction_set()", env={"BRAINKIT_CPU": "mmx"})
    assert done.returncode != 0
    assert "BRAINKIT_CPU" in done.stderr.splitlines()[-1] and "'mmx'" in done.stderr.splitlines()[-1]
