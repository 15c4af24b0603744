"""Checks of the selector networks' Triton kernels in Triton's interpreter, in a process of their own.

Prints one JSON object: what test_triton_selectors.py judges.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
import triton_interpreter
from selector_cases import Case, reference, relative_errors, run
from torch import Tensor

from brainkit.errors import UsageError
from brainkit.ops import gpu_networks, selector_networks

SATURATED = Case(63, 72, 8, 12, head=30.0)
CHUNKS = Case(200, 72, 8, 12)  # more vertices than the backward pass takes at once
CASES = {  # with the precision
    "usual sizes": (Case(33, 72, 128, 12), "float32"),
    "two chunks": (CHUNKS, "float32"),
    "smallest": (Case(1, 1, 8, 1), "float32"),
    "all features, forty layers": (Case(20, 192, 100, 40), "float32"),
    "tf32": (Case(40, 72, 24, 12), "tf32"),
    "saturated": (SATURATED, "float32"),
    "as at initialisation": (Case(33, 16, 16, 3, head=0.0), "float32"),
    "more features than hidden units": (Case(40, 200, 8, 2), "float32"),
}


def main() -> None:
    triton_interpreter.patch_language_once()
    found: dict[str, Any] = {name: errors(*case, "cpu") for name, case in CASES.items()}
    extreme = replace(SATURATED, head=600.0)
    inputs, grads = extreme.inputs(torch.float32), extreme.grads(torch.float32)
    plain = run(inputs, grads, "triton")
    found["saturated outputs are finite"] = all(bool(value.isfinite().all()) for value in plain[:3])
    found["the same twice"] = all(map(torch.equal, plain, run(inputs, grads, "triton")))
    strided = [inputs[0], *(torch.stack([tensor, tensor], -1)[..., 0] for tensor in inputs[1:])]
    strided_grads = [torch.stack([grad, grad], -1)[..., 0] for grad in grads]
    found["strides do not matter"] = all(map(torch.equal, plain, run(strided, strided_grads, "triton")))
    found |= nan() | public_operator()
    print(json.dumps(found))


def errors(case: Case, precision: str, device: str) -> dict[str, float]:
    """Relative rms error of every result and gradient."""
    inputs, grads = ([x.to(device) for x in tensors(torch.float32)] for tensors in (case.inputs, case.grads))
    found, truth = run(inputs, grads, "triton", precision), reference(case, torch.float32)
    assert [value.shape for value in found] == [true.shape for true in truth]
    return relative_errors(found, truth)


def nan() -> dict[str, Any]:
    """Which rows of the results are NaN if a feature of vertex 5 is."""
    features, *weights = replace(SATURATED, vertices=33).inputs(torch.float32)
    features[5, 3] = torch.nan
    results = [value.reshape(33, -1) for value in selector_networks(features, *weights, backend="triton")]
    return {
        "rows with NaN": [value.isnan().any(1).nonzero().flatten().tolist() for value in results],
        "rows that are all NaN": [value.isnan().all(1).nonzero().flatten().tolist() for value in results],
    }


def public_operator() -> dict[str, Any]:
    """The operator's registration, and what it refuses."""
    case = Case(33, 20, 8, 3)
    features, *weights = case.inputs(torch.float32)
    leaves: list[Tensor] = [weight.requires_grad_() for weight in weights]
    checks = torch.library.opcheck(
        gpu_networks.triton_networks,
        (features, *leaves, "float32"),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )
    try:
        selector_networks(*case.inputs(), backend="triton")
        refused = ""
    except UsageError as error:
        refused = str(error)
    return {"opcheck": checks, "float64": refused}
