"""The network of an encoder file: batches of prepared images in, rows of predictions out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from brainkit.encoder_file.file import fingerprint
from brainkit.encoder_file.info import EncoderInfo
from brainkit.errors import BrainkitError, EncoderFileError, UsageError
from brainkit.predict.readout import SubsetReadout
from brainkit.predict.session import Session, open_session


class Network:
    """A network in a session, and the file that it was opened from.

    Parameters
    ----------
    path : Path
    info : EncoderInfo
        The file's metadata.
    session : Session
    checked : tuple of int, optional
        `fingerprint` of the file that was checked; if the file has changed since, nothing more is read from it.
    threads : int, optional
        As it was opened with.

    Attributes
    ----------
    file : Path
        The absolute path: the working folder may change.
    device : str
        ``"cpu"`` or ``"cuda"``: where it runs.
    threads : int or None
        Threads of the network, of its readout, and of decoding; None: one for each core this process may use.
    """

    def __init__(
        self,
        path: Path,
        info: EncoderInfo,
        session: Session,
        checked: tuple[int, ...] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path, self.info, self.device, self.threads = path, info, session.device, threads
        self.file = Path(os.path.abspath(path))
        self._session, self._process = session, os.getpid()
        self._checked = checked  # fingerprint of the file that was checked
        self._subset: tuple[bytes, SubsetReadout] | None = None

    def run(self, batch: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Predict one batch of prepared images (B, S, S, 3) uint8 -> (B, V) float32.

        Parameters
        ----------
        batch : array of shape (B, S, S, 3), uint8
        columns : array of shape (n,), int, optional
            Positions in 0..V-1: only these vertices are computed, from the network's tokens, and returned in this
            order. The numbers are the same up to float32 rounding.

        Returns
        -------
        array of shape (B, V) or (B, n), float32

        Raises
        ------
        BrainkitError
            If the engine fails, for lack of memory for example.
        """
        if columns is None:
            return self._run(["fmri"], batch)[0]
        return self.readout_of(columns)(self.tokens(batch))

    def run_with_spread(self, batch: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Predict one batch with an ensemble: (B, 2, V) or (B, 2, n) float32, the mean and the s.d. over the members.

        Parameters
        ----------
        batch, columns
            As for :meth:`run`.

        Raises
        ------
        UsageError
            If the file holds a single model, which has no spread.
        BrainkitError
            If the engine fails.
        """
        if self.info.ensemble is None:
            raise UsageError(
                f"{self.path}: must be an ensemble to have a spread, got a single model; brainkit export --ensemble "
                "makes one"
            )
        if columns is None:
            return np.stack(self._run(["fmri", "fmri_sd"], batch), 1)
        members = self.readout_of(columns).members(self.tokens(batch))
        return np.stack([members.mean(0), members.std(0, ddof=1)], 1)

    def readout_of(self, columns: np.ndarray) -> SubsetReadout:
        """The readout of some vertices, read from the file the first time; kept until other vertices are asked for."""
        key = np.ascontiguousarray(columns, np.int64).tobytes()
        cached = self._subset  # another thread may replace it
        if cached is not None and cached[0] == key:
            return cached[1]
        subset = SubsetReadout(self.file, self.info, columns, threads=self.threads)
        self._check_unchanged()
        self._subset = key, subset
        return subset

    def tokens(self, batch: np.ndarray) -> np.ndarray:
        """The tokens that the vertices read, for prepared images (B, S, S, 3) uint8 -> (B, L, D, H*W + 1) float32."""
        return self._run(["tokens"], batch)[0]

    def break_off(self, thread: int | None = None) -> None:
        """Abort the run of the thread with that identifier, by default all runs; each raises a BrainkitError."""
        self._session.break_off(thread)

    def _run(self, outputs: list[str], batch: np.ndarray) -> list[np.ndarray]:
        if self._process != os.getpid():  # forked: the session's threads are not here, and a GPU cannot be shared
            if self.device != "cpu":
                raise BrainkitError(
                    f"{self.path}: a forked process cannot use the GPU of its parent; start it with the method 'spawn'"
                )
            session = open_session(
                self.file, device=self.device, size=self.info.preprocessing.size, threads=self.threads
            )
            self._check_unchanged()
            self._session, self._process = session, os.getpid()
        return self._session.run(outputs, batch)

    def _check_unchanged(self) -> None:
        if self._checked is not None and fingerprint(self.file) != self._checked:
            raise EncoderFileError(f"{self.path}: changed since it was opened")

    def batch_size_for(self, requested: int | None) -> int:
        """The batch size requested, or the default for the input's size and the device."""
        if requested is not None:
            if requested < 1:
                raise UsageError(f"batch size must be at least 1, got {requested}")
            return requested
        # Activations grow with the input's area: 8 images of 224 x 224 at once, 32 to keep a GPU busy.
        at_224 = 32 if self.device == "cuda" else 8
        return max(1, min(4 * at_224, int(at_224 * (224 / self.info.preprocessing.size) ** 2)))


def check_signature(session: Session, info: EncoderInfo, path: str | os.PathLike[str]) -> None:
    """The graph must have the inputs and outputs that the metadata promises."""
    size, V = info.preprocessing.size, len(info.vertices)
    inputs, outputs = session.inputs(), session.outputs()
    if set(inputs) != {"images"}:
        raise EncoderFileError(f"{path}: its graph must have the single input 'images', found {len(inputs)} inputs")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "images": ("uint8", (size, size, 3)),
        "fmri": ("float32", (V,)),
        "tokens": ("float32", (len(info.layers), info.bottleneck, info.grid[0] * info.grid[1] + 1)),
    }
    if info.ensemble is not None:
        expected["fmri_sd"] = ("float32", (V,))
    for name, (dtype, shape) in expected.items():
        found = (inputs | outputs).get(name)
        if found is None or (found[0], found[1][1:]) != (dtype, shape):
            wanted = ", ".join(map(str, ("batch", *shape)))
            text = "none" if found is None else f"{found[0]} {found[1]}"
            raise EncoderFileError(f"{path}: its graph must have {name}: {dtype} ({wanted}), found {text}")
