"""The Triton kernels compiled without a GPU: nothing spills, and shared memory suffices."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

if find_spec("triton") is None or sys.platform != "linux":
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter compiles nothing", allow_module_level=True)

from bench import kernels
from bench.kernels import BASE, KINDS, OTHERS, Sizes

ONE = Sizes(vertices=1, layers=1, channels=1, height=1, width=1, images=1)  # the compiler specialises arguments of 1
CASES = [
    *(pytest.param(BASE, kind, id=f"{BASE}, {kind}", marks=pytest.mark.slow) for kind in KINDS),
    *(pytest.param(ONE, kind, id=f"{ONE}, {kind}") for kind in ("bf16", "tf32")),
    *(pytest.param(sizes, "bf16", id=f"{sizes}, bf16", marks=pytest.mark.slow) for sizes in OTHERS),
]


@pytest.mark.parametrize("capability", kernels.CAPABILITIES)
@pytest.mark.parametrize(("sizes", "kind"), CASES)
def test_nothing_spills(sizes, kind, capability):
    found = list(kernels.rows({str(sizes): (sizes, kind)}, (capability,)))
    assert len(found) in (6, 7)  # with or without a scan of its own
    for row in found:
        assert row["spills"] == 0, row
        assert row["shared"] <= kernels.SHARED_LIMITS[capability], row
        assert row["resident"] >= 1, row


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "fp16", "tf32"])
def test_products_run_on_matrix_units(kind):
    for row in kernels.rows({"base": (BASE, kind)}):
        if row["kernel"] in ("forward", "vertices", "tokens"):
            assert row["tensor_cores"] == {80: "mma", 90: "wgmma"}[row["sm"]], row


def test_the_lower_bound_is_that_of_the_data_sheet():
    passes = kernels.floor(BASE)
    assert passes["forward"]["GFLOP"] == pytest.approx(4.67, abs=0.01)
    assert passes["forward"]["floor us"] == pytest.approx(7.4, abs=0.1)
    assert sum(found["floor us"] for found in passes.values()) < 25


@pytest.mark.slow
def test_the_report_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kernels", "--name", str(tmp_path / "kernels"), "--quick"])
    monkeypatch.setattr(kernels, "KINDS", {"bf16": KINDS["bf16"]})
    kernels.main()
    text = (tmp_path / "kernels.md").read_text(encoding="utf-8")
    assert "| forward |" in text and "Lower bounds on an H100" in text
