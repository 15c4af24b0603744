"""The terms of the data go from dataset.json to run.json and into the encoder file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from small_runs import SMALL, make_own_data, quiet

from brainkit.runs.encoder_info import encoder_info
from brainkit.runs.folder import finished_run, load_model
from brainkit.runs.train import train


@pytest.mark.slow
def test_stated_terms_go_into_the_encoder_file(net: str, workplace: Path) -> None:
    data = make_own_data(workplace / "data")
    for image in sorted((data / "images").iterdir()):
        image.rename(image.with_name(f"{image.stem}_nsd-00{image.stem}.png"))

    def terms_of(run: Path) -> tuple[str, str]:
        info = encoder_info(*finished_run(run), load_model(run))
        assert info.terms["data"] in info.licence
        return info.terms["data"], info.citation

    run = train(net, data=data, out="silent", epochs=1, overrides=SMALL, say=quiet)
    assert json.loads((run / "run.json").read_text())["data"]["kind"] == "own"
    terms, cited = terms_of(run)
    assert "not stated" in terms and "Natural Scenes" not in terms and "Allen" not in cited

    stated = {"name": "Ours", "licence": "CC BY-NC 4.0", "citation": "Me (2024), Our data"}
    (data / "dataset.json").write_text(json.dumps(stated))
    run = train(net, data=data, out="stated", epochs=1, overrides=SMALL, say=quiet)
    summary = json.loads((run / "run.json").read_text())
    assert summary["data"]["dataset"] == {**stated, "citation": ["Me (2024), Our data"]}
    terms, cited = terms_of(run)
    assert terms == "Ours: CC-BY-NC-4.0, NON-COMMERCIAL use only" and cited.splitlines()[-1] == "Me (2024), Our data"

    # A run of an earlier version keeps what it says.
    del summary["data"]["dataset"]
    summary["data"]["kind"] = "nsd"
    (run / "run.json").write_text(json.dumps(summary))
    terms, cited = terms_of(run)
    assert "Natural Scenes Dataset" in terms and "Allen" in cited
