"""Where tokens lie while training, what that needs, and steps made without the host."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem
from torch.utils._python_dispatch import TorchDispatchMode

from brainkit.errors import BrainkitError, TrainingError, UsageError
from brainkit.metrics.correlation import StreamingCorrelation
from brainkit.ops import available_backends
from brainkit.training import batch_source, memory_budget
from brainkit.training.batch_source import DeviceSource, StreamedSource, choose_source
from brainkit.training.cuda_graph import ChunkStepper
from brainkit.training.datamodule import EncodingData
from brainkit.training.fit import fit
from brainkit.training.memory_budget import MemoryEstimate, estimate_memory, explain_out_of_memory
from brainkit.training.module import EncodingModule
from brainkit.training.running_stats import LossWatch, streaming_correlation
from brainkit.utils.text import format_bytes

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
NEED = MemoryEstimate(tokens=4_000, responses=1_000, state=2_000, step=2_000)


class Records:
    """Tokens of another source, one record an image: what the token cache promises, and no more."""

    dtype = torch.float16

    def __init__(self, source: Any, n: int) -> None:
        local, whole = source.batch(np.arange(n))
        self.shapes = {layer: value.shape[1:] for layer, value in local.items()}
        parts = [value.flatten(1) for value in (*local.values(), *whole.values())]
        self.held = torch.cat(parts, 1).half()
        self.record = self.held.shape[1]
        self.asked: list[list[int]] = []

    def records(self, rows: np.ndarray, out: Any = None) -> Any:
        self.asked.append(rows.tolist())
        return torch.index_select(self.held, 0, torch.from_numpy(rows), out=out)

    def expand(self, records: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        sizes = [*(shape.numel() for shape in self.shapes.values()), *(shape[0] for shape in self.shapes.values())]
        parts = records.float().split(sizes, 1)
        n = len(self.shapes)
        local = {layer: part.unflatten(1, self.shapes[layer]) for layer, part in zip(self.shapes, parts, strict=False)}
        return local, dict(zip(self.shapes, parts[n:], strict=True))

    def batch(self, rows: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.expand(self.records(rows))


class BatchesOnly:
    def __init__(self, source: Any) -> None:
        self.source = source

    def batch(self, rows: np.ndarray) -> Any:
        return self.source.batch(rows)


def recorded(**options: Any) -> tuple[EncodingModule, EncodingData, np.ndarray]:
    """The small problem with records, and the rows of training and validation."""
    module, data = problem(**options)
    data.tokens = Records(data.tokens, 40)
    return module, data, np.concatenate([data.split.train, data.split.validation])


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a.cpu(), b.cpu())


def trained(module: EncodingModule) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}


# --- where tokens lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["resident", "streamed", "streamed without records"])
def test_batches_are_the_same_to_the_bit_wherever_the_tokens_lie(device: str, kind: str) -> None:
    _, data, rows = recorded()
    truth = list(data.train_dataloader()), list(data.val_dataloader())
    if kind == "resident":
        data.source = DeviceSource(data.tokens, data.responses, rows, device)
    else:
        tokens = data.tokens if kind == "streamed" else BatchesOnly(data.tokens)
        data.source = StreamedSource(tokens, data.responses, device)
    for _ in range(2):  # again, from the same buffers
        found = list(data.train_dataloader()), list(data.val_dataloader())
        assert equal(found[0][0][2].to("cpu"), truth[0][0][2])
        assert all(len(a) == len(b) and all(map(equal, a, b)) for a, b in zip(found, truth, strict=True))
        assert found[0][0][2].device.type == device


def test_reading_is_ahead_of_the_steps_but_not_far() -> None:
    _, data, _ = recorded()
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
    _, data, _ = recorded()

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
    _, data, rows = recorded()
    for source in (DeviceSource, StreamedSource):  # no GPU is needed to see which was chosen
        monkeypatch.setattr(batch_source, source.__name__, lambda *_, source=source: source)
    found, line = choose_source(data.tokens, data.responses, rows, wanted=wanted, device=device, need=NEED, free=free)
    assert found is kind
    assert why in line and format_bytes(NEED.tokens) in line and format_bytes(free) in line and "\n" not in line


def test_tokens_that_do_not_fit_where_they_are_wanted() -> None:
    _, data, rows = recorded()
    need = MemoryEstimate(tokens=30 * 10**9, responses=10**9, state=10**9, step=10**9)
    with pytest.raises(UsageError, match=r"train\.residency 'device'.*30\.00 GB.*8\.00 GB free on cpu"):
        choose_source(data.tokens, data.responses, rows, wanted="device", device="cpu", need=need, free=8 * 10**9)
    tokens = BatchesOnly(data.tokens)
    with pytest.raises(UsageError, match="found BatchesOnly"):
        choose_source(tokens, data.responses, rows, wanted="device", device="cpu", need=NEED, free=10**9)


def test_what_is_needed_is_counted() -> None:
    module, data, rows = recorded()
    need = estimate_memory(module.model, len(rows), 8, "cpu")
    assert (
        need.tokens
        == 2 * len(rows) * data.tokens.record
        == DeviceSource(data.tokens, data.responses, rows, "cpu").records.nbytes
    )
    assert need.responses == 4 * len(rows) * 20
    parameters = sum(parameter.numel() for parameter in module.model.parameters())
    assert need.state >= 16 * parameters
    assert estimate_memory(module.model, len(rows), 16, "cpu").work >= need.work
    assert estimate_memory(module.model, len(rows), 8, "cuda").step == need.step + memory_budget.GPU_WORKSPACE
    module.model.backend = "reference"
    assert estimate_memory(module.model, len(rows), 800, "cpu").step > 12 * 800 * 20 * 6 * 2
    assert memory_budget.free_memory("cpu") > 10**8


# --- anonymous memory -----------------------------------------------------------------------------------------------

GROWTH = """
import gc, re, sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, {tests!r})
from small_models import GRID, Responses, coordinates
from brainkit.config import TrainConfig
from brainkit.training.datamodule import EncodingData
from brainkit.data.splits import Split
from brainkit.training.memory_budget import estimate_memory
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.batch_source import choose_source
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule

