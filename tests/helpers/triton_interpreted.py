"""Checks of the operator's Triton kernels in Triton's interpreter; test_triton.py runs them in a process of their own.

Prints one JSON line per check: its name, and what it found, which test_triton.py judges. Sizes are small, because the
interpreter takes milliseconds for each program of a launch. Allocated memory is filled with NaN, so that results that
no program writes show.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch
import triton_interpreter
from operator_cases import NAMES, Case
from torch import Tensor

from brainkit.kernels import blocks
from brainkit.ops import available_backends, factor_readout, gpu

SMALL = Case("plain", height=3, width=3, vertices=10)
CASES = [
    SMALL,
    replace(SMALL, name="one vertex", vertices=1),
    replace(SMALL, name="one image, layer and channel", images=1, layers=1, channels=1),
    replace(SMALL, name="many images", images=33, height=2, width=1, vertices=3),
    replace(SMALL, name="twelve layers", layers=12),
    replace(SMALL, name="forty layers", layers=40, height=2, width=1, vertices=3),
    replace(SMALL, name="odd sizes", layers=5, channels=13, height=7, width=5, vertices=7),
    replace(SMALL, name="usual sizes", channels=128, height=8, width=8, vertices=5),
    replace(SMALL, name="many channels", channels=768, images=1, height=2, width=1, vertices=3),
    replace(SMALL, name="one cell", height=1, width=1),
    replace(SMALL, name="fine grid", height=18, width=20, vertices=4, layers=1, images=1),
    replace(SMALL, name="at initialisation", where="centre", vertices=600),
    replace(SMALL, name="near the border", where="border"),
    replace(SMALL, name="on the border", where="exact"),
    replace(SMALL, name="beyond the border", where="beyond"),
    replace(SMALL, name="empty groups", where="corner", vertices=300),
]
HALF = ("one vertex", "odd sizes", "beyond the border")


def main() -> None:
    assert "triton" not in sys.modules, "triton must not be imported before it is used"
    torch.use_deterministic_algorithms(True)  # fills allocated memory with NaN
    triton_interpreter.round_to_nearest()
    triton_interpreter.patch_language_once()
    for case in CASES:
        report("float32", case.name, compare(case, torch.float32))
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        for case in CASES:
            if case.name in HALF:
                report(name, case.name, compare(case, dtype))
    # With weights that are exact in half precision, errors are those of float32, except of rounded gradients.
    report("exact weights", "bfloat16", compare(SMALL, torch.bfloat16, exact_weight=True))
    report("exact weights", "float16", compare(SMALL, torch.float16, exact_weight=True))
    report("tf32", "plain", compare(SMALL, torch.float32, precision="tf32"))
    blocks.MAX_UNSCANNED = 0
    report("float32", "scanned", compare(replace(SMALL, vertices=600, height=2, width=1), torch.float32))
    blocks.MAX_UNSCANNED = 32_768
    report("tiny gradients", "float16", compare(SMALL, torch.float16, gradient=1e-6))
    report("deterministic", "twice", deterministic())
    report("strides", "all", strides())
    for value in ("nan", "inf"):
        report("bad numbers", value, bad_numbers(float(value)))
    report("operator", "opcheck", opcheck())
    report("operator", "compiled", compiled())
    report("operator", "answers", answers())
    report("model", "step", model())


def report(check: str, name: str, found: dict[str, Any]) -> None:
    print(json.dumps({"check": check, "name": name, "found": found}), flush=True)


def inputs_of(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """Tokens in a dtype, all other inputs in float32."""
    inputs = case.inputs(torch.float32)
    return [*(tensor.to(dtype) for tensor in inputs[:2]), *inputs[2:]]


def run(inputs: list[Tensor], grad: Tensor, **options: str) -> tuple[Tensor, list[Tensor]]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = factor_readout(*leaves, **options)
    return out.detach(), list(torch.autograd.grad(out, leaves, grad))


def compare(
    case: Case, dtype: torch.dtype, precision: str = "float32", exact_weight: bool = False, gradient: float = 1.0
) -> dict[str, float]:
    """Errors relative to the rms of the reference in float64, for the same (rounded) tokens."""
    inputs = inputs_of(case, dtype)
    if exact_weight:
        inputs[5] = inputs[5].to(dtype).float()
    shape = (case.images, case.vertices)
    grad = gradient * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    out, grads = run(inputs, grad, backend="triton", precision=precision)
    for value, tensor in zip(grads, inputs, strict=True):
        assert (value.dtype, value.shape) == (tensor.dtype, tensor.shape)
    true, true_grads = run([tensor.double() for tensor in inputs], grad.double(), backend="reference")
    bias = inputs[6]  # as large as the rest of the response, and never rounded
    found = {"response": rms(out - bias, true - bias)}
    for name, value, truth in zip(NAMES, grads, true_grads, strict=True):
        if name != "locations" or case.where != "exact":  # on a cell's edge the gradient is one-sided
            found[name] = rms(value, truth)
    return found


def rms(value: Tensor, truth: Tensor) -> float:
    error, size = (value.double() - truth).square().mean().sqrt(), truth.square().mean().sqrt()
    return (error / size).item() if size > 0 else error.item()


def deterministic() -> dict[str, bool]:
    inputs = inputs_of(replace(SMALL, vertices=300, where="corner"), torch.float32)
    grad = torch.randn(2, 300)
    (out, grads), (again, grads_again) = (run(inputs, grad, backend="triton") for _ in range(2))
    same = {name: torch.equal(a, b) for name, a, b in zip(NAMES, grads, grads_again, strict=True)}
    return {"response": torch.equal(out, again), **same}


def strides() -> dict[str, float]:
    """Largest difference between results of other memory layouts, an expanded gradient among them."""
    case = replace(SMALL, height=2, vertices=7)
    inputs = inputs_of(case, torch.float32)
    channels_last = inputs[0].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    columns_first = inputs[0].transpose(3, 4).contiguous().transpose(3, 4)
    others = [torch.stack([x, x], -1)[..., 0] for x in inputs[1:]]
    assert not any(x.is_contiguous() for x in (channels_last, columns_first, *others))
    grad = torch.ones(()).expand(2, case.vertices)
    plain, plain_grads = run(inputs, grad.contiguous(), backend="triton")
    found = {}
    for name, tokens in (("channels last", channels_last), ("columns first", columns_first)):
        out, grads = run([tokens, *others], grad, backend="triton")
        pairs = zip([out, *grads], [plain, *plain_grads], strict=True)
        found[name] = max((a - b).abs().max().item() for a, b in pairs)
    return found


def bad_numbers(value: float) -> dict[str, bool]:
    """As test_operator.py::test_bad_numbers_stay_in_their_place, and the gradients of a vertex without location."""
    case = replace(SMALL, height=4, width=4, vertices=12)
    clean = inputs_of(case, torch.float32)
    base = factor_readout(*clean, backend="triton")

    def changed(index: int, position: Any) -> Tensor:
        inputs = [tensor.clone() for tensor in clean]
        inputs[index][position] = value
        return ~torch.isclose(factor_readout(*inputs, backend="triton"), base).nan_to_num(False)

    found = {}
    inputs = [tensor.clone() for tensor in clean]
    inputs[2][5, 0] = value
    others = torch.arange(case.vertices) != 5
    grad = torch.randn(2, case.vertices)
    out, grads = run(inputs, grad, backend="triton")
    found["location"] = bool(out[:, 5].isnan().all()) and out.isnan().sum(1).tolist() == [1, 1]
    found["other vertices unchanged"] = torch.equal(out[:, others], base[:, others])
    found["finite gradients"] = all(bool(g.isfinite().all()) for g in grads)
    found["no gradient"] = not any(bool(g[5].any()) for g in grads[2:])
    # The tokens' gradients are those of the other vertices.
    _, without = run([*clean[:2], *(x[others] for x in clean[2:])], grad[:, others])
    found["nothing for tokens"] = rms(grads[0], without[0].double()) < 1e-6 > rms(grads[1], without[1].double())
    for name, index, position in (("weight", 5, (7, 0)), ("bias", 6, 7), ("scale", 4, 7), ("layer weight", 3, (7, 1))):
        hit = changed(index, position)
        found[name] = bool(hit[:, 7].all()) and hit.sum().item() == 2
    hit = changed(1, (1, 0, 0))
    found["global token"] = bool(hit[1].all()) and not hit[0].any()
    hit = changed(0, (0, 1, 2, 1, 3))
    near = (((clean[2] + 1) * 2 - 0.5 - torch.tensor([3.0, 1.0])).abs() < 1).all(-1)
    found["local token"] = not bool(hit[1].any()) and torch.equal(hit[0], near)
    return found


def opcheck() -> dict[str, str]:
    tiny = Case("tiny", layers=2, channels=3, height=2, width=1, vertices=4)
    inputs = [tensor.requires_grad_() for tensor in inputs_of(tiny, torch.float32)]
    found = torch.library.opcheck(gpu.triton_operator, (*inputs, "float32"))
    with torch.no_grad():
        _, table, plan = gpu.triton_operator(*inputs, "float32")
        arguments = (torch.ones(2, 4), table, plan, *(x.detach() for x in inputs[2:6]), 2, 1, "float32")
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    backward = torch.library.opcheck(gpu.triton_backward, arguments, test_utils=tests)
    return {**found, **{f"backward {name}": value for name, value in backward.items()}}


def compiled() -> dict[str, bool]:
    """One graph, with the same bits as without compilation."""
    inputs = inputs_of(SMALL, torch.float32)
    grad = torch.randn(2, SMALL.vertices)

    def double(*tensors: Tensor) -> Tensor:
        return 2 * factor_readout(*tensors, backend="triton")

    leaves = [tensor.requires_grad_() for tensor in inputs]
    out = torch.compile(double, backend="aot_eager", fullgraph=True)(*leaves)
    grads = torch.autograd.grad(out, leaves, grad)
    plain = double(*leaves)
    plain_grads = torch.autograd.grad(plain, leaves, grad)
    return {"response": torch.equal(out, plain), "gradients": all(map(torch.equal, grads, plain_grads))}


def model() -> dict[str, float]:
    """The whole model on the kernels, in training and in evaluation, against the reference: largest rms of an error."""
    from brainkit.model.factor_topy import FactorTopy

    draw = torch.Generator().manual_seed(0)
    coordinates = torch.randn(12, 3, generator=draw) * 50
    local = {"a": torch.randn(3, 5, 2, 2, generator=draw), "b": torch.randn(3, 7, 2, 2, generator=draw)}
    whole = {"a": torch.randn(3, 5, generator=draw), "b": torch.randn(3, 7, generator=draw)}
    grad = torch.randn(3, 12, generator=draw)
    torch.manual_seed(0)
    plain = FactorTopy({"a": 5, "b": 7}, coordinates, bottleneck=16, grid=(2, 2), selector_width=16)
    for network in (plain.space_selector_mlp, plain.layer_selector_mlp, plain.scale_selector_mlp):
        torch.nn.init.normal_(network[5].weight, std=0.5)

    def step(backend: str, precision: str, training: bool) -> list[Tensor]:
        plain.backend, plain.precision = backend, precision
        plain.train(training).zero_grad()
        out = plain(local, whole)
        out.backward(grad)
        return [out.detach(), *(parameter.grad.clone() for parameter in plain.parameters())]

    truth = step("reference", "float32", True)
    return {
        name: max(rms(value, true) for value, true in zip(step("triton", precision, training), truth, strict=True))
        for name, precision, training in (
            ("float32", "float32", True),
            ("bfloat16", "bfloat16", True),
            ("bfloat16, scored", "bfloat16", False),
        )
    }


def answers() -> dict[str, Any]:
    """What the public operator reports and refuses in the interpreter."""
    from brainkit.errors import BrainkitError

    inputs = inputs_of(replace(SMALL, vertices=1), torch.float32)
    try:
        factor_readout(*(tensor.double() for tensor in inputs), backend="triton")
        refused = ""
    except BrainkitError as error:
        refused = str(error)
    return {"available": available_backends()["triton"], "float64": refused}
