"""Which network explains the responses best, where, and is the difference real? A study to copy.

    python examples/compare_networks.py
    python examples/compare_networks.py --data algonauts/subj01 --networks dinov2 clip my_network.py:MyNetwork

It shows each ``brainkit`` command before it runs it. Every network is trained with the same images, and again on halves
of them, for the intervals of its depth (``--repeats``); the first network also with random weights, several times, as
a control. Then all are compared. Without ``--data`` the subject is simulated from ``--truth``, so one knows which
network must win. Options that are not listed go to ``brainkit train``. Repeated, it goes on where it stopped.
docs/networks.md shows what comes out.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def main(arguments: list[str] | None = None) -> None:
    """Train each network, and compare all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="any names that brainkit train takes")
    parser.add_argument("--data", type=Path, help="the subject's folder; by default a simulated one is made")
    parser.add_argument("--truth", default=NETWORKS[0], help="the network that the simulated subject responds like")
    parser.add_argument("--out", type=Path, default=Path("networks"), help="folder of runs and results")
    parser.add_argument("--repeats", type=int, default=4, help="runs of each network on halves of the images, or 0")
    parser.add_argument("--random", type=int, default=3, help="runs with random weights, each with other ones")
    options, training = parser.parse_known_args(arguments)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    data = options.data or out / "subject"
    if not data.exists():
        brainkit("sample", data, "--backbone", options.truth)

    def train(network: str, run: Path, *more: object) -> None:
        # One split for all: runs are compared on the test images that they share.
        same = ["--data", data, "--set", "data.split_seed=0", "--no-maps", *training]
        brainkit("train", "--backbone", network, "--out", run, *same, *more, *(["--resume"] if run.is_dir() else []))

    runs = []
    for network in options.networks:
        name = network.rpartition(":")[2].replace("/", "-")
        train(network, out / name, *(["--repeats", options.repeats] if options.repeats else []))
        runs.append(f"{name}={out / name}")
    for seed in range(1, options.random + 1):
        run = out / f"random-{seed}"
        train(options.networks[0], run, "--random-weights", "--seed", seed)
        runs.append(f"random={run}")  # runs of one name are one model
    brainkit("compare", *runs, "--out", out / "comparison", "--overwrite")
    brainkit("compare", "--leaderboard", *runs, "--out", out / "leaderboard", "--overwrite")


def brainkit(*words: object) -> None:
    """Show a command and run it; if it fails, so does the study."""
    command = [str(word) for word in words]
    print(f"$ brainkit {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "brainkit.cli", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
