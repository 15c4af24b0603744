"""Training with your own Trainer: its loggers and callbacks, and brainkit's model, data and run folder.

    python examples/own_trainer.py SUBJECT OUT

SUBJECT is a subject's folder (`brainkit sample subject` creates one), OUT the run folder to write.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

import brainkit
import brainkit.data
from brainkit.config import TrainConfig
from brainkit.features import extract_tokens
from brainkit.training import fit_statistics


def main(subject_folder: Path, out: Path, epochs: int = 15) -> brainkit.Run:
    """Train, choose the best epoch, and write it as a run folder."""
    logs = out.with_name(f"{out.name}-logs")
    lightning.seed_everything(0)

    # Data: each image passes the frozen network once; its tokens are kept in the token cache.
    subject = brainkit.data.open_subject(subject_folder)
    backbone = brainkit.load_backbone("efficientnet_lite0")  # or your own module: brainkit.wrap_network(module)
    tokens = extract_tokens(backbone, subject.images)
    split = brainkit.data.make_split(subject.groups, subject.official_test, seed=0)
    config = TrainConfig(epochs=epochs)
    data = brainkit.EncodingData(tokens, subject.responses, split, batch_size=config.batch_size)

    # Model: token statistics and the scale of the responses are those of the training images alone.
    model = brainkit.FactorTopy(tokens.widths, subject.coordinates, bottleneck=32, offsets=("layer", "location"))
    fit_statistics(model, tokens, split.train)
    training = subject.responses.rows(split.train)
    model.set_response_scale(training.mean(0), training.std(0))
    steps = epochs * -(-len(split.train) // config.batch_size)  # the learning rate schedule spans these
    module = brainkit.EncodingModule(model, config, steps)

    # Trainer: your own. The module logs `train_loss` and, after each epoch, `val_r`: the mean correlation over
    # vertices on the validation images.
    best = ModelCheckpoint(logs / "checkpoints", monitor="val_r", mode="max")
    loggers = [CSVLogger(logs, name="csv")]
    if importlib.util.find_spec("tensorboard") is not None:  # pip install 'brainkit[log]'
        loggers.append(TensorBoardLogger(logs, name="tensorboard"))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        gradient_clip_val=config.clip,
        callbacks=[best, EarlyStopping("val_r", mode="max", patience=5), LearningRateMonitor("epoch")],
        logger=loggers,
        log_every_n_steps=1,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)

    # Run: readouts refitted as `config.refit` says, scores on the test images, selectors and maps of the best epoch;
    # then one encoder file.
    run = brainkit.save_run(out, module, data, backbone=backbone, subject=subject, checkpoint=best.best_model_path)
    run.export()
    return run


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
