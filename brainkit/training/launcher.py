"""Starts the processes of a training on one machine, hears them, and lets none outlive the others.

They are fresh interpreters, so the program that trains need not be written for them: the work comes through standard
input, and what they report goes back through standard output. Ctrl-C and SIGTERM come to the process that started
them, which passes on that they are to stop; when standard input ends, they end.
"""

from __future__ import annotations

import _thread
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
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from brainkit.errors import BrainkitError, SaidElsewhere, StoppedTraining, TrainingError
from brainkit.training.distributed import gone, lost_another
from brainkit.training.signals import StopSignals
from brainkit.utils.system import cores
from brainkit.utils.text import with_type

Report = Callable[..., None]
# work(report): does its part in one of the processes; report(name, value) calls that one of `hear` in the parent.
Work = Callable[[Report], None]

_LOOK = 0.1  # seconds after which the parent sees that it was asked to stop
_GRACE = 5.0  # seconds in which a process may clear up
_HEARING = 2.0  # seconds after the first failure in which another process may have a better explanation


def run_processes(work: Work, count: int, hear: dict[str, Callable[[Any], None]]) -> None:
    """Do `work` in `count` new processes of this machine, which find each other as torchrun's would.

    Parameters
    ----------
    work : callable
        Can be pickled; called with ``report`` in each process, whose environment says which one it is.
    count : int
    hear : dict of str to callable
        What is done here, in the calling thread, when a process reports something of that name.

    Raises
    ------
    BrainkitError
        What one of them raised; or, where one was killed, a line that says so. All are ended first.
    KeyboardInterrupt, StoppedTraining
        If this process got Ctrl-C or SIGTERM: what they raised when they were told to stop. A second Ctrl-C does not
        wait for them.
    """
    content = io.BytesIO()
    _Pickler(content).dump(work)
    port = _free_port()
    heard: queue.Queue[tuple[int, str, Any]] = queue.Queue()
    with StopSignals() as stop, contextlib.ExitStack() as ended:
        running = [ended.enter_context(_process(rank, count, port, heard)) for rank in range(count)]
        for process in running:
            with contextlib.suppress(BrokenPipeError):
                _write(process.stdin, content.getbuffer())
        content.close()
        failures: dict[int, BaseException] = {}
        waiting, deadline, told = set(range(count)), None, False
        while waiting:
            if stop.received is not None and not told:
                told = True
                for process in running:
                    with contextlib.suppress(OSError):
                        process.stdin.write(b"stop")  # type: ignore[union-attr]
                        process.stdin.flush()  # type: ignore[union-attr]
            try:
                rank, name, value = heard.get(timeout=_LOOK)
            except queue.Empty:
                if deadline is not None and time.monotonic() > deadline:
                    break
                continue
            if name == "":  # its output has ended
                waiting.discard(rank)
                code = running[rank].wait()
                if code and rank not in failures:
                    failures[rank] = TrainingError(_ending(rank, count, code))
            elif name == "failed":
                failures[rank] = value
            else:
                hear[name](value)
            if failures and deadline is None:
                deadline = time.monotonic() + _HEARING
        if failures:
            failure = min(failures.values(), key=_explains_less)
            if isinstance(failure, KeyboardInterrupt) and stop.received == signal.SIGTERM:
                failure = StoppedTraining(str(failure).replace("Ctrl-C", "SIGTERM"))
            raise failure


def _explains_less(failure: BaseException) -> int:
    """Order of what is worth saying: an error of our own, a process that was killed, what follows from either."""
    return 2 if isinstance(failure, SaidElsewhere) else 1 if type(failure) is TrainingError else 0


def _ending(rank: int, count: int, code: int) -> str:
    how = f"with code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-code).name}"
    return (
        f"training process {rank + 1} of {count} was ended {how}; brainkit train --resume goes on from the last epoch"
    )


@contextlib.contextmanager
def _process(
    rank: int, count: int, port: int, heard: queue.Queue[tuple[int, str, Any]]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start one; when the block ends, so does it."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    # Their cores are shared, and what they say to each other does not leave the machine.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback is not None:
        environment.setdefault("GLOO_SOCKET_IFNAME", loopback)
    start = f"import sys; sys.path[:] = {sys.path!r}; from brainkit.training.launcher import serve; serve()"
    with tempfile.TemporaryFile() as said:
        debug = os.environ.get("BRAINKIT_DEBUG", "0") not in ("", "0")
        process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else said,
            env=environment,
            # Ctrl-C at the terminal is the parent's alone.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        listener = threading.Thread(target=_listen, args=(rank, process.stdout, heard), daemon=True)
        listener.start()
        try:
            yield process
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join()
            process.stdout.close()  # type: ignore[union-attr]


def _listen(rank: int, stream: IO[bytes] | None, heard: queue.Queue[tuple[int, str, Any]]) -> None:
    while (content := _read(stream)) is not None:
        heard.put((rank, *pickle.loads(content)))
    heard.put((rank, "", None))


def serve() -> None:
    """Run in a process that `run_processes` started: take the work, do it, report."""
    # Whatever prints would break into the reports.
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    ending = threading.Event()

    content = _read(sys.stdin.buffer)

    def interrupt() -> None:
        if hasattr(signal, "pthread_kill"):  # it wakes a main thread that sleeps
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        else:
            _thread.interrupt_main()

    def obey() -> None:
        if sys.stdin.buffer.read(4):  # "stop": as Ctrl-C, which notes it and stops where a state can be saved
            interrupt()
            sys.stdin.buffer.read()
        ending.set()
        for _ in range(2):  # at once, where the first one is only noted
            interrupt()
        time.sleep(0.8 * _GRACE)
        os._exit(1)

    lock = threading.Lock()

    def report(name: str, value: Any) -> None:
        with lock:
            _write(reports, pickle.dumps((name, value)))

    if content is None:
        return
    threading.Thread(target=obey, daemon=True).start()
    try:
        pickle.loads(content)(report)
    except BaseException as error:  # whatever it is, it is said where the run was started
        if not ending.is_set():
            report("failed", _told(error))
        if os.environ.get("BRAINKIT_DEBUG", "0") not in ("", "0"):
            raise
        os._exit(1)  # libraries that wait for the other processes must not keep this one
    reports.flush()
    os._exit(0)


def _told(error: BaseException) -> BaseException:
    """The error as the parent raises it: it must survive pickling, and be a single line."""
    count = int(os.environ["WORLD_SIZE"])
    if isinstance(error, BrainkitError):
        return type(error)(str(error))
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(str(error))
    if lost_another(error):
        return SaidElsewhere(gone(count))
    if isinstance(error, MemoryError):
        return MemoryError(*map(str, error.args))
    rank = int(os.environ["RANK"])
    return TrainingError(f"training process {rank + 1} of {count} failed: {with_type(error)}")


class _Pickler(pickle.Pickler):
    """Memory-mapped arrays travel as their place on the disk."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.memmap and value.filename is not None and value.flags.c_contiguous:
            whole = value
            while isinstance(whole.base, np.memmap):
                whole = whole.base
            moved = value.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
            place = (os.path.abspath(value.filename), value.dtype, "r", int(whole.offset) + moved, value.shape)
            return np.memmap, place
        return NotImplemented


def _write(stream: IO[bytes] | None, content: Any) -> None:
    assert stream is not None
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes] | None) -> bytes | None:
    """The next message, or None where there are no more."""
    assert stream is not None
    head = stream.read(8)
    if len(head) < 8:
        return None
    content = stream.read(int.from_bytes(head, "little"))
    return content if len(content) == int.from_bytes(head, "little") else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
