"""A backbone is sent to another process: a plug-in's file is imported there first."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from brainkit.backbones import load_backbone  # noqa: E402

PLUGIN = """
import torch

class Mine(torch.nn.Module):
    pretrained = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.part = Part()

    def get_tokens(self, images):
        tokens = self.part(images)
        return {"only": tokens}, {"only": tokens.mean((2, 3))}

class Part(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 32, 32)
"""


def test_a_plugin_is_opened_where_its_file_was_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    backbone = load_backbone("net.py:Mine")
    images = torch.rand(2, 3, 224, 224)
    expected = backbone.get_tokens(images)[1]["only"]
    assert torch.equal(copy.deepcopy(backbone).get_tokens(images)[1]["only"], expected)
    pickled = pickle.dumps(backbone)
    module = type(backbone.network).__module__
    monkeypatch.delitem(sys.modules, module)  # as in a new process
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(pickled)
    assert type(again.network).__module__ == module in sys.modules
    assert torch.equal(again.get_tokens(images)[1]["only"], expected)
    assert pickle.loads(pickled).network.__class__ is again.network.__class__  # not imported once more
