"""Users' own networks: FILE.py:ClassName."""

from __future__ import annotations

import random
import re
import shutil

import numpy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from brainkit.backbones import load_backbone  # noqa: E402
from brainkit.backbones.base import name_layers  # noqa: E402
from brainkit.errors import BrainkitError, UsageError  # noqa: E402
from brainkit.images import PUBLISHED  # noqa: E402

RESERVED = ("values", "keys", "items", "pop", "type", "training", "forward", "_modules")  # by torch.nn.ModuleDict

PLUGIN = """
import random
import numpy
import torch
from brainkit.images import Preprocessing

class Mine(torch.nn.Module):
    preprocessing = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    licence = "mit"

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 8, 8)
        self.second = torch.nn.Conv2d(4, 6, 2, 2)
        self.dropout = torch.nn.Dropout()

    def get_tokens(self, images):
        a = self.dropout(self.first(images))
        b = self.second(a)
        local = {"body.0": a, "body.1": b}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}

class Plain(Mine):
    preprocessing = None

class Broken(Mine):
    def __init__(self):
        raise FileNotFoundError("no weights at home")

class Exits(Mine):
    def __init__(self):
        raise SystemExit(3)

class Lacks(Mine):
    def __init__(self):
        import no_such_package_at_all

class Fits(Mine):
    def __init__(self):
        super().__init__()
        self.first.load_state_dict({"other": torch.zeros(1)})

class Property(Mine):
    @property
    def preprocessing(self):
        return self.no_such_attribute

class Setting(Mine):
    preprocessing = {"size": 32}

class Drawn(Mine):
    def __init__(self):
        super().__init__()
        self.first.weight.data += torch.from_numpy(numpy.random.standard_normal(768)).view(4, 3, 8, 8).float()
        self.first.bias.data += random.random()

class Anew(Mine):
    def __init__(self):
        super().__init__()
        self.first.bias.data += float(numpy.random.default_rng().random())

class Stated(Mine):
    pretrained = False
    citation = "Me (2026)"

class Oddly(Mine):
    licence = None
    citation = ("Me", 2026)

    def __init__(self):
        super().__init__()
        self.pretrained = torch.nn.Identity()

class Interrupted(Mine):
    def get_tokens(self, images):
        raise KeyboardInterrupt

class Full(Mine):
    def get_tokens(self, images):
        raise MemoryError

class Ragged(Mine):
    def get_tokens(self, images):
        local, global_ = super().get_tokens(images)
        return local, {name: tokens[:, :2] for name, tokens in global_.items()}

class Other(Mine):
    def get_tokens(self, images):
        local, global_ = super().get_tokens(images)
        return local, {"body.0": global_["body.0"]}

class Flat(Mine):
    def get_tokens(self, images):
        local, global_ = super().get_tokens(images)
        return {name: tokens.flatten(2) for name, tokens in local.items()}, global_

class Listed(Mine):
    def get_tokens(self, images):
        return list(super().get_tokens(images)[0].values())

class Raising(Mine):
    def get_tokens(self, images):
        raise ZeroDivisionError("of no use")

class NotAModule:
    def get_tokens(self, images):
        return {}, {}
"""


@pytest.fixture
def plugin(tmp_path) -> str:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "model.py").write_text(PLUGIN)
    return str(folder / "model.py")


def test_tokens_of_a_plugin(plugin):
    backbone = load_backbone(f"{plugin}:Mine")
    assert backbone.layer_names == ("body_0", "body_1")
    assert backbone.widths == {"body_0": 4, "body_1": 6}
    assert backbone.grids == {"body_0": (4, 4), "body_1": (2, 2)}
    assert (backbone.preprocessing.size, backbone.licence, backbone.pretrained) == (32, "mit", None)
    images = torch.randn(2, 3, 32, 32)
    local, global_ = backbone.get_tokens(images)
    assert local["body_1"].shape == (2, 6, 2, 2)
    assert global_["body_1"].shape == (2, 6)
    backbone.train()
    torch.testing.assert_close(backbone.get_tokens(images)[0]["body_0"], local["body_0"])
    only = load_backbone(f"{plugin}:Mine", layers=["body.1"], size=64)
    assert only.layer_names == ("body_1",)
    assert only.grids == {"body_1": (4, 4)}


