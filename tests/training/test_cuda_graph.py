"""Steps in chunks, without the host: the same weights as the trainer's own steps, and nothing that waits."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import problem_with_records
from small_runs import identical
from torch.utils._python_dispatch import TorchDispatchMode

from brainkit.errors import TrainingError
from brainkit.ops import available_backends
from brainkit.training.batch_source import DeviceSource, StreamedSource
from brainkit.training.cuda_graph import ChunkStepper
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.running_stats import LossWatch


def trained(module: EncodingModule) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}


def chunked(folder: Path, chunk: int = 2, *, resident: bool = True, **options: Any) -> tuple[EncodingModule, list[int]]:
    module, data, rows = problem_with_records(**options)
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
    module, data, _ = problem_with_records()
    data.batch_size, module.planned_steps = 7, 16
    fit(module, data, folder)
    return trained(module), folder


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("resident", [True, False])
def test_steps_in_chunks_give_the_same_weights(
    tmp_path: Path, step_by_step: tuple[dict[str, Any], Path], chunk: int, resident: bool
) -> None:
    module, steps = chunked(tmp_path, chunk, resident=resident)
    assert identical(trained(module), step_by_step[0])
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
        module, data, rows = problem_with_records(save_minutes=1e-9)
        data.source, data.batch_size = DeviceSource(data.tokens, data.responses, rows, "cpu"), 7
        module.planned_steps = 16
        try:
            fit(module, data, tmp_path, steps_per_chunk=chunk, resume=True, on_step=on_step)
        except Stop:
            continue
    assert identical(trained(module), step_by_step[0])
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
    module, data, rows = problem_with_records()
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
    module, data, _ = problem_with_records()
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
        module, data, rows = problem_with_records(epochs=8, cuda_graph="on")
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
        module, data, rows = problem_with_records()
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
