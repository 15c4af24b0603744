"""``brainkit info`` describes an encoder file without running it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import V, call, write_encoder

from brainkit import encoder_file
from brainkit.cortex.vertices import Vertices
from brainkit.encoder_file.describe import describe
from brainkit.encoder_file.licence import citation, licence_terms


def test_info_says_what_the_file_holds(tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx")
    result = call("info", tmp_path / "e.onnx")
    assert result.exit_code == 0, result.output
    text = re.sub(" +", " ", result.stdout)
    for expected in (
        "SIMULATED subject, not a brain",
        "tiny (pretrained, sha256 abababababab, licence MIT)",
        "2: stage1, stage2",
        "40 vertices of fsaverage5 (20 left, 20 right); units: z-scored percent signal change",
        "resized to 224 x 224 (bilinear)",
        "gauge unit",
        "seed 7, data (name sample, hash cdcdcdcdcdcd...)",
        "at most 2.0e-06 (median 1.0e-07)",
        "licence Apache-2.0",
        "all 40 0.500 0.200 50 %",
        "early 10 0.500 0.200 50 %",
        "nothing 0 - - -",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("pretrained", "expected"), [(None, "not stated"), (True, "(pretrained"), (False, "(random weights")]
)
def test_info_says_whether_the_network_is_trained(tmp_path: Path, pretrained: bool | None, expected: str) -> None:
    write_encoder(tmp_path / "e.onnx", backbone={"name": "net.py:Net", "pretrained": pretrained, "licence": None})
    (line,) = (line for line in call("info", tmp_path / "e.onnx").stdout.splitlines() if "net.py:Net" in line)
    assert expected in line


def test_info_says_the_terms_and_what_to_cite(tmp_path: Path) -> None:
    parts = licence_terms(backbone="mae", licence="cc-by-nc-4.0", data="nsd")
    write_encoder(
        tmp_path / "e.onnx",
        terms=parts,
        citation=citation(backbone="mae", paper="a paper, arXiv:2111.06377", data="nsd"),
    )
    text = call("info", tmp_path / "e.onnx").stdout
    for expected in (
        "licence     brainkit: Apache-2.0",
        "backbone: mae: CC-BY-NC-4.0, NON-COMMERCIAL use only",
        "data: Natural Scenes Dataset",
        "commercial  NO: the terms of the backbone and the data forbid commercial use",
        "subject     sample: it predicts this subject",
        "arXiv:2111.06377",
        "doi:10.1038/s41593-021-00962-x",
        "arXiv:2301.03198",
    ):
        assert expected in text
    # Metadata need not be complete.
    write_encoder(tmp_path / "f.onnx", terms={"brainkit": "Apache-2.0"})
    text = call("info", tmp_path / "f.onnx").stdout
    assert "backbone: not stated: ask its authors" in text
    assert "the terms of the backbone and the data are not stated" in text


def test_info_as_json(tmp_path: Path) -> None:
    parts = licence_terms(backbone="tiny", licence="mit", data="own")
    write_encoder(tmp_path / "e.onnx", terms=parts, noise_ceiling=np.full(V, np.nan, np.float32))
    value = json.loads(call("info", tmp_path / "e.onnx", "--json").stdout)
    assert value["terms"] == parts
    assert value["bytes"] == (tmp_path / "e.onnx").stat().st_size
    assert value["sha256"] == encoder_file.read(tmp_path / "e.onnx").digest
    assert value["certificate"] == {"largest": 2e-6, "median": 1e-7}
    assert value["vertices"] == {"count": V, "left": 20}
    assert [row["name"] for row in value["accuracy"]] == ["all", "early", "nothing"]
    assert value["accuracy"][0]["r"] == 0.5
    assert value["accuracy"][0]["explained"] is None
    assert not {"selectors", "rois", "scores"} & value.keys()


def test_info_where_little_is_known(tmp_path: Path) -> None:
    unknown = np.full(V, np.nan, np.float32)
    ids = np.arange(V, dtype=np.int32)
    write_encoder(
        tmp_path / "e.onnx",
        vertices=Vertices("custom", ids),
        noise_ceiling=unknown,
        r=unknown,
        R2=unknown,
        note=None,
        backbone={},
        provenance={},
        certificate=None,
        licence="",
    )
    found = describe(tmp_path / "e.onnx")
    facts = dict(found.facts)
    assert "note" not in facts
    assert "trained" not in facts
    assert facts["certificate"].startswith("none")
    assert "custom" in facts["predicts"]
    assert call("info", tmp_path / "e.onnx").exit_code == 0


def test_metadata_cannot_control_the_terminal(tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx", note="\x1b[2Jgone\r\n")
    assert "\x1b" not in call("info", tmp_path / "e.onnx").stdout
