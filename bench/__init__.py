"""Benchmarks. Run them from the repository's folder: ``python -m bench.operator``."""

import sys
from pathlib import Path

# The installed brainkit is measured, not the folder next to this one, which need not hold a built extension.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [*(path for path in sys.path if Path(path).resolve() != _ROOT), str(_ROOT)]

from brainkit.utils.system import configure_openmp  # noqa: E402

configure_openmp()  # before torch is imported, as the commands do
