"""Benchmarks. Run them from the repository's folder: ``python -m bench.operator``."""

from brainkit.utils.system import settle_openmp

settle_openmp()  # before torch is imported: as the commands run, so they are timed
