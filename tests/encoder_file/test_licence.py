"""The licence of an encoder file: of code, backbone and data."""

from __future__ import annotations

import pytest

from brainkit.encoder_file.licence import data_kind, describe_licence, licence_terms


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0, NON-COMMERCIAL use alone"),
        ("fair-noncommercial-research-license", "fair-noncommercial-research-license, NON-COMMERCIAL use alone"),
        ("dinov3-license", "dinov3-license: terms of its own, to be read before the file is used or passed on"),
        ("unknown", "not stated: ask its authors"),
        (None, "not stated: ask its authors"),
    ],
)
def test_a_licence_in_words(licence: str | None, words: str) -> None:
    assert describe_licence(licence) == words


def test_the_kind_of_data_is_known_by_note_and_names() -> None:
    assert data_kind(["train-0001_nsd-00013.png"], None) == "nsd"
    assert data_kind(["train-0001_nsd-00013.png"], "simulated") == "simulated"
    assert data_kind(["cat.png", "tense-1.png"], None) == "own"
    assert licence_terms(backbone="x", licence="mit", pretrained=False)["backbone"].endswith("drawn by brainkit: none")
    assert "ask those who measured" in licence_terms(backbone="x", licence="mit", data=None)["data"]
