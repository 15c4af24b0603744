"""ONNX Runtime on the device that is really there."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from brainkit.errors import BrainkitError, EncoderFileError, require
from brainkit.utils.system import cores, cuda_devices
from brainkit.utils.text import first_line


def open_session(
    path: str | os.PathLike[str], *, device: str, size: int, threads: int | None = None
) -> tuple[Any, str]:
    """Open an ONNX file on a device that is really there.

    Parameters
    ----------
    path : path-like
    device : {"auto", "cpu", "cuda"}
    size : int
        Side of the input in pixels: large ones run without ONNX Runtime's memory arena, which would nearly double
        the peak.
    threads : int, optional
        Of one run; by default one for each core this process may use.

    Returns
    -------
    session : onnxruntime.InferenceSession
    device : str
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    EncoderFileError
        If ONNX Runtime cannot open the file.
    BrainkitError
        If ``"cuda"`` was asked for and cannot be used.
    """
    runtime = import_runtime()
    missing = _why_no_cuda(runtime) if device != "cpu" else "not wanted"
    if device == "cuda" and missing:
        raise BrainkitError(f"device cuda was asked for, but {missing}; use --device cpu")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; the log would only repeat it
    options.intra_op_num_threads = threads or cores()
    options.enable_cpu_mem_arena = size < 512
    # Waiting threads would spin on the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not missing:
        # TF32 would cost three digits of the certificate's agreement.
        cuda = ("CUDAExecutionProvider", {"use_tf32": "0"})
        with contextlib.nullcontext() if device == "cuda" else contextlib.suppress(EncoderFileError):
            session = _session(runtime, path, options, [cuda, "CPUExecutionProvider"])
            if session.get_providers()[0] == "CUDAExecutionProvider":
                return session, "cuda"
        if device == "cuda":
            raise BrainkitError(
                "device cuda was asked for, but ONNX Runtime could not start on it (are its CUDA libraries there? "
                "pip install 'brainkit[gpu]'); use --device cpu"
            )
    return _session(runtime, path, options, ["CPUExecutionProvider"]), "cpu"


def import_runtime() -> Any:
    """Import ONNX Runtime with its usage reports off, unless ``ORT_DISABLE_TELEMETRY`` is set to something else.

    On Linux too, releases from 1.31 on leave a device id in the user's cache and report to their maker when imported;
    what somebody scores is their own business.

    Raises
    ------
    MissingDependency
        If it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return require("onnxruntime", extra="all", purpose="scoring")


def _why_no_cuda(runtime: Any) -> str | None:
    # The runtime lists CUDA wherever it was built with it, and falls back in silence: so devices are counted first.
    if not cuda_devices()[0]:
        return "this machine has no CUDA device"
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        return "the installed ONNX Runtime has no CUDA; install onnxruntime-gpu in place of onnxruntime"
    return None


def _session(runtime: Any, path: str | os.PathLike[str], options: Any, providers: list[Any]) -> Any:
    on_cuda = providers[0] != "CPUExecutionProvider"
    try:
        if on_cuda:
            # What CUDA lacks is told by which provider the session ends up with; the runtime would print it too.
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
