"""The engine that runs an encoder's network: ONNX Runtime, on a device that really works.

`open_session` and `Session` are all that the rest of brainkit knows of it, so another engine needs only these: open a
file, run it on images, abort a run.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from brainkit.errors import BrainkitError, EncoderFileError, require
from brainkit.utils.system import cores, cuda_devices
from brainkit.utils.text import first_line

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class Session:
    """A network, open on a device. Made by `open_session`; several threads may run it at once.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    """

    def __init__(self, path: str | os.PathLike[str], session: Any, device: str) -> None:
        self.device = device
        self._path, self._session = path, session
        self._running: dict[int, Any] = {}  # thread -> options of its run
        _SESSIONS.add(self)

    def run(self, outputs: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """Compute some outputs for prepared images.

        Parameters
        ----------
        outputs : sequence of str
            Only what these need is computed.
        images : array of shape (B, S, S, 3), uint8

        Returns
        -------
        list of array
            One per output, each with B rows.

        Raises
        ------
        BrainkitError
            If the engine fails (out of memory, for example), or `break_off` ended the run.
        EncoderFileError
            If an output does not have B rows.
        """
        options = self._running[threading.get_ident()] = import_runtime().RunOptions()
        try:
            options.only_execute_path_to_fetches = True  # otherwise the runtime computes all outputs
            results: list[np.ndarray] = self._session.run(outputs, {"images": np.ascontiguousarray(images)}, options)
        except Exception as error:  # ONNX Runtime's own classes have no common base
            raise BrainkitError(f"{self._path}: ONNX Runtime failed: {first_line(error)}") from error
        finally:
            del self._running[threading.get_ident()]
        # The shapes that a graph declares are checked when it is opened; what it returns is known only now.
        for name, result in zip(outputs, results, strict=True):
            if len(result) != len(images):
                raise EncoderFileError(f"{self._path}: gives {len(result)} rows of {name} for {len(images)} images")
        return results

    def break_off(self, thread: int | None = None) -> None:
        """Abort the run of the thread with that identifier, by default all runs; each raises a BrainkitError."""
        for running, options in list(self._running.items()):
            if thread in (None, running):
                options.terminate = True

    def leave_to_parent(self) -> None:
        """In a forked process: never free the session, which would wait for threads that only the parent has."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))

    def inputs(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        """Name -> (dtype, shape) of each input; a size that varies is not a number."""
        return _signature(self._session.get_inputs())

    def outputs(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        """Name -> (dtype, shape) of each output."""
        return _signature(self._session.get_outputs())


def open_session(path: str | os.PathLike[str], *, device: str, size: int, threads: int | None = None) -> Session:
    """Open an ONNX file on a device that really works.

    Parameters
    ----------
    path : path-like
    device : {"auto", "cpu", "cuda"}
    size : int
        Side of the input in pixels: large ones run without ONNX Runtime's memory arena, which would nearly double
        the peak.
    threads : int, optional
        Threads of one run; by default one for each core this process may use.

    Returns
    -------
    Session

    Raises
    ------
    EncoderFileError
        If ONNX Runtime cannot open the file.
    BrainkitError
        If ``"cuda"`` is requested and cannot be used.
    """
    runtime = import_runtime()
    no_cuda = _why_no_cuda(runtime) if device != "cpu" else "not requested"
    if device == "cuda" and no_cuda:
        raise BrainkitError(f"device cuda is requested, but {no_cuda}; use --device cpu")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the log would only repeat them
    options.intra_op_num_threads = threads or cores()
    options.enable_cpu_mem_arena = size < 512
    # Waiting threads would spin on the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not no_cuda:
        # TF32 would cost three digits of the certificate's agreement.
        cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
        with contextlib.nullcontext() if device == "cuda" else contextlib.suppress(EncoderFileError):
            session = _create(runtime, path, options, [cuda, "CPUExecutionProvider"])
            if session.get_providers()[0] == "CUDAExecutionProvider":
                return Session(path, session, "cuda")
        if device == "cuda":
            raise BrainkitError(
                "device cuda is requested, but ONNX Runtime could not start on it (are its CUDA libraries installed? "
                "pip install 'brainkit[gpu]'); use --device cpu"
            )
    return Session(path, _create(runtime, path, options, ["CPUExecutionProvider"]), "cpu")


_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()  # open in this process


def _leave_sessions_to_parent() -> None:
    for session in _SESSIONS:
        session.leave_to_parent()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_sessions_to_parent)


def import_runtime() -> Any:
    """Import ONNX Runtime with telemetry off, unless ``ORT_DISABLE_TELEMETRY`` is set to something else.

    On Linux too, releases from 1.31 on store a device id in the user's cache and report to Microsoft when imported;
    what users predict is their own business.

    Raises
    ------
    MissingDependency
        If it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return require("onnxruntime", extra="all", purpose="predicting")


def _signature(values: Sequence[Any]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {value.name: (_DTYPES.get(value.type, value.type), tuple(value.shape)) for value in values}


def _why_no_cuda(runtime: Any) -> str | None:
    # The runtime lists CUDA if it was built with it, and silently falls back: so devices are counted first.
    if not cuda_devices()[0]:
        return "this machine has no CUDA device"
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return "the installed ONNX Runtime has no CUDA; install onnxruntime-gpu in place of onnxruntime"
    return None


def _create(runtime: Any, path: str | os.PathLike[str], options: Any, providers: list[Any]) -> Any:
    on_cuda = providers[0] != "CPUExecutionProvider"
    try:
        if on_cuda:
            # The provider that the session ends up with shows whether CUDA works; the runtime would also print it.
            runtime.set_default_logger_severity(4)
            if hasattr(runtime, "preload_dlls"):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    runtime.preload_dlls()  # finds the CUDA libraries that pip installed
        # No fallback: the runtime's own would move to the CPU in the middle of a run, and print.
        return runtime.InferenceSession(os.fspath(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise EncoderFileError(f"{path}: ONNX Runtime cannot open it: {first_line(error)}") from error
    finally:
        if on_cuda:
            runtime.set_default_logger_severity(2)  # the runtime's default
