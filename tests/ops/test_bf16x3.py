"""Precision bf16x3: the operator in AMX tiles, emulated where the processor has none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from operator_cases import CASES, NAMES, Case
from subprocesses import run_python
from torch import Tensor

from brainkit.ops import cpu, reference

pytestmark = pytest.mark.skipif(cpu.why_unavailable() is not None, reason=f"the C++ extension: {cpu.why_unavailable()}")

# rms of the error over rms of the truth. Leaving out the product of the two low parts costs about 4e-6.
BOUND, GRAD_BOUND = 1e-5, 5e-5

Results = dict[str, list[Tensor]]  # by job: the response, then the seven gradients

SCRIPT = """
import torch
from brainkit.ops import cpu

def both(inputs, grad, threads):
    torch.set_num_threads(threads)
    response = cpu.forward(*inputs, precision="bf16x3")
    return [response, *cpu.backward(grad, *inputs[:-1], precision="bf16x3")]

jobs = torch.load(sys.argv[1])
torch.save({name: both(*job) for name, job in jobs.items()}, sys.argv[2])
"""


def run(folder: Path, jobs: dict[str, tuple[list[Tensor], Tensor, int]], emulate: bool) -> Results:
    """Run jobs (inputs, gradient of the response, threads) in a process of their own: the variable is read once."""
    folder.mkdir(exist_ok=True)
    torch.save(jobs, folder / "jobs.pt")
    variable = {"BRAINKIT_AMX": "emulate" if emulate else None}
    done = run_python(SCRIPT, folder / "jobs.pt", folder / "results.pt", env=variable)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "results.pt")


def inputs_of(case: Case) -> list[Tensor]:
    """With a bias of zero: a bias would hide other errors."""
    inputs = case.inputs(torch.float32)
    inputs[-1].zero_()
    return inputs


def grad_of(inputs: list[Tensor]) -> Tensor:
    shape = len(inputs[0]), len(inputs[2])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def whole_numbers() -> list[Tensor]:
    """Inputs of few bits, for which bf16x3 is exact."""
    draw = torch.Generator().manual_seed(2)

    def integers(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=draw).float()

    inputs = Case("exact", images=3, layers=4, channels=32, height=4, width=4, vertices=90).inputs(torch.float32)
    for i in (0, 1, 5, 6):
        inputs[i] = integers(*inputs[i].shape)
    inputs[2] = torch.randint(-4, 5, (90, 2), generator=draw) / 4
    inputs[3] = torch.randint(0, 5, (90, 4), generator=draw) / 4
    inputs[4] = torch.randint(0, 3, (90,), generator=draw) / 2
    return inputs


MANY = Case("many", images=3, layers=5, channels=70, vertices=900, where="beyond")
LARGE = Case("bands", images=3, layers=25, channels=128, height=24, width=20, vertices=120)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Results:
    jobs = {case.name: (inputs_of(case), grad_of(inputs_of(case)), 2) for case in CASES}
    for threads in (1, 2, 5):
        jobs[f"on {threads} threads"] = (inputs_of(MANY), grad_of(inputs_of(MANY)), threads)
    clean = whole_numbers()
    jobs["whole numbers"] = (clean, grad_of(clean).round(), 2)
    for name, (index, position) in BAD.items():
        inputs = [tensor.clone() for tensor in clean]
        inputs[index][position] = float("nan")
        jobs[name] = (inputs, grad_of(clean).round(), 2)
    return run(tmp_path_factory.mktemp("bf16x3"), jobs, emulate=True)


BAD = {
    "a NaN local token": (0, (1, 2, 3, 1, 2)),
    "a NaN global token": (1, (1, 2, 3)),
    "a NaN location": (2, (5, 0)),
    "a NaN layer weight": (3, (7, 1)),
    "a NaN scale": (4, 9),
    "a NaN weight": (5, (11, 3)),
}


def differentiate(inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The truth, in float64."""
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    out = reference.factor_readout(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.double())]


def relative(value: Tensor, truth: Tensor) -> float:
    scale = truth.square().mean().sqrt().clamp(min=1e-30)
    return ((value - truth).square().mean().sqrt() / scale).item()


def assert_close(case: Case, results: list[Tensor]) -> None:
    inputs = inputs_of(case)
    truth = differentiate(inputs, grad_of(inputs))
    for name, value, true in zip(("response", *NAMES), results, truth, strict=True):
        if name == "locations" and case.where == "exact":
            continue  # on a cell's edge the gradient is one-sided, and both sides are right
        assert relative(value, true) < (BOUND if name == "response" else GRAD_BOUND), name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_errors_are_small(case, emulated):
    assert_close(case, emulated[case.name])


