"""Benchmarks. Run them from the repository's folder: ``python -m bench.operator``."""

from brainkit.utils.system import configure_openmp

configure_openmp()  # before torch is imported, as the commands do
