"""The three selector networks as Triton kernels: against plain torch in float64, and what the compiler makes of them.

Run as a script, this file checks the cases in Triton's interpreter, which is chosen when a kernel is imported and so
needs a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = ("locations", "layer_weights", "scale")
PARAMETERS = (
    "hidden_weight",
    "hidden_bias",
    "second_weight",
    "second_bias",
    "location_head",
    "layer_head",
    "scale_head",
)
# rms of the error over rms of the truth: of outputs, of gradients.
BOUNDS = {"float32": (2e-6, 1e-5), "tf32": (2e-5, 5e-5)}


@dataclass(frozen=True)
class Case:
    """Sizes of one case, and how large the numbers are that enter the ends of the networks."""

    vertices: int
    features: int
    hidden: int
    layers: int
    precision: str = "float32"
    head: float = 1.0

    def tensors(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Features, the seven parameters and the gradients of the three outputs, in float64."""
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).float().double()

        h = self.hidden
        parameters = [
            normal(3, h, self.features) / self.features**0.5,
            normal(3, h) / 4,
            1.5 * normal(3, h, h) / h**0.5,
            normal(3, h) / 4,
            *(self.head * normal(n, h) / h**0.5 for n in (2, self.layers, 1)),
        ]
        grads = [normal(self.vertices, 2), normal(self.vertices, self.layers), normal(self.vertices)]
        return normal(self.vertices, self.features), [p.float().double() for p in parameters], grads


CASES = {
    "usual sizes": Case(63, 72, 128, 12),
    "two chunks": Case(200, 72, 8, 12),
    "smallest": Case(1, 1, 8, 1),
    "all features, forty layers": Case(20, 192, 100, 40),
    "tf32": Case(63, 72, 24, 12, precision="tf32"),
    "saturated": Case(63, 72, 8, 12, head=60.0),
    "as at initialisation": Case(33, 16, 16, 3, head=0.0),
    "more features than hidden units": Case(40, 200, 8, 2),
}


