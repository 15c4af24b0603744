"""The reader is chosen by the content of the folder."""

from __future__ import annotations

import subprocess
import sys

import pytest
from subject_folders import refused, write_algonauts, write_own

from brainkit import data
from brainkit.data import open_subject


def test_open_subject_chooses_by_content(tmp_path):
    write_algonauts(tmp_path / "algonauts/subj01")
    write_own(tmp_path / "own", space=False)
    assert open_subject(tmp_path / "algonauts/subj01").vertices.space == "fsaverage5"
    assert open_subject(str(tmp_path / "own")).vertices.space == "custom"
    refused(open_subject, tmp_path / "algonauts", "one subject's folder", "subj01")
    refused(open_subject, tmp_path / "own/images", "give its parent folder", str(tmp_path / "own"))
    refused(open_subject, tmp_path / "nowhere", "nowhere", "found nothing")
    refused(open_subject, tmp_path / "own/responses.npy", "found a file")
    (tmp_path / "empty").mkdir()
    refused(open_subject, tmp_path / "empty", "found an empty folder")
    (tmp_path / "half/images").mkdir(parents=True)
    refused(open_subject, tmp_path / "half", "no images found")


def test_the_package_is_lazy_and_needs_no_torch():
    assert set(data.__all__) >= {"Algonauts", "Folder", "open_subject", "make_split"}
    assert "Algonauts" in dir(data)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data.nothing  # noqa: B018
    code = (
        "import sys, brainkit.data as d; assert 'numpy' not in sys.modules; [getattr(d, n) for n in d.__all__];"
        "assert not {'torch', 'nibabel', 'scipy', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
