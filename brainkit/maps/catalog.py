"""All maps of a trained encoder, an encoder file or an evaluation, as data: figures, page and files show these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from brainkit.errors import UsageError
from brainkit.maps import definitions
from brainkit.maps.brain_map import BrainMap, MapSet
from brainkit.maps.reliability import Predicted, Reliability, Sure
from brainkit.metrics.significance import positive_correlation_q
from brainkit.metrics.uncertainty import BASES, MapUncertainty

if TYPE_CHECKING:
    from brainkit.encoder_file import EncoderInfo

PUBLISHED_GAUGE = "gauge: published (gains of layers are free), so layers cannot be compared"


def trained_maps(
    *,
    layers: Sequence[str],
    layer_weights: np.ndarray,
    locations: np.ndarray,
    scale: np.ndarray,
    r: np.ndarray | None = None,
    R2: np.ndarray | None = None,
    noise_ceiling: np.ndarray | None = None,
    test_images: int | None = None,
    uncertainty: MapUncertainty | None = None,
    gauge: str = "unit",
) -> tuple[BrainMap, ...]:
    """The maps of a trained encoder.

    Parameters
    ----------
    layers : sequence of L names, shallow first
    layer_weights : array of shape (V, L)
        Non-negative, each row summing to 1.
    locations : array of shape (V, 2)
        In [-1, 1], x right, y down.
    scale : array of shape (V,)
        0 local .. 1 global.
    r, R2, noise_ceiling : array of shape (V,), optional
        Test correlation, test R2 and noise ceiling (on r^2, in [0, 1]); NaN where unknown. ``accuracy`` needs R2,
        ``explained`` r and the noise ceiling; without any value they are left out.
    test_images : int, optional
        How many images `r` is over: vertices whose r is not above 0 (at a false discovery rate of 0.05) are then pale
        on every map, since what an encoder reads there means nothing.
    uncertainty : MapUncertainty, optional
        Standard errors: vertices fade with that of the depth, location or scale on its map, and
        ``depth-se``, ``location-se`` and ``scale-se`` show them.
    gauge : {"unit", "published"}
        Whether the weights of different layers can be compared.

    Returns
    -------
    tuple of BrainMap
        accuracy, explained, layer, location, scale, depth-se, location-se, scale-se, as far as they are known.

    Raises
    ------
    UsageError
        If a shape does not fit.
    """
    count = len(scale)
    shapes = {"layer_weights": (count, len(layers)), "locations": (count, 2)}
    given = {"layer_weights": layer_weights, "locations": locations, "r": r, "R2": R2, "noise_ceiling": noise_ceiling}
    for name, values in given.items():
        expected = shapes.get(name, (count,))
        if values is not None and np.shape(values) != expected:
            raise UsageError(f"{name} must have shape {expected}, got {np.shape(values)}")
    r, R2, noise_ceiling = (_if_known(values) for values in (r, R2, noise_ceiling))
    predicted = None
    if r is not None and test_images is not None and test_images > 2:
        predicted = Predicted(positive_correlation_q(r, test_images), test_images)
    reliability: dict[str, Reliability | None] = dict.fromkeys(("depth", "location", "scale"), predicted)
    if uncertainty is not None:
        shares = uncertainty.shares
        reliability = {name: Sure(shares[name], uncertainty.max_se, predicted) for name in shares}
    gauge_note = PUBLISHED_GAUGE if gauge == "published" else None
    maps = []
    if R2 is not None:
        maps.append(definitions.accuracy(R2, predicted))
    if r is not None and noise_ceiling is not None:
        maps.append(definitions.explained(r, noise_ceiling, predicted))
    maps += [
        definitions.layer(layers, layer_weights, reliability["depth"], gauge_note),
        definitions.location(locations, reliability["location"]),
        definitions.scale(scale, reliability["scale"], gauge_note),
    ]
    if uncertainty is not None:
        basis = f"from {uncertainty.runs} {BASES[uncertainty.basis]}"
        maps += [
            definitions.depth_error(uncertainty.depth_se, basis, predicted),
            definitions.location_error(uncertainty.location_se, basis, predicted),
            definitions.scale_error(uncertainty.scale_se, basis, predicted),
        ]
    return tuple(maps)


def encoder_maps(info: EncoderInfo) -> MapSet:
    """The maps of an encoder file."""
    scores = info.provenance.get("scores")
    images = scores.get("images") if isinstance(scores, dict) else None
    maps = trained_maps(
        layers=info.layers,
        layer_weights=info.layer_weights,
        locations=info.locations,
        scale=info.scale,
        r=info.r,
        R2=info.R2,
        noise_ceiling=info.noise_ceiling,
        test_images=images if isinstance(images, int) else None,
        uncertainty=info.uncertainty,
        gauge=info.gauge,
    )
    return MapSet(str(info.backbone.get("name", "")), info.vertices, info.rois, maps, info.note, info.volume)


def evaluation_maps(
    r: np.ndarray, p: np.ndarray, q: np.ndarray, noise_ceiling: np.ndarray, images: int
) -> tuple[BrainMap, ...]:
    """The maps of an evaluation over `images` images, see :class:`brainkit.evaluation.evaluation.Evaluation`.

    Returns
    -------
    tuple of BrainMap
        correlation; explained, if there are noise ceilings; significance, if there is any q: vertices with a q of 0.05
        or more are then pale on all of them.
    """
    tested = Predicted(q, images) if np.isfinite(q).any() else None
    maps = [definitions.correlation(r, tested)]
    if np.isfinite(noise_ceiling).any():
        maps.append(definitions.explained(r, noise_ceiling, tested))
    if tested is not None:
        maps.append(definitions.significance(p, tested))
    return tuple(maps)


def _if_known(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None or not np.isfinite(values).any() else values
