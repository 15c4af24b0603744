"""The operator's Triton kernels: in Triton's interpreter everywhere, and on a GPU if there is one."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from operator_cases import CASES, NAMES
from subprocesses import run_python
from triton_interpreted import CASES as SMALL_CASES
from triton_interpreted import HALF, inputs_of, rms, run

from brainkit.ops import available_backends, factor_readout

# rms of the error over rms of the truth, of the response and of gradients. In half precision weights are rounded (to
# 2^-9 for bfloat16, 2^-12 for float16), and so are the terms of the gradients of weights and tokens, and the tokens'
# gradients themselves. float16 has too little range for gradients: those of tokens are summed from bfloat16.
FLOAT32 = {"response": 2e-6} | dict.fromkeys(NAMES, 1e-5)
BFLOAT16 = {"response": 5e-3} | dict.fromkeys(NAMES, 5e-3) | {"bias": 1e-6}
FLOAT16 = {"response": 5e-4} | dict.fromkeys(NAMES, 5e-4) | {"local_tokens": 5e-3, "global_tokens": 5e-3, "bias": 1e-6}
# With weights that are exact in half precision: all sums, coefficients and locations are float32.
EXACT_WEIGHTS = {"weight": 3e-3, "local_tokens": 4e-3, "global_tokens": 4e-3}
CHECKS = [
    *(("float32", case.name, FLOAT32) for case in SMALL_CASES),
    ("float32", "scanned", FLOAT32),
    ("tf32", "plain", FLOAT32),  # the interpreter computes tf32 in float32
    *(("bfloat16", name, BFLOAT16) for name in HALF),
    *(("float16", name, FLOAT16) for name in HALF),
    ("exact weights", "bfloat16", FLOAT32 | EXACT_WEIGHTS),
    ("exact weights", "float16", FLOAT32 | EXACT_WEIGHTS),
    # Gradients of 1e-6 underflow in float16, so those of tokens are lost; all others are float32.
    ("tiny gradients", "float16", FLOAT16 | {"local_tokens": 1.1, "global_tokens": 1.1}),
]

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def interpreter(test):
    """Marks of tests that look at what the interpreter found."""
    return pytest.mark.slow(needs_triton(test))


needs_gpu = pytest.mark.skipif(
    available_backends()["triton"] is not None, reason=f"the triton backend: {available_backends()['triton']}"
)


@pytest.fixture(scope="module")
def interpreted() -> dict[tuple[str, str], dict]:
    """What the interpreter found, by check and name. It is chosen at import, hence the process of its own."""
    done = run_python("import triton_interpreted; triton_interpreted.main()", env={"TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["check"], line["name"]): line["found"] for line in lines}


@interpreter
@pytest.mark.parametrize(("check", "name", "bounds"), CHECKS, ids=lambda value: value if isinstance(value, str) else "")
def test_matches_reference(interpreted, check, name, bounds):
    for what, error in interpreted[check, name].items():
        assert error <= bounds[what], (what, error)


@interpreter
def test_two_runs_give_the_same_bits(interpreted):
    assert all(interpreted["deterministic", "twice"].values())


@interpreter
def test_strides_change_nothing(interpreted):
    assert interpreted["strides", "all"] == {"channels last": 0.0, "columns first": 0.0}


@interpreter
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_bad_numbers_stay_in_their_place(interpreted, value):
    found = interpreted["bad numbers", value]
    assert len(found) == 11 and all(found.values()), found


@interpreter
def test_custom_ops_are_well_formed(interpreted):
    found = interpreted["operator", "opcheck"]
    assert len(found) == 7 and set(found.values()) == {"SUCCESS"}, found


@interpreter
def test_compiles_in_one_graph(interpreted):
    assert interpreted["operator", "compiled"] == {"response": True, "gradients": True}


@interpreter
def test_a_model_trains_on_the_kernels(interpreted):
    found = interpreted["model", "step"]
    assert found["float32"] < 2e-5 and found["bfloat16, scored"] < 2e-5
    assert 1e-4 < found["bfloat16"] < 2e-2


@interpreter
def test_float64_is_refused(interpreted):
    found = interpreted["operator", "answers"]
    assert found["available"] is None
    assert found["float64"].startswith("local_tokens ") and "torch.float64" in found["float64"]


@pytest.mark.slow
def test_kernels_are_not_imported_before_they_are_used():
    code = """
