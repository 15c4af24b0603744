"""The selector networks' Triton kernels: in the interpreter, as compiled, and on a GPU if there is one."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from selector_cases import RESULTS, WEIGHTS, Case
from subprocesses import run_python
from torch import Tensor
from triton_selectors_interpreted import CASES, errors

ROOT = Path(__file__).resolve().parents[2]
# rms of the error over rms of the truth: of results, of gradients.
BOUNDS = {"float32": (2e-6, 1e-5), "tf32": (2e-5, 5e-5)}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    code = "import triton_selectors_interpreted; triton_selectors_interpreted.main()"
    done = run_python(code, env={"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_within_bounds(error: dict[str, float], precision: str) -> None:
    bound, grad_bound = BOUNDS[precision]
    assert {name: error[name] for name in RESULTS if error[name] > bound} == {}
    assert {name: error[name] for name in WEIGHTS if error[name] > grad_bound} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_match_the_reference(name, results):
    assert_within_bounds(results[name], CASES[name][1])


@pytest.mark.slow
def test_locations_are_float32_whatever_the_precision(results):
    assert results["tf32"]["locations"] < 1e-6


@pytest.mark.slow
def test_saturated_networks_stay_finite(results):
    assert results["saturated outputs are finite"]


@pytest.mark.slow
def test_the_same_bits_every_time(results):
    assert results["the same twice"]


@pytest.mark.slow
def test_strides_do_not_matter(results):
    assert results["strides do not matter"]


@pytest.mark.slow
def test_nan_stays_in_its_vertex(results):
    assert results["rows with NaN"] == [[5], [5], [5]]
    assert results["rows that are all NaN"] == [[5], [5], [5]]


@pytest.mark.slow
def test_the_custom_op_is_well_formed(results):
    assert set(results["opcheck"].values()) == {"SUCCESS"}
    assert results["float64"].startswith("features ") and "torch.float64" in results["float64"]


def figures(*arguments: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures and the limit of shared memory, by kernel and capability.

    In a process of its own, because the compiler needs kernels that were not imported for the interpreter.
    """
    code = f"""
import json
from dataclasses import asdict
sys.path.append({str(ROOT)!r})
from bench.kernel_compile import SHARED_LIMITS, compiled_figures

found = compiled_figures(*{arguments!r})
rows = [(k, str(c), asdict(f) | dict(limit=SHARED_LIMITS[c])) for k, of in found.items() for c, f in of.items()]
print(json.dumps(rows))
"""
    done = run_python(code, env={"TRITON_INTERPRET": None})
    assert done.returncode == 0, done.stderr
    return {(name, capability): found for name, capability, found in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "capabilities"), [("float32", (80, 90)), ("tf32", (90,))])
def test_compiles_without_spills_at_the_usual_sizes(precision, capabilities):
    for (name, capability), found in figures(capabilities, (72, 128, 12), precision).items():
        assert found["spills"] == 0, (name, capability)
        assert found["shared"] <= found["limit"], (name, capability)
        if name.partition(".")[2] in ("forward", "recompute", "second_weight", "first_weight"):
            assert found["tensor_cores"] == {"80": "mma", "90": "wgmma"}[capability]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(192, 256, 64), (80, 128, 40)], ids=str)
def test_other_sizes_fit_in_shared_memory(sizes):
    for kernel, found in figures((80, 90), sizes).items():
        assert found["shared"] <= found["limit"], kernel


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    assert_within_bounds(errors(*CASES[name], "cuda"), CASES[name][1])


@pytest.mark.gpu
@needs_gpu
def test_replays_in_a_cuda_graph():
    from brainkit.kernels import selectors

    case = Case(40_000, 72, 128, 12)
    inputs, grads = ([x.cuda() for x in tensors(torch.float32)] for tensors in (case.inputs, case.grads))

    def step() -> list[Tensor]:
        return [*selectors.forward(*inputs), *selectors.backward(*grads, *inputs)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        expected = [tensor.clone() for tensor in step()]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for tensor in captured:
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
