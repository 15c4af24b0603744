"""`brainkit view`: the maps of a run, an encoder file or files of values as a page to turn, inflate and flatten."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brainkit import encoder_file, page
from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.surface_files import find_average_surface, read_surface
from brainkit.cortex.vertices import CUSTOM
from brainkit.encoder_file import EncoderInfo, locate
from brainkit.errors import DataError, ImageError, UsageError
from brainkit.images import Preprocessing, decode, prepare
from brainkit.maps.brain_map import MapSet
from brainkit.maps.limits import symmetric
from brainkit.maps.projected import on_surface, voxel_projection
from brainkit.maps.pycortex.run import write_viewer
from brainkit.maps.value_files import is_value_file, read_value_files
from brainkit.page.stills import MOST_STILLS, draw_stills
from brainkit.predict.inputs.sources import list_images
from brainkit.predict.outputs.formats import description_path
from brainkit.runs.draw import default_source
from brainkit.runs.map_sets import is_run_folder, open_map_sets
from brainkit.utils.arrays import read_arrays
from brainkit.utils.files import atomic_write, check_new, read_json
from brainkit.utils.progress import Say
from brainkit.utils.text import as_text, format_bytes, plural

MOST_IMAGES = 60  # each adds a thumbnail and a response of all vertices
_THUMBNAIL = 224  # pixels


def view(
    sources: Sequence[str | os.PathLike[str]] = (),
    *,
    out: str | os.PathLike[str] = "cortex.html",
    images: str | os.PathLike[str] | None = None,
    like: str | os.PathLike[str] | None = None,
    surface: str | os.PathLike[str] | None = None,
    pycortex: bool = False,
    filestore: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Write a page of maps: one HTML file, which opens from disk and asks for nothing else.

    Parameters
    ----------
    sources : sequence of path-like, optional
        A run folder of one subject, an evaluation's folder or an encoder file; or files of values, such as the output
        of ``brainkit predict``. By default the newest finished run, else the only encoder file here.
    out : path-like
        The page.
    images : path-like, optional
        An image or a folder of images: the page shows the response predicted to each.
    like : path-like, optional
        For files of values: a run or an encoder file whose vertices they are, and whose ROIs are outlined.
    surface : path-like, optional
        Folder of a subject's own surface, see :func:`brainkit.cortex.surface_files.read_surface`.
    pycortex : bool
        Write pycortex's WebGL viewer instead.
    filestore : path-like, optional
        pycortex's folder of subjects; by default one of brainkit's own.
    overwrite : bool
        Whether `out` may exist.
    say : callable
        Called with each line of progress.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError, DataError, MissingDependency
        If a source cannot be read or has no surface, an option does not fit it, or `out` exists.
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: expected the name of an HTML file, such as {out.stem or 'cortex'}.html")
    for source in sources:
        if not Path(source).exists():
            raise DataError(f"{source}: expected a run, an encoder file or a file of values, found nothing")
    check_new(out, overwrite)
    if not out.parent.is_dir():
        raise DataError(f"{out}: its folder {out.parent} does not exist; create it first")
    if pycortex and (images is not None or surface is not None):
        raise UsageError("view: pycortex's viewer takes neither --images nor --surface")
    found = [Path(source) for source in sources] or [default_source(say)]
    if any(is_value_file(source) for source in found):
        if images is not None:
            raise UsageError("view: --images needs an encoder, got a file of values")
        content = _of_values(found, like, say)
    elif len(found) > 1 or like is not None:
        raise UsageError("view: expected one run or encoder file, or files of values; --like is for files of values")
    else:
        content = _of_run(found[0], images, say)
    if pycortex:
        write_viewer(out, content[0], filestore=filestore)
    else:
        text = _page(content, None if surface is None else read_surface(surface))
        with atomic_write(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    say(f"{out}: {format_bytes(out.stat().st_size)}; open it in a browser, or send it")
    return out


def run_page(run: Path, surface: CorticalSurface | None = None) -> str:
    """The page of a run's maps as text, with one still picture: for a page that has more of them already."""
    return _page(_of_run(run, None, lambda line: None), surface, stills=1)


