"""Registers, spills and shared memory of the Triton kernels, without a GPU: ``python -m bench.kernels``.

Every launch of the operator's forward and backward pass is recorded, compiled for an A100 (sm_80) and an H100 (sm_90),
and its figures are read from the machine code; then the kernels of the selector networks. The page also has the
operator's shortest possible time by the hardware's data sheet, which is computed, not measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from bench.kernel_compile import SHARED_LIMITS, Figures, compile_figures, compiled_figures
from bench.report import write_report
from brainkit.kernels import launch

KERNELS = (
    "prepare_kernel",
    "scan_kernel",
    "order_kernel",
    "forward_kernel",
    "vertices_kernel",
    "tokens_kernel",
    "gather_kernel",
)
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32"}
KINDS = {
    "bf16": (torch.bfloat16, "float32"),
    "fp16": (torch.float16, "float32"),
    "tf32": (torch.float32, "tf32"),
    "float32": (torch.float32, "float32"),
}
CAPABILITIES = (80, 90)
# Per multiprocessor of both devices: registers, threads; bytes of shared memory.
REGISTERS, THREADS = 65_536, 2_048
SHARED = {80: 167_936, 90: 233_472}
# Bytes of it that CUDA reserves for every program.
RESERVED = 1_024
# H100 SXM: memory bandwidth in bytes per second, dense bfloat16 operations per second.
BANDWIDTH, PRODUCTS = 3.35e12, 989e12


@dataclass(frozen=True)
class Sizes:
    """V vertices, L layers, D channels, an H x W grid, B images."""

    vertices: int = 37_984
    layers: int = 12
    channels: int = 128
    height: int = 8
    width: int = 8
    images: int = 8

    def __str__(self) -> str:
        return (
            f"V = {self.vertices:,}, L = {self.layers}, D = {self.channels}, "
            f"{self.height}x{self.width}, B = {self.images}"
        )


BASE = Sizes()
SELECTORS = (66, 128, 12)  # features, hidden units, layers
OTHERS = (
    replace(BASE, images=1),
    replace(BASE, images=64),
    replace(BASE, layers=1),
    replace(BASE, layers=40, images=3),
    replace(BASE, channels=13),
    replace(BASE, channels=768),
    replace(BASE, height=1, width=1),
    replace(BASE, height=32, width=32),
    replace(BASE, vertices=327_684, height=16, width=14),
)


@dataclass(frozen=True)
class Launch:
    """One recorded launch."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def figures(self, capability: int) -> Figures:
        signature, constants, divisible = {}, dict(self.options), []
        warps = constants.pop("num_warps")
        stages = constants.pop("num_stages", 3)
        registers = constants.pop("maxnreg", None)
        for name, value in zip(self.kernel.arg_names, self.arguments, strict=False):
            if isinstance(value, torch.Tensor):
                signature[name] = f"*{TYPES[value.dtype]}"
            elif value == 1:
                constants[name] = 1  # as at run time
            else:
                signature[name] = "i32"
                if value % 16 == 0:
                    divisible.append(name)
        return compile_figures(self.kernel, signature, constants, warps, stages, capability, divisible, registers)


def launches(sizes: Sizes, dtype: torch.dtype, precision: str, capability: int) -> list[Launch]:
    """All launches of a forward and a backward pass."""
    found: list[Launch] = []

    class Recorder:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *arguments, **options: found.append(Launch(self.kernel, grid[0], arguments, options))

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    v, n, d, b = sizes.vertices, sizes.layers, sizes.channels, sizes.images
    local_tokens = empty(b, n, d, sizes.height, sizes.width, dtype=dtype)
    vertices = [empty(v, 2), empty(v, n), empty(v), empty(v, d)]
    with ExitStack() as stack:
        for name in KERNELS:
            stack.enter_context(patch.object(launch, name, Recorder(getattr(launch, name))))
        stack.enter_context(patch.object(launch, "capability_of", return_value=divmod(capability, 10)))
        _, table, plan = launch.forward(local_tokens, empty(b, n, d, dtype=dtype), *vertices, empty(v), precision)
        launch.backward(empty(b, v), table, plan, *vertices, sizes.height, sizes.width, precision)
    return found


