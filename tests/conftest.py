"""What test files share: no test touches the user's cache or data, and one tiny sample subject serves them all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test processes run side by side on few cores, and the arrays are tiny: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# For `bench`, which is not installed. At the end, so that an installed brainkit is tested and not this folder's.
sys.path.append(str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("BRAINKIT_DATA", raising=False)
        # Processes that tests start would import brainkit from the repository's folder if they ran in it.
        patch.chdir(tmp_path_factory.mktemp("working-folder"))
        yield


@pytest.fixture(scope="session")
def tiny_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample subject of 60 + 20 images and 60 vertices. Read it, and change nothing in it."""
    from brainkit.sample import make_sample

    said: list[str] = []
    return make_sample(
        tmp_path_factory.mktemp("sample") / "subject", images=60, test_images=20, vertices=60, say=said.append
    )
