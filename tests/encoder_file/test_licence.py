"""The licence of an encoder file: of code, backbone and data."""

from __future__ import annotations

import pytest

from brainkit.encoder_file.licence import (
    citation,
    describe_licence,
    is_non_commercial,
    is_stated,
    licence_terms,
)


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0, NON-COMMERCIAL use only"),
        ("fair-noncommercial-research-license", "fair-noncommercial-research-license, NON-COMMERCIAL use only"),
        ("dinov3-license", "dinov3-license: terms of its own, to be read before the file is used or passed on"),
        ("unknown", "not stated: ask its authors"),
        (None, "not stated: ask its authors"),
    ],
)
def test_a_licence_in_words(licence: str | None, words: str) -> None:
    assert describe_licence(licence) == words


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("CC BY-NC 4.0", "CC-BY-NC-4.0, NON-COMMERCIAL use only"),
        ("CC BY-NC-SA 4.0", "CC BY-NC-SA 4.0, NON-COMMERCIAL use only"),
        ("for non commercial use", "for non commercial use, NON-COMMERCIAL use only"),
        ("CC0", "CC0-1.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("Inc. licence", "Inc. licence: terms of its own, to be read before the file is used or passed on"),
    ],
)
def test_a_licence_as_people_write_it(licence: str, words: str) -> None:
    assert describe_licence(licence) == words


def test_the_terms_of_random_weights_and_of_data_of_unknown_kind() -> None:
    assert licence_terms(backbone="x", licence="mit", drawn=True)["backbone"].endswith("drawn by brainkit: none")
    assert "ask those who measured" in licence_terms(backbone="x", licence="mit", data=None)["data"]


def test_the_terms_of_data_are_those_that_their_authors_state() -> None:
    def of(data: str | None, **dataset: str) -> str:
        return licence_terms(backbone="x", licence="mit", data=data, dataset=dataset)["data"]

    assert of("own", name="THINGS-fMRI", licence="CC0") == "THINGS-fMRI: CC0-1.0"
    assert of("own", licence="CC BY-NC 4.0") == "CC-BY-NC-4.0, NON-COMMERCIAL use only"
    assert is_non_commercial(of("own", name="A", licence="CC BY-NC-SA 4.0"))
    assert of("own", name="Ours").startswith("Ours: not stated")
    assert not is_stated(of("own", name="Ours"))
    assert "Natural Scenes Dataset" in of("nsd", name="subj01")
    assert "Natural Scenes Dataset" not in of("nsd", licence="CC0")
    cited = citation(backbone="x", data="own", dataset={"citation": ["A (2020)", "B (2021)"]}).splitlines()
    assert cited[-2:] == ["A (2020)", "B (2021)"]
    assert not any("Allen" in line for line in cited)
    assert any("Allen" in line for line in citation(backbone="x", data="nsd").splitlines())
