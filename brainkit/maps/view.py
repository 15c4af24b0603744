"""What a figure shows of a surface: one panel per hemisphere and angle, laid out in a common plane, in mm."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brainkit.cortex.cortical_surface import SHAPES, CorticalSurface, average_surface
from brainkit.cortex.surface import HEMISPHERES
from brainkit.cortex.vertices import CUSTOM, Vertices
from brainkit.errors import UsageError
from brainkit.maps.panels import GAP, Box, Boxes, Layout, beside, columns, rows, scale

FLAT = "flat"
_MARGIN = 2.0  # mm

# Where a panel's right, its up and the viewer are, in the brain's x (right), y (front) and z (up).
_FROM_LEFT = ((0, -1, 0), (0, 0, 1), (-1, 0, 0))
_FROM_RIGHT = ((0, 1, 0), (0, 0, 1), (1, 0, 0))
_CAMERAS = {
    "lateral": {"left": _FROM_LEFT, "right": _FROM_RIGHT},
    "medial": {"left": _FROM_RIGHT, "right": _FROM_LEFT},
    "ventral": dict.fromkeys(HEMISPHERES, ((-1, 0, 0), (0, 1, 0), (0, 0, -1))),
    "dorsal": dict.fromkeys(HEMISPHERES, ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
    "posterior": dict.fromkeys(HEMISPHERES, ((1, 0, 0), (0, 0, 1), (0, -1, 0))),
    "anterior": dict.fromkeys(HEMISPHERES, ((-1, 0, 0), (0, 0, 1), (0, 1, 0))),
}
ANGLES = tuple(_CAMERAS)
DEFAULT_ANGLES = ("lateral", "medial", "ventral", "posterior")
_ONE_BY_ONE = ("lateral", "medial")  # each hemisphere from its own side
_FACING_US = ("ventral", "anterior")  # the right hemisphere is on the left, as in a face


@dataclass(frozen=True)
class View(Layout):
    """Panels of a surface in one of its shapes."""

    surface: CorticalSurface
    shape: str

    @property
    def space(self) -> str:
        """Of the surface's vertices."""
        return self.surface.space

    @property
    def flat(self) -> bool:
        """Whether it shows flatmaps."""
        return self.shape == FLAT

    @property
    def hemispheres(self) -> tuple[str, ...]:
        """Those shown, left first."""
        shown = {box.hemisphere for box in self.boxes}
        return tuple(name for name in HEMISPHERES if name in shown)

    def faces(self, hemisphere: str) -> np.ndarray:
        """Faces that are drawn, numbered within the hemisphere. (m, 3)."""
        half = self.surface.hemisphere(hemisphere)
        return half.flat_faces if self.flat else half.faces

    def project(self, box: Box) -> np.ndarray:
        """A panel's hemisphere in the common plane: x, y, and the distance towards the viewer. (n, 3), in mm."""
        points = self.surface.hemisphere(box.hemisphere).points[self.shape].astype(np.float64)
        points = points * [1.0, 1.0, 0.0] if self.flat else points @ camera(box).T
        return points + [box.shift, box.lift, 0.0]


def plainest_shape(surface: CorticalSurface | None) -> str:
    """The shape that shows most of a surface at once: flat, or what it has instead; of an average one always flat."""
    found = (FLAT,) if surface is None else surface.shapes
    return next((shape for shape in (FLAT, "inflated", "pial", "white", "sphere") if shape in found), found[0])


def camera(box: Box) -> np.ndarray:
    """Rows: the panel's right, its up and towards the viewer, in the brain's coordinates. (3, 3)."""
    return np.array(_CAMERAS[box.angle][box.hemisphere], dtype=np.float64)