widths = {{"a": 1000, "b": 1000}}
record = 2000 * (GRID[0] * GRID[1] + 1)

class Mapped:
    dtype, record = torch.float16, record
    def __init__(self, file, n):
        self.held = np.memmap(file, np.float16, "w+", shape=(n, record))
        for row in range(n):
            self.held[row] = row % 7
        self.held.flush()
        self.held = np.memmap(file, np.float16, "r", shape=(n, record))
    def records(self, rows, out=None):
        return torch.from_numpy(self.held[rows])
    def expand(self, records):
        parts = records.float().split([12000, 12000, 1000, 1000], 1)
        return {{k: p.view(-1, 1000, *GRID) for k, p in zip("ab", parts)}}, dict(zip("ab", parts[2:]))

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def peak(folder, n):
    folder.mkdir()
    model = FactorTopy(widths, coordinates(10), bottleneck=4, grid=GRID, selector_width=8)
    responses = Responses(np.random.default_rng(0).standard_normal((n, 10)))
    split = Split(np.arange(n - 16), np.arange(n - 16, n - 8), np.arange(n - 8, n), seed=0)
    tokens = Mapped(folder / "tokens", n)
    data = EncodingData(tokens, responses, split, batch_size=8)
    need = estimate_memory(model, n, 8, "cpu")
    data.source, _ = choose_source(tokens, responses, np.arange(n - 8), wanted="auto", device="cpu", need=need)
    seen = []
    module = EncodingModule(model, TrainConfig(epochs=1), data.steps)
    fit(module, data, folder, on_step=lambda step: seen.append(anonymous()))
    assert len(seen) == data.steps
    return max(seen)