Content = tuple[MapSet, tuple[page.Fact, ...], page.Photographs | None, tuple[str, ...]]


def _page(content: Content, surface: CorticalSurface | None, stills: int = MOST_STILLS) -> str:
    maps, facts, photographs, provenance = content
    if surface is not None:
        if maps.volume is not None:
            projection = voxel_projection(maps.volume, surface)
            facts = tuple(replace(fact, values=projection.values(fact.values)) for fact in facts)
            if photographs is not None:
                photographs = replace(photographs, responses=projection.values(photographs.responses.T).T)
        maps = on_surface(maps, surface)
    elif maps.vertices.space == CUSTOM:
        raise UsageError(_no_surface(maps))
    shown_on = maps.surface or find_average_surface(maps.vertices.space)
    provenance = (*provenance, f"surface: {shown_on.source or shown_on.name}")
    return page.build(page.PageContent(maps, shown_on, facts, photographs, provenance, draw_stills(maps, stills)))


def _no_surface(maps: MapSet) -> str:
    if maps.volume is None:
        return "view: the vertices are of a surface of their own; give its folder by --surface"
    return (
        f"view: expected a surface to show {plural(len(maps.vertices), 'voxel')} on, got none; give the folder of the "
        "subject's own by --surface; without one, `brainkit map` draws projections of the volume"
    )


def _of_run(source: Path, images: str | os.PathLike[str] | None, say: Say) -> Content:
    """The maps of a run, an evaluation or an encoder file, and responses to images."""
    sets = open_map_sets(source)
    if len(sets) > 1:
        names = ", ".join(str(source / name) for name in sets)
        raise UsageError(f"{source}: is a run of {len(sets)} subjects, a page shows one; name one of them: {names}")
    (maps,) = sets.values()
    scores = _scores(source)
    facts = [page.Fact(label, scores[name]) for name, label in _FACTS.items() if name in scores]
    photographs = None if images is None else _predicted(locate(source), images, say)
    return maps, tuple(facts), photographs, tuple(_provenance(source))


_FACTS = {"r": "correlation on test images", "noise_ceiling": "noise ceiling of r²"}


def _scores(source: Path) -> dict[str, np.ndarray]:
    """Correlations and noise ceilings, as far as they are known."""
    scores: dict[str, np.ndarray] = {}
    if is_run_folder(source):
        if (source / "scores.npz").is_file():
            scores = read_arrays(source / "scores.npz", tuple(_FACTS))
    elif source.is_file():
        info = encoder_file.read(source)
        scores = {name: getattr(info, name) for name in _FACTS}
    return {name: values for name, values in scores.items() if np.isfinite(values).any()}


def _provenance(source: Path) -> Iterable[str]:
    yield f"from {as_text(source.name)}"
    if is_run_folder(source):
        facts = read_json(source / "run.json")
        yield f"network: {facts['backbone']['name']} ({facts['backbone'].get('source') or 'source not stated'})"
        data, split = facts.get("data") or {}, facts.get("split") or {}
        yield f"data: {data.get('name') or 'not named'}, hash {str(data.get('hash'))[:12]}"
        sides = [
            f"{split[side]:,} {side}" for side in ("train", "validation", "test") if isinstance(split.get(side), int)
        ]
        if sides:
            yield f"images: {', '.join(sides)}"
    elif source.is_file():
        info = encoder_file.read(source)
        yield f"network: {info.backbone.get('name', 'not named')}"
        yield f"sha256 {info.digest}"
        yield from info.citation.splitlines()


