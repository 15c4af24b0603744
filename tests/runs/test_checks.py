"""What is refused before a run creates anything."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from brainkit.config import Config
from brainkit.errors import BrainkitError
from brainkit.ops import cpu
from brainkit.runs.checks import choose_precision

needs_no_amx = pytest.mark.skipif(cpu.why_no_bf16x3() is None, reason="this processor has AMX")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["model.precision=bfloat16"], ["train.device", "cuda"]),
        (["model.precision=tf32"], ["train.device", "cuda"]),
        (["model.precision=bf16x3", "model.backend=grouped"], ["model.backend", "'grouped'"]),
        pytest.param(["model.precision=bf16x3"], [str(cpu.why_no_bf16x3())], marks=needs_no_amx),
    ],
)
def test_a_precision_that_the_processor_cannot_train_in(settings: list[str], named: list[str]) -> None:
    with pytest.raises(BrainkitError) as failure:
        choose_precision(Config().replace(settings), "cpu")
    assert all(name in str(failure.value) for name in ("model.precision", *named))
