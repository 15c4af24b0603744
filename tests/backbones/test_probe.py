"""Networks are tried before anything is extracted: they must repeat themselves, and compute in float32."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from brainkit.backbones import load_backbone, wrap_network  # noqa: E402
from brainkit.backbones.probe import _random_state  # noqa: E402
from brainkit.errors import BrainkitError, UsageError  # noqa: E402
from brainkit.images import Preprocessing  # noqa: E402

PROGRAM = """
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from brainkit.images import Preprocessing


class Base(nn.Module):
    pretrained = True
    preprocessing = Preprocessing(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.BatchNorm2d(16)

    def get_tokens(self, x):
        first = self.conv(x)
        second = self.second(x, first)
        local = {"first": first, "second": second}
        return local, {name: tokens.mean((2, 3)) for name, tokens in local.items()}


"""


def load(tmp_path: Path, body: str, start: str = ""):
    """The backbone of a plug-in: what its second layer is, and a line at the end of its constructor."""
    program = PROGRAM + f"class Net(Base):\n    def second(self, x, first):\n        {body}\n"
    if start:
        program += f"    def __init__(self):\n        super().__init__()\n        {start}\n"
    file = tmp_path / "net.py"
    file.write_text(program)
    return load_backbone(f"{file}:Net")


# What the second layer computes, and what the error must name.
SHAKY = {
    "dropout": ("return F.dropout(first, 0.5, training=True)", "dropout"),
    "a little dropout": ("return F.dropout(first, 0.01, training=True)", "dropout"),
    "stochastic depth": ("return first + (torch.rand(()) < 0.5) * first.relu()", "random numbers"),
    "noise": ("return first + 0.2 * torch.randn_like(first)", "noise"),
    "NumPy's noise": ("return first * float(1 + 0.2 * np.random.randn())", "random numbers"),
    "Python's noise": ("return first * random.uniform(0.8, 1.2)", "random numbers"),
    "noise of its own": ("return first * 10.0 ** np.random.default_rng().uniform(0, 30)", "random"),
    "a counter": ("self.n = getattr(self, 'n', 0) + 1; return first * self.n", "from one call to the next"),
    "training mode": ("self.train(); return self.norm(first)", "'norm'.*self.train"),
    "training mode, dropout": ("self.train(); return F.dropout(first, 0.5, self.training)", "self.train"),
    "running mean": (
        "self.norm.running_mean.lerp_(5 * first.mean((0, 2, 3)), 0.5); return self.norm(first)",
        "norm.running_mean",
    ),
    "batch statistics": ("return F.batch_norm(first, None, None, training=True)", "batch statistics"),
    "group norm over the batch": ("return F.group_norm(first.mT.transpose(0, 1), 1).transpose(0, 1).mT", "batch"),
    "the mean of the batch": ("return first - first.mean(0)", "mean over the first dimension"),
    "the first of the batch": ("return first - first[:1]", "batch"),
}


@pytest.mark.parametrize("kind", SHAKY)
def test_a_network_that_does_not_repeat_itself(tmp_path, kind):
    body, cause = SHAKY[kind]
    with pytest.raises(BrainkitError, match=rf"net\.py:Net: .*'second'.*{cause}") as caught:
        load(tmp_path, body)
    assert "\n" not in str(caught.value) and "'first'" not in str(caught.value)


@pytest.mark.parametrize("kind", ["dropout", "training mode", "the mean of the batch"])
def test_a_module_given_in_python_that_does_not_repeat_itself(kind):
    module: dict[str, object] = {}
    body, cause = SHAKY[kind]
    exec(PROGRAM + f"class Net(Base):\n    def second(self, x, first):\n        {body}\n", module)
    with pytest.raises(BrainkitError, match=f"Net: .*'second'.*{cause}"):
        wrap_network(module["Net"]())  # type: ignore[operator]


@pytest.mark.parametrize(
    "body",
    [
        "x.mul_(2).sub_(0.1); return self.conv(x)",  # works in place
        "self.n = getattr(self, 'n', 0) + 1; torch.randn(3); return first.relu()",  # counts and draws to no effect
        "return F.dropout(self.norm(first), 0.5, self.training)",
        "return 1000 + 1e-2 * first",  # hardly varies
        "return 0 * first",  # does not vary
        "return first - first.mean((1, 2, 3), keepdim=True)",
        "return torch.stack([self.conv(image[None])[0] for image in x])",
    ],
)
def test_networks_that_repeat_themselves(tmp_path, body):
    assert load(tmp_path, body).layer_names == ("first", "second")


def test_a_network_that_sees_nothing_is_refused(tmp_path):
    with pytest.raises(BrainkitError, match=r"net\.py:Net: .*same tokens for different images"):
        load(tmp_path, "return first", "self.conv.weight.data.zero_()")


def test_the_second_of_a_pair_of_gaussian_numbers_is_a_draw_too():
    device = torch.device("cpu")
    np.random.seed(0)  # noqa: NPY002
    states = [_random_state(device)]
    for _ in range(4):
        np.random.randn()  # noqa: NPY002
        states.append(_random_state(device))
    assert all(one != two for one, two in itertools.combinations(states, 2))


def test_what_is_stored_with_the_weights_must_not_change(tmp_path):
    with pytest.raises(BrainkitError, match=r"net\.py:Net: .*'calls'.*persistent=False"):
        load(tmp_path, "self.calls += 1; return first", "self.register_buffer('calls', torch.zeros(()))")
    load(tmp_path, "self.calls += 1; return first", "self.register_buffer('calls', torch.zeros(()), persistent=False)")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return first.reshape(1, 16, 4, 4)", r"2 synthetic .*net\.py:\d+"),
        ("return first.mean(0, keepdim=True)", r"layer 'second': .*\(2, C, H, W\) for 2 images"),
        ("return first[..., :len(x), :]", "same size"),
        ("return first / 0 * 0", "'second'.*the network itself gives NaN"),
        ("return first * 1e38 * 1e38", "'second'.*the network itself gives infinite"),
        ("return torch.fft.fft2(first)", "'second'.*real numbers.*complex64"),
    ],
)
def test_tokens_that_are_refused(tmp_path, body, expected):
    with pytest.raises(BrainkitError, match=rf"net\.py:Net: .*{expected}") as caught:
        load(tmp_path, body)
    assert "\n" not in str(caught.value)


def test_lazy_layers_have_the_same_weights_each_time(tmp_path):
    body, start = "return self.lazy(first)", "self.lazy = nn.LazyConv2d(4, 1)"
    assert load(tmp_path, body, start).weights_hash == load(tmp_path, body, start).weights_hash


# --- numbers


@pytest.mark.parametrize(
    ("start", "body", "numbers"),
    [
        ("self.to(torch.bfloat16)", "return self.conv(x.to(torch.bfloat16))", "bfloat16"),
        ("self.half()", "return self.conv(x.half()).float()", "float16"),
        ("self.double()", "return self.conv(x.double())", "float64"),
        ("", "return self.conv(x).bfloat16() * 2", "bfloat16"),
        ("", "y = torch.autocast('cpu', torch.bfloat16)\n        with y: return self.conv(x).float()", "bfloat16"),
        ("", "return F.conv2d(x.double(), torch.ones(16, 3, 8, 8, dtype=torch.float64)).float()", "float64"),
    ],
)
def test_computing_in_other_numbers_is_refused(tmp_path, start, body, numbers):
    with pytest.raises(BrainkitError, match=rf"net\.py:Net: .*{numbers}.*float32") as caught:
        load(tmp_path, body, start)
    assert "\n" not in str(caught.value)
    if start:
        assert ".float()" in str(caught.value)


@pytest.mark.parametrize("start", ["self.to(torch.bfloat16)", "self.half()", "self.double()", "self.norm.half()"])
def test_weights_in_other_numbers_are_converted(tmp_path, start):
    body = "first = self.conv(x.to(self.conv.weight.dtype)); return self.norm(first.to(self.norm.weight.dtype))"
    program = PROGRAM.replace("first = self.conv(x)", "first = self.conv(x.to(self.conv.weight.dtype))")
    file = tmp_path / "net.py"
    file.write_text(
        f"{program}class Net(Base):\n    def second(self, x, first):\n        {body}\n"
        f"    def __init__(self):\n        super().__init__()\n        {start}\n"
    )
    backbone = load_backbone(f"{file}:Net")
    assert {each.dtype for each in backbone.parameters()} == {torch.float32}
    (note,) = backbone.notes
    assert "net.py:Net" in note and "float32" in note
    module: dict[str, object] = {}
    exec(file.read_text(), module)
    network = module["Net"]()  # type: ignore[operator]
    before = {key: (value.dtype, value.clone()) for key, value in network.state_dict().items()}
    assert wrap_network(network).weights_hash == backbone.weights_hash
    for key, value in network.state_dict().items():
        assert value.dtype == before[key][0] and torch.equal(value, before[key][1])


def test_a_backbone_that_was_converted_is_refused(tmp_path):
    from brainkit.config import Config
    from brainkit.runs.network import load_network

    backbone = load_backbone("test_vit", size=64, random_weights=True)
    with pytest.raises(UsageError, match=r"test_vit: .*float16.*\.float\(\)"):
        load_network(Config(), backbone.half())
    assert load_network(Config(), backbone.float()) is backbone


def test_images_of_the_probe_are_valid_for_any_preprocessing(tmp_path):
    """A logarithm of pixel values is finite for every image."""

    class Log(torch.nn.Module):
        pretrained = False
        preprocessing = Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")

        def get_tokens(self, images):
            tokens = (images + 1e-3).log()
            return {"a": tokens}, {"a": tokens.mean((2, 3))}

    assert wrap_network(Log()).grids == {"a": (32, 32)}