def _predicted(encoder_path: Path, images: str | os.PathLike[str], say: Say) -> page.Photographs:
    """Responses to images, with what the network sees of each."""
    from brainkit.predict import load

    encoder = load(encoder_path)
    listed = list_images(images, order="sorted")  # without figures of brainkit's own
    for line in listed.remarks():
        say(line)
    if len(listed) > MOST_IMAGES:
        say(f"{images}: the first {MOST_IMAGES} of {plural(len(listed), 'image')}")
    found = listed.entries(0, MOST_IMAGES)
    seen = [prepare(decode(source.open(), source.name), encoder.info.preprocessing) for source in found]
    responses = encoder.predict(np.stack(seen), prepared=True)
    names = [source.name for source in found]
    return _photographs(names, [Image.fromarray(each) for each in seen], responses, encoder.info)


def _photographs(
    paths: Sequence[Any], seen: Sequence[Image.Image], responses: np.ndarray, info: EncoderInfo | None, units: str = ""
) -> page.Photographs:
    names = tuple(as_text(Path(path).name) for path in paths)
    units = units if info is None else info.units
    return page.Photographs(names, tuple(map(_jpeg, seen)), responses, symmetric(responses, 1e-3), units)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS).save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()


def _of_values(files: Sequence[Path], like: str | os.PathLike[str] | None, say: Say) -> Content:
    """Files of values as maps; the output of `brainkit predict` as photographs with their responses."""
    provenance = tuple(f"from {as_text(file.name)}" for file in files)
    described = _predictions(files[0]) if len(files) == 1 else None
    if like is None and described is not None:
        like = described["encoder"]
    whose = None if like is None else next(iter(open_map_sets(like).values()))
    sets = read_value_files(files, like=whose, rows=(0,) if described is not None else ())
    if len(sets) > 1:
        raise UsageError(f"view: a page shows one subject, got values of {len(sets)}")
    (maps,) = sets
    if described is None:
        return maps, (), None, provenance
    responses = np.load(files[0], mmap_mode="r", allow_pickle=False)[:MOST_IMAGES]
    if len(described["images"]) > MOST_IMAGES:
        say(f"{files[0]}: the first {MOST_IMAGES} of {plural(len(described['images']), 'image')}")
    paths = described["images"][:MOST_IMAGES]
    preprocessing = _preprocessing(like)
    seen = [_seen(path, preprocessing) for path in paths]
    photographs = _photographs(paths, seen, np.asarray(responses), None, described["units"])
    own = whose.maps if whose is not None and len(whose.vertices) == len(maps.vertices) else ()
    title = maps.title if whose is None else whose.title
    return replace(maps, title=title, maps=own), (), photographs, provenance


def _predictions(file: Path) -> dict[str, Any] | None:
    """What the JSON beside an output of `brainkit predict` says; None beside other files."""
    beside = description_path(file)
    if file.suffix.lower() != ".npy" or not beside.is_file():
        return None
    content = read_json(beside)
    try:
        images, encoder = [str(name) for name in content["images"]], Path(content["encoder"]["file"])
        return {
            "images": images,
            "units": str(content.get("units", "")),
            "encoder": encoder if encoder.is_file() else None,
        }
    except (AttributeError, KeyError, TypeError):
        raise DataError(f"{beside}: expected a description of predictions, with images and encoder") from None


def _preprocessing(source: str | os.PathLike[str] | None) -> Preprocessing | None:
    """Of a run or an encoder file; None if there is neither."""
    if source is None:
        return None
    if is_run_folder(Path(source)):
        return Preprocessing.from_json(read_json(Path(source) / "run.json")["backbone"]["preprocessing"])
    return encoder_file.read(locate(source)).preprocessing


def _seen(path: str, preprocessing: Preprocessing | None) -> Image.Image:
    """What the network sees of an image, if it is known; grey if the image is no longer there."""
    try:
        image = decode(path)
    except ImageError:
        return Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), (128, 128, 128))
    return image if preprocessing is None else Image.fromarray(prepare(image, preprocessing))
