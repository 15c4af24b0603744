"""``brainkit export``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import split_names


@click.command(
    "export",
    epilog="""\b
Examples:
  brainkit export --onnx
  brainkit export runs/dinov2-subj01 --onnx --out dinov2-subj01.onnx
  brainkit export --torchscript --pt2
  brainkit export --onnx --target gpu
  brainkit export --onnx --roi V1,FFA-1 --out faces.onnx
  brainkit export --onnx --vertices ids.txt --out mine.onnx
  brainkit export --fp16 --out small.onnx
  brainkit export runs/seed0 --ensemble runs/seed1 --ensemble runs/seed2 --out mean.onnx
""",
)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--onnx", is_flag=True, help="One ONNX file with standard operators (the default); predict takes it.")
@click.option("--torchscript", is_flag=True, help="A TorchScript file, which loads with torch alone.")
@click.option("--pt2", is_flag=True, help="A torch.export file, which loads with torch alone.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file, for one form.  [default: encoder.onnx, .pt or .pt2 in the run; of some vertices encoder-subset]",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="What the readout's form suits: many small products, or one of padded groups. Either runs on both.",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    callback=split_names,
    metavar="NAME",
    help="Only these regions' vertices: a smaller file; may be repeated.",
)
@click.option(
    "--vertices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Only these vertices: a .npy of ids in the run's space, or text with one id a line.",
)
@click.option("--fp16", is_flag=True, help="Half the file: large constants are stored in half precision.")
@click.option("--int8", is_flag=True, help="A third of the file, faster on a CPU: the backbone multiplies in bytes.")
@click.option(
    "--ensemble",
    type=click.Path(path_type=Path),
    metavar="RUN",
    multiple=True,
    help="Another run, of another seed: predict the mean of all, and their spread. Repeat it for more.",
)
def command(
    run: Path | None,
    onnx: bool,
    torchscript: bool,
    pt2: bool,
    out: Path | None,
    target: str,
    rois: tuple[str, ...],
    vertices: Path | None,
    fp16: bool,
    int8: bool,
    ensemble: tuple[Path, ...],
) -> None:
    """Write a trained run as one encoder file that predicts fMRI anywhere ONNX Runtime runs, or torch.

    RUN is a run folder; without it, the newest finished run. The file is checked against the trained model on real
    images before it is kept. Several forms may be asked for at once. Needs brainkit[train].
    """
    from brainkit.runs import train as workflow

    if fp16 and int8:
        raise click.UsageError("--fp16 and --int8 exclude each other: a file is stored in one way.")
    asked = {"onnx": onnx, "torchscript": torchscript, "pt2": pt2}
    workflow.export_all(
        run,
        out=out,
        forms=tuple(form for form, wanted in asked.items() if wanted) or ("onnx",),
        target=target,
        rois=rois,
        vertices=vertices,
        storage="float16" if fp16 else "int8" if int8 else "float32",
        ensemble=ensemble,
        say=click.echo,
    )
