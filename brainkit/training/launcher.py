"""Starts the processes of a training on one machine, passes on their reports, and lets none outlive the others.

They are fresh interpreters, so scripts and notebooks need no ``if __name__ == "__main__"``: the work goes through their
standard input, their reports come back through standard output (see `brainkit.training.worker`). Ctrl-C and SIGTERM
reach this process, which tells the others to stop; when their standard input ends, they end.

Why not torchrun's elastic launcher, tried with torch 2.14: given a function, it spawns processes that run the script
again, which fails without a guard and from a notebook; given a command, it offers no way back for reports, leaves the
processes running when this one is killed, and on Ctrl-C kills after 30 seconds those that have not saved their step.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from brainkit.errors import FailedElsewhere, TrainingError
from brainkit.training.signals import StopSignals
from brainkit.training.worker import (
    CLEAN_UP_SECONDS,
    FAILED,
    INTERRUPT,
    TERMINATE,
    Work,
    debugging,
    read_message,
    write_message,
)
from brainkit.utils.system import cores

_POLL_SECONDS = 0.1  # after which this process notices that it was asked to stop
_EXPLAIN_SECONDS = 2.0  # after the first failure, in which another process may report a better explanation
_START = "import sys; sys.path[:] = {path!r}; from brainkit.training.worker import serve; serve()"


class _Message(NamedTuple):
    """A report of a process; without a name, the end of its output."""

    rank: int
    name: str
    value: Any


Messages = queue.Queue[_Message]


def run_processes(work: Work, count: int, handlers: Mapping[str, Callable[[Any], None]]) -> None:
    """Do `work` in `count` new processes of this machine, which find each other as torchrun's would.

    Parameters
    ----------
    work : callable
        Can be pickled; called with ``report`` in each process, whose environment says which one it is.
    count : int
    handlers : mapping of str to callable
        Called here, in the calling thread, with the values that processes report under these names.

    Raises
    ------
    BrainkitError
        What one of them raised; or, if one was killed, a line that says so. All have ended by then.
    KeyboardInterrupt, StoppedTraining
        If this process got Ctrl-C or SIGTERM: what they raised when they were told to stop. A second Ctrl-C does not
        wait for them.
    """
    pickled = io.BytesIO()
    _Pickler(pickled).dump(work)
    port, messages = _free_port(), Messages()
    with StopSignals() as stop, contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(rank, count, port, messages)) for rank in range(count)]
        for process in processes:
            with contextlib.suppress(BrokenPipeError):
                write_message(process.stdin, pickled.getbuffer())  # type: ignore[arg-type]
        pickled.close()
        failures = _follow(processes, messages, handlers, stop)
    if failures:
        raise min(failures, key=_rank_of_explanation)


def _follow(
    processes: list[subprocess.Popen[bytes]],
    messages: Messages,
    handlers: Mapping[str, Callable[[Any], None]],
    stop: StopSignals,
) -> list[BaseException]:
    """Handle reports until all processes have ended, or one has failed; what has failed, if anything."""
    failures: dict[int, BaseException] = {}
    running, stop_sent, deadline = set(range(len(processes))), False, float("inf")
    while running:
        if stop.received is not None and not stop_sent:
            stop_sent = True
            for process in processes:
                with contextlib.suppress(OSError):
                    process.stdin.write(TERMINATE if stop.received == signal.SIGTERM else INTERRUPT)  # type: ignore
                    process.stdin.flush()  # type: ignore[union-attr]
        try:
            rank, name, value = messages.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if time.monotonic() > deadline:
                break
            continue
        if name == "":
            running.discard(rank)
            code = processes[rank].wait()
            if code:
                failures.setdefault(rank, TrainingError(_describe_exit(rank, len(processes), code)))
        elif name == FAILED:
            failures[rank] = value
        else:
            handlers[name](value)
        if failures:
            deadline = min(deadline, time.monotonic() + _EXPLAIN_SECONDS)
    return list(failures.values())


def _rank_of_explanation(failure: BaseException) -> int:
    """Order in which to choose the failure to raise: an error, a process that was killed, what follows from either."""
    return 2 if isinstance(failure, FailedElsewhere) else 1 if type(failure) is TrainingError else 0


def _describe_exit(rank: int, count: int, code: int) -> str:
    how = f"with code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
    return f"training process {rank + 1} of {count} was ended {how}; brainkit train --resume continues the run"


@contextlib.contextmanager
def _process(rank: int, count: int, port: int, messages: Messages) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, which ends with the block."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    # They share the cores, and talk to each other within the machine.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debugging() else printed,
            env=environment,
            # Ctrl-C at the terminal reaches only this process.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        listener = threading.Thread(target=_listen, args=(rank, process.stdout, messages), daemon=True)
        listener.start()
        try:
            yield process
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(CLEAN_UP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join()
            process.stdout.close()  # type: ignore[union-attr]


def _listen(rank: int, stream: Any, messages: Messages) -> None:
    while (content := read_message(stream)) is not None:
        messages.put(_Message(rank, *pickle.loads(content)))
    messages.put(_Message(rank, "", None))


class _Pickler(pickle.Pickler):
    """Memory-mapped arrays are sent as their file and offset."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.memmap and value.filename is not None and value.flags.c_contiguous:
            whole = value
            while isinstance(whole.base, np.memmap):
                whole = whole.base
            moved = value.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            file = (os.path.abspath(value.filename), value.dtype, "r", int(whole.offset) + moved, value.shape)
            return np.memmap, file
        return NotImplemented


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
