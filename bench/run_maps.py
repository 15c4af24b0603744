"""How long the maps of predictions and the report of a run take: the commands, on the run of examples/demo.py."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.report import ROOT

IMAGES = 100


def measure_run(folder: Path, quick: bool) -> dict[str, Any]:
    """Train on the sample subject, then predict `IMAGES` of its images, with and without maps, and write a report."""
    small = ["--images", "60", "--vertices", "120", "--epochs", "1"] if quick else []
    demo = [sys.executable, str(ROOT / "examples" / "demo.py"), "--folder", str(folder), *small]
    subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
    count = 2 if quick else IMAGES
    images = sorted((folder / "subject").rglob("*.png"))[:count]
    (folder / "images.txt").write_text("".join(f"{image}\n" for image in images))
    predict = ["predict", "images.txt", "--encoder", "encoder.onnx", "--overwrite", "--out"]
    without = _seconds(folder, *predict, "without.npy")
    drawn = _seconds(folder, *predict, "with.npy", "--maps", "drawn", "--max-maps", str(count))
    sizes = [path.stat().st_size for path in (folder / "drawn").glob("*.png")]
    assert len(sizes) == count
    written = _seconds(folder, "report", "runs/1", "--out", "again.html")
    return {
        "prediction maps": count,
        "prediction maps, s": round(drawn - without, 1),
        "MB a map": round(sum(sizes) / count / 1e6, 2),
        "report, s": round(written, 1),
        "report, MB": round((folder / "again.html").stat().st_size / 1e6, 2),
    }


def _seconds(folder: Path, *words: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "brainkit.cli", *words]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start
