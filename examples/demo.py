"""From a network to a brain map in six commands: what ``make demo`` runs.

It runs the ``brainkit`` command as you would, and shows each command first. Everything is written to the folder
``demo`` of this clone, caches included; when repeated, it keeps the subject and adds a run. The examples of README.md
and docs/ run in that folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
STEPS = 6
PHOTOGRAPHS = ("chelsea", "china", "hopper")  # the training images are not crops of these
# Folder -> photographs, for the contrasts in the docs.
SETS = {"faces": ("astronaut", "hopper"), "objects": ("clock", "coffee", "motorcycle")}


def main() -> int:
    """Run the demo; returns the exit code."""
    options = arguments()
    if missing := [name for name in ("brainkit", "torch", "timm", "nilearn") if importlib.util.find_spec(name) is None]:
        print(f"demo: {missing[0]} is not installed; run `make demo`, or: pip install '.[train]'", file=sys.stderr)
        return 1
    started = time.monotonic()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(folder)
    print(f"Everything is written to {folder}; the commands below run there.")

    demo.title("sample: a simulated subject, since brainkit contains no brain data")
    if (folder / "subject").is_dir():
        print("subject/ exists from an earlier demo, and is kept")
    else:
        demo.brainkit("sample", "subject", "--images", options.images, "--vertices", options.vertices)

    demo.title("train: which layer, which location in the image and which scale predict each vertex?")
    run = next_run(folder / "runs").relative_to(folder)
    epochs = ["--epochs", options.epochs] if options.epochs else []
    demo.brainkit("train", "--backbone", "efficientnet_lite0", "--data", "subject", "--out", run.as_posix(), *epochs)

    demo.title("export: the encoder as one file, which predicts without PyTorch")
    demo.brainkit("export", "--onnx")
    shutil.copyfile(folder / run / "encoder.onnx", folder / "encoder.onnx")
    print("copied to encoder.onnx, the one file to send to a colleague")

    demo.title("predict: the response to photographs that are not in the training images")
    for name, photographs in {"photos": PHOTOGRAPHS, **SETS}.items():
        save_photographs(folder / name, photographs)
    demo.brainkit("predict", "photos", "--out", "responses.npy", "--maps", "responses", "--overwrite")

    demo.title("info: the metadata of the encoder file")
    demo.brainkit("info", "encoder.onnx")

    demo.title("report: the run as one page, with a cortex to turn")
    demo.brainkit("report", run.as_posix(), "--out", "report.html", "--overwrite")

    report(folder, run, time.monotonic() - started)
    return 0


def arguments() -> argparse.Namespace:
    """Command-line options; the defaults are those of ``make demo``."""
    parser = argparse.ArgumentParser(description="Train, export, predict and draw on a simulated subject.")
    parser.add_argument("--folder", type=Path, default=CLONE / "demo", help="output folder  [default: demo]")
    parser.add_argument("--images", type=int, default=900, help="training images of the subject")
    parser.add_argument("--vertices", type=int, default=2400, help="vertices of the subject")
    parser.add_argument("--epochs", type=int, help="passes over the training images  [default: brainkit's]")
    return parser.parse_args()


class Demo:
    """Shows and runs commands in one folder, and counts the steps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0
        cache = folder / "cache"
        # Nothing is written outside the folder, and figures need no display.
        self.environment = {
            **os.environ,
            "BRAINKIT_CACHE": str(cache),
            "XDG_CACHE_HOME": str(cache),  # ONNX Runtime's and matplotlib's
            "MPLCONFIGDIR": str(cache / "matplotlib"),
            "MPLBACKEND": "Agg",
        }

    def title(self, text: str) -> None:
        """Announce the next step."""
        self.step += 1
        print(f"\n[{self.step}/{STEPS}] {text}", flush=True)

    def brainkit(self, *words: object) -> None:
        """Show a command and run it; if it fails, the demo ends with its exit code."""
        command = [str(word) for word in words]
        print(f"$ brainkit {shlex.join(command)}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "brainkit.cli", *command], cwd=self.folder, env=self.environment, check=False
        )
        if done.returncode:
            print(f"demo: step {self.step} failed; see the message above", file=sys.stderr)
            sys.exit(max(done.returncode, 1))  # negative: ended by a signal
        print(f"({time.monotonic() - started:.0f} s)", flush=True)


def next_run(runs: Path) -> Path:
    """The first unused number: runs are never overwritten."""
    number = 1
    while (runs / str(number)).exists():
        number += 1
    return runs / str(number)


def save_photographs(folder: Path, names: Sequence[str]) -> None:
    """Save some of the photographs that come with installed packages."""
    from brainkit.data.photographs import load_photographs

    folder.mkdir(exist_ok=True)
    for name, photograph in load_photographs(names).items():
        photograph.save(folder / f"{name}.png")
    print(f"{len(names)} photographs saved in {folder.name}/")


def report(folder: Path, run: Path, seconds: float) -> None:
    """Print how accurate the encoder is, and where everything is."""
    scores = json.loads((folder / run / "run.json").read_text(encoding="utf-8"))["scores"]
    from brainkit.evaluation.recovery import ROW_NAMES

    recovery = json.loads((folder / run / "recovery.json").read_text(encoding="utf-8"))
    all_vertices = scores["all"]
    print(f"\nDone in {seconds:.0f} s.\n\nHow accurate is the encoder?")
    print(f"  On {scores['images']} test images from other photographs, over {all_vertices['vertices']:,} vertices:")
    explained = scores["official"]["median"]
    print(f"  median correlation {all_vertices['r']:.2f}; {explained:.0f} % of the explainable variance (median).")
    print("\n  The subject is simulated, so the true selectors are known:")
    print(f"  {'':<48}{'found':>7}{'best constant':>16}")
    for name, row in recovery["rows"].items():
        print(f"  {ROW_NAMES[name]:<48}{row['value']:>7.3f}{row['constant']:>16.3f}")
    outputs = {
        "report.html": "the run as one page: open it in a browser",
        f"{run}/maps": "brain maps: layer, location, scale, accuracy",
        "responses": "each photograph next to its predicted response",
        "encoder.onnx": "the encoder: one file to send to a colleague",
        "responses.npy": "the predictions, one row per photograph, described in responses.npy.json",
        f"{run}": "the run: scores, selectors, split, settings, log",
        "subject": "the simulated subject, in the layout of Algonauts 2023",
        "photos": "the photographs; for contrasts, see faces and objects",
    }
    width = max(len(str(folder / path)) for path in outputs)
    print("\nFiles:")
    for path, text in outputs.items():
        print(f"  {folder / path!s:<{width}}  {text}")
    print(
        "\nNext: docs/getting-started.md (the same by hand, how to read the figures), docs/own-data.md (your data),\n"
        "docs/backbones.md (your network), docs/python.md (from Python). Their examples run in this folder."
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)
