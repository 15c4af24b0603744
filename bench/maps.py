"""Still maps: seconds a figure, of predictions, of a report. The page of maps in headless Chromium, drawn by the
processor: ready, frames a second.

Frames are counted by requestAnimationFrame while the cortex turns with every frame, at 1280 x 800.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.machine import describe
from bench.report import load_average, write_report
from bench.run_maps import measure_run
from bench.still_maps import make_maps
from brainkit.cortex.cortical_surface import average_surface
from brainkit.page import PageContent, build

FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
TURN = """async (seconds) => {
  const cortex = document.getElementById("overlay");
  const times = [];
  await new Promise((done) => {
    const step = (now) => {
      times.push(now);
      cortex.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      if (now - times[0] < 1000 * seconds) requestAnimationFrame(step);
      else done();
    };
    requestAnimationFrame(step);
  });
  return times;
}"""


def measure(path: Path, seconds: float) -> dict[str, Any]:
    """Open a page and turn its cortex with two kinds of map."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS, timeout=0)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(0)
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-state=ready]", state="attached")
        found: dict[str, Any] = {"ready, s": round(time.perf_counter() - start, 2)}
        for name in ("accuracy", "layer"):
            page.evaluate("name => { brainkit.show(name); return brainkit.rest(); }", name)
            times = page.evaluate(TURN, seconds)
            found[f"{name}, frames a second"] = round(1000 * (len(times) - 1) / (times[-1] - times[0]), 1)
            found[f"{name}, median ms a frame"] = round(median(np.diff(times)), 1)
        found["detail"] = page.evaluate("brainkit.detail()")
        browser.close()
    return found


CASES = {
    "fsaverage5, back of the brain": ("fsaverage5", False),
    "fsaverage5, all": ("fsaverage5", True),
    "fsaverage, back of the brain": ("fsaverage", False),
    "fsaverage, all": ("fsaverage", True),
}


STILLS = (("fsaverage5", "flat"), ("fsaverage5", "inflated"), ("fsaverage", "flat"), ("fsaverage", "inflated"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small page, to see that it runs")
    parser.add_argument("--seconds", type=float, default=5.0, help="of turning")
    parser.add_argument("--name", default="maps", help="of the files in bench/results, or an absolute path")
    options = parser.parse_args()
    cases = dict(list(CASES.items())[:1]) if options.quick else CASES
    report: dict[str, Any] = {"machine": describe(threads=1), "load before": load_average(), "figures": {}, "pages": {}}
    for space, view in STILLS[: 1 if options.quick else None]:
        command = [sys.executable, "-m", "bench.still_maps", space, view, "2" if options.quick else "30"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report["figures"][f"{space}, {view}"] = json.loads(done.stdout)
    with tempfile.TemporaryDirectory() as folder:
        report["run"] = measure_run(Path(folder), options.quick)
    with tempfile.TemporaryDirectory() as folder:
        for name, (space, everywhere) in cases.items():
            maps = make_maps(space, everywhere)
            start = time.perf_counter()
            text = build(PageContent(maps, average_surface(space)))
            row = {
                "size, MB": round(len(text.encode()) / 1e6, 2),
                "written in, s": round(time.perf_counter() - start, 1),
            }
            path = Path(folder) / "cortex.html"
            path.write_text(text, encoding="utf-8")
            report["pages"][name] = row | measure(path, 0.5 if options.quick else options.seconds)
    write_report(options.name, report, _page(report))


def _page(report: dict[str, Any]) -> str:
    machine, pages, run = report["machine"], report["pages"], report["run"]
    columns = ["size, MB", "written in, s", "ready, s", "accuracy, frames a second", "layer, frames a second"]
    figures = report["figures"]
    drawn = list(next(iter(figures.values())))
    lines = [
        "# Still maps, and the page of maps",
        "",
        "A figure as PNG at 150 dots per inch of the vertices at the back of the brain; the first one with all",
        "imports, in a process of its own. The PDF is 7.2 inches wide, with the map at 300 dots per inch.",
        "",
        "| figure | " + " | ".join(drawn) + " |",
        "|---|" + "---|" * len(drawn),
        *(f"| {name} | " + " | ".join(str(row[column]) for column in drawn) + " |" for name, row in figures.items()),
        "",
        "Of a run on the sample subject, 2,400 vertices of fsaverage5:",
        f"{run['prediction maps']} maps of predictions, each beside its image: {run['prediction maps, s']} s on",
        f"{machine['cores']} cores, {run['MB a map']} MB each;",
        f"the report: {run['report, s']} s, {run['report, MB']} MB.",
        "",
        "The page, drawn by the processor:",
        f"{machine['processor']}, {machine['cores']} cores, load {report['load before']} before; ten maps, headless",
        "Chromium with SwiftShader, 1280 x 800, turning with every frame (`python -m bench.maps`). On meshes finer",
        "than fsaverage5, a moving cortex has the faces of a coarser one, and fewer pixels where that is slow.",
        "",
        "| page | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |" for name, row in pages.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
