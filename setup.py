"""Build: the package mapping that pyproject.toml cannot express, and brainkit._C through CMake.

``BRAINKIT_NO_EXT=1`` builds without the C++ extension, for machines with no compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import ExecError

ROOT = Path(__file__).resolve().parent


def program(name: str) -> str:
    """Path of cmake or ninja: the one the build environment brings, else the one on PATH."""
    try:
        package = __import__(name)
    except ModuleNotFoundError:
        found = shutil.which(name)
        if found is None:
            raise ExecError(f"brainkit needs {name} to build: pip install {name}") from None
        return found
    folder = package.CMAKE_BIN_DIR if name == "cmake" else package.BIN_DIR
    return str(Path(folder) / name)


class BuildModules(build_py):
    """build_py that starts clean, because a module deleted since the last build would ship as a ghost."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "brainkit", ignore_errors=True)
        super().run()


class BuildWithCMake(build_ext):
    """build_ext that hands the whole extension to CMake."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        cmake = program("cmake")
        build = Path(self.build_temp).resolve() / "cmake"
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        configure = [cmake, "--fresh", "-S", str(ROOT), "-B", str(build)]
        if os.name != "nt":
            # An isolated build's ninja is gone by the next build, so its path must never come from a cache.
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={program('ninja')}"]
        configure += [
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        try:
            subprocess.run(configure, check=True)
            subprocess.run([cmake, "--build", str(build), "--config", "Release"], check=True)
            subprocess.run([cmake, "--install", str(build), "--config", "Release", "--prefix", str(target)], check=True)
        except subprocess.CalledProcessError:
            raise ExecError(
                "brainkit._C did not build, see CMake's message above; "
                "with no C++17 compiler, set BRAINKIT_NO_EXT=1 to install without it"
            ) from None


mapped = find_packages(str(ROOT), include=["kernels", "kernels.*", "cli", "cli.*"])
without_extension = os.environ.get("BRAINKIT_NO_EXT", "0") not in ("", "0")

setup(
    packages=find_packages(str(ROOT), include=["brainkit", "brainkit.*"]) + [f"brainkit.{name}" for name in mapped],
    package_dir={"brainkit.kernels": "kernels", "brainkit.cli": "cli"},
    ext_modules=[] if without_extension else [Extension("brainkit._C", sources=[])],
    cmdclass={"build_py": BuildModules, "build_ext": BuildWithCMake},
)
