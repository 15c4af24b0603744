"""The speed of the selector networks on this machine: ``python -m bench.selectors``.

All formulations run interleaved in one process; times are medians. Nothing is reported if their results disagree. Each
computes the selectors from the published model's parameters, and the gradients of these parameters:

published        three separate networks; the positional encoding is recomputed in every step
torch            the same layers in plain torch; the encoding is computed once
torch, factors   the same, with low-rank factors of the encoding
fused            one pass in C++, or in Triton on a GPU, with the full encoding
fused, factors   one pass with the factors: what the model does
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import machine
from bench.cortex import coordinates
from bench.report import ROOT, load_average, write_report
from bench.timing import Run, captured, interleaved
from brainkit.model.selectors import ENCODED, coordinate_bounds, encode_positions, factored_encoding, selector_network
from brainkit.ops.selector_networks import available_backends, selector_networks

# Bounds on the rms error over the rms of the truth, of the results and of every gradient. The published formulation
# rounds angles of up to 100 to float32.
BOUND, GRAD_BOUND = 2e-5, 2e-4

Selectors = Callable[[], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Sizes:
    """V vertices, L layers, H hidden units."""

    vertices: int = 37_984
    layers: int = 12
    hidden: int = 128


QUICK = Sizes(vertices=3_000, layers=4, hidden=64)


class Problem:
    """Vertices spread over both hemispheres, and three networks with random weights."""

    def __init__(self, sizes: Sizes, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.sizes, self.device = sizes, device
        self.coordinates = torch.from_numpy(coordinates(sizes.vertices)).to(device, dtype)
        self.bounds = coordinate_bounds(self.coordinates)
        torch.manual_seed(0)
        heads = ((2, nn.Tanh()), (sizes.layers, nn.Softmax(-1)), (1, nn.Sigmoid()))
        self.networks = [selector_network(outputs, sizes.hidden, head) for outputs, head in heads]
        for network in self.networks:
            nn.init.normal_(_linear(network, 5).weight, std=sizes.hidden**-0.5)
            network.to(device, dtype)
        self.names = [
            f"{i}.{name}" for i, network in enumerate(self.networks) for name, _ in network.named_parameters()
        ]
        self.parameters = [parameter for network in self.networks for parameter in network.parameters()]
        draw = torch.Generator().manual_seed(1)
        shapes = ((sizes.vertices, 2), (sizes.vertices, sizes.layers), (sizes.vertices,))
        self.grads = [torch.randn(shape, generator=draw).to(device, dtype) for shape in shapes]

    def formulations(self) -> dict[str, Selectors]:
        """The formulations that run here, by name."""
        encoding = encode_positions(self.coordinates, *self.bounds), None
        factors = factored_encoding(self.coordinates, *self.bounds)
        found = {
            "published": self.published,
            "torch": partial(self.merged, *encoding, "reference"),
            "torch, factors": partial(self.merged, *factors, "reference"),
        }
        fused = "triton" if self.device == "cuda" else "cpu"
        if (reason := available_backends()[fused]) is not None:
            print(f"the fused pass is not measured: {reason}")
            return found
        found["fused"] = partial(self.merged, *encoding, fused)
        found["fused, factors"] = partial(self.merged, *factors, fused)
        if fused == "triton":
            found["fused, factors, tf32"] = partial(self.merged, *factors, fused, precision="tf32")
        return found

    def published(self) -> tuple[Tensor, Tensor, Tensor]:
        outputs = []
        for network in self.networks:
            encoding = encode_positions(self.coordinates, *self.bounds)  # once for each network, as published
            outputs.append(network(encoding))
        return outputs[0], outputs[1], outputs[2][:, 0]

    def merged(
        self, features: Tensor, mix: Tensor | None, backend: str, precision: str = "float32"
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, second, heads = ([_linear(network, i) for network in self.networks] for i in (1, 3, 5))
        weight = torch.stack([layer.weight for layer in hidden])
        return selector_networks(
            features,
            weight if mix is None else weight @ mix.T,
            torch.stack([layer.bias for layer in hidden]),
            torch.stack([layer.weight for layer in second]),
            torch.stack([layer.bias for layer in second]),
            *(layer.weight for layer in heads),
            backend=backend,
            precision=precision,
        )

    def forward(self, run: Selectors) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return run()

    def both(self, run: Selectors) -> tuple[Tensor, ...]:
        """Results and gradients."""
        results = run()
        return *(result.detach() for result in results), *torch.autograd.grad(results, self.parameters, self.grads)

    def rank(self) -> int:
        return len(factored_encoding(self.coordinates, *self.bounds)[1])

    def gflop(self, features: int, *, backward: bool) -> float:
        """GFLOP of the matrix products; GELUs and the like are not counted."""
        h, outputs = self.sizes.hidden, self.sizes.layers + 3
        forward = 3 * (features * h + h * h) + outputs * h
        back = 3 * (features * h + 2 * h * h) + 2 * outputs * h
        return 2 * self.sizes.vertices * (forward + back * backward) / 1e9


def _linear(network: nn.Sequential, index: int) -> nn.Linear:
    layer = network[index]
    assert isinstance(layer, nn.Linear)
    return layer


def check(problem: Problem, found: dict[str, Selectors]) -> dict[str, dict[str, float]]:
    """Errors of every formulation against the published one in float64; exits if one exceeds the bounds."""
    exact = Problem(problem.sizes, torch.float64)
    truth = exact.both(exact.published)
    names = ("locations", "layer_weights", "scale", *problem.names)
    report = {}
    for name, run in found.items():
        report[name] = {
            what: ((value.cpu().double() - true).square().mean() / true.square().mean()).sqrt().item()
            for what, value, true in zip(names, problem.both(run), truth, strict=True)
        }
        for what, error in report[name].items():
            if not error <= (BOUND if what in names[:3] else GRAD_BOUND):
                sys.exit(f"nothing is reported: {name} is wrong: relative error {error:.2g} of {what}")
    return report


def measure(problem: Problem, found: dict[str, Selectors], rounds: int) -> dict[str, Any]:
    """Every formulation, interleaved."""
    device = problem.device
    rates = machine.gpu_matmul_rate() if device == "cuda" else machine.matmul_rate()
    runs: dict[tuple[str, str], Run] = {}
    for name, run in found.items():
        runs[name, "forward"], runs[name, "both"] = partial(problem.forward, run), partial(problem.both, run)
        if device == "cuda" and name.startswith("fused"):
            runs[f"{name}, CUDA graph", "forward"] = captured(runs[name, "forward"])
            runs[f"{name}, CUDA graph", "both"] = captured(runs[name, "both"])
    repeats = {key: 5 if key[0].startswith("fused") else 1 for key in runs}
    seconds = interleaved(runs, rounds, repeats, device)
    best = rates["float32"] if device == "cuda" else max(rates.values())
    rank = problem.rank()
    rows: dict[str, dict[str, float]] = {}
    for (name, what), value in seconds.items():
        row = rows.setdefault(name, {"features": rank if "factors" in name else ENCODED})
        row[what] = value
        row[f"{what} ratio"] = seconds["published", what] / value
        row[f"{what} GFLOP/s"] = problem.gflop(int(row["features"]), backward=what == "both") / value
        row[f"{what} share of matmul"] = row[f"{what} GFLOP/s"] / best
    return {"matmul GFLOP/s": rates, "rank": rank, "formulations": rows}


def gpu_memory(problem: Problem, run: Selectors) -> dict[str, float]:
    """Peak MB of GPU memory beyond parameters, features and results."""
    return {
        "forward": machine.gpu_extra(partial(problem.forward, run)),
        "both": machine.gpu_extra(partial(problem.both, run)),
    }


def peak_memory(name: str, sizes: Sizes) -> dict[str, float] | None:
    """Peak MB beyond parameters, features and results; None if the system does not report it."""
    command = [sys.executable, "-m", "bench.selectors", "--memory", name, "--sizes", json.dumps(asdict(sizes))]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout) if done.returncode == 0 else None


def print_memory(name: str, sizes: Sizes) -> None:
    """Print the memory of one formulation, in a process of its own."""
    tiny, problem = Problem(Sizes(vertices=50, layers=2, hidden=16)), Problem(sizes)
    tiny.both(tiny.formulations()[name])  # starts libraries and threads
    run = problem.formulations()[name]
    report = {}
    for what, step in (("forward", problem.forward), ("both", problem.both)):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset VmHWM
        before = machine.resident("VmRSS")
        results = step(run)
        size = sum(tensor.numel() * tensor.element_size() for tensor in results) / 1e6
        report[what] = max(0.0, machine.resident("VmHWM") - before - size)
        del results
    print(json.dumps(report))


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    sizes = Sizes(**report["sizes"])
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in report["matmul GFLOP/s"].items())
    lines = [
        "# The speed of the selector networks",
        "",
        *(f"- {key}: {value}" for key, value in report["machine"].items()),
        f"- matrix products, GFLOP/s: {rates}; shares are of the best in float32",
        "",
        f"V = {sizes.vertices:,} vertices spread over both hemispheres, L = {sizes.layers}, three networks "
        f"{ENCODED} -> {sizes.hidden} -> {sizes.hidden} -> 2, L and 1, float32. The encoding's rank is "
        f"{report['rank']}. Medians, from the published parameters to the selectors and back to the parameters' "
        "gradients. GFLOP/s count the matrix products that a formulation needs for its number of features. Extra "
        "memory is beyond parameters, features and results.",
        "",
        "| | features | forward, ms | ratio | GFLOP/s | of matmul | extra MB "
        "| forward + backward, ms | ratio | GFLOP/s | of matmul | extra MB |",
        "|---" * 12 + "|",
    ]
    for name, row in report["formulations"].items():
        cells = [name, f"{row['features']:.0f}"]
        for what in ("forward", "both"):
            memory = (report["extra MB"].get(name) or {}).get(what)
            cells += [
                f"{1e3 * row[what]:,.1f}",
                f"{row[f'{what} ratio']:.1f}x",
                f"{row[f'{what} GFLOP/s']:.0f}",
                f"{100 * row[f'{what} share of matmul']:.0f} %",
                "" if memory is None else f"{memory:,.0f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Relative rms error against float64, and the largest of the parameters' gradients:", ""]
    lines += ["| | locations | layer weights | scale | gradients |", "|---|---|---|---|---|"]
    for name, found in report["errors"].items():
        errors = list(found.values())
        lines.append(f"| {name} | " + " | ".join(f"{e:.1e}" for e in (*errors[:3], max(errors[3:]))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="selectors", help="name of the files in bench/results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print_memory(options.memory, Sizes(**options.sizes))
        return

    sizes = QUICK if options.quick else Sizes()
    report: dict[str, Any] = {"machine": machine.describe(options.threads, options.device), "sizes": asdict(sizes)}
    problem = Problem(sizes, device=options.device)
    found = problem.formulations()
    report["errors"] = check(problem, found)
    report |= measure(problem, found, options.rounds)
    report["extra MB"] = {
        name: gpu_memory(problem, run) if options.device == "cuda" else peak_memory(name, sizes)
        for name, run in found.items()
    }
    report["machine"]["load after"] = load_average()
    write_report(options.name, report, table(report))


if __name__ == "__main__":
    main()
