"""The operator's speed and memory on this machine: ``python -m bench.operator``.

All implementations run interleaved in one process; times are medians. Nothing is reported if their results disagree.
All four taps of every location lie in the image, so that no implementation can skip work: forward counts as
2 * V * 5L * B * D operations, forward with backward as three times that, for every implementation.
"""

from __future__ import annotations

import sys

if not __package__:  # as a script, this file would replace the standard library's operator module
    sys.exit("bench/operator.py must run as a module, from the repository's folder: python -m bench.operator")

import argparse
import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import machine, published
from bench.report import ROOT, load_average, write_report
from bench.timing import Run, captured, interleaved
from brainkit.ops import available_backends, factor_readout, grouped

NAMES = ("local_tokens", "global_tokens", "locations", "layer_weights", "scale", "weight", "bias")
# Bounds on the rms error over the rms of the truth, of the response and of every gradient.
EXACT, LOOSE, TF32, HALF = (2e-6, 1e-5), (1e-5, 1e-4), (2e-3, 4e-3), (1e-2, 1e-2)

Operator = Callable[..., Tensor]


@dataclass(frozen=True)
class Implementation:
    """An operator to compare, the dtype of its tokens, and bounds on its errors."""

    operator: Operator
    bounds: tuple[float, float] = LOOSE
    tokens: torch.dtype = torch.float32
    rate: str = ""  # kind of matrix product to compare with; empty: the fastest
    repeats: int = 1

    def inputs(self, sizes: Sizes, device: str) -> list[Tensor]:
        local, whole, *rest = (tensor.to(device) for tensor in sizes.inputs())
        return [local.to(self.tokens), whole.to(self.tokens), *rest]


@dataclass(frozen=True)
class Sizes:
    """One case: B images, L layers, D channels, a square grid, V vertices."""

    vertices: int = 37_984
    layers: int = 12
    channels: int = 128
    grid: int = 8
    images: int = 8

    def inputs(self) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw)

        v = self.vertices
        reach = 1 - 1 / self.grid
        return [
            normal(self.images, self.layers, self.channels, self.grid, self.grid),
            normal(self.images, self.layers, self.channels),
            (2 * torch.rand(v, 2, generator=draw) - 1) * reach * 0.999,
            torch.softmax(normal(v, self.layers), -1),
            torch.sigmoid(normal(v)),
            normal(v, self.channels),
            normal(v),
        ]

    def grad(self) -> Tensor:
        return torch.randn(self.images, self.vertices, generator=torch.Generator().manual_seed(1))

    @property
    def forward_gflop(self) -> float:
        return 2 * self.vertices * 5 * self.layers * self.images * self.channels / 1e9


BASE = Sizes()
QUICK = Sizes(vertices=4_000, layers=4, channels=64, images=4)
SCALING = {
    "vertices": (2_400, 9_496, 163_842, 327_684),
    "layers": (1, 4, 24, 40),
    "channels": (16, 64, 256, 768),
    "grid": (4, 7, 16, 32),
    "images": (1, 2, 16, 32, 64),
}
LETTERS = {"vertices": "V", "layers": "L", "channels": "D", "grid": "grid", "images": "B"}


def implementations(device: str) -> dict[str, Implementation]:
    """The implementations that run here, by name."""
    found = {"published": Implementation(published.factor_readout)}
    reasons = available_backends()
    fastest = "triton" if device == "cuda" else "cpu"
    for name in ("reference", "grouped", fastest):
        if reasons[name] is not None:
            print(f"{name} is not measured: {reasons[name]}")
            continue
        operator = partial(factor_readout, backend=name)
        if name == "cpu":
            found[name] = Implementation(operator, EXACT, repeats=8)
        elif name == "triton":
            found["triton float32"] = Implementation(operator, EXACT, rate="float32", repeats=8)
            tf32 = partial(operator, precision="tf32")
            found["triton tf32"] = Implementation(tf32, TF32, rate="tf32", repeats=8)
            for half in (torch.bfloat16, torch.float16):
                kind = str(half).removeprefix("torch.")
                found[f"triton {kind}"] = Implementation(operator, HALF, half, rate=kind, repeats=8)
        else:
            found[name] = Implementation(operator, repeats=2)
    return found


