"""``brainkit map``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def split(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas; None if the option is not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


_TYPED = click.core.ParameterSource.COMMANDLINE
# Options of all modes.
_OF_ALL = {
    *("sources", "out", "only", "formats", "size", "dpi", "theme", "rois"),
    *("view", "angles", "shading", "smooth"),
}


@click.command(
    "map",
    epilog="""\b
Examples:
  brainkit map
  brainkit map runs/dinov2-subj01 --format pdf --size double --only layer,scale
  brainkit map --format gifti,npz
  brainkit map encoder.onnx --out figures --theme dark --view inflated --angles lateral,medial
  brainkit map fmri.npy --rows 0,3 --like encoder.onnx --rois V1,FFA
  brainkit map lh.thickness.mgz rh.thickness.mgz --cmap viridis --vmin 1 --vmax 4
""",
)
@click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN or FILE ...]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the figures.  [default: maps/ in the run folder, <file>-maps/ next to an encoder file, else here]",
)
@click.option("--only", callback=split, metavar="NAME,...", help="Draw only these maps, such as layer,scale.")
@click.option(
    "--format",
    "formats",
    metavar="KIND,...",
    help="Pictures: png, pdf, svg; files for other tools: gifti, mgz, annot, cifti, nifti, npz; with --animate: gif, "
    "mp4.  [default: png; with --animate gif]",
)
@click.option("--size", metavar="SIZE", help="Width in inches, such as 7.2 or 7.2x5; or single, onehalf, double.")
@click.option("--dpi", type=int, help="Dots per inch; in pdf and svg of the map alone.  [default: 150; pdf, svg: 300]")
@click.option(
    "--theme",
    type=click.Choice(["light", "dark", "transparent", "transparent-dark"]),
    default="light",
    show_default=True,
    help="Colours of background and text.",
)
@click.option("--rois", callback=split, metavar="NAME,...", help="Outline only these ROIs; '' outlines none.")
@click.option(
    "--view",
    default="flat",
    show_default=True,
    help="Shape of the cortex: flat, inflated, pial, white or sphere; but for flat, with angles and hemispheres: "
    "inflated-lateral-medial-left.",
)
@click.option(
    "--angles",
    default="",
    metavar="NAME,...",
    help="lateral, medial, ventral, dorsal, posterior, anterior.  [default: lateral,medial,ventral,posterior]",
)
@click.option(
    "--surface",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your own surface, of FreeSurfer or GIFTI files; voxels are projected on it.",
)
@click.option("--shading", type=click.Choice(["interpolated", "flat"]), default="interpolated", show_default=True)
@click.option("--smooth", type=int, default=0, metavar="N", help="Average over neighbours N times.  [default: never]")
@click.option("--cmap", metavar="NAME", help="A colour map of matplotlib.")
@click.option("--vmin", type=float, help="Value of the lowest colour.")
@click.option("--vmax", type=float, help="Value of the highest colour.")
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run or encoder file whose vertices a file's values are, and whose ROIs are outlined.",
)
@click.option(
    "--rows", callback=split, metavar="N,...", help="Rows of a file to draw, from 0.  [default: the first 12]"
)
@click.option("--mean", is_flag=True, help="Draw the mean of a file's rows.")
@click.option("--own-limits", is_flag=True, help="Give each map of files its own limits.  [default: the same for all]")
@click.option(
    "--method",
    is_flag=True,
    help="Draw the method's own figures: weights of layers, clusters of channels, layers and image coverage by ROI.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Photographs that --method shows channels in.",
)
@click.option(
    "--animate", is_flag=True, help="Draw how maps came about in training, as GIF or MP4: --only layer,location,scale."
)
@click.option(
    "--pycortex", is_flag=True, help="Draw with pycortex, and write a dataset of it, into the folder pycortex/."
)
@click.option(
    "--filestore",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="pycortex's folder of subjects, to draw on or write into.  [default: one of brainkit's own]",
)
@click.option(
    "--subject", metavar="NAME", help="The subject that the dataset for pycortex names.  [default: the space]"
)
def command(
    sources: tuple[Path, ...],
    out: Path | None,
    formats: str | None,
    size: str | None,
    dpi: int | None,
    theme: str,
    view: str,
    angles: str,
    surface: Path | None,
    shading: Any,
    smooth: int,
    rows: tuple[str, ...] | None,
    like: Path | None,
    mean: bool,
    own_limits: bool,
    method: bool,
    images: Path | None,
    animate: bool,
    pycortex: bool,
    filestore: Path | None,
    subject: str | None,
    **changes: Any,
) -> None:
    """Draw maps on the cortex, flattened or not: accuracy, explained share, preferred layer, location and scale.

    Of a run, an evaluation's folder or an encoder file, by default the newest finished run, else the only .onnx file
    here. Or of files with a value for each vertex: .npy (of brainkit predict, or any other), .gii, .mgz, .annot; the
    files of two hemispheres become one figure. Needs brainkit[maps]; --format cifti and --pycortex need
    brainkit[cifti] and brainkit[pycortex].
    """
    from brainkit.maps.changes import Changes
    from brainkit.maps.files.formats import MAP_FORMATS
    from brainkit.maps.pycortex.run import Pycortex
    from brainkit.maps.style import FORMATS, Style, read_formats, read_size
    from brainkit.runs.animate import FORMATS as ANIMATIONS
    from brainkit.runs.animate import animate_run
    from brainkit.runs.draw import draw_all
    from brainkit.runs.method import draw_method

    if (filestore or subject) and not pycortex:
        raise click.UsageError("--filestore and --subject are for --pycortex")
    if images and not method:
        raise click.UsageError("--images is for --method")
    width, height = (None, None) if size is None else read_size(size)
    style = Style(theme, width, height, dpi, f"{view} {angles}" if angles else view, shading, smooth)
    if animate or method:
        _refuse_others("--animate" if animate else "--method")
    if not animate and set((formats or "").split(",")) & set(ANIMATIONS):
        raise click.UsageError(f"--format {' and '.join(ANIMATIONS)} are for --animate")
    common: dict[str, Any] = {"out": out, "style": style, "say": click.echo}
    if animate:
        names, kinds = changes["only"] or ("layer",), read_formats(formats or "gif", ANIMATIONS)
        animate_run(sources, names=names, rois=changes["rois"], formats=kinds, **common)
        return
    if method:
        chosen: dict[str, Any] = {"only": changes["only"] or (), "rois": changes["rois"], "surface": surface}
        kinds = read_formats(formats or "png", FORMATS)
        draw_method(sources, images=images or (), formats=kinds, **chosen, **common)
        return
    draw_all(
        sources,
        like=like,
        rows=_numbers(rows or ()),
        mean=mean,
        own_limits=own_limits,
        surface=surface,
        changes=Changes(**{**changes, "only": changes["only"] or ()}),
        formats=() if pycortex and formats is None else read_formats(formats or "png", (*FORMATS, *MAP_FORMATS)),
        pycortex=Pycortex(filestore, subject) if pycortex else None,
        **common,
    )


def _refuse_others(mode: str) -> None:
    """Options that do nothing in a mode are errors, not silence."""
    context = click.get_current_context()
    used = {*_OF_ALL, *({"animate"} if mode == "--animate" else {"method", "images", "surface"})}
    given = (each for each in context.command.params if context.get_parameter_source(each.name or "") is _TYPED)
    if other := next((each for each in given if each.name not in used), None):
        raise click.UsageError(f"{other.opts[0]} is not for {mode}")


def _numbers(rows: tuple[str, ...]) -> tuple[int, ...]:
    if not all(row.isdecimal() for row in rows):
        raise click.BadParameter(f"expected numbers such as 0,3, got {','.join(rows)}", param_hint="--rows")
    return tuple(map(int, rows))
