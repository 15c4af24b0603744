"""Where batches come from: the same batches from the disk, a stream and a device, and the choice between them."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem_with_records
from small_runs import identical

from brainkit.errors import BrainkitError, UsageError
from brainkit.training import batch_source
from brainkit.training.batch_source import DeviceSource, StreamedSource, choose_source
from brainkit.training.memory_budget import MemoryEstimate
from brainkit.utils.text import format_bytes

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
NEED = MemoryEstimate(tokens=4_000, responses=1_000, state=2_000, step=2_000)


class BatchesOnly:
    def __init__(self, source: Any) -> None:
        self.source = source

    def batch(self, rows: np.ndarray) -> Any:
        return self.source.batch(rows)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["resident", "streamed", "streamed without records"])
def test_batches_are_the_same_to_the_bit_wherever_the_tokens_lie(device: str, kind: str) -> None:
    _, data, rows = problem_with_records()
    truth = list(data.train_dataloader()), list(data.val_dataloader())
    if kind == "resident":
        data.source = DeviceSource(data.tokens, data.responses, rows, device)
    else:
        tokens = data.tokens if kind == "streamed" else BatchesOnly(data.tokens)
        data.source = StreamedSource(tokens, data.responses, device)
    for _ in range(2):  # again, from the same buffers
        found = list(data.train_dataloader()), list(data.val_dataloader())
        assert identical(found[0][0][2].to("cpu"), truth[0][0][2])
        assert all(len(a) == len(b) and all(map(identical, a, b)) for a, b in zip(found, truth, strict=True))
        assert found[0][0][2].device.type == device


def test_reading_is_ahead_of_the_steps_but_not_far() -> None:
    _, data, _ = problem_with_records()
    data.batch_size = 2
    source = data.source = StreamedSource(data.tokens, data.responses, "cpu")
    batches = iter(data.train_dataloader())
    next(batches)
    source.thread.submit(lambda: None).result()  # all that was asked for has been read
    assert len(data.tokens.asked) == 1 + batch_source.PREFETCH
    batches.close()  # type: ignore[attr-defined]
    source.thread.submit(lambda: None).result()
    assert len(data.tokens.asked) == 1 + batch_source.PREFETCH


def test_what_goes_wrong_while_reading_ahead_comes_out_where_the_batch_is_asked_for() -> None:
    _, data, _ = problem_with_records()

    def broken(rows: np.ndarray, out: Any = None) -> Any:
        raise OSError(5, "Input/output error")

    data.tokens.records = broken
    data.source = StreamedSource(data.tokens, data.responses, "cpu")
    with pytest.raises(OSError, match="Input/output error"):
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("wanted", "device", "free", "kind", "why"),
    [
        ("auto", "cpu", 10**9, StreamedSource, "stay on the disk, mapped (the processor reads them from there)"),
        ("auto", "cuda", 10_000, DeviceSource, "on cuda (they fit)"),
        ("auto", "cuda", 9_999, StreamedSource, "stay on the disk, mapped (they do not fit)"),
        ("host", "cuda", 10**9, StreamedSource, "stay on the disk, mapped (as asked)"),
        ("device", "cpu", 10**9, DeviceSource, "on cpu (as asked)"),
    ],
)
def test_the_choice_follows_from_what_fits_and_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, wanted: str, device: str, free: int, kind: type, why: str
) -> None:
    _, data, rows = problem_with_records()
    for source in (DeviceSource, StreamedSource):  # no GPU is needed to see which was chosen
        monkeypatch.setattr(batch_source, source.__name__, lambda *_, source=source: source)
    found, line = choose_source(data.tokens, data.responses, rows, wanted=wanted, device=device, need=NEED, free=free)
    assert found is kind
    assert why in line and format_bytes(NEED.tokens) in line and format_bytes(free) in line and "\n" not in line


def test_tokens_that_do_not_fit_where_they_are_wanted() -> None:
    _, data, rows = problem_with_records()
    need = MemoryEstimate(tokens=30 * 10**9, responses=10**9, state=10**9, step=10**9)
    with pytest.raises(UsageError, match=r"train\.residency 'device'.*30\.00 GB.*8\.00 GB free on cpu"):
        choose_source(data.tokens, data.responses, rows, wanted="device", device="cpu", need=need, free=8 * 10**9)
    tokens = BatchesOnly(data.tokens)
    with pytest.raises(UsageError, match="found BatchesOnly"):
        choose_source(tokens, data.responses, rows, wanted="device", device="cpu", need=NEED, free=10**9)


def test_a_device_that_turns_out_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, rows = problem_with_records()
    monkeypatch.setattr(data.tokens, "records", lambda rows: torch.zeros(1, 1).expand(1, 1 << 50))
    line = r"the tokens do not fit on cpu: .*; use train\.residency=host"
    with pytest.raises(BrainkitError, match=line):
        DeviceSource(data.tokens, data.responses, rows, "cpu")
