"""A whole training step's speed on this machine: ``python -m bench.step``.

Selectors, bottlenecks, the gauge, the operator, the loss, their gradients, clipping and AdamW, for the visual cortex of
one subject and the twelve layers of a ViT-B. The published model and brainkit's start from the same weights and get the
same tokens; nothing is reported unless losses and all gradients agree.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import machine, published
from bench.cortex import coordinates
from bench.report import load_average, write_report
from bench.timing import captured, interleaved
from brainkit.config import ModelConfig, TrainConfig
from brainkit.model.factor_topy import FactorTopy
from brainkit.model.selectors import VertexOffsets, regularity
from brainkit.ops import available_backends, factor_readout
from brainkit.training.module import EncodingModule

# Bound on a gradient's relative error (norm of the difference) against the published model's.
BOUND = 1e-4

Batch = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """V vertices, L layers of C channels, D of them after the bottlenecks, a square grid, B images."""

    vertices: int = 37_984
    layers: int = 12
    width: int = 768
    channels: int = 128
    grid: int = 8
    images: int = 8

    @property
    def widths(self) -> dict[str, int]:
        return {f"layer{k}": self.width for k in range(self.layers)}

    def batch(self) -> Batch:
        draw = torch.Generator().manual_seed(1)
        local = {
            name: torch.randn(self.images, width, self.grid, self.grid, generator=draw)
            for name, width in self.widths.items()
        }
        whole = {name: torch.randn(self.images, width, generator=draw) for name, width in self.widths.items()}
        return local, whole, torch.randn(self.images, self.vertices, generator=draw)


BASE = Sizes()
QUICK = Sizes(vertices=1_200, layers=3, width=48, channels=16, images=4)


def published_model(sizes: Sizes) -> published.FactorTopy:
    """The published model in mid-training: every vertex has its own location, layer and scale."""
    torch.manual_seed(0)
    model = published.FactorTopy(sizes.widths, torch.from_numpy(coordinates(sizes.vertices)), bottleneck=sizes.channels)
    with torch.no_grad():
        for network in (model.space_selector_mlp, model.layer_selector_mlp, model.scale_selector_mlp):
            torch.nn.init.normal_(network[5].weight, std=0.4)
        model.weight.mul_(20)
    return model


def our_module(
    sizes: Sizes, start: published.FactorTopy, device: str, *, backend: str, gauge: str, offsets: tuple[str, ...] = ()
) -> tuple[EncodingModule, torch.optim.Optimizer]:
    """The same weights in brainkit's model, with the published loss; offsets start at zero."""
    model = FactorTopy.from_published(start.state_dict(), coordinates(sizes.vertices), grid=(sizes.grid, sizes.grid))
    model.backend, model.gauge = backend, gauge
    model.offsets = VertexOffsets(sizes.vertices, sizes.layers, offsets) if offsets else None
    module = EncodingModule(model, TrainConfig(loss="smooth_l1", lr_weight=1e-3), planned_steps=10_000).to(device)
    return module, module.configure_optimizers()["optimizer"]


def our_step(module: EncodingModule, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    """One training step, without Lightning."""
    optimizer.zero_grad(set_to_none=True)
    loss = module.step_loss(batch).total
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), module.config.clip)
    optimizer.step()
    return loss.detach()


def check(
    sizes: Sizes, start: published.FactorTopy, batch: Batch, device: str, backends: list[str]
) -> dict[str, float]:
    """Largest relative error of a gradient for each backend; exits if one exceeds the bound."""
    local, whole, target = batch
    response, regulariser = start(local, whole)
    loss = torch.nn.functional.smooth_l1_loss(response, target, beta=0.1) + 0.1 * regulariser
    loss.backward()
    truth = {name: parameter.grad for name, parameter in start.named_parameters()}
    start.zero_grad()
    found = {}
    for backend in backends:
        module, _ = our_module(sizes, start, device, backend=backend, gauge="published")
        found_loss = module.step_loss(batch).total
        found_loss.backward()
        errors = {"loss": (found_loss - loss).abs().item() / abs(loss.item())}
        for name, parameter in module.model.named_parameters():
            errors[name] = ((parameter.grad - truth[name]).norm() / truth[name].norm()).item()
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= BOUND:
            sys.exit(f"nothing is reported: {backend} is wrong: relative error {errors[worst]:.2g} of {worst}")
        found[backend] = errors[worst]
    return found | _check_gauge(sizes, start, batch, device, backends)


def _check_gauge(
    sizes: Sizes, start: published.FactorTopy, batch: Batch, device: str, backends: list[str]
) -> dict[str, float]:
    """With the gauge there is no published result: every backend is compared with the first."""
    grads = []
    for backend in backends:
        module, _ = our_module(sizes, start, device, backend=backend, gauge="unit")
        module.step_loss(batch).total.backward()
        grads.append({name: parameter.grad for name, parameter in module.model.named_parameters()})
    found = {}
    for backend, own in zip(backends[1:], grads[1:], strict=True):
        errors = {name: ((own[name] - true).norm() / true.norm()).item() for name, true in grads[0].items()}
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= BOUND:
            sys.exit(f"nothing is reported: {backend} is wrong: relative error {errors[worst]:.2g} of {worst}")
        found[f"{backend}, gauge unit, against {backends[0]}"] = errors[worst]
    return found


