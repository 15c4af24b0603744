"""Dtypes and precisions of the public operator: what each backend supports, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from operator_cases import Case

from brainkit.errors import UsageError
from brainkit.ops import available_backends, factor_readout

HALF = (torch.bfloat16, torch.float16)
needs_cpp = pytest.mark.skipif(
    available_backends()["cpu"] is not None, reason=f"the C++ extension: {available_backends()['cpu']}"
)


def inputs_of(tokens: torch.dtype, others: torch.dtype = torch.float32) -> list[torch.Tensor]:
    inputs = Case("plain").inputs(others)
    return [*(tensor.to(tokens) for tensor in inputs[:2]), *inputs[2:]]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("backend", ["auto", "grouped", "reference"])
def test_half_tokens_are_read_in_float32(backend, dtype):
    inputs = [tensor.requires_grad_() for tensor in inputs_of(dtype)]
    raised = [tensor.detach().float().requires_grad_() for tensor in inputs]
    name = "grouped" if backend == "auto" else backend
    out, expected = factor_readout(*inputs, backend=backend), factor_readout(*raised, backend=name)
    assert out.dtype == torch.float32 and torch.equal(out, expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    grads, expected_grads = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, raised, grad)
    for value, truth, tensor in zip(grads, expected_grads, inputs, strict=True):
        assert value.dtype == tensor.dtype and torch.equal(value, truth.to(tensor.dtype))


@needs_cpp
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_extension_refuses_half_tokens(dtype):
    with pytest.raises(UsageError, match=f"^local_tokens .*'cpu', got {dtype}"):
        factor_readout(*inputs_of(dtype), backend="cpu")


@pytest.mark.parametrize(
    ("tokens", "index", "dtype", "message"),
    [
        ("float32", 0, "int64", "^local_tokens .*torch.int64"),
        ("float32", 1, "bfloat16", "^global_tokens .*torch.float32 .*torch.bfloat16"),
        ("bfloat16", 1, "float32", "^global_tokens .*torch.bfloat16 .*torch.float32"),
        ("bfloat16", 5, "bfloat16", "^weight .*torch.bfloat16"),
        ("bfloat16", 5, "float64", "^weight .*torch.float32 .*torch.float64"),
        ("float16", 2, "float64", "^locations .*torch.float32 .*torch.float64"),
        ("float64", 3, "float32", "^layer_weights .*torch.float64 .*torch.float32"),
        ("float32", 6, "float64", "^bias .*torch.float32 .*torch.float64"),
    ],
)
def test_wrong_dtypes_are_named(tokens, index, dtype, message):
    others = torch.float64 if tokens == "float64" else torch.float32
    inputs = inputs_of(getattr(torch, tokens), others)
    inputs[index] = inputs[index].to(getattr(torch, dtype))
    with pytest.raises(UsageError, match=message):
        factor_readout(*inputs)


@pytest.mark.parametrize("backend", ["auto", "grouped", "reference"])
def test_unsupported_precisions_are_refused(backend):
    with pytest.raises(UsageError, match=r"^precision .*'tf32'"):
        factor_readout(*inputs_of(torch.float32), backend=backend, precision="tf32")
    with pytest.raises(UsageError, match=r"^precision .*'half'"):
        factor_readout(*inputs_of(torch.float32), backend=backend, precision="half")


def test_every_backend_computes_float32():
    inputs = inputs_of(torch.float32)
    for backend, reason in available_backends().items():
        if reason is None and backend != "triton":
            found = factor_readout(*inputs, backend=backend, precision="float32").double()
            truth = factor_readout(*(tensor.double() for tensor in inputs), backend="reference")
            assert (found - truth).norm() < 1e-6 * truth.norm(), backend
