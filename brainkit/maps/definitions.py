"""What each map shows: its values, colours, limits and texts. Nothing is drawn here.

V vertices; values are NaN where unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from brainkit.errors import UsageError
from brainkit.maps.brain_map import BrainMap, Categorical, Continuous, Location
from brainkit.maps.colours import class_palette, layer_palette
from brainkit.maps.limits import beyond, robust_top, round_up, symmetric
from brainkit.maps.reliability import MAX_Q, Predicted, Reliability, Sure, fields
from brainkit.metrics.scores import LEAST_CEILING, explained_share
from brainkit.metrics.significance import describe_passing
from brainkit.utils.text import plural

SKILL, DIVERGING, DIFFERENCE, SCALE, ERROR = "magma", "RdBu_r", "PuOr_r", "plasma", "cividis"
NEGATIVE = "#5c7f9e"  # of values below 0 where 0 is black
SEPARATOR = "  ·  "
_MOST_CLASSES = 1000  # each is a column of shares


def accuracy(R2: np.ndarray, reliability: Reliability | None = None) -> BrainMap:
    """R2 on test images."""
    return _skill("accuracy", "prediction accuracy", "R²", R2, reliability)


def correlation(r: np.ndarray, reliability: Reliability | None = None) -> BrainMap:
    """Pearson correlation on test images."""
    return _skill("correlation", "correlation", "r", r, reliability)


def _skill(name: str, title: str, symbol: str, skill: np.ndarray, reliability: Reliability | None) -> BrainMap:
    values = np.asarray(skill, dtype=np.float64)
    top = round_up(robust_top(values), 0.1)
    label = f"{symbol} on test images"
    coding = Continuous(SKILL, 0.0, top, label, extend=beyond(values, 0.0, top), below=NEGATIVE)
    summary = _summary(values, "median {:.2f}", "90th percentile {:.2f}")
    return BrainMap(name, title, values, coding, summary=summary, **fields(reliability))


def explained(r: np.ndarray, noise_ceiling: np.ndarray, reliability: Reliability | None = None) -> BrainMap:
    """r^2 over the noise ceiling: the share of each vertex's explainable variance that is predicted."""
    share = explained_share(r, noise_ceiling)
    at_ceiling = (share >= 1).sum() / max(np.isfinite(share).sum(), 1)
    full = at_ceiling > 0
    parts = ["median {:.2f}"] if at_ceiling >= 0.1 else ["median {:.2f}", "90th percentile {:.2f}"]
    summary = _summary(share, *parts)
    if full:
        summary = SEPARATOR.join([summary, f"{_percent(at_ceiling)} at the ceiling or above"])
    limits = f"not drawn: noise ceiling below {100 * LEAST_CEILING:.0f} %"
    coding = Continuous(SKILL, 0.0, 1.0, "r² / noise ceiling, test images", extend="max" if full else "neither")
    title = "share of explainable variance"
    return BrainMap("explained", title, share, coding, summary=summary, **fields(reliability, limits))


def significance(p: np.ndarray, tested: Predicted) -> BrainMap:
    """How unlikely the correlation is without any relation between predictions and responses: -log10 of p."""
    with np.errstate(divide="ignore"):
        values = -np.log10(np.asarray(p, dtype=np.float64))
    passing = f"{int(tested.reliable.sum()):,} with q below {MAX_Q:g}"
    summary = SEPARATOR.join([_summary(values), passing])
    top = max(float(np.nanmax(values, initial=0.0)), 1.0)
    coding = Continuous(SKILL, 0.0, top, "-log10 p, permutation of stimuli")
    return BrainMap("significance", "significance of r > 0", values, coding, summary=summary, **fields(tested))


def layer(
    layers: Sequence[str],
    layer_weights: np.ndarray,
    reliability: Reliability | None = None,
    note: str | None = None,
) -> BrainMap:
    """The layer with the largest weight, and how sure it is; without standard errors, how clear the preference is.

    Parameters
    ----------
    layers : sequence of L names, shallow first
    layer_weights : array of shape (V, L)
        Non-negative, rows sum to 1.
    reliability
        Of the depth.
    note : str, optional
        Such as the gauge.
    """
    weights = np.asarray(layer_weights, dtype=np.float64)
    confidence = _confidence(weights)
    if isinstance(reliability, Sure):
        name, meaning = "certainty", f"standard error of the depth,\npale to full:\n{reliability.scale}"
    else:
        name = "confidence"
        meaning = "confidence, pale to full:\n0  all layers have the same weight\n1  one layer has all the weight"
    palette = layer_palette(len(layers))
    label = "layer, early to late"
    coding = Categorical(tuple(layers), palette, label, strength_label=meaning, strength_name=name, ordered=True)
    summary = _summary(confidence, "median confidence {:.2f}")
    more = {"strength": np.nan_to_num(confidence), **fields(reliability, note)}
    return BrainMap("layer", "preferred layer", weights, coding, summary=summary, **more)


