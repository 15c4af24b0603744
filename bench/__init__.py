"""Benchmarks. Run them from the repository's folder: ``python -m bench.operator``."""
