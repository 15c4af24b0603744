"""From a network to a brain map, in five commands: what ``make demo`` runs.

It calls the ``brainkit`` command as you would, and shows each line before it runs. Everything is written into the
folder ``demo`` of this clone, caches included; a second run keeps the subject and makes a new run beside the first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
STEPS = 5
PHOTOGRAPHS = ("chelsea", "china", "hopper")  # the subject's training images are not cut from these
# What the table of recovery calls its rows, in words. The first number of each is what training found.
WORDS = {
    "depth_r": "layer: correlation with the planted depth",
    "depth_within_one": "layer: share of vertices within one layer",
    "location_median": "place: median error (the image spans -1 to 1)",
    "scale_r": "scale: correlation with the planted scale",
    "accuracy_share": "accuracy: median r2 over noise ceiling",
}


def main() -> int:
    """Run the demo; gives the exit code."""
    given = arguments()
    if missing := [name for name in ("brainkit", "torch", "timm", "nilearn") if importlib.util.find_spec(name) is None]:
        print(f"demo: {missing[0]} is not installed; run `make demo`, or: pip install '.[train]'", file=sys.stderr)
        return 1
    started = time.monotonic()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(folder)
    print(f"Everything is written into {folder}; the commands below run there.")

    demo.title("a subject to learn from: simulated, because no brain data come with brainkit")
    if (folder / "subject").is_dir():
        print("subject/ is there from an earlier run, and is kept")
    else:
        demo.brainkit("sample", "subject", "--images", given.images, "--vertices", given.vertices)

    demo.title("train: which layer, where in the image and at what scale does each point of the cortex read?")
    run = next_run(folder / "runs").relative_to(folder)
    epochs = ["--epochs", given.epochs] if given.epochs else []
    demo.brainkit("train", "--backbone", "efficientnet_lite0", "--data", "subject", "--out", run.as_posix(), *epochs)

    demo.title("export: the trained encoder as one file that needs no training software")
    demo.brainkit("export", "--onnx")

    demo.title("predict: the response to photographs that were not trained on")
    save_photographs(folder / "photographs")
    demo.brainkit("predict", "photographs", "--out", "fmri.npy", "--maps", "responses", "--overwrite")

    demo.title("what the encoder file says of itself")
    demo.brainkit("info", f"{run.as_posix()}/encoder.onnx")

    report(folder, run, time.monotonic() - started)
    return 0


def arguments() -> argparse.Namespace:
    """The few settings there are; the defaults are what ``make demo`` runs."""
    parser = argparse.ArgumentParser(description="Train, export, predict and draw on a simulated subject.")
    parser.add_argument("--folder", type=Path, default=CLONE / "demo", help="where to write  [default: demo]")
    parser.add_argument("--images", type=int, default=900, help="training images of the subject")
    parser.add_argument("--vertices", type=int, default=2400, help="vertices of the subject")
    parser.add_argument("--epochs", type=int, help="passes over the training images  [default: brainkit's]")
    return parser.parse_args()


class Demo:
    """Shows and runs commands in one folder, and counts the steps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0
        cache = folder / "cache"
        # Nothing outside the folder is touched, and figures need no display.
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
        """Show a command line and run it; where it fails, the demo ends with its exit code."""
        line = [str(word) for word in words]
        print(f"$ brainkit {shlex.join(line)}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "brainkit.cli", *line], cwd=self.folder, env=self.environment, check=False
        )
        if done.returncode:
            print(f"demo: step {self.step} failed; the line above says why", file=sys.stderr)
            sys.exit(max(done.returncode, 1))  # below 0: ended by a signal
        print(f"({time.monotonic() - started:.0f} s)", flush=True)


def next_run(runs: Path) -> Path:
    """The first free number: runs are never overwritten."""
    number = 1
    while (runs / str(number)).exists():
        number += 1
    return runs / str(number)


def save_photographs(folder: Path) -> None:
    """Save some of the photographs that installed packages ship."""
    from brainkit.data.photographs import load_photographs

    folder.mkdir(exist_ok=True)
    for name, photograph in load_photographs(PHOTOGRAPHS).items():
        photograph.save(folder / f"{name}.png")
    print(f"{len(PHOTOGRAPHS)} photographs saved in photographs/")


def report(folder: Path, run: Path, seconds: float) -> None:
    """Say how good the encoder is, and where everything lies."""
    scores = json.loads((folder / run / "run.json").read_text(encoding="utf-8"))["scores"]
    recovery = json.loads((folder / run / "recovery.json").read_text(encoding="utf-8"))
    everywhere = scores["all"]
    print(f"\nDone in {seconds:.0f} s.\n\nHow good is the encoder?")
    print(f"  On {scores['images']} test images cut from other photographs, over {everywhere['vertices']} vertices:")
    explained = scores["official"]["median"]
    print(f"  median correlation {everywhere['r']:.2f}, and {explained:.0f} % of what can be explained (median).")
    print("\n  The subject is simulated, so what training should have found is known:")
    print(f"  {'':<48}{'found':>7}{'best constant':>16}")
    for name, row in recovery["rows"].items():
        print(f"  {WORDS[name]:<48}{row['value']:>7.3f}{row['constant']:>16.3f}")
    places = {
        f"{run}/maps": "brain maps: layer, location, scale, accuracy",
        "responses": "each photograph beside its predicted response",
        f"{run}/encoder.onnx": "the encoder: send this one file to a colleague",
        "fmri.npy": "the predictions, one row a photograph; fmri.json says what is what",
        f"{run}": "the run: scores, selectors, split, settings, log",
        "subject": "the simulated subject, in the layout of Algonauts 2023",
    }
    width = max(len(str(folder / place)) for place in places)
    print("\nWhere everything lies:")
    for place, what in places.items():
        print(f"  {folder / place!s:<{width}}  {what}")
    print("\nNext: docs/own-data.md (your data), docs/backbones.md (your network), docs/python.md (from Python).")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)