def _confidence(weights: np.ndarray) -> np.ndarray:
    """1 - entropy / log L: 0 if all L layers have the same weight, 1 if one has all; NaN if unknown. (V,)."""
    known = np.isfinite(weights).all(axis=1)
    safe = np.where(known[:, None], weights, 0.0)
    entropy = -(safe * np.log(np.maximum(safe, 1e-12))).sum(axis=1)
    confidence = 1 - entropy / math.log(weights.shape[1]) if weights.shape[1] > 1 else np.ones(len(safe))
    return np.where(known, np.clip(confidence, 0.0, 1.0), np.nan)


def location(locations: np.ndarray, reliability: Reliability | None = None) -> BrainMap:
    """Each vertex's location in the image: (V, 2), x right and y down, in [-1, 1]."""
    values = np.asarray(locations, dtype=np.float64)
    summary = _summary(np.hypot(values[:, 0], values[:, 1]), "median distance from the centre {:.2f}")
    return BrainMap("location", "location in the image", values, Location(), summary=summary, **fields(reliability))


def scale(values: np.ndarray, reliability: Reliability | None = None, note: str | None = None) -> BrainMap:
    """Whether each vertex reads the tokens at its location (0) or the global token (1)."""
    values = np.asarray(values, dtype=np.float64)
    coding = Continuous(SCALE, 0.0, 1.0, "scale", ends=("local", "global"))
    summary = _summary(values, "median {:.2f}")
    return BrainMap("scale", "scale", values, coding, summary=summary, **fields(reliability, note))


def depth_error(se: np.ndarray, basis: str, reliability: Reliability | None = None) -> BrainMap:
    """Standard error of each vertex's expected depth, which is 0 at the first layer and 1 at the last."""
    label = "s.e. of depth (0 first layer, 1 last)"
    return _error("depth-se", "standard error of depth", se, label, basis, reliability)


def location_error(se: np.ndarray, basis: str, reliability: Reliability | None = None) -> BrainMap:
    """Standard error of each vertex's location, (V, 2), over both coordinates, which are in [-1, 1]."""
    label = "s.e. of location (image: -1 to 1)"
    both = np.hypot(se[:, 0], se[:, 1])
    return _error("location-se", "standard error of location", both, label, basis, reliability)


def scale_error(se: np.ndarray, basis: str, reliability: Reliability | None = None) -> BrainMap:
    """Standard error of each vertex's scale, which is in [0, 1]."""
    label = "s.e. of scale (0 local, 1 global)"
    return _error("scale-se", "standard error of scale", se, label, basis, reliability)


def _error(name: str, title: str, se: np.ndarray, label: str, basis: str, reliability: Reliability | None) -> BrainMap:
    values = np.asarray(se, dtype=np.float64)
    top = round_up(robust_top(values), 0.01)
    coding = Continuous(ERROR, 0.0, top, label, extend=beyond(values, 0.0, top))
    summary = _summary(values, "median {:.3f}", "90th percentile {:.3f}")
    return BrainMap(name, title, values, coding, summary=summary, **fields(reliability, basis))


def response(values: np.ndarray, units: str = "", limit: float | None = None, title: str = "response") -> BrainMap:
    """A response to an image; the colours range from -`limit` to `limit`, by default over 99 % of the vertices."""
    values = np.asarray(values, dtype=np.float64)
    limit = symmetric(values, 1e-3) if limit is None else limit
    label = f"response ({units})" if units else "response"
    coding = Continuous(DIVERGING, -limit, limit, label, extend=beyond(values, -limit, limit))
    return BrainMap("response", title, values, coding, summary=_summary(values))


def effect(
    g: np.ndarray, q: np.ndarray, names: tuple[str, str], counts: tuple[int, int], max_q: float = MAX_Q
) -> BrainMap:
    """Effect size of the difference between the responses to two sets of images: Hedges' g."""
    values, result = np.asarray(g, dtype=np.float64), describe_passing(q, max_q)
    limit = symmetric(values, 0.1)
    coding = Continuous(
        DIVERGING,
        -limit,
        limit,
        "Hedges' g (pooled s.d.)",
        ends=(f"stronger for {clipped(names[1], 16)}", f"stronger for {clipped(names[0], 16)}"),
        extend=beyond(values, -limit, limit),
    )
    return BrainMap(
        "effect-size",
        f"{clipped(names[0])} vs {clipped(names[1])}: {result}",
        values,
        coding,
        reliable=np.asarray(q) < max_q,
        summary=SEPARATOR.join(["effect size", f"{counts[0]:,} and {plural(counts[1], 'image')}"]),
        detail=f"pale: q of {max_q:g} or more; q is over images for one model, not over subjects",
        none_reliable=result,
    )