def parts(module: EncodingModule, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, Any]:
    """The parts of a step, each with its gradients, to be timed separately."""
    model, (local, whole, target) = module.model, batch
    selected = model.selectors()
    leaves = [t.detach().requires_grad_() for t in (selected.locations, selected.layer_weights, selected.scale)]
    tokens = [t.detach().requires_grad_() for t in model.bottlenecked(local, whole)]
    prediction = torch.randn_like(target).requires_grad_()
    grads = [torch.randn_like(t) for t in (*leaves, *tokens, target)]

    def selectors() -> None:
        found = model.selectors()
        torch.autograd.backward([found.locations, found.layer_weights, found.scale], grads[:3])

    def bottlenecks() -> None:
        torch.autograd.backward(list(model.bottlenecked(local, whole)), grads[3:5])

    def operator() -> None:
        inputs = [*tokens, *leaves, model.weight, model.bias]
        out = factor_readout(*inputs, backend=model.backend)
        torch.autograd.grad(out, inputs, grads[5])

    def loss() -> None:
        misfit = torch.nn.functional.smooth_l1_loss(prediction, target, beta=0.1)
        (misfit + regularity(leaves[1], leaves[2])).backward()

    def clip() -> None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), module.config.clip)

    module.zero_grad()
    our_step(module, optimizer, batch)  # gives every parameter a gradient
    runs = {"selectors": selectors, "operator": operator, "bottlenecks and gauge": bottlenecks}
    return runs | {"loss and regulariser": loss, "clipping": clip, "AdamW": optimizer.step}


def measure(sizes: Sizes, rounds: int, device: str) -> dict[str, Any]:
    """Errors, times and parts at one size."""
    start = published_model(sizes).to(device)
    batch = on(device, sizes.batch())
    fastest = "triton" if device == "cuda" else "cpu"
    reasons = available_backends()
    backends = ["grouped"] + ([fastest] if reasons[fastest] is None else [])
    if fastest not in backends:
        print(f"{fastest} is not measured: {reasons[fastest]}")
    errors = check(sizes, start, batch, device, backends)

    runs: dict[str, Any] = {
        "published": partial(published.training_step, start, torch.optim.AdamW(start.parameters(), lr=1e-3), batch)
    }
    for backend in backends:
        for gauge in ("published", "unit"):
            module, optimizer = our_module(sizes, start, device, backend=backend, gauge=gauge)
            runs[f"brainkit, {backend}, gauge {gauge}"] = partial(our_step, module, optimizer, batch)
    default = our_module(sizes, start, device, backend=backends[-1], gauge="unit", offsets=ModelConfig().offsets)
    runs[f"brainkit, {backends[-1]}, gauge unit, offsets"] = partial(our_step, *default, batch)
    if fastest == "triton" and fastest in backends:
        graphed, graphed_optimizer = our_module(sizes, start, device, backend=fastest, gauge="unit")
        for group in graphed_optimizer.param_groups:
            group["capturable"] = True
        name = "brainkit, triton, gauge unit, CUDA graph"
        runs[name] = captured(partial(our_step, graphed, graphed_optimizer, batch))
    names = list(runs)
    seconds = interleaved(runs, rounds, {name: 1 if name == "published" else 4 for name in names}, device)
    part_seconds = interleaved(parts(module, optimizer, batch), rounds, {}, device)  # of the last one, the default
    parts_of = f"brainkit, {backends[-1]}, gauge unit"
    rows = {name: {"seconds": value, "ratio": seconds["published"] / value} for name, value in seconds.items()}
    return {"sizes": asdict(sizes), "errors": errors, "steps": rows, "parts": part_seconds, "parts of": parts_of}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    sizes = Sizes(**report["sizes"])
    lines = ["# A whole training step", "", *(f"- {key}: {value}" for key, value in report["machine"].items())]
    lines += [
        "",
        f"V = {sizes.vertices:,}, L = {sizes.layers} layers of {sizes.width} channels, D = {sizes.channels}, "
        f"{sizes.grid}x{sizes.grid} tokens, B = {sizes.images}, float32. Forward, backward, clipping and AdamW; "
        "medians. `gauge unit` is the default of brainkit: exact gains of all bottlenecks in every step.",
        "",
        "| | a step, ms | ratio |",
        "|---|---|---|",
    ]
    for name, row in report["steps"].items():
        lines.append(f"| {name} | {1e3 * row['seconds']:,.1f} | {row['ratio']:.1f}x |")
    lines += [
        "",
        f"Parts of `{report['parts of']}`, each with its gradients, timed separately:",
        "",
        "| | ms |",
        "|---|---|",
    ]
    lines += [f"| {name} | {1e3 * value:.1f} |" for name, value in report["parts"].items()]
    lines += ["", "Largest relative error of a gradient against the published model's:", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {error:.1e} |" for name, error in report["errors"].items()]
    return "\n".join(lines) + "\n"


def on(device: str, batch: Batch) -> Batch:
    local, whole, target = batch
    return (
        {name: value.to(device) for name, value in local.items()},
        {name: value.to(device) for name, value in whole.items()},
        target.to(device),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--name", default="step", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="a small size, to check that it runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # everything compared is float32
    report: dict[str, Any] = {"machine": machine.describe(options.threads, options.device)}
    report |= measure(QUICK if options.quick else BASE, options.rounds, options.device)
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, table(report))


if __name__ == "__main__":
    main()