def make_view(
    vertices: Vertices,
    shape: str = FLAT,
    angles: Sequence[str] | None = None,
    hemispheres: Sequence[str] | None = None,
    surface: CorticalSurface | None = None,
    ids: np.ndarray | None = None,
) -> View:
    """Choose the panels of a figure.

    Parameters
    ----------
    vertices : Vertices
        Those that have data.
    shape : str
        One of the surface's shapes. A flatmap is cropped to the data if they cover only a part of the cortex.
    angles : sequence of str, optional
        Some of `ANGLES`, in the order of the panels; `DEFAULT_ANGLES` by default. None for a flatmap.
    hemispheres : sequence of str, optional
        ``"left"``, ``"right"`` or both; by default those that have data.
    surface : CorticalSurface, optional
        By default the average one of the vertices' space.
    ids : array of shape (V,), optional
        See `CorticalSurface.ids_of`.

    Raises
    ------
    UsageError
        If a name is unknown, the surface lacks the shape, or the vertices are of another surface.
    MissingDependency
        If nilearn, which has the average surface, is not installed.
    """
    if surface is None:
        if vertices.space == CUSTOM:
            raise UsageError("maps of the custom space need a surface, got none; give a folder with one")
        surface = average_surface(vertices.space)
    if shape not in surface.shapes:
        known = ", ".join(surface.shapes)
        raise UsageError(f"shape {shape!r}: expected one that {surface.name} has: {known}")
    _check_names("angle", angles or (), ANGLES)
    _check_names("hemisphere", hemispheres or (), HEMISPHERES)
    places = surface.ids_of(vertices, ids)
    if shape == FLAT:
        if angles:
            raise UsageError(f"angle {angles[0]!r}: a flatmap has none; choose another shape, such as inflated")
        return _flat_view(surface, places, hemispheres)
    with_data = tuple(name for name in HEMISPHERES if len(_of_hemisphere(places, surface, name)))
    return _turned_view(surface, shape, angles or DEFAULT_ANGLES, hemispheres or with_data or HEMISPHERES)


def read_view(text: str) -> tuple[str, tuple[str, ...] | None, tuple[str, ...] | None]:
    """Shape, angles and hemispheres, for `make_view`, of a view's name: ``flat``, ``inflated``, ``pial-lateral-left``.

    Without a shape, angles are those of the inflated one.

    Raises
    ------
    UsageError
        If a word is unknown, or two shapes are named.
    """
    words = [word for word in re.split(r"[^a-z]+", text.lower()) if word]
    for word in words:
        _check_names("view", [word], (*SHAPES, *ANGLES, *HEMISPHERES))
    shapes = [word for word in words if word in SHAPES]
    angles = tuple(word for word in words if word in ANGLES)
    if len(shapes) > 1 or not words:
        raise UsageError(f"view {text!r}: expected one of {', '.join(SHAPES)}, and angles: {', '.join(ANGLES)}")
    hemispheres = tuple(word for word in words if word in HEMISPHERES)
    return (*shapes, "inflated" if angles else FLAT)[0], angles or None, hemispheres or None


def whole_view(surface: CorticalSurface) -> View:
    """Both hemispheres' flatmaps, uncropped."""
    return _side_by_side(surface, {name: _full_bounds(surface, name) for name in HEMISPHERES}, cropped=False)


def on_view(vertices: Vertices, view: View, ids: np.ndarray | None = None) -> np.ndarray:
    """Which vertices the view's shape has: on flatmaps, not those of the medial wall and the cuts. (V,) bool."""
    places = view.surface.ids_of(vertices, ids)
    if not view.flat:
        return np.ones(len(places), dtype=bool)
    return np.concatenate([view.surface.left.on_flatmap, view.surface.right.on_flatmap])[places]


def _flat_view(surface: CorticalSurface, places: np.ndarray, hemispheres: Sequence[str] | None) -> View:
    """The hemispheres that have vertices, cropped to them if they cover only a part of the cortex."""
    full_bounds, near_bounds = {}, {}
    for name in HEMISPHERES:
        half = surface.hemisphere(name)
        ids = _of_hemisphere(places, surface, name)
        ids = ids[half.on_flatmap[ids]]
        full_bounds[name] = _full_bounds(surface, name)
        if len(ids) and name in (hemispheres or HEMISPHERES):
            box = _bounds(half.points[FLAT][ids], 0.0)
            margin = max(9.0, 0.08 * max(box[1] - box[0], box[3] - box[2]))
            near_bounds[name] = _bounds(half.points[FLAT][ids], margin)
    if not near_bounds or set(hemispheres or ()) - set(near_bounds):
        chosen = {name: full_bounds[name] for name in HEMISPHERES if name in (hemispheres or HEMISPHERES)}
        return _side_by_side(surface, chosen, cropped=False)
    full = _side_by_side(surface, {name: full_bounds[name] for name in near_bounds}, cropped=False)
    tight = {name: _inside(bounds, full_bounds[name]) for name, bounds in near_bounds.items()}
    cropped = _side_by_side(surface, tight, cropped=True)
    return cropped if cropped.width * cropped.height < 0.6 * full.width * full.height else full


