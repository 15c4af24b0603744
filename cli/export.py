"""``brainkit export``."""

from __future__ import annotations

from pathlib import Path

import click

from brainkit.cli._values import threads_option


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
@click.option("--onnx", is_flag=True, help="An ONNX file of standard operators, for brainkit predict (the default).")
@click.option("--torchscript", is_flag=True, help="A TorchScript file, which loads with torch alone.")
@click.option("--pt2", is_flag=True, help="A torch.export file, which loads with torch alone.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Output file, if one kind of file is written.  [default: encoder.onnx, .pt or .pt2 in the run folder; "
    "encoder-subset for some of the vertices]",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Device that the file is fast on: the readout as many small matrix products, or as one of padded groups. "
    "Either file runs on both.",
)
@click.option(
    "--roi",
    "rois",
    multiple=True,
    metavar="NAME",
    help="Export only the vertices of this ROI, expression (FFA-1+FFA-2-V4) or file; can be repeated.",
)
@click.option(
    "--vertices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Export only these vertices: ids in the run's space, as .npy or as text with one id per line.",
)
@click.option("--fp16", is_flag=True, help="Half the file size: store large constants in half precision.")
@click.option(
    "--int8", is_flag=True, help="A third of the file size, faster on a CPU: int8 matrix products in the backbone."
)
@click.option(
    "--ensemble",
    type=click.Path(path_type=Path),
    metavar="RUN",
    multiple=True,
    help="Another run, with another seed: predict the mean of all and their spread; can be repeated.",
)
@threads_option
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
    threads: int | None,
) -> None:
    """Write a trained run as one encoder file, which predicts fMRI with ONNX Runtime or torch alone.

    RUN is a run folder, by default the newest finished run. The file is compared with the trained model on real images
    before it is kept. Several kinds of file can be written at once. Needs brainkit[train].
    """
    from brainkit.runs.export import export_all

    if fp16 and int8:
        raise click.UsageError("--fp16 and --int8 exclude each other: give one of them")
    wanted = {"onnx": onnx, "torchscript": torchscript, "pt2": pt2}
    export_all(
        run,
        out=out,
        forms=tuple(form for form, given in wanted.items() if given) or ("onnx",),
        target=target,
        rois=rois,
        vertices=vertices,
        storage="float16" if fp16 else "int8" if int8 else "float32",
        ensemble=ensemble,
        threads=threads,
        say=click.echo,
    )
