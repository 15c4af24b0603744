"""Regions of interest (ROIs): which columns of the predictions they are, and means over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.errors import UsageError


def as_names(rois: str | Iterable[str] | None, table: RoiTable) -> tuple[str, ...] | None:
    """ROI names as a tuple, from texts that may hold several, separated by commas."""
    return None if rois is None else table.split_names(rois)


def select_columns(table: RoiTable, names: tuple[str, ...] | None) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """The columns that some regions cover.

    Parameters
    ----------
    table : RoiTable
    names : tuple of str, or None
        None: all vertices.

    Returns
    -------
    columns : array of shape (n,), int, or None
        Positions in 0..V-1, ascending; None for all.
    regions : dict of str to array of int
        The positions of each region among those columns.

    Raises
    ------
    UsageError
        If a region is unknown, or none has a vertex.
    """
    if names is None:
        return None, {}
    if not names:
        raise UsageError("rois must name at least one region, got none")
    spelled = {name.strip().lower(): name for name in reversed(names)}  # V1 and v1 are one, spelled as it came first
    members = {name: table.members(name) for name in names if spelled[name.strip().lower()] == name}
    columns = np.unique(np.concatenate(list(members.values())))
    if not len(columns):
        raise UsageError(f"ROI {', '.join(names)}: has no vertices in this encoder")
    return columns, {name: np.searchsorted(columns, index) for name, index in members.items()}


def names_with_vertices(table: RoiTable) -> tuple[str, ...]:
    """Names of all regions that have a mean.

    Raises
    ------
    UsageError
        If there is none.
    """
    names = tuple(name for name, index in table.items() if len(index))
    if not names:
        raise UsageError("this encoder file has no ROI table, so there are no ROI means; choose another format")
    return names


def check_have_vertices(regions: Mapping[str, np.ndarray]) -> None:
    """Refuse regions without vertices, which have no mean."""
    for name, index in regions.items():
        if not len(index):
            raise UsageError(f"ROI {name}: has no vertices in this encoder, so it has no mean")


def region_means(rows: np.ndarray, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean over each region's columns, summed in float64. (b, columns) -> (b, regions), float32."""
    means = np.empty((len(rows), len(regions)), np.float32)
    for column, index in enumerate(regions.values()):
        means[:, column] = rows[:, index].mean(axis=1, dtype=np.float64)
    return means
