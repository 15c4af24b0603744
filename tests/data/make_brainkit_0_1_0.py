"""Writes tests/data/brainkit-0.1.0: files as brainkit 0.1.0 (commit 2b4080e) wrote them, which must still open.

    python make_brainkit_0_1_0.py FOLDER

It needs brainkit 0.1.0 itself, with its extra `train`, and network.py next to this file. With the versions that
run/run.json names it writes the same files again, except for times and digests of absolute paths.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
DATA = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "brainkit-0.1.0").resolve()
SUBJECT, RUN, STOPPED, ENCODERS = DATA / "subject", DATA / "run", DATA / "stopped", DATA / "encoders"
BACKBONE = f"{DATA / 'network.py'}:Network"
SETTINGS = [
    *("data.split_seed=2", "data.validation=0.2", "data.test=0.2", "train.batch_size=4", "train.device=cpu"),
    *("train.tensorboard=off", "model.bottleneck=4", "model.grid=4", "model.selector_width=4"),
    *("train.lr_selectors=0.15", "train.regulariser=0.02"),  # in so few steps vertices come to choose different places
]
EPOCHS, STOP_AFTER = 3, 6  # steps; an epoch has 4


def brainkit(*arguments: object) -> None:
    """Run the command, in the working folder (never that of a source tree)."""
    subprocess.run([sys.executable, "-m", "brainkit.cli", *map(str, arguments)], check=True)


def train(out: Path, seed: int) -> None:
    chosen = [part for setting in SETTINGS for part in ("--set", setting)]
    brainkit(
        "train", "--backbone", BACKBONE, "--data", SUBJECT, "--out", out, "--epochs", EPOCHS, "--seed", seed, *chosen
    )
    shutil.rmtree(out / "maps")  # pictures, and large


def make_subject() -> None:
    """24 smooth pictures and responses to them, as docs/own-data.md has it; one vertex never changes."""
    draw = np.random.default_rng(0)
    (SUBJECT / "images").mkdir(parents=True)
    y, x = np.mgrid[0:24, 0:24] / 24 * np.pi
    pictures = []
    for number in range(24):
        waves = [np.cos(draw.integers(0, 3) * x + draw.integers(0, 3) * y + draw.uniform(0, 6)) for _ in range(3)]
        picture = (np.stack(waves, -1) * 7.5 + 8).astype(np.uint8) * 16  # 16 shades: small files
        pictures.append(picture / 128 - 1)
        Image.fromarray(picture[: 18 if number % 5 == 0 else 24]).save(SUBJECT / "images" / f"{number:02d}.png")
    V = 21
    places = draw.integers(0, 18, (V, 2))
    seen = np.stack([picture[places[:, 0], places[:, 1]] for picture in pictures])  # (24, V, 3)
    responses = np.einsum("nvc,vc->nv", seen, draw.normal(size=(V, 3))) + 0.2 * draw.normal(size=(24, V)) + 3
    responses[:, 4] = 1.5
    np.save(SUBJECT / "responses.npy", responses.astype(np.float32))
    ids = [*(np.arange(12) * 800 + 5).tolist(), *(np.arange(9) * 1000 + 10242 + 7).tolist()]
    (SUBJECT / "vertices.json").write_text(json.dumps({"space": "fsaverage5", "ids": ids}))
    (SUBJECT / "rois.json").write_text(json.dumps({"V1": [0, 1, 2, 3, 4, 12], "FFA": [9, 10, 18, 20], "none": []}))
    np.save(SUBJECT / "noise_ceiling.npy", np.linspace(0.3, 0.9, V).astype(np.float32))
    same = {f"{number:02d}.png": f"pair{number // 2}" for number in range(6)}
    (SUBJECT / "stimuli.json").write_text(json.dumps(same))
    (SUBJECT / "simulated.json").write_text(json.dumps({"note": "simulated: for tests of old files"}))


def stop_a_run() -> None:
    """A run with the same settings as `run`, asked to stop within its second epoch."""
    from brainkit import training, workflow
    from brainkit.errors import StoppedTraining

    true_fit = training.fit

    def fit(*arguments, on_step, **options):
        def stop(step: int) -> None:
            on_step(step)
            if step == STOP_AFTER:
                os.kill(os.getpid(), signal.SIGTERM)

        return true_fit(*arguments, on_step=stop, **options)

    training.fit = fit
    with contextlib.suppress(StoppedTraining):
        workflow.train(BACKBONE, data=SUBJECT, out=STOPPED, epochs=EPOCHS, seed=1, overrides=SETTINGS)
    training.fit = true_fit
    assert not (STOPPED / "run.json").exists() and (STOPPED / "checkpoints" / "last.ckpt").is_file()


def resume(work: Path) -> None:
    """What 0.1.0 makes of a copy of `stopped`: numbers to compare with."""
    again = work / "again"
    shutil.copytree(STOPPED, again)
    brainkit("train", "--backbone", BACKBONE, "--resume", "--out", again)
    brainkit("export", again, "--onnx")
    brainkit("predict", SUBJECT / "images", "--encoder", again / "encoder.onnx", "--out", work / "again.npy")
    shutil.copy(again / "metrics.csv", DATA / "resumed_metrics.csv")
    shutil.copy(work / "again.npy", DATA / "resumed_predictions.npy")


def keep_tokens(work: Path) -> None:
    """The store of the backbone 'network.py:Network', whose key does not depend on where that lies, as a run's does."""
    from brainkit.backbones import load_backbone
    from brainkit.data import open_subject
    from brainkit.features import extract_tokens

    os.chdir(DATA)  # a name that is given so is kept so
    images = open_subject(SUBJECT).images
    extract_tokens(load_backbone("network.py:Network"), images, grid=(4, 4), cache=DATA / "tokens")
    os.chdir(work)


