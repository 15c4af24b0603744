"""Networks whose class is in no source file, and files with several definitions of one class."""

# ruff: noqa: E402
from __future__ import annotations

import linecache
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from patch_backbone import record_bits

from brainkit.backbones import load_backbone, wrap_network
from brainkit.features.code_hash import code_hash
from brainkit.features.extract import extract_tokens
from brainkit.images import content_hash

PROGRAM = '''
import torch
from brainkit.images import Preprocessing

GAIN = 2.0

def half(tokens):
    return tokens * 0.5

class Block(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.avg_pool2d(images, 4)

class Net(torch.nn.Module):
    """Means."""
    pretrained = False
    preprocessing = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")

    def __init__(self):
        super().__init__()
        self.block = Block()

    @torch.no_grad()
    def get_tokens(self, images):
        tokens = half(self.block(images)) * GAIN
        return {"a": tokens}, {"a": tokens.mean((2, 3))}
'''


def defined(program: str = PROGRAM, name: str = "__main__", file: str = "<string>") -> Any:
    """The network of a program that is in no file, as at a prompt."""
    module: dict[str, Any] = {"__name__": name}
    exec(compile(program, file, "exec"), module)
    return module["Net"]()


def made_by_a_function(gain: float, offset: Any = 0.0) -> Any:
    class Net(torch.nn.Module):
        pretrained = False

        def get_tokens(self, images: torch.Tensor, offset: Any = offset) -> Any:
            tokens = torch.nn.functional.avg_pool2d(images, 32) * gain + offset
            return {"a": tokens}, {"a": tokens.mean((2, 3))}

    return Net()


@pytest.mark.parametrize("file", ["<string>", "<ipython-input-3-1f>", "/tmp/ipykernel_1/2.py"])
def test_a_network_from_a_prompt_or_a_notebook_cell(photos: list[Path], cache: Path, file: str) -> None:
    first = extract_tokens(wrap_network(defined(file=file)), photos, grid=(2, 2))
    again = extract_tokens(wrap_network(defined("\n\n" + PROGRAM, file=f"{file}x")), photos, grid=(2, 2))
    assert (first.extracted, again.extracted) == (11, 0)
    assert np.array_equal(record_bits(first), record_bits(again))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("avg_pool2d", "max_pool2d"),  # another class than the network's own
        ("* 0.5", "* 0.25"),  # a function
        ("GAIN = 2.0", "GAIN = 3.0"),
        ('"bilinear"', '"bicubic"'),
        ("(2, 3)", "(3, 2)"),
    ],
)
def test_two_definitions_have_two_stores(photos: list[Path], cache: Path, before: str, after: str) -> None:
    one = extract_tokens(wrap_network(defined()), photos, grid=(2, 2))
    other = extract_tokens(wrap_network(defined(PROGRAM.replace(before, after))), photos, grid=(2, 2))
    assert one.folder != other.folder and other.extracted == 11
    assert code_hash(defined()) == code_hash(defined(PROGRAM.replace("Means.", "The means.")))


@pytest.mark.parametrize("other", ["(2.0,)", "[2.0]", "{'gain': 1.0}", "np.ones(1)", "torch.ones(1)"])
def test_values_of_other_cells_count(other: str) -> None:
    start = "import numpy as np\nimport torch\n"
    program = PROGRAM.replace("* 0.5", "* GAINS[0]")
    assert program != PROGRAM
    hashes = {code_hash(defined(f"{start}GAINS = {gains}\n{program}")) for gains in ("(1.0,)", "(1.5,)", other)}
    assert len(hashes) == 3


def test_classes_that_a_function_makes(photos: list[Path], cache: Path) -> None:
    hashes = [
        code_hash(network)
        for network in (
            made_by_a_function(1.0),
            made_by_a_function(2.0),
            made_by_a_function(1.0, 1.0),
            made_by_a_function(1.0, torch.ones(1)),
            made_by_a_function(1.0, torch.zeros(1)),
            made_by_a_function(1.0, torch.zeros(1, dtype=torch.bfloat16)),
            made_by_a_function(1.0, np.ones(1)),
            made_by_a_function(1.0, np.zeros(1)),
        )
    ]
    assert len(set(hashes)) == len(hashes)
    assert code_hash(made_by_a_function(1.0)) == hashes[0] != content_hash(__file__)


def test_a_method_given_to_one_module() -> None:
    plain = torch.nn.Conv2d(3, 4, 8)
    hashes = {code_hash(plain)}
    for gain in (1.0, 2.0):
        module = torch.nn.Conv2d(3, 4, 8)
        module.get_tokens = lambda images, gain=gain: ({"a": images * gain}, {"a": images.mean((2, 3))})
        hashes.add(code_hash(module))
    assert len(hashes) == 3


def test_a_class_at_the_top_of_a_file_has_the_hash_of_the_file(tmp_path: Path) -> None:
    """As in earlier versions, whose stores are used."""
    (tmp_path / "net.py").write_text(PROGRAM)
    assert code_hash(load_backbone(f"{tmp_path}/net.py:Net").network) == content_hash(tmp_path / "net.py")
    network = load_backbone("test_vit", random_weights=True, size=64).network
    assert code_hash(network) == content_hash(sys.modules[type(network).__module__].__file__ or "")


def test_a_class_that_exec_puts_into_a_module_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text("def define(program):\n    exec(program, globals())\n    return Net()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import nets  # type: ignore[import-not-found]

    one, other = nets.define(PROGRAM), nets.define(PROGRAM.replace("(2, 3)", "(3, 2)"))
    assert len({code_hash(one), code_hash(other), content_hash(tmp_path / "nets.py")}) == 3


def test_a_class_pickled_by_value_has_the_same_hash_elsewhere(tmp_path: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    network = defined()
    (tmp_path / "net.pkl").write_bytes(cloudpickle.dumps(network))
    assert code_hash(pickle.loads((tmp_path / "net.pkl").read_bytes())) == code_hash(network)
    program = (
        "import pickle, sys\nfrom brainkit.features.code_hash import code_hash\n"
        "print(code_hash(pickle.load(open(sys.argv[1], 'rb'))))"
    )
    (tmp_path / "script.py").write_text(program)
    found = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "net.pkl"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == code_hash(network)


@pytest.mark.slow
def test_the_documented_example_in_ipython(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    cells = (PROGRAM, "from brainkit.features.code_hash import code_hash\nfound = code_hash(Net())")
    for cell in cells:
        shell.run_cell(cell).raise_error()
    assert shell.user_ns["found"] == code_hash(defined())
    assert any("get_tokens" in "".join(entry[2]) for entry in linecache.cache.values() if len(entry) == 4)
