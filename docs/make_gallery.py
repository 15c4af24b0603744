"""Makes docs/gallery.md and its pictures: ``python docs/make_gallery.py``, in a clone after ``make demo``.

Every figure is made by the command that the page shows, in the folder that the demo leaves. Pictures of pages are taken
with Chromium and playwright; without them, those that are there stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DPI = ("--dpi", "75")  # smaller files than for paper
LARGE = 300_000  # bytes
_CHROMIUM = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@dataclass(frozen=True)
class Figure:
    """A picture of the gallery: what it shows, the command that makes it, and the file that the command writes."""

    name: str
    caption: str
    command: str
    file: str


FIGURES = (
    Figure("layer", "The layer that each vertex reads", "brainkit map --only layer", "layer.png"),
    Figure(
        "layer-inflated",
        "The same on the inflated cortex, for a dark slide",
        "brainkit map --only layer --view inflated --angles posterior,ventral --theme dark",
        "layer.png",
    ),
    Figure("location", "Where in the image each vertex reads", "brainkit map --only location", "location.png"),
    Figure(
        "scale",
        "Local or global, on the folded cortex",
        "brainkit map --only scale --view pial --angles posterior,medial",
        "scale.png",
    ),
    Figure("accuracy", "R² on test images", "brainkit map --only accuracy", "accuracy.png"),
    Figure(
        "explained",
        "The explained share of the noise ceiling, without interpolation between vertices: noise looks like noise",
        "brainkit map --only explained --shading flat",
        "explained.png",
    ),
    Figure("clusters", "Vertices that read the same channels", "brainkit map --method", "clusters.png"),
    Figure("coverage", "Which part of the image each ROI reads", "brainkit map --method", "coverage.png"),
    Figure("layers-by-roi", "How much each ROI reads each layer", "brainkit map --method", "layers-by-roi.png"),
    Figure(
        "top-channels",
        "Photographs as each ROI's strongest channels have them",
        "brainkit map --method --images photos",
        "top-channels.png",
    ),
)
PAGES = (
    Figure(
        "page", "The maps on a cortex to turn, inflate and flatten ([page.md](page.md))", "brainkit view", "cortex.html"
    ),
    Figure("report", "A run as one page to send ([report.md](report.md))", "brainkit report", "report.html"),
)


def main() -> None:
    """Make the pictures, then the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=DOCS.parent / "demo", help="the folder that make demo leaves")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where gallery.md and the folder gallery go")
    options = parser.parse_args()
    pictures = options.docs / "gallery"
    pictures.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        made: dict[str, Path] = {}
        for figure in FIGURES:
            if figure.command not in made:
                made[figure.command] = Path(temporary) / str(len(made))
                run(figure.command, ["--out", str(made[figure.command]), *DPI], options.demo)
            copy(made[figure.command] / figure.file, pictures / f"{figure.name}.png")
        for figure in PAGES:
            file = Path(temporary) / figure.file
            run(figure.command, ["--out", str(file)], options.demo)
            photograph(file, pictures / f"{figure.name}.png")
    (options.docs / "gallery.md").write_text(page(pictures), encoding="utf-8")


def copy(file: Path, picture: Path) -> None:
    """Copy a picture; a large one, which has photographs, with 256 colours."""
    from PIL import Image

    if file.stat().st_size < LARGE:
        shutil.copyfile(file, picture)
    else:
        Image.open(file).convert("RGB").quantize(256).save(picture, optimize=True)


def run(command: str, more: list[str], folder: Path) -> None:
    """Run a command of brainkit in a folder."""
    words = [*shlex.split(command)[1:], *more]
    subprocess.run([sys.executable, "-m", "brainkit.cli", *words], cwd=folder, check=True)


def photograph(file: Path, picture: Path) -> None:
    """Take a picture of a page, where Chromium and playwright are installed."""
    program = shutil.which("chromium")
    if program is None or importlib.util.find_spec("playwright") is None:
        print(f"gallery: no Chromium or playwright: {picture.name} is not made", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=list(_CHROMIUM), timeout=0)
        tab = browser.new_page(viewport={"width": 1100, "height": 720}, color_scheme="light")
        tab.set_default_timeout(0)
        tab.goto(file.resolve().as_uri())
        tab.wait_for_selector("html:not([data-state=loading])", state="attached")
        tab.wait_for_timeout(1500)  # until it has been drawn
        tab.screenshot(path=picture)
        browser.close()


def page(pictures: Path) -> str:
    """The page, with the pictures that there are."""
    lines = [
        "# Gallery",
        "",
        "Figures of the simulated sample subject, each with the command that makes it in the folder that",
        "`make demo` leaves; here at 75 dots per inch. `--format pdf`, `--size double` and `--theme` make them",
        "ready for a paper or a slide ([cli.md](cli.md#figures)). From Python: `brainkit.plot`, `run.plot` and",
        "`encoder.plot` ([python.md](python.md)). This page is made by `docs/make_gallery.py`.",
    ]
    for figure in (*FIGURES, *PAGES):
        if (pictures / f"{figure.name}.png").is_file():
            lines += [
                "",
                f"**{figure.caption}**",
                "",
                f"![{figure.caption.split(' ([')[0]}](gallery/{figure.name}.png)",
            ]
            lines += ["", f"    {figure.command}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