def interrupt_a_prediction() -> None:
    """An unfinished output, after 8 of 25 images, one of which cannot be read; and what 0.1.0 makes of it."""
    from brainkit.scoring import predict_to_file

    place = DATA / "partial"
    place.mkdir()
    (place / "broken.png").write_bytes(b"no picture")
    names = [f"../subject/images/{number:02d}.png" for number in range(24)]
    (place / "images.txt").write_text("\n".join([*names[:3], "broken.png", *names[3:]]) + "\n")

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    for out, progress in ((place / "fmri.npy", stop), (place / "expected.npy", None)):
        with contextlib.suppress(KeyboardInterrupt):
            predict_to_file(
                [place / "images.txt"], out, ENCODERS / "encoder.onnx", device="cpu", batch_size=4, progress=progress
            )
    (place / "expected.json").unlink()
    (place / ".fmri.npy.partial" / "lock").unlink(missing_ok=True)
    assert not (place / "fmri.npy").exists() and (place / ".fmri.npy.partial" / "state.json").is_file()


def main() -> None:
    import brainkit as package

    assert package.__version__ == "0.1.0"
    shutil.rmtree(DATA, ignore_errors=True)
    ENCODERS.mkdir(parents=True)
    shutil.copy(HERE / "network.py", DATA)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        os.chdir(work)
        os.environ["BRAINKIT_CACHE"] = str(work / "cache")
        make_subject()
        train(RUN, seed=1)
        train(work / "other", seed=0)
        for name, *options in (
            ("encoder.onnx",),
            ("float16.onnx", "--fp16"),
            ("int8.onnx", "--int8"),
            ("subset.onnx", "--roi", "V1"),
            ("gpu.onnx", "--target", "gpu"),
            ("encoder.pt", "--torchscript"),
            ("encoder.pt2", "--pt2"),
            ("ensemble.onnx", "--ensemble", work / "other"),
        ):
            brainkit("export", RUN, "--out", ENCODERS / name, *options)
        shutil.copy(ENCODERS / "encoder.onnx", RUN)
        for name in ("encoder", "ensemble"):
            spread = ["--spread"] if name == "ensemble" else []
            out = work / ("fmri.npy" if name == "encoder" else "ensemble.npy")
            brainkit("predict", SUBJECT / "images", "--encoder", ENCODERS / f"{name}.onnx", "--out", out, *spread)
        shutil.copy(work / "fmri.npy", ENCODERS / "predictions.npy")
        shutil.copy(work / "fmri.json", ENCODERS / "fmri.json")
        shutil.copy(work / "ensemble.npy", ENCODERS / "ensemble_predictions.npy")
        shutil.copy(work / "ensemble-sd.npy", ENCODERS / "ensemble_sd.npy")
        stop_a_run()
        resume(work)
        keep_tokens(work)
        interrupt_a_prediction()
        (RUN / "checkpoints" / "last.ckpt").unlink()  # large, and nothing reads it once the run is finished
        os.chdir(HERE)


if __name__ == "__main__":
    main()