def test_a_plugin_without_preprocessing_has_the_published_one(plugin):
    assert load_backbone(f"{plugin}:Plain").preprocessing == PUBLISHED


def test_two_plugins_of_one_file_name_do_not_mix(plugin, tmp_path):
    other = tmp_path / "model.py"
    shutil.copy(plugin, other)
    other.write_text(other.read_text().replace("Conv2d(3, 4, 8, 8)", "Conv2d(3, 4, 4, 4)"))
    first, second = load_backbone(f"{plugin}:Mine"), load_backbone(f"{other}:Mine")
    assert type(first.network).__module__ != type(second.network).__module__
    assert second.grids["body_0"] == (8, 8)


@pytest.mark.parametrize(
    ("suffix", "error", "expected"),
    [
        ("", UsageError, "ClassName"),
        (":Nobody", UsageError, "Nobody.*Mine"),
        (":Broken", BrainkitError, r"FileNotFoundError: no weights at home \(model\.py:{Broken+2}\)"),
        (":Exits", BrainkitError, r"SystemExit: 3 \(model\.py:{Exits+2}\)"),
        (":Lacks", BrainkitError, r"\(model\.py:{Lacks+2}\); install no_such_package_at_all"),
        (":Fits", BrainkitError, r"Missing key.* \(model\.py:{Fits+3}\)"),
        (":Property", BrainkitError, r"no_such_attribute.* \(model\.py:{Property+3}\)"),
        (":Setting", BrainkitError, "'preprocessing' must be.*dict"),
        (":Anew", BrainkitError, r"'first.bias'.*seed"),
        (":Ragged", BrainkitError, r"'body.0': global tokens must have shape \(1, 4\).*\(1, 2\)"),
        (":Other", BrainkitError, "same layers"),
        (":Flat", BrainkitError, r"must have shape \(1, C, H, W\).*\(1, 4, 16\)"),
        (":Listed", BrainkitError, "two dicts"),
        (":Raising", BrainkitError, r"get_tokens.*ZeroDivisionError: of no use \(model\.py:{Raising+2}\)"),
        (":NotAModule", BrainkitError, "torch.nn.Module"),
    ],
)
def test_the_error_of_a_failing_plugin_has_the_reason(plugin, suffix, error, expected):
    for line, text in enumerate(PLUGIN.splitlines(), 1):  # the line of a class, and some more
        if name := re.match(r"class (\w+)", text):
            expected = re.sub(rf"{{{name[1]}\+(\d)}}", lambda more, line=line: str(line + int(more[1])), expected)
    with pytest.raises(error, match=expected) as caught:
        load_backbone(plugin + suffix)
    assert "\n" not in str(caught.value) and "model.py" in str(caught.value)


@pytest.mark.parametrize(("kind", "error"), [("Interrupted", KeyboardInterrupt), ("Full", MemoryError)])
def test_interruptions_and_full_memory_pass(plugin, kind, error):
    with pytest.raises(error):
        load_backbone(f"{plugin}:{kind}")


def test_random_numbers_of_the_constructor_follow_the_seed_and_leave_those_of_the_caller(plugin):
    def states() -> tuple[object, ...]:
        return numpy.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    one, same = load_backbone(f"{plugin}:Drawn", seed=3), load_backbone(f"{plugin}:Drawn", seed=3)
    assert one.weights_hash == same.weights_hash != load_backbone(f"{plugin}:Drawn", seed=4).weights_hash
    assert states() == before