@pytest.mark.slow
def test_errors_are_small_where_tokens_are_taken_in_bands(tmp_path):
    jobs = {"bands": (inputs_of(LARGE), grad_of(inputs_of(LARGE)), 2)}
    assert_close(LARGE, run(tmp_path, jobs, emulate=True)["bands"])


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(emulated):
    for threads in (2, 5):
        for name, many, alone in zip(
            ("response", *NAMES), emulated[f"on {threads} threads"], emulated["on 1 threads"], strict=True
        ):
            assert torch.equal(many, alone), name


@pytest.mark.slow
def test_numbers_of_few_bits_are_exact(emulated):
    inputs = whole_numbers()
    truth = differentiate(inputs, grad_of(inputs).round())
    for name, value, true in zip(("response", *NAMES), emulated["whole numbers"], truth, strict=True):
        if name != "locations":  # many of them lie on a cell's edge
            assert relative(value, true) < 2e-7, name


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_nan_affects_the_same_results_as_in_float32(name, emulated):
    index, position = BAD[name]
    inputs = whole_numbers()
    inputs[index][position] = float("nan")
    expected = cpu.forward(*inputs)
    found = emulated[name][0]
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().any()
    for grad, true in zip(emulated[name][1:], cpu.backward(grad_of(inputs).round(), *inputs[:-1]), strict=True):
        assert torch.equal(grad.isnan(), true.isnan())


def test_the_reason_is_given_where_it_cannot_run():
    if cpu.why_no_bf16x3() is None:
        pytest.skip("bf16x3 runs here")
    assert "\n" not in cpu.why_no_bf16x3()
    inputs = Case("plain").inputs(torch.float32)
    for call in (
        lambda: cpu.forward(*inputs, precision="bf16x3"),
        lambda: cpu.backward(grad_of(inputs), *inputs[:-1], precision="bf16x3"),
    ):
        with pytest.raises(RuntimeError, match="bf16x3") as refusal:
            call()
        assert cpu.why_no_bf16x3() in str(refusal.value)


@pytest.mark.skipif("BRAINKIT_AMX" in os.environ, reason="BRAINKIT_AMX is set")
@pytest.mark.skipif(cpu.why_no_bf16x3() is not None, reason=f"{cpu.why_no_bf16x3()}")
def test_the_hardware_agrees_with_the_emulation(tmp_path):
    jobs = {case.name: (inputs_of(case), grad_of(inputs_of(case)), 2) for case in (MANY, LARGE)}
    hardware = run(tmp_path / "hardware", jobs, emulate=False)
    emulation = run(tmp_path / "emulation", jobs, emulate=True)
    for job, results in hardware.items():
        for name, value, expected in zip(("response", *NAMES), results, emulation[job], strict=True):
            assert relative(value, expected) < 1e-6, (job, name)


def test_other_precisions_and_dtypes_are_refused():
    inputs = Case("plain").inputs(torch.float32)
    with pytest.raises(ValueError, match=r"^precision .*'bf16'"):
        cpu.forward(*inputs, precision="bf16")
    with pytest.raises(ValueError, match=r"^precision .*'tf32'"):
        cpu.backward(grad_of(inputs), *inputs[:-1], precision="tf32")
    with pytest.raises(TypeError):
        cpu.forward(*Case("plain").inputs(torch.float64), precision="bf16x3")


def test_an_unknown_emulation_is_refused():
    done = run_python("from brainkit import _C; _C.why_no_bf16x3()", env={"BRAINKIT_AMX": "please"})
    assert done.returncode != 0
    assert "BRAINKIT_AMX" in done.stderr.splitlines()[-1] and "'please'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("emulate", [True, False], ids=["emulated", "here"])
def test_the_public_operator_takes_it_or_says_why_not(emulate):
    script = """
import json, torch
from operator_cases import Case
from brainkit.errors import BrainkitError, UsageError
from brainkit.ops import factor_readout

def both(**options):
    leaves = [x.requires_grad_() for x in Case("plain", channels=70).inputs(torch.float32)]
    out = factor_readout(*leaves, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]

try:
    pairs = zip(both(precision="bf16x3"), both(), strict=True)
    print(json.dumps(max(((a - b).norm() / b.norm()).item() for a, b in pairs)))
except BrainkitError as error:
    print(json.dumps(str(error)))
try:
    both(precision="bf16x3", backend="grouped")
except UsageError as error:
    print(json.dumps(str(error)))
"""
    done = run_python(script, env={"BRAINKIT_AMX": "emulate" if emulate else None})
    assert done.returncode == 0, done.stderr
    found, refused = map(json.loads, done.stdout.splitlines())
    if emulate or cpu.why_no_bf16x3() is None:
        assert 1e-8 < found < GRAD_BOUND
    else:
        assert found == f"precision 'bf16x3' cannot run here: {cpu.why_no_bf16x3()}"
    assert refused.startswith("precision ") and "'grouped'" in refused
