"""The house: which file may import which, read from the imports themselves.

Floors are numbered as in the design: a file imports from lower floors, from its own floor within its own folder, and
what NAMED adds. A new file must be given a floor here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"brainkit": "brainkit", "kernels": "brainkit.kernels", "cli": "brainkit.cli"}


@dataclass(frozen=True)
class Place:
    """Floor, third-party packages at the top of the file, and those that may be imported inside functions too."""

    floor: int
    top: str = ""
    inside: str = ""


PLACES = {
    # Foundations. Never torch, not even inside functions: scoring stands on them.
    "brainkit/errors.py": Place(0),
    "brainkit/files.py": Place(0),
    "brainkit/runs.py": Place(0),
    "brainkit/locks.py": Place(0),
    "brainkit/progress.py": Place(0, "", "rich"),
    "brainkit/config.py": Place(0, "", "yaml"),
    "brainkit/config_values.py": Place(0),
    "brainkit/surface.py": Place(0, "numpy", "nibabel nilearn"),
    "brainkit/metrics.py": Place(0, "numpy", "scipy"),
    "brainkit/images.py": Place(0, "numpy PIL"),
    "brainkit/welch.py": Place(0, "numpy"),
    "brainkit/volume.py": Place(0, "numpy"),
    "brainkit/encoder_file/__init__.py": Place(0),
    "brainkit/encoder_file/archive.py": Place(0),
    "brainkit/encoder_file/arrays.py": Place(0, "numpy"),
    "brainkit/encoder_file/container.py": Place(0),
    "brainkit/encoder_file/graph.py": Place(0, "numpy"),
    "brainkit/encoder_file/graph_check.py": Place(0),
    "brainkit/encoder_file/steady.py": Place(0),
    "brainkit/encoder_file/windows.py": Place(0),
    "brainkit/encoder_file/info.py": Place(0, "numpy"),
    "brainkit/encoder_file/metadata.py": Place(0, "numpy"),
    "brainkit/encoder_file/wire.py": Place(0),
    "brainkit/peak_memory.py": Place(0),
    "brainkit/control_groups.py": Place(0),
    "brainkit/free_memory.py": Place(0),
    "brainkit/terms.py": Place(0),
    "brainkit/threads.py": Place(0),
    "brainkit/runtime.py": Place(0, "", "onnxruntime"),
    "brainkit/photographs.py": Place(0, "numpy PIL"),
    "brainkit/token_shard.py": Place(0, "numpy"),
    "brainkit/token_store.py": Place(0, "numpy"),
    # The operator.
    "brainkit/ops/reference.py": Place(1, "torch"),
    "brainkit/ops/grouped.py": Place(1, "torch"),
    "brainkit/ops/cpu.py": Place(1, "torch"),
    "kernels/__init__.py": Place(1, "", "torch"),
    "kernels/blocks.py": Place(1),
    "kernels/tokens.py": Place(1, "triton"),
    "kernels/plan.py": Place(1, "triton"),
    "kernels/forward.py": Place(1, "triton"),
    "kernels/backward_vertices.py": Place(1, "triton"),
    "kernels/backward_tokens.py": Place(1, "triton"),
    "kernels/launch.py": Place(1, "torch"),
    "brainkit/ops/gpu.py": Place(2, "torch"),
    "kernels/selector_kernels.py": Place(1, "triton"),
    "kernels/selectors.py": Place(1, "torch triton"),
    "brainkit/ops/factor_readout.py": Place(2, "torch"),
    "brainkit/ops/selector_reference.py": Place(1, "torch"),
    "brainkit/ops/gpu_networks.py": Place(2, "torch"),
    "brainkit/ops/selector_networks.py": Place(2, "torch"),
    "brainkit/ops/__init__.py": Place(2),
    # Networks, the model, data.
    "brainkit/backbones/__init__.py": Place(3, "", "torch"),
    "brainkit/backbones/base.py": Place(3, "numpy torch"),
    "brainkit/backbones/catalog.py": Place(3),
    "brainkit/backbones/conversions.py": Place(3, "torch", "timm torchvision"),
    "brainkit/backbones/lite0.py": Place(3, "torch", "timm"),
    "brainkit/backbones/loading.py": Place(3, "torch", "timm torchvision"),
    "brainkit/backbones/plugin.py": Place(3, "torch"),
    "brainkit/backbones/published.py": Place(3, "", "timm torchvision"),
    "brainkit/backbones/timm_network.py": Place(3, "torch", "timm"),
    "brainkit/backbones/torchvision_vit.py": Place(3, "torch", "torchvision"),
    "brainkit/backbones/wrapping.py": Place(3, "torch"),
    "brainkit/backbones/weights.py": Place(3, "numpy torch", "huggingface_hub safetensors"),
    "brainkit/published.py": Place(3, "torch"),
    "brainkit/vertex_lookup.py": Place(3, "numpy", "scipy"),
    "brainkit/selectors.py": Place(3, "numpy torch"),
    "brainkit/bottlenecks.py": Place(3, "numpy torch"),
    "brainkit/model.py": Place(3, "numpy torch"),
    "brainkit/ensemble.py": Place(3, "numpy torch"),
    "brainkit/data/__init__.py": Place(3),
    "brainkit/data/subject.py": Place(3, "numpy PIL"),
    "brainkit/data/mapping.py": Place(3, "numpy"),
    "brainkit/data/algonauts.py": Place(3, "numpy"),
    "brainkit/data/folder.py": Place(3, "numpy"),
    "brainkit/data/splits.py": Place(3, "numpy"),
    "brainkit/data/shares.py": Place(3, "numpy"),
    "brainkit/data/joint_splits.py": Place(3, "numpy"),
    "brainkit/data/module.py": Place(3, "numpy torch pytorch_lightning"),
    "brainkit/token_cache.py": Place(3, "numpy torch"),
    "brainkit/token_pass.py": Place(4, "numpy torch PIL"),
    "brainkit/token_filling.py": Place(4, "numpy torch"),
    "brainkit/token_statistics.py": Place(4, "numpy torch"),
    "brainkit/features.py": Place(4, "numpy torch"),
    "brainkit/device_sums.py": Place(4, "torch"),
    "brainkit/interruption.py": Place(0),
    "brainkit/memory.py": Place(4, "torch"),
    "brainkit/residency.py": Place(4, "numpy torch"),
    # Stages: each reads files and writes files.
    "brainkit/objective.py": Place(5, "torch"),
    "brainkit/distributed.py": Place(5, "torch", "pytorch_lightning"),
    "brainkit/processes.py": Place(5, "numpy"),
    "brainkit/joint.py": Place(5, "torch pytorch_lightning"),
    "brainkit/epoch_board.py": Place(5, "", "tensorboard torch"),
    "brainkit/final_report.py": Place(6, "", "rich torch"),
    "brainkit/checkpoints.py": Place(5, "torch pytorch_lightning"),
    "brainkit/averaging.py": Place(5, "torch pytorch_lightning"),
    "brainkit/calibration.py": Place(5, "numpy torch pytorch_lightning"),
    "brainkit/graphed.py": Place(5, "torch"),
    "brainkit/stopping.py": Place(5, "pytorch_lightning"),
    "brainkit/training.py": Place(5, "numpy torch pytorch_lightning"),
    "brainkit/sample.py": Place(5, "numpy torch PIL"),
    "brainkit/evaluation.py": Place(5, "numpy torch", "scipy sklearn"),
    "brainkit/export/__init__.py": Place(5, "numpy", "onnx onnxscript torch"),
    "brainkit/export/compact.py": Place(5, "numpy", "onnx"),
    "brainkit/export/ensemble.py": Place(5, "numpy", "onnx"),
    "brainkit/export/half_storage.py": Place(5, "numpy", "onnx"),
    "brainkit/export/int8.py": Place(5, "numpy", "onnx onnxruntime"),
    "brainkit/export/network.py": Place(5, "numpy", "torch"),
    "brainkit/export/onnx_graph.py": Place(5, "", "onnx torch"),
    "brainkit/export/onnx_readout.py": Place(5, "numpy", "onnx"),
    "brainkit/export/parity.py": Place(5, "numpy", "torch"),
    "brainkit/export/subset.py": Place(5, "numpy"),
    "brainkit/export/torch_forms.py": Place(5, "numpy", "torch"),
    "brainkit/scoring/__init__.py": Place(5, "numpy"),
    "brainkit/scoring/batch_size.py": Place(5, "numpy"),
    "brainkit/scoring/finding.py": Place(5),
    "brainkit/scoring/image_list.py": Place(5),
    "brainkit/scoring/image_source.py": Place(5),
    "brainkit/scoring/pipeline.py": Place(5, "numpy"),
    "brainkit/scoring/remote.py": Place(5, "", "fsspec"),
    "brainkit/scoring/resume.py": Place(5),
    "brainkit/scoring/sending.py": Place(5),
    "brainkit/scoring/shards.py": Place(5),
    "brainkit/scoring/sources.py": Place(5),
    "brainkit/scoring/cluster.py": Place(5, "numpy", "pyarrow ray"),
    "brainkit/scoring/decoding.py": Place(5, "numpy PIL"),
    "brainkit/scoring/encoder.py": Place(5, "numpy"),
    "brainkit/scoring/outputs.py": Place(5, "numpy", "zarr"),
    "brainkit/scoring/npy_rows.py": Place(5, "numpy"),
    "brainkit/scoring/npz_rows.py": Place(5, "numpy"),
    "brainkit/scoring/zarr_rows.py": Place(5, "numpy", "zarr"),
    "brainkit/scoring/brain_images.py": Place(5, "numpy", "nibabel"),
    "brainkit/scoring/tables.py": Place(5, "numpy"),
    "brainkit/scoring/form.py": Place(5, "numpy"),
    "brainkit/scoring/moments.py": Place(5, "numpy"),
    "brainkit/scoring/ranking.py": Place(5, "numpy"),
    "brainkit/scoring/contact_sheet.py": Place(5, "PIL"),
    "brainkit/scoring/sheets.py": Place(5, "numpy"),
    "brainkit/scoring/readout.py": Place(5, "numpy"),
    "brainkit/description.py": Place(5, "numpy"),
    "brainkit/token_care.py": Place(5),
    "brainkit/run_folder.py": Place(5, "numpy", "torch"),
    "brainkit/maps/__init__.py": Place(5),
    "brainkit/maps/canvas.py": Place(5, "numpy", "matplotlib"),
    "brainkit/maps/frame.py": Place(5, "numpy", "matplotlib"),
    "brainkit/maps/pages.py": Place(5, "numpy", "matplotlib PIL"),
    "brainkit/maps/predicted.py": Place(5, "numpy"),
    "brainkit/maps/static.py": Place(5, "numpy", "matplotlib PIL"),
    "brainkit/maps/view.py": Place(5, "numpy"),
    "brainkit/verification.py": Place(6, "numpy", "torch"),
    "brainkit/contrasts.py": Place(6, "numpy"),
    "brainkit/doctor.py": Place(6, "", "onnxruntime torch"),
    "brainkit/run_settings.py": Place(5),
    "brainkit/imported_places.py": Place(5, "numpy", "torch"),
    "brainkit/python_api.py": Place(6, "numpy", "torch"),
    "brainkit/own_trainer.py": Place(6, "torch"),
    "brainkit/importing.py": Place(6, "numpy", "torch"),
    "brainkit/ensemble_runs.py": Place(6, "numpy"),
    "brainkit/run_results.py": Place(6, "numpy", "torch"),
    "brainkit/run_preparation.py": Place(5, "numpy", "torch"),
    "brainkit/training_run.py": Place(6, "numpy", "torch"),
    "brainkit/run_export.py": Place(6, "numpy", "onnx torch"),
    "brainkit/workflow.py": Place(6, "numpy", "onnx pytorch_lightning torch"),
    # The command line: parse, one call, print.
    "cli/__init__.py": Place(7, "click"),
    "cli/__main__.py": Place(7),
    "cli/cache.py": Place(7, "click"),
    "cli/contrast.py": Place(7, "click"),
    "cli/doctor.py": Place(7, "click", "rich"),
    "cli/export.py": Place(7, "click", "rich"),
    "cli/import_.py": Place(7, "click"),
    "cli/info.py": Place(7, "click", "rich"),
    "cli/map.py": Place(7, "click", "rich"),
    "cli/predict.py": Place(7, "click", "rich"),
    "cli/sample.py": Place(7, "click", "rich"),
    "cli/train.py": Place(7, "click", "rich"),
    "cli/_values.py": Place(7, "click"),
    "cli/verify.py": Place(7, "click"),
    # Lazy names, for users. Inside the house nobody uses them; __version__ is for all.
    "brainkit/__init__.py": Place(7),
}

# Files of one floor that may use each other although they do not share a folder. errors.py and files.py serve all.
EVERYONES = {"brainkit/errors.py", "brainkit/files.py"}
NAMED = {
    "brainkit/config.py": {"brainkit/config_values.py"},
    "brainkit/free_memory.py": {"brainkit/control_groups.py"},
    "brainkit/runtime.py": {"brainkit/control_groups.py"},
    "brainkit/encoder_file/info.py": {"brainkit/images.py", "brainkit/surface.py", "brainkit/volume.py"},
    "brainkit/encoder_file/metadata.py": {"brainkit/images.py", "brainkit/surface.py", "brainkit/volume.py"},
    "brainkit/token_store.py": {"brainkit/locks.py", "brainkit/runtime.py", "brainkit/token_shard.py"},
    "brainkit/token_filling.py": {"brainkit/token_pass.py"},
    "brainkit/features.py": {
        "brainkit/token_filling.py",
        "brainkit/token_pass.py",
        "brainkit/token_statistics.py",
    },
    "brainkit/model.py": {"brainkit/bottlenecks.py", "brainkit/published.py", "brainkit/selectors.py"},
    "brainkit/ensemble.py": {"brainkit/model.py"},
    "brainkit/calibration.py": {"brainkit/checkpoints.py"},
    "brainkit/graphed.py": {"brainkit/objective.py", "brainkit/training.py"},
    "brainkit/residency.py": {"brainkit/memory.py"},
    "brainkit/processes.py": {"brainkit/distributed.py"},
    "brainkit/joint.py": {"brainkit/distributed.py", "brainkit/training.py"},
    "brainkit/training.py": {
        "brainkit/averaging.py",
        "brainkit/calibration.py",
        "brainkit/checkpoints.py",
        "brainkit/distributed.py",
        "brainkit/graphed.py",
        "brainkit/objective.py",
        "brainkit/processes.py",
        "brainkit/stopping.py",
    },
    "brainkit/epoch_board.py": {"brainkit/objective.py"},
    "brainkit/run_preparation.py": {"brainkit/evaluation.py", "brainkit/run_folder.py", "brainkit/sample.py"},
    "brainkit/training_run.py": {"brainkit/final_report.py", "brainkit/run_results.py"},
    "brainkit/run_export.py": {"brainkit/ensemble_runs.py"},
    "brainkit/workflow.py": {"brainkit/final_report.py", "brainkit/run_export.py", "brainkit/training_run.py"},
    "brainkit/python_api.py": {"brainkit/workflow.py"},
    "brainkit/own_trainer.py": {
        "brainkit/final_report.py",
        "brainkit/python_api.py",
        "brainkit/run_results.py",
        "brainkit/workflow.py",
    },
    "brainkit/importing.py": {"brainkit/run_results.py", "brainkit/workflow.py"},
    "brainkit/run_folder.py": {"brainkit/export/__init__.py"},
    "brainkit/sample.py": {"brainkit/photographs.py"},
    "brainkit/evaluation.py": {"brainkit/scoring/__init__.py"},
}
# The maps and scoring work on what files hold, not on what made them.
ONLY_FOUNDATIONS = {file for file in PLACES if file.startswith(("brainkit/maps/", "brainkit/scoring/"))} | {
    "brainkit/description.py",
}


@dataclass(frozen=True)
class Import:
    """One imported name: `inside` a function, or only for type checkers (`typing`)."""

    name: str
    line: int
    inside: bool
    typing: bool


def sources() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def module_of(file: str) -> str:
    folder, _, rest = file.partition("/")
    dotted = f"{FOLDERS[folder]}.{rest.removesuffix('.py').replace('/', '.')}"
    return dotted.removesuffix(".__init__")


FILES = {module_of(file): file for file in sources()}


def imports_of(file: str) -> Iterator[Import]:
    yield from _walk(ast.parse((ROOT / file).read_text(encoding="utf-8")), module_of(file), file, False, False)


def _walk(node: ast.AST, module: str, file: str, inside: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        names: list[str] = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = [f"{_base(child, module, file)}.{alias.name}" for alias in child.names]
        elif isinstance(child, ast.Call) and _is_import_call(child):
            names = [child.args[0].value]
        for name in names:
            yield Import(name, child.lineno, inside, typing)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, module, file, inside or function, typing or _is_typing_block(child))


def _base(node: ast.ImportFrom, module: str, file: str) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.endswith("__init__.py") else module.split(".")[:-1]
    return ".".join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))


def _is_import_call(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    literal = bool(node.args) and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    return called in ("require", "import_module", "__import__") and literal


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def own_file(name: str) -> str | None:
    """The file of ours that an imported dotted name leads to, or None for other packages and for brainkit._C."""
    if name.split(".")[0] != "brainkit" or name.startswith("brainkit._C"):
        return None
    while name not in FILES:
        name = name.rpartition(".")[0]
    return FILES[name]


def test_every_file_has_a_floor():
    assert sorted(PLACES) == sources()


@pytest.mark.parametrize("file", sources())
def test_imports_come_from_lower_floors(file):
    place = PLACES[file]
    wrong = []
    for found in imports_of(file):
        target = own_file(found.name)
        if target is None or target in EVERYONES or target == file:
            continue
        if target == "brainkit/__init__.py":
            if found.name not in ("brainkit", "brainkit.__version__"):
                wrong.append(f"line {found.line}: {found.name} is a lazy name for users; import it from where it is")
            continue
        other = PLACES[target].floor
        same_room = other == place.floor and Path(target).parent == Path(file).parent != Path("brainkit")
        named = target in NAMED.get(file, ())
        too_high = other >= place.floor and file != "brainkit/__init__.py"
        if file in ONLY_FOUNDATIONS:
            too_high = other > 0
        if too_high and not same_room and not named:
            wrong.append(f"line {found.line}: {found.name} lies on floor {other}, this file on floor {place.floor}")
    assert not wrong, f"{file}: {wrong}"


@pytest.mark.parametrize("file", sources())
def test_third_party_packages_are_the_ones_allowed(file):
    place = PLACES[file]
    top = set(place.top.split())
    anywhere = top | set(place.inside.split())
    wrong = []
    for found in imports_of(file):
        package = found.name.split(".")[0]
        if found.typing or package == "brainkit" or package in sys.stdlib_module_names:
            continue
        if package not in (anywhere if found.inside else top):
            where = "inside a function" if found.inside else "at the top"
            wrong.append(f"line {found.line}: {package} may not be imported {where}")
    assert not wrong, f"{file}: {wrong}"


def test_no_file_imports_the_mapped_folders_by_their_bare_names():
    for file in sources():
        assert not {found.name.split(".")[0] for found in imports_of(file)} & {"cli", "kernels"}, file


HEAVY = ("torch", "onnxruntime", "onnx", "timm", "triton", "pytorch_lightning", "scipy", "nilearn", "matplotlib")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import brainkit", (*HEAVY, "numpy")),
        ("import brainkit.kernels", (*HEAVY, "numpy")),
        ("import brainkit.data", HEAVY),
        ("import brainkit.maps", HEAVY),
        ("import brainkit.cli", (*HEAVY, "numpy")),
        ("import brainkit.scoring", ("torch", "timm", "triton", "matplotlib", "nilearn")),
    ],
)
def test_importing_is_light(statement, absent):
    report = f"import sys; {statement}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
