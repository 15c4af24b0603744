"""Where benchmarks write their results."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brainkit.config import Config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def write_report(name: str | Path, report: dict[str, Any], page: str) -> None:
    """Write ``<name>.json`` and ``<name>.md`` in bench/results (or at an absolute path), and print the page."""
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.md").write_text(page, encoding="utf-8")
    print(page)


def load_average() -> float:
    """Processes that ran or waited over the last minute."""
    return round(os.getloadavg()[0], 2)


def settings_digest() -> str:
    """Of the defaults of model and training, and the prior of offsets: results of others are not kept."""
    from brainkit.model.selectors import LOCATION_OFFSETS, OFFSETS_SD

    settings = Config()
    train = asdict(settings.train)
    for name in ("snapshots", "start"):  # whose defaults change no result, and which are newer than some that are kept
        del train[name]
    values = [asdict(settings.model), train, LOCATION_OFFSETS, OFFSETS_SD]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