def resident(figures: Figures, warps: int, capability: int) -> int:
    """Programs that one multiprocessor runs at a time."""
    by_registers = REGISTERS // (-(-figures.registers // 8) * 8 * 32 * warps)
    by_shared = SHARED[capability] // (figures.shared + RESERVED)
    return min(by_registers, by_shared, THREADS // (32 * warps))


def floor(sizes: Sizes, bytes_a_token: int = 2) -> dict[str, dict[str, float]]:
    """Lower bound in microseconds on an H100, if every number is moved once.

    Forward reads the weights, selectors and tokens, and writes the responses: 2 V 5L B D operations. Backward reads
    them and the responses' gradients again and writes all gradients: two more such products for the gradients of
    vertices (the first repeats the forward product), one for those of tokens.
    """
    v, n, d, b = sizes.vertices, sizes.layers, sizes.channels, sizes.images
    tokens = b * n * d * (sizes.height * sizes.width + 1) * bytes_a_token
    vertices = 4 * v * (d + n + 4)
    work = 2 * v * 5 * n * b * d
    passes = {
        "forward": (vertices + tokens + 4 * b * v, work),
        "backward": (2 * vertices + 2 * tokens + 4 * b * v, 3 * work),
    }
    return {
        name: {
            "MB": moved / 1e6,
            "GFLOP": operations / 1e9,
            "memory us": 1e6 * moved / BANDWIDTH,
            "products us": 1e6 * operations / PRODUCTS,
            "floor us": 1e6 * max(moved / BANDWIDTH, operations / PRODUCTS),
        }
        for name, (moved, operations) in passes.items()
    }


def rows(cases: dict[str, tuple[Sizes, str]], capabilities: tuple[int, ...] = CAPABILITIES) -> Iterator[dict[str, Any]]:
    """Figures of every kernel, for cases of sizes and a kind of product."""
    for title, (sizes, kind) in cases.items():
        for capability in capabilities:
            for found in launches(sizes, *KINDS[kind], capability):
                figures = found.figures(capability)
                warps = found.options["num_warps"]
                yield {
                    "case": title,
                    "kind": kind,
                    "sm": capability,
                    "kernel": found.kernel.__name__.removesuffix("_kernel"),
                    "programs": found.programs,
                    "warps": warps,
                    "stages": found.options.get("num_stages"),
                    **asdict(figures),
                    "resident": resident(figures, warps, capability),
                    "within limits": figures.spills == 0 and figures.shared <= SHARED_LIMITS[capability],
                }


def selector_rows() -> Iterator[dict[str, Any]]:
    """Figures of every selector kernel, for a cortex and a ViT-B."""
    from brainkit.kernels.selectors import make_plan

    for precision in ("float32", "tf32"):
        for name, by_capability in compiled_figures(CAPABILITIES, SELECTORS, precision).items():
            for capability, figures in by_capability.items():
                launched = make_plan(divmod(capability, 10), *SELECTORS, precision).launches[name.partition(".")[2]]
                yield {
                    "case": "F = {}, H = {}, L = {}".format(*SELECTORS),
                    "kind": precision,
                    "sm": capability,
                    "kernel": name,
                    "programs": None,
                    "warps": launched.num_warps,
                    "stages": launched.num_stages,
                    **asdict(figures),
                    "resident": resident(figures, launched.num_warps, capability),
                    "within limits": figures.spills == 0 and figures.shared <= SHARED_LIMITS[capability],
                }


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    limits = ", ".join(f"{limit:,} bytes on sm_{sm}" for sm, limit in report["limits"].items())
    lines = [
        "# The Triton kernels, as compiled",
        "",
        f"- triton {report['triton']}, torch {report['torch']}",
        "- compiled without a GPU; nothing here is a timing",
        f"- limit of shared memory per program: {limits}",
        "- resident: programs that one multiprocessor runs at a time, by registers, shared memory and threads",
        "- programs: as launched. Most bounds are static, so some programs have nothing to do and end at once.",
        "",
    ]
    for sm in CAPABILITIES:
        lines += [
            f"## sm_{sm}",
            "",
            "| sizes | products | kernel | programs | warps | registers | spilled | shared | resident | units |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in report["kernels"]:
            if row["sm"] == sm:
                lines.append(
                    f"| {row['case']} | {row['kind']} | {row['kernel']} | {row['programs'] or ''} | {row['warps']} "
                    f"| {row['registers']} | {row['spills']} | {row['shared']:,} | {row['resident']} "
                    f"| {row['tensor_cores'] or '-'} |"
                )
        lines.append("")
    lines += [
        "## Lower bounds on an H100",
        "",
        f"Computed, not measured: bfloat16 tokens, {BANDWIDTH / 1e12} TB/s of memory, {PRODUCTS / 1e12:.0f} TFLOP/s of "
        "dense bfloat16 products; every number is moved once, nothing stays in cache between the passes, launches cost "
        "nothing, memory traffic and products overlap perfectly. Backward repeats the forward product.",
        "",
        "| sizes | pass | MB | GFLOP | memory, us | products, us | floor, us |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, passes in report["floors"].items():
        for name, found in passes.items():
            lines.append(
                f"| {title} | {name} | {found['MB']:.1f} | {found['GFLOP']:.1f} | {found['memory us']:.1f} "
                f"| {found['products us']:.1f} | {found['floor us']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    import triton

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first sizes only")
    parser.add_argument("--name", default="kernels", help="name of the files in bench/results")
    options = parser.parse_args()
    cases = {f"{BASE} ({kind})": (BASE, kind) for kind in KINDS}
    if not options.quick:
        cases |= {str(sizes): (sizes, "bf16") for sizes in OTHERS}
    report: dict[str, Any] = {
        "triton": triton.__version__,
        "torch": torch.__version__,
        "limits": {sm: SHARED_LIMITS[sm] for sm in CAPABILITIES},
        "kernels": [],
        "floors": {str(sizes): floor(sizes) for sizes in (BASE, *OTHERS)},
    }
    for row in rows(cases):
        report["kernels"].append(row | {"case": row["case"].split(" (")[0]})
        print(f"sm_{row['sm']} {row['case']}: {row['kernel']}, {row['registers']} registers, {row['spills']} spilled")
    report["kernels"] += [] if options.quick else list(selector_rows())
    write_report(options.name, report, table(report))


if __name__ == "__main__":
    main()