peak(Path(sys.argv[1]) / "first", 200)  # what a process takes once
for n in (200, 1000):
    gc.collect()
    print(peak(Path(sys.argv[1]) / str(n), n), 2 * record * n)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells anonymous memory")
def test_anonymous_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    code = GROWTH.format(tests=str(Path(__file__).parents[1] / "helpers"))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (peak, size), (later, larger) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert larger - size > 40e6
    assert later - peak < 0.2 * (larger - size)


# --- steps without the host -------------------------------------------------------------------------------------------


def chunked(folder: Path, chunk: int = 2, *, resident: bool = True, **options: Any) -> tuple[EncodingModule, list[int]]:
    module, data, rows = recorded(**options)
    kind = (
        DeviceSource(data.tokens, data.responses, rows, "cpu")
        if resident
        else StreamedSource(data.tokens, data.responses, "cpu")
    )
    data.source, data.batch_size, module.planned_steps = kind, 7, 16
    steps: list[int] = []
    folder.mkdir(exist_ok=True)
    fit(module, data, folder, steps_per_chunk=chunk, resume=True, on_step=steps.append)
    return module, steps


@pytest.fixture(scope="module")
def step_by_step(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Weights that Lightning's own steps give, four an epoch, the last of them smaller."""
    folder = tmp_path_factory.mktemp("plain")
    module, data, _ = recorded()
    data.batch_size, module.planned_steps = 7, 16
    fit(module, data, folder)
    return trained(module), folder


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("resident", [True, False])
def test_steps_in_chunks_give_the_same_weights(
    tmp_path: Path, step_by_step: tuple[dict[str, Any], Path], chunk: int, resident: bool
) -> None:
    module, steps = chunked(tmp_path, chunk, resident=resident)
    assert equal(trained(module), step_by_step[0])
    assert steps[:4] == {1: [1, 2, 3, 4], 3: [3, 4, 7, 8], 100: [4, 8, 12, 16]}[chunk]

    def rows(folder: Path) -> list[str]:
        return [line.rpartition(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]

    assert rows(tmp_path) == rows(step_by_step[1])


class Stop(Exception):
    pass


@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 2), (2, 3)])
def test_a_state_can_be_gone_on_from_by_whoever_makes_the_steps(
    tmp_path: Path, step_by_step: tuple[dict[str, Any], Path], first: int, second: int
) -> None:
    def stop(step: int) -> None:
        if step == 6:
            raise Stop

    for chunk, on_step in ((first, stop), (second, lambda step: None)):
        module, data, rows = recorded(save_minutes=1e-9)
        data.source, data.batch_size = DeviceSource(data.tokens, data.responses, rows, "cpu"), 7
        module.planned_steps = 16
        try:
            fit(module, data, tmp_path, steps_per_chunk=chunk, resume=True, on_step=on_step)
        except Stop:
            continue
    assert equal(trained(module), step_by_step[0])
    held, true = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (tmp_path, step_by_step[1])
    )
    groups, others = (state["optimizer_states"][0]["param_groups"] for state in (held, true))
    assert [group["lr"] for group in groups] == [group["lr"] for group in others]
    assert [type(group["lr"]) for group in groups] == [float] * len(groups)
    schedules, others = (state["lr_schedulers"][0] for state in (held, true))
    assert all(schedules[key] == others[key] for key in ("last_epoch", "_step_count", "_last_lr", "base_lrs"))
    assert held["global_step"] == true["global_step"] == 16


