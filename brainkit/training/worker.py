"""A process that the launcher started: it takes its work from standard input and reports on standard output."""

from __future__ import annotations

import _thread
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import IO, Any

from brainkit.errors import BrainkitError, FailedElsewhere, StoppedTraining, TrainingError
from brainkit.training.distributed import is_peer_lost, peer_lost_message
from brainkit.utils.text import with_type

# report(name, value) calls the handler of that name in the process that started this one.
Report = Callable[[str, Any], None]
# work(report) does a process's part.
Work = Callable[[Report], None]

CLEAN_UP_SECONDS = 5.0  # that a process has once it is told to end
FAILED = "failed"  # the name under which an error is reported
INTERRUPT, TERMINATE = b"INT.", b"TERM"  # what standard input sends to stop the work, as Ctrl-C or as SIGTERM


def serve() -> None:
    """Do the work that comes through standard input.

    When standard input sends `INTERRUPT` or `TERMINATE`, the work gets that signal; when it ends, because the process
    that started this one has ended, so does this one.
    """
    # What libraries print must not mix with the reports.
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    parent_ended = threading.Event()
    lock = threading.Lock()

    def report(name: str, value: Any) -> None:
        with lock:
            write_message(reports, pickle.dumps((name, value)))

    work = read_message(sys.stdin.buffer)
    if work is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent does with its own
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_follow_parent, args=(parent_ended,), daemon=True).start()
    try:
        pickle.loads(work)(report)
    except BaseException as error:  # whatever it is, the process that started this one reports it
        if not parent_ended.is_set():
            report(FAILED, reported_error(error))
        if debugging():
            raise
        os._exit(1)  # libraries that wait for other processes must not keep this one
    reports.flush()
    os._exit(0)


def reported_error(error: BaseException) -> BaseException:
    """The error as the process that started this one raises it: picklable, and a single line."""
    processes = int(os.environ["WORLD_SIZE"])
    if isinstance(error, BrainkitError):
        return type(error)(str(error))
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(str(error))
    if is_peer_lost(error):
        return FailedElsewhere(peer_lost_message(processes))
    if isinstance(error, MemoryError):
        return MemoryError(*map(str, error.args))
    return TrainingError(f"training process {int(os.environ['RANK']) + 1} of {processes} failed: {with_type(error)}")


def debugging() -> bool:
    """Whether $BRAINKIT_DEBUG asks for tracebacks."""
    return os.environ.get("BRAINKIT_DEBUG", "0") not in ("", "0")


def write_message(stream: IO[bytes], content: Any) -> None:
    stream.write(len(content).to_bytes(8, "little"))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    content = stream.read(int.from_bytes(head, "little"))
    return content if len(content) == int.from_bytes(head, "little") else None


def _follow_parent(ended: threading.Event) -> None:
    if request := sys.stdin.buffer.read(len(INTERRUPT)):
        _signal(signal.SIGTERM if request == TERMINATE else signal.SIGINT)
        sys.stdin.buffer.read()
    ended.set()
    for _ in range(2):  # the second Ctrl-C does not wait for the step
        _signal(signal.SIGINT)
    time.sleep(0.8 * CLEAN_UP_SECONDS)
    os._exit(1)


def _signal(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):  # which also wakes a main thread that sleeps
        signal.pthread_kill(threading.main_thread().ident, number)  # type: ignore[arg-type]
    else:
        _thread.interrupt_main(number)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise StoppedTraining("stopped by SIGTERM before training began")