def difference(r: np.ndarray, q: np.ndarray, names: tuple[str, str], images: int) -> BrainMap:
    """Difference of two models' correlations with the responses, the first minus the second."""
    values, result = np.asarray(r, dtype=np.float64), describe_passing(q, MAX_Q)
    limit = symmetric(values, 0.01)
    coding = Continuous(
        DIFFERENCE,
        -limit,
        limit,
        "difference in r, test images",
        ends=(f"better: {clipped(names[1], 18)}", f"better: {clipped(names[0], 18)}"),
        extend=beyond(values, -limit, limit),
    )
    parts = ["difference in r", _summary(values, "median {:+.3f}"), plural(images, "test image")]
    return BrainMap(
        "difference",
        f"{clipped(names[0])} minus {clipped(names[1])}: {result}",
        values,
        coding,
        reliable=np.asarray(q) < MAX_Q,
        summary=SEPARATOR.join(parts),
        detail=f"pale: q of {MAX_Q:g} or more, by exchange of the two models' predictions",
        none_reliable=result,
    )


def anything(name: str, values: np.ndarray, *, title: str = "", label: str = "") -> BrainMap:
    """Numbers that brainkit knows nothing about: diverging colours around 0 if some are negative, else from 0 up."""
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if (finite < 0).any():
        limit = symmetric(values, 1e-6)
        coding = Continuous(DIVERGING, -limit, limit, label, extend=beyond(values, -limit, limit))
    else:
        top = round_up(robust_top(values), 1e-6)
        coding = Continuous(SKILL, 0.0, top, label, extend=beyond(values, 0.0, top))
    infinite = int(np.isinf(values).sum())
    detail = f"not drawn: {plural(infinite, 'infinite value')}" if infinite else ""
    summary = _summary(values, "median {:.3g}")
    return BrainMap(name, title or clipped(name, 60), values, coding, summary=summary, detail=detail)


def classes(name: str, values: np.ndarray, labels: Sequence[str] = (), *, label: str = "") -> BrainMap:
    """Classes of the vertices: numbers 0 .. c-1 or names, (V,); or shares of the classes, (V, c).

    Parameters
    ----------
    name : str
        Of the map.
    values
        NaN, or a negative number, where a vertex has no class.
    labels : sequence of c str
        Names of the classes.
    label : str
        Title of the legend.
    """
    values = np.asarray(values)
    if values.ndim == 1 and values.dtype.kind in "UO":
        texts = np.array(["" if each is None else str(each) for each in values])
        found = np.unique(texts[texts != ""]).tolist()
        names = list(labels) or found
        if extra := [each for each in found if each not in names]:
            raise UsageError(f"labels: expected all classes of the values, {extra[0]!r} is missing")
        values = np.array([names.index(each) if each else -1 for each in texts])
    elif values.ndim == 1:
        known = values[np.isfinite(values) & (values >= 0)]
        if (known % 1 != 0).any():
            raise UsageError("values: expected whole numbers of classes, got fractions")
        count = int(known.max(initial=-1)) + 1
        if count > _MOST_CLASSES:
            raise UsageError(f"values: expected numbers of at most {_MOST_CLASSES} classes, got {count - 1}")
        if labels and count > len(labels):
            raise UsageError(f"labels: expected {count} names of classes, got {len(labels)}")
        names = list(labels) or [str(number) for number in range(count)]
    else:
        names = list(labels) or [str(number) for number in range(values.shape[1])]
    if not names:
        raise UsageError("values: expected a class of at least one vertex, got none")
    if values.ndim == 1:
        shares = (values[:, None] == np.arange(len(names))).astype(np.float64)
        shares[~shares.any(axis=1)] = np.nan
    else:
        shares = values.astype(np.float64)
    if shares.shape[1] != len(names):
        raise UsageError(f"labels: expected {shares.shape[1]} names of classes, got {len(names)}")
    known_count = int(np.isfinite(shares).all(axis=1).sum())
    summary = f"{known_count:,} of {plural(len(shares), 'vertex', 'vertices')}"
    return BrainMap(name, " ", shares, Categorical(tuple(names), class_palette(len(names)), label), summary=summary)


def clipped(name: str, longest: int = 28) -> str:
    """A name on one line of at most `longest` characters."""
    clean = " ".join(name.split())
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def _summary(values: np.ndarray, *parts: str) -> str:
    """Number of vertices with a value, and `parts` with the median and the 90th percentile over them."""
    finite = values[np.isfinite(values)]
    texts = [f"{len(finite):,} of {plural(len(values), 'vertex', 'vertices')}"]
    if len(finite):
        texts += [part.format(np.percentile(finite, rank)) for part, rank in zip(parts, (50, 90), strict=False)]
    return SEPARATOR.join(texts)


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