def test_a_callback_that_sees_steps_sees_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watching(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            seen.append(trainer.global_step)

    seen: list[int] = []
    monkeypatch.setattr(EncodingModule, "configure_callbacks", lambda module: [Watching()])
    chunked(tmp_path, 100)
    assert seen == list(range(1, 17))


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU, and float64 where `double` is False."""

    def __init__(self, *, double: bool) -> None:
        super().__init__()
        self.double, self.seen = double, set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.seen.add(name)
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"), name
        found = function(*args, **(kwargs or {}))
        if not self.double:
            for value in found if isinstance(found, (tuple, list)) else (found,):
                assert not (isinstance(value, torch.Tensor) and value.dtype == torch.float64), name
        return found


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data, rows = recorded()
    module.model.backend = "reference"
    data.source = DeviceSource(data.tokens, data.responses, rows, "cpu")
    chunks = module.stepper = ChunkStepper(module, data, 2, mode="on", say=print)
    optimizer = module.configure_optimizers()["optimizer"]
    monkeypatch.setattr(module, "optimizers", lambda use_pl_optimizer: optimizer)
    monkeypatch.setattr(optimizer, "step", lambda: None)  # on a CPU it reads its rate; on CUDA it need not
    chunks._prepare()
    staged = next(data.source.stage([np.arange(8)]))
    with NoWaiting(double=True) as mode:
        chunks._make_step(staged, True)
    assert {"index_select", "linalg_vector_norm", "clamp"} <= {name.removeprefix("_foreach_") for name in mode.seen}
    assert int(chunks.step_index) == 1 and int(module.watch.images) == 8
    with NoWaiting(double=True):  # nor does a validation
        module.on_validation_epoch_start()
        module.validation_step(data.source.finish(staged), 0)
    with NoWaiting(double=True), pytest.raises(AssertionError, match="_local_scalar_dense"):
        module.watch.first_bad()


def test_nothing_is_float64_on_apples_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data, _ = recorded()
    monkeypatch.setattr("brainkit.training.running_stats.sum_dtype", lambda device: torch.float32)  # as for mps
    module.model.backend = "grouped"  # what runs there
    module.watch = LossWatch(torch.device("cpu"))
    optimizer = torch.optim.AdamW(module.parameters(), fused=False)
    batch = next(iter(data.train_dataloader()))

    class OnlyFloat64(NoWaiting):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function.overloadpacket.__name__ == "_local_scalar_dense":  # `grouped` does wait
                return function(*args, **(kwargs or {}))
            return super().__torch_dispatch__(function, types, args, kwargs)

    with OnlyFloat64(double=False):
        module.training_step(batch, 0).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        optimizer.step()
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        module.validation.r.nan_to_num(0.0).mean().float()
        module.watch.mean()
    monkeypatch.undo()
    assert LossWatch(torch.device("cpu")).total.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(
    available_backends()["triton"] is not None, reason=f"the triton backend: {available_backends()['triton']}"
)
@pytest.mark.parametrize("resident", [True, False])
def test_replayed_steps_give_the_weights_of_single_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    found, said, captured = [], [], []
    capture = ChunkStepper._capture
    monkeypatch.setattr(
        ChunkStepper,
        "_capture",
        lambda *given: captured.append(given[2]) or capture(*given),  # type: ignore[func-returns-value]
    )
    for chunk in (0, 4):
        module, data, rows = recorded(epochs=8, cuda_graph="on")
        data.batch_size, module.planned_steps = 7, 32
        kind = DeviceSource(data.tokens, data.responses, rows, "cuda") if resident else None
        data.source = kind or StreamedSource(data.tokens, data.responses, "cuda")
        (tmp_path / str(chunk)).mkdir()
        fit(module, data, tmp_path / str(chunk), device="cuda", steps_per_chunk=chunk, say=said.append)
        found.append({name: value.cpu() for name, value in trained(module).items()})
    assert captured == [True, False]  # with the regulariser, and without
    assert not said
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_capture_that_fails_is_said_or_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Refusing)
    monkeypatch.setattr(torch.cuda, "graph", Refusing)
    said: list[str] = []
    for mode in ("auto", "on"):
        module, data, rows = recorded()
        data.source = DeviceSource(data.tokens, data.responses, rows, "cpu")
        chunks = ChunkStepper(module, data, 2, mode=mode, say=said.append)
        chunks.optimizer, chunks.capturing = module.configure_optimizers()["optimizer"], True
        staged = next(data.source.stage([np.arange(8)]))
        if mode == "auto":
            assert not chunks._capture(staged, True) and not chunks.capturing
        else:
            with pytest.raises(TrainingError, match=r"train\.cuda_graph 'on'.*operation not permitted"):
                chunks._capture(staged, True)
    assert len(said) == 1 and "operation not permitted when stream is capturing" in said[0]


# --- sums on the device -----------------------------------------------------------------------------------------------


def scores() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    for n in (5, 1, 64, 7):
        response = draw.standard_normal((n, 6)) + [0, 1e3, 0, 5, 0, 0]
        prediction = 0.3 * response + draw.standard_normal((n, 6))
        prediction[:, 3], response[:, 4] = 2.0, 1.0  # constant
        prediction[0, 5] = np.nan
        yield prediction.astype(np.float32), response.astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_score_on_a_device_is_the_streamed_score(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: Any, close: float
) -> None:
    monkeypatch.setattr("brainkit.training.running_stats.sum_dtype", lambda device: dtype)
    true, found = StreamingCorrelation(6), streaming_correlation(6, torch.device(device))
    for prediction, response in scores():
        true.update(prediction, response)
        found.update(torch.from_numpy(prediction).to(device), torch.from_numpy(response).to(device))
    np.testing.assert_allclose(found.r.cpu().numpy(), true.r, rtol=0, atol=close)
    assert np.isnan(true.r).tolist() == [False, False, False, True, True, True]
    assert found.r.dtype == dtype


def test_losses_are_watched() -> None:
    watch = LossWatch(torch.device("cpu"))
    for loss, images in ((1.0, 8), (3.0, 8), (5.0, 4)):
        watch.add(torch.tensor(loss), images)
    assert float(watch.mean()) == pytest.approx((8 + 24 + 20) / 20)
    assert watch.first_bad() == 0
    other = LossWatch(torch.device("cpu"))
    other.load_state_dict(watch.state_dict())
    for each in (watch, other):
        each.add(torch.tensor(2.0), 8)
        assert float(each.mean()) == pytest.approx((52 + 16) / 28)
        each.next_epoch()
        each.add(torch.tensor(torch.inf), 8)
        each.add(torch.tensor(torch.nan), 8)
        assert each.first_bad() == 5


# --- out of memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (lambda: torch.empty(1 << 60), r"training ran out of memory \(asked for \d+ bytes\); lower it"),
        (lambda: np.empty(1 << 58), r"training ran out of memory; lower it"),
        (
            lambda: (_ for _ in ()).throw(
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU")
            ),
            r"training ran out of memory of the GPU \(asked for 20\.00 GiB\); lower it",
        ),
        (
            lambda: (_ for _ in ()).throw(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to")),
            r"training ran out of memory of the GPU; lower it",
        ),
    ],
)
def test_memory_that_ran_out_is_one_line(fail: Any, line: str) -> None:
    with pytest.raises(TrainingError) as failure, explain_out_of_memory("training", "lower it"):
        next(fail()) if hasattr(fail, "__next__") else fail()
    assert re.fullmatch(line, str(failure.value))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory("training", "lower it"):
        raise RuntimeError("shapes do not fit")


def test_training_that_runs_out_of_memory_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data, _ = recorded()
    monkeypatch.setattr(EncodingModule, "step_loss", lambda *_: torch.empty(1 << 60))
    with pytest.raises(
        TrainingError, match=r"lower train\.batch_size \(now 8\), model\.bottleneck \(6\) or model\.grid"
    ):
        fit(module, data, tmp_path)


def test_a_device_that_turns_out_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data, rows = recorded()
    monkeypatch.setattr(data.tokens, "records", lambda rows: torch.zeros(1, 1).expand(1, 1 << 50))
    line = r"the tokens do not fit on cpu: .*; use train\.residency=host"
    with pytest.raises(BrainkitError, match=line):
        DeviceSource(data.tokens, data.responses, rows, "cpu")