def test_what_a_plugin_states_and_what_it_does_not(plugin):
    stated = load_backbone(f"{plugin}:Stated")
    assert (stated.pretrained, stated.licence, stated.citation) == (False, "mit", "Me (2026)")
    assert stated.notes == ()
    silent = load_backbone(f"{plugin}:Mine")
    assert (silent.pretrained, silent.licence, silent.citation) == (None, "mit", None)
    (note,) = silent.notes
    assert "model.py:Mine" in note and "pretrained = True" in note and "citation" in note and "licence" not in note
    odd = load_backbone(f"{plugin}:Oddly")  # other things under these names
    assert (odd.pretrained, odd.licence, odd.citation) == (None, None, None)


def test_what_a_plugin_states_must_have_the_right_type(plugin):
    with open(plugin, "a") as file:
        file.write("\nclass Yes(Mine):\n    pretrained = 'yes'\n")
        file.write("\nclass Five(Mine):\n    licence = 5\n\nclass Tokenless:\n    pass\n")
    with pytest.raises(BrainkitError, match="pretrained must be True or False, got 'yes'"):
        load_backbone(f"{plugin}:Yes")
    with pytest.raises(BrainkitError, match="licence must be text, got 5"):
        load_backbone(f"{plugin}:Five")
    with pytest.raises(UsageError, match="available: ") as caught:
        load_backbone(f"{plugin}:Nothing")
    assert "Mine" in str(caught.value) and "Tokenless" not in str(caught.value)


def test_the_american_spelling_of_licence(plugin):
    with open(plugin, "a") as file:
        file.write("class American(Mine):\n    licence = None\n    license = 'bsd-3-clause'\n")
    assert load_backbone(f"{plugin}:American").licence == "bsd-3-clause"


@pytest.mark.parametrize("layer", ["", "a b", "../up", "é", "a\\n", *RESERVED])
def test_layer_names_that_are_refused(plugin, layer):
    with open(plugin, "a") as file:
        file.write(
            "class Odd(Mine):\n"
            "    def get_tokens(self, images):\n"
            "        tokens = self.first(images)\n"
            f"        return {{{layer!r}: tokens}}, {{{layer!r}: tokens.mean((2, 3))}}\n"
        )
    with pytest.raises(UsageError, match="letters" if layer not in RESERVED else "torch") as caught:
        load_backbone(f"{plugin}:Odd")
    message = str(caught.value)
    assert "\n" not in message and f"layer {layer!r}" in message and "model.py:Odd" in message


def test_layer_names_that_are_accepted():
    names = name_layers(["body.0", "value", "A-1_b", "0"], owner="net")
    assert names == {"body_0": "body.0", "value": "value", "A-1_b": "A-1_b", "0": "0"}
    torch.nn.ModuleDict({name: torch.nn.Identity() for name in names})


def test_plugin_file_missing_or_not_python(tmp_path):
    with pytest.raises(UsageError, match="not found"):
        load_backbone(f"{tmp_path}/none.py:Mine")
    (tmp_path / "bad.py").write_text("class Mine(:\n")
    with pytest.raises(BrainkitError, match=r"bad.py: cannot be imported: SyntaxError"):
        load_backbone(f"{tmp_path}/bad.py:Mine")
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit('usage: script.py DATA')\n")
    with pytest.raises(BrainkitError, match=r"script.py: .*usage: script.py DATA \(script.py:3\)"):
        load_backbone(f"{tmp_path}/script.py:Mine")
    (tmp_path / "lacks.py").write_text("import no_such_package_at_all.part\n")
    with pytest.raises(BrainkitError, match=r"lacks.py: .*\(lacks.py:1\); install no_such_package_at_all"):
        load_backbone(f"{tmp_path}/lacks.py:Mine")


def test_plugin_refuses_weight_options_and_unknown_layers(plugin):
    with pytest.raises(UsageError, match="weights"):
        load_backbone(f"{plugin}:Mine", random_weights=True)
    with pytest.raises(UsageError, match="available: body_0, body_1"):
        load_backbone(f"{plugin}:Mine", layers=["body.7"])
