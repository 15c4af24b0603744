"""Registers, spills and shared memory of compiled Triton kernels, without a GPU.

Triton accepts kernels that spill, and (until launched) kernels that need more shared memory than the device has. Tests
compare these figures with `SHARED_LIMITS`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Bytes of shared memory available to one program, by compute capability.
SHARED_LIMITS = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448}
WARP = 32


@dataclass(frozen=True)
class Figures:
    """A compiled kernel: registers per thread, bytes spilled per thread, bytes of shared memory per program.

    ``tensor_cores`` names the matrix instructions in the PTX: "wgmma", "mma", or "" if there are none.
    """

    registers: int
    spills: int
    shared: int
    tensor_cores: str = ""


def compile_figures(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    num_warps: int,
    num_stages: int,
    capability: int,
    divisible: Collection[str] = (),
    max_registers: int | None = None,
) -> Figures:
    """Compile a kernel for a device that need not be present.

    Parameters
    ----------
    kernel : triton.JITFunction
        A function with ``@triton.jit``, imported without ``TRITON_INTERPRET``.
    signature : mapping of str to str
        Types of the arguments that are not constants, by name: ``"*fp32"``, ``"*bf16"``, ``"i32"``, ``"fp32"``.
    constexprs : mapping of str to value
        Values of the ``tl.constexpr`` arguments.
    num_warps, num_stages : int
        As at launch.
    capability : int
        Compute capability: 80, 89, 90, 100.
    divisible : collection of str
        Integer arguments known to be multiples of 16. Pointers are always assumed to be: otherwise the compiler omits
        asynchronous copies, and the figures are those of another program.
    max_registers : int, optional
        Upper bound on registers per thread (``maxnreg`` at launch).

    Returns
    -------
    Figures
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    missing = [name for name, kind in types.items() if kind == "constexpr" and name not in constexprs]
    if missing:
        raise ValueError(f"{kernel.__name__}: every argument must have a type or a value, got none for {missing}")
    aligned = {
        (position,): [["tt.divisibility", 16]]
        for position, (name, kind) in enumerate(types.items())
        if kind.startswith("*") or name in divisible
    }
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=types, constexprs=dict(constexprs), attrs=aligned),
        target=GPUTarget("cuda", capability, WARP),
        options={"num_warps": num_warps, "num_stages": num_stages, "maxnreg": max_registers},
    )
    registers, spills = _resources(compiled.asm["cubin"])
    found = re.search(r"\b(wgmma|mma)\.(?:mma_async\.)?sync", compiled.asm["ptx"])
    return Figures(registers, spills, compiled.metadata.shared, found.group(1) if found else "")


def compiled_figures(
    capabilities: Collection[int] = (80, 90), sizes: tuple[int, int, int] = (72, 128, 12), precision: str = "float32"
) -> dict[str, dict[int, Figures]]:
    """Figures of every selector kernel, by name and capability, for `sizes` (features, hidden units, layers)."""
    from brainkit.kernels.selectors import make_plan

    figures: dict[str, dict[int, Figures]] = {}
    for capability in capabilities:
        plan = make_plan(divmod(capability, 10), *sizes, precision)
        for name, launch in plan.launches.items():
            types = {argument: _type(argument) for argument in launch.kernel.arg_names}
            signature = {argument: kind for argument, kind in types.items() if argument not in launch.constants}
            figures.setdefault(f"selectors.{name}", {})[capability] = compile_figures(
                launch.kernel, signature, launch.constants, launch.num_warps, launch.num_stages, capability
            )
    return figures


def _type(argument: str) -> str:
    """The type of a selector kernel's argument, by its name."""
    if argument in ("V", "begin", "resumed", "places"):
        return "i32"
    return "*bf16" if argument in ("first", "second", "heads", "signals") else "*fp32"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of local memory (stack and spills), of the kernel in a cubin."""
    from triton.backends import nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [str(tool), "--dump-resource-usage", str(path)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump must report registers, stack and local memory, got {report!r}")
    registers, stack, local = (int(number) for number in found.groups())
    return registers, stack + local