def forward(operator: Operator, inputs: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return operator(*inputs)


def both(operator: Operator, inputs: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Result and gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = operator(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def errors(kind: Implementation, sizes: Sizes, device: str, truth: tuple[Tensor, ...]) -> dict[str, float]:
    """Relative rms error of the result and of every gradient."""
    found = both(kind.operator, kind.inputs(sizes, device), sizes.grad().to(device))
    return {
        name: ((value.cpu().double() - true).square().mean() / true.square().mean()).sqrt().item()
        for name, value, true in zip(("response", *NAMES), found, truth, strict=True)
    }


def true_values(sizes: Sizes) -> tuple[Tensor, ...]:
    """Response and gradients in float64."""
    inputs = [tensor.double() for tensor in sizes.inputs()]
    return both(grouped.factor_readout, inputs, sizes.grad().double())


def check(found: dict[str, Implementation], sizes: Sizes, device: str) -> dict[str, dict[str, float]]:
    """Errors of every implementation; exits if one exceeds its bounds."""
    truth = true_values(sizes)
    report = {}
    for name, kind in found.items():
        report[name] = errors(kind, sizes, device, truth)
        bound, grad_bound = kind.bounds
        for what, error in report[name].items():
            if not error <= (bound if what == "response" else grad_bound):
                sys.exit(f"nothing is reported: {name} is wrong at {sizes}: relative error {error:.2g} of {what}")
    return report


def headline(found: dict[str, Implementation], sizes: Sizes, rounds: int, device: str) -> dict[str, Any]:
    """Every implementation at one size, interleaved."""
    rates = machine.gpu_matmul_rate() if device == "cuda" else machine.matmul_rate()
    runs: dict[tuple[str, str], Run] = {}
    for name, kind in found.items():
        inputs, grad = kind.inputs(sizes, device), sizes.grad().to(device)
        runs[name, "forward"] = partial(forward, kind.operator, inputs)
        runs[name, "both"] = partial(both, kind.operator, inputs, grad)
        if name.startswith("triton"):
            runs[f"{name}, CUDA graph", "forward"] = captured(runs[name, "forward"])
            runs[f"{name}, CUDA graph", "both"] = captured(runs[name, "both"])
    repeats = {key: found[key[0].removesuffix(", CUDA graph")].repeats for key in runs}
    seconds = interleaved(runs, rounds, repeats, device)
    rows: dict[str, dict[str, float]] = {}
    for (name, what), value in seconds.items():
        kind = found[name.removesuffix(", CUDA graph")]
        rate = rates[kind.rate] if kind.rate else max(rates.values())
        row = rows.setdefault(name, {})
        row[what] = value
        row[f"{what} ratio"] = seconds["published", what] / value
        row[f"{what} GFLOP/s"] = (1 if what == "forward" else 3) * sizes.forward_gflop / value
        row[f"{what} share of matmul"] = row[f"{what} GFLOP/s"] / rate
    return {"sizes": asdict(sizes), "matmul GFLOP/s": rates, "implementations": rows}


def scaling(
    name: str, kind: Implementation, base: Sizes, axes: dict[str, tuple[int, ...]], rounds: int, device: str
) -> list[dict[str, Any]]:
    """One size changed at a time; results are checked before they are timed."""
    rows = []
    points = [("base", base)] + [
        (axis, replace(base, **{axis: value})) for axis, values in axes.items() for value in values
    ]
    for axis, sizes in points:
        check({name: kind}, sizes, device)
        inputs, grad = kind.inputs(sizes, device), sizes.grad().to(device)
        runs = {
            "forward": partial(forward, kind.operator, inputs),
            "both": partial(both, kind.operator, inputs, grad),
        }
        seconds = interleaved(runs, rounds, {}, device)
        value = "" if axis == "base" else f"{LETTERS[axis]} = {getattr(sizes, axis):,}"
        row = {"axis": axis, "case": value or "the base case", **asdict(sizes), **seconds}
        row |= {f"{what} GFLOP/s": k * sizes.forward_gflop / row[what] for what, k in (("forward", 1), ("both", 3))}
        rows.append(row)
        print(f"{row['case']}: forward {1e3 * row['forward']:.2f} ms, forward + backward {1e3 * row['both']:.2f} ms")
    return rows


def gpu_memory(name: str, kind: Implementation, sizes: Sizes) -> dict[str, float]:
    """MB of GPU memory beyond inputs and results."""
    inputs, grad = kind.inputs(sizes, "cuda"), sizes.grad().to("cuda")
    return {
        "forward": machine.gpu_extra(lambda: (forward(kind.operator, inputs),)),
        "both": machine.gpu_extra(partial(both, kind.operator, inputs, grad)),
    }


def peak_memory(name: str, kind: Implementation, sizes: Sizes) -> dict[str, float] | None:
    """Peak MB beyond inputs and results; None if the system does not report it."""
    command = [sys.executable, "-m", "bench.operator", "--memory", name, "--sizes", json.dumps(asdict(sizes))]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout) if done.returncode == 0 else None


def print_memory(name: str, sizes: Sizes) -> None:
    """Print the memory of one implementation, in a process of its own."""
    inputs, grad = sizes.inputs(), sizes.grad()
    operator = implementations("cpu")[name].operator
    tiny = Sizes(vertices=50, layers=2, channels=16, grid=4, images=2)
    both(operator, tiny.inputs(), tiny.grad())  # starts libraries and threads
    report = {}
    for what, run in (
        ("forward", lambda: (forward(operator, inputs),)),
        ("both", lambda: both(operator, inputs, grad)),
    ):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset VmHWM
        before = machine.resident("VmRSS")
        results = run()
        size = sum(tensor.numel() * tensor.element_size() for tensor in results) / 1e6
        report[what] = max(0.0, machine.resident("VmHWM") - before - size)
        del results
    print(json.dumps(report))


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    about, head = report["machine"], report["headline"]
    sizes = Sizes(**head["sizes"])
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in head["matmul GFLOP/s"].items())
    lines = [
        "# The operator's speed",
        "",
        *(f"- {key}: {value}" for key, value in about.items()),
        f"- matrix products, GFLOP/s: {rates}; shares are of the best, or of the kind in the row's name",
        "",
        f"V = {sizes.vertices:,}, L = {sizes.layers}, D = {sizes.channels}, {sizes.grid}x{sizes.grid} tokens, "
        f"B = {sizes.images}. Medians. Forward is counted as 2*V*5L*B*D operations, forward + backward as "
        "three times that. Extra memory is beyond inputs and results.",
        "",
        "| | forward, ms | ratio | GFLOP/s | of matmul | extra MB "
        "| forward + backward, ms | ratio | GFLOP/s | of matmul | extra MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in head["implementations"].items():
        cells = [name]
        for what in ("forward", "both"):
            memory = (report["extra MB"].get(name) or {}).get(what)
            cells += [
                f"{1e3 * row[what]:,.1f}",
                f"{row[f'{what} ratio']:.1f}x",
                f"{row[f'{what} GFLOP/s']:.1f}",
                f"{100 * row[f'{what} share of matmul']:.0f} %",
                "" if memory is None else f"{memory:,.0f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Relative rms error, against float64:", ""]
    lines += ["| | " + " | ".join(("response", *NAMES)) + " |", "|---" * 9 + "|"]
    for name, found in report["errors"].items():
        lines.append(f"| {name} | " + " | ".join(f"{error:.1e}" for error in found.values()) + " |")
    if report["scaling"]:
        lines += ["", f"{report['scaling of']}, one size changed at a time:", ""]
        if about["load after"] > about["threads"] + 1:
            lines += [
                "(Other programs were running: on an idle machine these times are shorter; compare the base case with "
                "the first table.)",
                "",
            ]
        lines += ["| | forward, ms | GFLOP/s | forward + backward, ms | GFLOP/s |", "|---|---|---|---|---|"]
        for row in report["scaling"]:
            lines.append(
                f"| {row['case']} | {1e3 * row['forward']:,.1f} | {row['forward GFLOP/s']:.0f} "
                f"| {1e3 * row['both']:,.1f} | {row['both GFLOP/s']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="operator", help="name of the files in bench/results")
    parser.add_argument("--quick", action="store_true", help="small sizes and no scaling, to check that it runs")
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print_memory(options.memory, Sizes(**options.sizes))
        return

    base, device = QUICK if options.quick else BASE, options.device
    report: dict[str, Any] = {"machine": machine.describe(options.threads, device)}
    found = implementations(device)
    report["errors"] = check(found, base, device)
    report["headline"] = headline(found, base, options.rounds, device)
    memory = gpu_memory if device == "cuda" else peak_memory
    report["extra MB"] = {name: memory(name, found[name], base) for name in found}
    report["scaling"], report["scaling of"] = [], list(found)[-1] if device == "cpu" else "triton bfloat16"
    if report["scaling of"] in found and not options.quick and not options.no_scaling:
        name = report["scaling of"]
        report["scaling"] = scaling(name, found[name], base, SCALING, options.rounds, device)
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, table(report))


if __name__ == "__main__":
    main()