def _side_by_side(
    surface: CorticalSurface, bounds: dict[str, tuple[float, float, float, float]], cropped: bool
) -> View:
    low, high = min(box[2] for box in bounds.values()), max(box[3] for box in bounds.values())
    boxes, edge = [], 0.0
    for hemisphere in HEMISPHERES:
        if hemisphere in bounds:
            x0, x1 = bounds[hemisphere][:2]
            boxes.append(Box(hemisphere, x0, x1, low, high, edge - x0))
            edge += x1 - x0 + GAP
    return View(tuple(boxes), cropped, surface, FLAT)


def _turned_view(surface: CorticalSurface, shape: str, angles: Sequence[str], hemispheres: Sequence[str]) -> View:
    """The angles' panels in the layout in which they are largest in `PICTURE`."""
    groups = [[[_panel(surface, shape, name, angle)] for name in _in_order(hemispheres, angle)] for angle in angles]
    pairs = [beside(*group) for group in groups]
    breaks = itertools.product((False, True), repeat=len(pairs) - 1)
    layouts: list[Boxes] = [rows(pairs, ends) for ends in breaks]
    sides = [group for group, angle in zip(groups, angles, strict=True) if angle in _ONE_BY_ONE]
    middle = [pair for pair, angle in zip(pairs, angles, strict=True) if angle not in _ONE_BY_ONE]
    if sides and middle and len(sides[0]) > 1:  # the left hemisphere to the left, the right one to the right
        layouts.insert(0, columns([[group[0] for group in sides], middle, [group[1] for group in sides]]))
    return View(tuple(max(layouts, key=scale)), False, surface, shape)


def _panel(surface: CorticalSurface, shape: str, hemisphere: str, angle: str) -> Box:
    """With its lower left corner at the origin."""
    box = Box(hemisphere, 0.0, 0.0, 0.0, 0.0, 0.0, angle=angle)
    x0, x1, y0, y1 = _bounds(surface.hemisphere(hemisphere).points[shape] @ camera(box).T, _MARGIN)
    return Box(hemisphere, x0, x1, y0, y1, -x0, -y0, angle)


def _in_order(hemispheres: Sequence[str], angle: str) -> list[str]:
    """From left to right as they are seen."""
    names = [name for name in HEMISPHERES if name in hemispheres]
    return names[::-1] if angle in _FACING_US else names


def _full_bounds(surface: CorticalSurface, hemisphere: str) -> tuple[float, float, float, float]:
    half = surface.hemisphere(hemisphere)
    return _bounds(half.points[FLAT][half.on_flatmap], 2.0)


def _bounds(points: np.ndarray, margin: float) -> tuple[float, float, float, float]:
    points = points.astype(np.float64)
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0) - margin, points[:, :2].max(axis=0) + margin
    return float(x0), float(x1), float(y0), float(y1)


def _inside(
    box: tuple[float, float, float, float], limit: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return max(box[0], limit[0]), min(box[1], limit[1]), max(box[2], limit[2]), min(box[3], limit[3])


def _of_hemisphere(places: np.ndarray, surface: CorticalSurface, hemisphere: str) -> np.ndarray:
    """Vertices of a hemisphere, numbered within it."""
    start = surface.first_id(hemisphere)
    return places[(places >= start) & (places < start + len(surface.hemisphere(hemisphere)))] - start


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{what} {name!r}: expected one of {', '.join(known)}")
