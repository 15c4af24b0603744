"""How the libraries' threads behave in the commands and the benchmarks."""

from __future__ import annotations

import os


def settle_openmp() -> None:
    """Make OpenMP's threads sleep soon when they have nothing to do; call it before anything loads OpenMP.

    Threads that spin while they wait make training many times slower on a machine that others use too, and take the
    cores from the operator's own threads. GNU's OpenMP may spin for some microseconds, which spares it from falling
    asleep between two operations. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
