"""Which implementation of the operator ``auto`` takes."""

from __future__ import annotations

import torch

from brainkit.ops import available_backends, fastest_backend


def test_the_operator_that_auto_takes() -> None:
    expected = "cpu" if available_backends()["cpu"] is None else "grouped"
    assert fastest_backend("cpu") == expected
    assert fastest_backend("mps") == fastest_backend("cpu", torch.bfloat16) == "grouped"
