"""What users change about maps before they are drawn: which, the ROIs, the colours and their limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from brainkit.cortex.cortical_surface import CorticalSurface
from brainkit.cortex.rois import RoiTable
from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, MapSet
from brainkit.maps.colours import colour_map, sequence
from brainkit.maps.limits import with_limits
from brainkit.maps.projected import project_maps


@dataclass(frozen=True)
class Changes:
    """What is changed; by default nothing.

    Parameters
    ----------
    only : sequence of str
        Names of the maps to draw.
    rois : sequence of str, optional
        ROIs that are outlined and named, by their names or common aliases; none if empty.
    cmap : str, optional
        A colour map of matplotlib for maps of numbers, and of classes.
    vmin, vmax : float, optional
        Limits of the colours of maps of numbers.
    surface : CorticalSurface, optional
        To draw on, instead of the average one; voxels are projected on it.
    """

    only: Sequence[str] = ()
    rois: Sequence[str] | None = None
    cmap: str | None = None
    vmin: float | None = None
    vmax: float | None = None
    surface: CorticalSurface | None = None

    def __post_init__(self) -> None:
        for name, value in (("vmin", self.vmin), ("vmax", self.vmax)):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name}: expected a finite number, got {value}")

    def apply(self, maps: MapSet) -> MapSet:
        """The maps as changed.

        Raises
        ------
        UsageError
            If there is no such map, ROI or colour map, or the limits are the wrong way round.
        """
        chosen = maps.only(self.only) if self.only else maps
        rois = maps.rois if self.rois is None else choose_rois(maps.rois, self.rois)
        changed = replace(chosen, rois=rois, maps=tuple(self._recoloured(each) for each in chosen.maps))
        if self.surface is None:
            return changed
        if changed.volume is not None:
            return project_maps(changed, self.surface)
        self.surface.ids_of(changed.vertices, changed.ids)  # raises if they do not fit
        return replace(changed, surface=self.surface)

    def _recoloured(self, brain_map: BrainMap) -> BrainMap:
        if self.vmin is not None or self.vmax is not None:
            brain_map = with_limits(brain_map, self.vmin, self.vmax)
        coding = brain_map.coding
        if isinstance(coding, Continuous):
            if not coding.low < coding.high:
                raise UsageError(
                    f"{brain_map.name}: colours must range from a smaller value to a larger one, got {coding.low:g} to "
                    f"{coding.high:g}; set vmin and vmax"
                )
            if self.cmap is not None:
                colour_map(self.cmap)
                brain_map = replace(brain_map, coding=replace(coding, colours=self.cmap, below=""))
        elif isinstance(coding, Categorical) and self.cmap is not None:
            palette = sequence(self.cmap, len(coding.names))
            brain_map = replace(brain_map, coding=replace(coding, palette=palette))
        return brain_map


def choose_rois(rois: RoiTable, names: Sequence[str]) -> RoiTable:
    """The table of these ROIs, named as asked.

    Raises
    ------
    UsageError
        If there is no such ROI; suggests the nearest names.
    """
    wanted = [name for name in names if name.strip()]
    return RoiTable({name: rois.members(name) for name in rois.split_names(wanted)} if wanted else {}, rois.n_vertices)