def reference(features: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    hidden_weight, hidden_bias, second_weight, second_bias, *heads = parameters
    outputs = []
    for network, (head, end) in enumerate(
        zip(heads, (torch.tanh, lambda z: z.softmax(-1), torch.sigmoid), strict=True)
    ):
        a = F.gelu(F.linear(features, hidden_weight[network], hidden_bias[network]))
        a = F.gelu(F.linear(a, second_weight[network], second_bias[network]))
        outputs.append(end(F.linear(a, head)))
    return [outputs[0], outputs[1], outputs[2][:, 0]]


def errors(case: Case, device: str) -> dict[str, float]:
    """Of every output and gradient: rms of the error over rms of the truth (or over 1, where the truth is zero)."""
    from brainkit.kernels import selectors

    features, parameters, grads = case.tensors()
    leaves = [parameter.requires_grad_() for parameter in parameters]
    truth = reference(features, leaves)
    true_gradients = torch.autograd.grad(truth, leaves, grads)
    x, *rest = (tensor.detach().float().to(device) for tensor in (features, *parameters, *grads))
    outputs = selectors.forward(x, *rest[:7], precision=case.precision)
    gradients = selectors.backward(*rest[7:], x, *rest[:7], precision=case.precision)
    assert [tensor.shape for tensor in (*outputs, *gradients)] == [t.shape for t in (*truth, *true_gradients)]
    pairs = zip((*outputs, *gradients), (*truth, *true_gradients), strict=True)
    return {
        name: float((found.cpu().double() - true).norm() / (true.norm() if true.any() else 1))
        for name, (found, true) in zip(OUTPUTS + PARAMETERS, pairs, strict=True)
    }


def interpreted() -> dict[str, Any]:
    """What the tests below look at, computed in the interpreter."""
    from brainkit.kernels import selectors

    found: dict[str, Any] = {name: errors(case, "cpu") for name, case in CASES.items()}
    features, parameters, grads = CASES["saturated"].tensors()
    x, *rest = (tensor.float() for tensor in (features, *parameters, *grads))
    found["saturated outputs are finite"] = all(t.isfinite().all().item() for t in selectors.forward(x, *rest[:7]))
    again = [[*selectors.forward(x, *rest[:7]), *selectors.backward(*rest[7:], x, *rest[:7])] for _ in range(2)]
    found["the same twice"] = all(torch.equal(a, b) for a, b in zip(*again, strict=True))
    x[5, 3] = float("nan")
    outputs = selectors.forward(x, *rest[:7])
    found["rows with NaN"] = [
        output.reshape(len(x), -1).isnan().any(1).nonzero().flatten().tolist() for output in outputs
    ]
    found["rows that are all NaN"] = [bool(output[5].isnan().all()) for output in outputs]
    strided = [torch.stack([tensor, tensor], -1)[..., 0] for tensor in rest]
    same = zip(again[0][3:], selectors.backward(*strided[7:], features.float(), *strided[:7]), strict=True)
    found["strides do not matter"] = all(torch.equal(a, b) for a, b in same)
    found["public operator"] = public_operator()
    return found


def public_operator() -> dict[str, Any]:
    """The kernels behind `brainkit.ops.selector_networks`: results, gradients by autograd, opcheck."""
    from brainkit.errors import UsageError
    from brainkit.ops import gpu_networks, selector_networks

    features, parameters, grads = CASES["two chunks"].tensors()
    x, *rest = (tensor.float() for tensor in (features, *parameters, *grads))
    gradients = []
    for backend in ("reference", "triton"):
        leaves = [weight.clone().requires_grad_() for weight in rest[:7]]
        outputs = selector_networks(x, *leaves, backend=backend)
        gradients.append([*outputs, *torch.autograd.grad(outputs, leaves, rest[7:])])
    worst = max(float((b - a).norm() / a.norm()) for a, b in zip(*gradients, strict=True))
    leaves = [weight.requires_grad_() for weight in rest[:7]]
    checks = torch.library.opcheck(
        gpu_networks.triton_networks,
        (x, *leaves, "float32"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
    try:
        selector_networks(x.double(), *(weight.double() for weight in rest[:7]), backend="triton")
        refused = ""
    except UsageError as error:
        refused = str(error)
    return {"error": worst, "opcheck": checks, "float64": refused}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_match_plain_torch(name, results):
    for_outputs, for_gradients = BOUNDS[CASES[name].precision]
    error = results[name]
    assert {key: error[key] for key in OUTPUTS if error[key] > for_outputs} == {}
    assert {key: error[key] for key in PARAMETERS if error[key] > for_gradients} == {}


def test_locations_are_float32_whatever_the_precision(results):
    assert results["tf32"]["locations"] < 1e-6


def test_saturated_networks_stay_finite(results):
    assert results["saturated outputs are finite"]


def test_the_same_bits_every_time(results):
    assert results["the same twice"]


def test_strides_do_not_matter(results):
    assert results["strides do not matter"]


def test_nan_stays_with_its_vertex(results):
    assert results["rows with NaN"] == [[5], [5], [5]]
    assert results["rows that are all NaN"] == [True, True, True]


def figures(*arguments: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Figures and the limit of shared memory, by kernel and capability.

    In a process of its own, because the compiler needs kernels that were not imported for the interpreter.
    """
    pytest.importorskip("triton")
    code = (
        "import sys; sys.path.insert(0, '.'); from dataclasses import asdict; import json\n"
        "from bench.kernel_compile import SHARED_LIMITS, compiled_figures\n"
        f"found = compiled_figures(*{arguments!r})\n"
        "print(json.dumps([(k, str(c), {**asdict(f), 'limit': SHARED_LIMITS[c]})"
        " for k, v in found.items() for c, f in v.items()]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {(name, capability): found for name, capability, found in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(("precision", "capabilities"), [("float32", (80, 90)), ("tf32", (90,))])
def test_compiles_without_spills_at_the_usual_sizes(precision, capabilities):
    for (name, capability), found in figures(capabilities, (72, 128, 12), precision).items():
        print(f"{name:24} sm_{capability} {precision}: {found}")
        assert found["spills"] == 0, (name, capability)
        assert found["shared"] <= found["limit"], (name, capability)
        if name.partition(".")[2] in ("forward", "recompute", "second_weight", "first_weight"):
            assert found["tensor_cores"] == {"80": "mma", "90": "wgmma"}[capability]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(192, 256, 64), (80, 128, 40)], ids=str)
def test_other_sizes_fit_in_shared_memory(sizes):
    for kernel, found in figures((80, 90), sizes).items():
        assert found["shared"] <= found["limit"], kernel


def test_the_public_operator_takes_the_kernels(results):
    found = results["public operator"]
    assert found["error"] < 1e-5
    assert set(found["opcheck"].values()) == {"SUCCESS"}
    assert found["float64"] == "features must be float32 for backend 'triton', got torch.float64"


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    pytest.importorskip("triton")
    for_outputs, for_gradients = BOUNDS[CASES[name].precision]
    error = errors(CASES[name], "cuda")
    assert max(error[key] for key in OUTPUTS) <= for_outputs
    assert max(error[key] for key in PARAMETERS) <= for_gradients


@pytest.mark.gpu
@needs_gpu
def test_replays_in_a_cuda_graph():
    pytest.importorskip("triton")
    from brainkit.kernels import selectors

    features, parameters, grads = Case(40_000, 72, 128, 12).tensors()
    x, *rest = (tensor.float().cuda() for tensor in (features, *parameters, *grads))

    def step() -> list[Tensor]:
        return [*selectors.forward(x, *rest[:7]), *selectors.backward(*rest[7:], x, *rest[:7])]

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


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(interpreted()))