import torch
from brainkit.ops import factor_readout as f

print("triton" in sys.modules)
x = [torch.randn(*s) for s in ((1, 1, 2, 2, 2), (1, 1, 2), (3, 2), (3, 1), (3,), (3, 2), (3,))]
f(*x), f(*x, backend="grouped"), print("brainkit.kernels.launch" in sys.modules)
"""
    done = run_python(code)
    assert done.stdout.split() == ["False", "False"], done.stderr


GPU_BOUNDS = {
    "float32": (torch.float32, "float32", FLOAT32),
    "tf32": (torch.float32, "tf32", dict.fromkeys(FLOAT32, 2e-3)),
    "bfloat16": (torch.bfloat16, "float32", BFLOAT16),
    "float16": (torch.float16, "float32", FLOAT16),
}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", GPU_BOUNDS)
def test_matches_reference_on_a_gpu(kind, case):
    dtype, precision, bounds = GPU_BOUNDS[kind]
    inputs = [tensor.cuda() for tensor in inputs_of(case, dtype)]
    grad = torch.randn(case.images, case.vertices, generator=torch.Generator().manual_seed(1)).cuda()
    out, grads = run(inputs, grad, backend="auto", precision=precision)
    again, grads_again = run(inputs, grad, backend="triton", precision=precision)
    assert torch.equal(out, again) and all(map(torch.equal, grads, grads_again))
    true, true_grads = run([tensor.double() for tensor in inputs], grad.double(), backend="reference")
    assert rms(out - inputs[6], true - inputs[6]) <= bounds["response"]
    for name, value, truth in zip(NAMES, grads, true_grads, strict=True):
        if name != "locations" or case.where != "exact":  # on a cell's edge the gradient is one-sided
            assert rms(value, truth) <= bounds[name], name


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", GPU_BOUNDS)
def test_a_replayed_graph_gives_the_same_bits(kind):
    dtype, precision, _ = GPU_BOUNDS[kind]
    first, second = ([tensor.cuda() for tensor in inputs_of(CASES[0], dtype)] for _ in range(2))
    second[2].mul_(0.3)  # other locations, so another plan
    grad = torch.randn(CASES[0].images, CASES[0].vertices, device="cuda")
    static = [tensor.clone().requires_grad_() for tensor in first]

    def step():
        out = factor_readout(*static, backend="triton", precision=precision)
        return out, torch.autograd.grad(out, static, grad)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, captured_grads = step()
    for inputs in (first, second):
        with torch.no_grad():
            for kept, tensor in zip(static, inputs, strict=True):
                kept.copy_(tensor)
        graph.replay()
        out, grads = run(inputs, grad, backend="triton", precision=precision)
        assert torch.equal(captured, out) and all(map(torch.equal, captured_grads, grads))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", GPU_BOUNDS)
def test_compiled_gives_the_same_bits(kind):
    dtype, precision, _ = GPU_BOUNDS[kind]
    inputs = [tensor.cuda().requires_grad_() for tensor in inputs_of(CASES[0], dtype)]

    def respond(*tensors):
        return factor_readout(*tensors, precision=precision)

    out, plain = torch.compile(respond, fullgraph=True)(*inputs), respond(*inputs)
    grad = torch.randn_like(out)
    assert torch.equal(out, plain)
    grads, plain_grads = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(plain, inputs, grad)
    assert all(map(torch.equal, grads, plain_grads))
