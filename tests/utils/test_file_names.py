"""Names of files from any text."""

from __future__ import annotations

import pytest

from brainkit.errors import UsageError
from brainkit.utils.file_names import LONGEST, file_stem, file_stems


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("layer", "layer"),
        ("blocks/3", "blocks_3"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ('a\n<b> "c"\u202e', "a_b_c_"),
        ("Gesichter für V1", "Gesichter_für_V1"),
        ("\udcff", "_"),
    ],
)
def test_any_name_is_a_name_of_a_file(name, stem):
    assert file_stem(name) == stem


def test_long_names_fit_and_end_with_a_whole_letter():
    assert len(file_stem("a" * 1000)) == LONGEST
    assert file_stem("ü" * 10, 5) == "üü"


def test_two_of_a_kind_are_refused():
    assert file_stems(["a", "b c"]) == ["a", "b_c"]
    for twice in (["a/b", "a b"], ["a", "a"]):
        with pytest.raises(UsageError):
            file_stems(twice)
