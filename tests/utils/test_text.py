"""Text for messages."""

from __future__ import annotations

import pytest

from brainkit.utils.text import nearest_name, nearest_names

NAMES = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "tf_efficientnet_es",
    "dinov2",
    "dinov3",
    "resnet",
    "resnet50",
    "vit",
)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("efficientnet_lite", ["efficientnet_lite0", "efficientnet_lite1"]),
        ("DINO", ["dinov2", "dinov3"]),
        ("dinov2_vitb14", ["dinov2"]),
        ("resnet5o", ["resnet", "resnet50"]),
        ("efficientnetlite1", ["efficientnet_lite1"]),
        ("", []),
        ("zzz", []),
    ],
)
def test_what_a_name_begins_comes_first(name: str, nearest: list[str]) -> None:
    assert nearest_names(name, NAMES)[: max(1, len(nearest))] == nearest


def test_all_names_are_listed_if_none_is_near() -> None:
    assert "'dinov2'" in nearest_name("dinov", NAMES)
    assert all(name in nearest_name("zzz", NAMES) for name in NAMES)
