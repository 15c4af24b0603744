"""Simulations for `bench.validation`: do intervals cover the truth, do tests hold their level?

Data are drawn whose truth is known: predictions and responses with a correlation per vertex, noise that vertices and
the images of one photograph share, and heavy tails. Each simulated data set is one call of the public functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainkit.cortex.surface import mesh
from brainkit.evaluation.compare import compare_predictions
from brainkit.evaluation.evaluate import evaluate
from brainkit.evaluation.hierarchy import AreaOrder, analyse_hierarchy, fit_line, shared_images
from brainkit.metrics.spin import Sphere, smoothed_p, spin, spun_values

LEVEL = 0.95
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
ROIS, IN_ROI = 5, 20
VERTICES = ROIS * IN_ROI
DRAWS = 1000
TO_SIGNAL = 0.7  # correlation of responses and signal: the noise ceiling is its square
_ROIS = {f"ROI {k}": np.arange(k * IN_ROI, (k + 1) * IN_ROI) for k in range(ROIS)}
IGNORED, RESAMPLED = "photographs ignored", "vertices resampled"


@dataclass(frozen=True)
class Design:
    """Images of a simulated data set: `stimuli` photographs with `images` each, heavy tails or normal."""

    name: str
    stimuli: int
    images: int
    heavy: bool = False


DESIGNS = (
    Design("12 photographs, 8 images each", 12, 8),
    Design("40 photographs, 5 images each", 40, 5),
    Design("50 images", 50, 1),
    Design("240 images", 240, 1),
    Design("240 images, heavy tails", 240, 1, heavy=True),
)


@dataclass(frozen=True)
class Data:
    """Predictions of two models and responses (n, V), photographs (n,), and the models' true correlations (V,)."""

    a: np.ndarray
    b: np.ndarray
    responses: np.ndarray
    groups: np.ndarray
    r_a: np.ndarray
    r_b: np.ndarray


def draw(rng: np.random.Generator, design: Design, r_a: np.ndarray, r_b: np.ndarray, in_roi: int = IN_ROI) -> Data:
    """One data set: signal, errors and noise have a part that the ROI shares and one that the photograph shares."""
    groups = np.repeat(np.arange(design.stimuli), design.images)
    signal, error_a, error_b, noise = (_shared_parts(rng, groups, (len(r_a), in_roi), design.heavy) for _ in range(4))
    # Predictions correlate so much with the signal that r is as asked.
    responses = TO_SIGNAL * signal + np.sqrt(1 - TO_SIGNAL**2) * noise
    share_a, share_b = r_a / TO_SIGNAL, r_b / TO_SIGNAL
    a = share_a * signal + np.sqrt(1 - share_a**2) * error_a
    b = share_b * signal + np.sqrt(1 - share_b**2) * error_b
    return Data(a, b, responses, groups, r_a, r_b)


def coverage(datasets: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """How often 95 % intervals contain the truth; with photographs ignored, a control, they must not."""
    rows = []
    for index, design in enumerate(DESIGNS):
        say(f"coverage: {design.name}")
        hits: dict[str, list[np.ndarray]] = {}
        for dataset in range(datasets):
            rng = np.random.default_rng((41, index, dataset))
            data = draw(rng, design, *_true_correlations(rng))
            options: dict[str, Any] = {"bootstrap": DRAWS, "permutations": 1, "rois": _ROIS, "seed": dataset}
            options["noise_ceiling"] = np.full(VERTICES, TO_SIGNAL**2)
            found = evaluate(data.a, data.responses, groups=data.groups, **options)
            paired = compare_predictions(data.a, data.b, data.responses, groups=data.groups, **options)
            difference = data.r_a - data.r_b
            inside = {
                "r of a vertex": _inside(found.r_low, found.r_high, data.r_a),
                "median r of an ROI": _roi_hits(found.groups, data.r_a, np.median, ""),
                "mean r of an ROI": _roi_hits(found.groups, data.r_a, np.mean, "mean_"),
                "median explained share of an ROI": _roi_hits(
                    found.groups, data.r_a**2 / TO_SIGNAL**2, np.median, "", "explained"
                ),
                "mean explained share of an ROI": _roi_hits(
                    found.groups, data.r_a**2 / TO_SIGNAL**2, np.mean, "mean_", "explained"
                ),
                "difference at a vertex": _inside(paired.low, paired.high, difference),
                "mean difference of an ROI": _roi_hits(paired.groups, difference, np.mean, ""),
                "difference of an ROI's mean explained shares": _roi_hits(
                    paired.groups, (data.r_a**2 - data.r_b**2) / TO_SIGNAL**2, np.mean, "", "explained"
                ),
                "difference of an ROI's medians": _inside(
                    *_roi_ends(paired.groups, "median_"),
                    _roi_centres(data.r_a, np.median) - _roi_centres(data.r_b, np.median),
                ),
            }
            if design.images > 1:
                ignored = evaluate(data.a, data.responses, **options)
                inside[f"r of a vertex, {IGNORED}"] = _inside(ignored.r_low, ignored.r_high, data.r_a)
            for measure, each in inside.items():
                hits.setdefault(measure, []).append(each)
        rows += [{"design": design.name, "measure": measure} | _rate(each) for measure, each in hits.items()]
    return rows


def nominal_curve(datasets: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Coverage at other levels, for 240 images."""
    say("coverage: other levels")
    design, rows = DESIGNS[3], []
    for level in LEVELS:
        hits: dict[str, list[np.ndarray]] = {"r of a vertex": [], "median r of an ROI": []}
        for dataset in range(datasets):
            rng = np.random.default_rng((42, dataset))
            data = draw(rng, design, *_true_correlations(rng))
            found = evaluate(
                data.a, data.responses, rois=_ROIS, bootstrap=DRAWS, permutations=0, level=level, seed=dataset
            )
            hits["r of a vertex"].append(_inside(found.r_low, found.r_high, data.r_a))
            hits["median r of an ROI"].append(_roi_hits(found.groups, data.r_a, np.median, ""))
        rows += [{"level": level, "measure": measure} | _rate(each) for measure, each in hits.items()]
    return rows


def large_roi(datasets: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The median r of an ROI of 400 vertices, over stimuli and, as a control that must fail, over vertices."""
    say("coverage: a large ROI")
    vertices, hits = 400, {"median r of an ROI": [], f"median r of an ROI, {RESAMPLED}": []}
    for dataset in range(datasets):
        rng = np.random.default_rng((48, dataset))
        truth = rng.uniform(0.0, 0.6, vertices)
        data = draw(rng, DESIGNS[3], truth, truth, in_roi=vertices)
        found = evaluate(data.a, data.responses, bootstrap=DRAWS, permutations=0, seed=dataset)
        own = found.groups["all"]["r"]
        resampled = np.median(found.r[rng.integers(0, vertices, (500, vertices))], axis=1)
        ends = (own["low"], own["high"]), np.quantile(resampled, [0.025, 0.975])
        for measure, (low, high) in zip(hits, ends, strict=True):
            hits[measure].append(_inside([low], [high], [np.median(truth)]))
    design = "240 images, ROI of 400 vertices"
    return [{"design": design, "measure": measure} | _rate(each) for measure, each in hits.items()]


def slope_coverage(datasets: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Coverage of the slope of depth on the order of areas, over runs on parts of the same images and other seeds."""
    say("coverage: slopes")
    areas = tuple(np.arange(k * 40, (k + 1) * 40) for k in range(5))
    order = AreaOrder(("V1", "V2", "V3", "V4", "higher"), areas)
    rows = []
    for name, runs, share, seed_share in (
        ("4 runs on halves", 4, 0.5, 0.5),
        ("8 runs on halves", 8, 0.5, 0.5),
        ("4 runs, images of their own", 4, None, 0.5),
        ("4 runs on halves, images alone", 4, 0.5, 0.0),
    ):
        hits = []
        for dataset in range(datasets):
            rng = np.random.default_rng((43, runs, dataset))
            depth, images = _depth_maps(rng, order, runs, share, seed_share)
            found = analyse_hierarchy(depth, order, shared=shared_images(images))["slope"]
            hits.append(_inside([found["low"]], [found["high"]], [_SLOPE]))
        rows.append({"design": name, "measure": "slope over areas"} | _rate(hits))
    return rows


def null_p_values(datasets: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """p values where nothing is there: one vertex (and one ROI) of each data set, so that they are independent."""
    found: dict[str, list[float]] = {}
    rois = {"ROI": np.arange(IN_ROI)}
    for index, design in enumerate((DESIGNS[1], DESIGNS[2], DESIGNS[4])):
        say(f"p under the null: {design.name}")
        for dataset in range(datasets):
            rng = np.random.default_rng((44, index, dataset))
            none = np.zeros(IN_ROI)
            data = draw(rng, design, none, none)
            options = {"permutations": 999, "groups": data.groups, "seed": dataset}
            p = evaluate(data.a, data.responses, bootstrap=0, **options).p[0]
            found.setdefault(f"r > 0, {design.name}", []).append(float(p))
            same = np.full(IN_ROI, 0.3)
            data = draw(rng, design, same, same)
            paired = compare_predictions(data.a, data.b, data.responses, bootstrap=1, rois=rois, **options)
            found.setdefault(f"difference, {design.name}", []).append(float(paired.p[0]))
            of_roi = float(paired.groups["ROI"]["r"]["p"])
            found.setdefault(f"difference of an ROI, {design.name}", []).append(of_roi)
    return found


def error_rates(datasets: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """False discovery rate of q and family-wise error of p_max, over data sets in which some vertices are null."""
    rows = []
    for index, (share_real, design) in enumerate(
        ((0.0, DESIGNS[1]), (0.3, DESIGNS[1]), (0.3, DESIGNS[3]), (0.7, DESIGNS[3]))
    ):
        say(f"error rates: {design.name}, {share_real:.0%} of the vertices real")
        real = np.arange(VERTICES) % 10 < 10 * share_real
        r = np.where(real, 0.25, 0.0)
        false_share, any_false, power, power_max = [], [], [], []
        for dataset in range(datasets):
            data = draw(np.random.default_rng((45, index, dataset)), design, r, r)
            found = evaluate(data.a, data.responses, groups=data.groups, bootstrap=0, permutations=4999, seed=dataset)
            passing = found.q < 0.05
            false_share.append((passing & ~real).sum() / max(passing.sum(), 1))
            any_false.append(bool((found.p_max[~real] < 0.05).any()))
            power.append(passing[real].mean() if real.any() else np.nan)
            power_max.append((found.p_max[real] < 0.05).mean() if real.any() else np.nan)
        for name, values, reached in (
            ("false discovery rate, q < 0.05", false_share, power),
            ("any false positive, p_max < 0.05", any_false, power_max),
        ):
            rows.append(
                {"design": design.name, "real": share_real, "measure": name, "power": float(np.mean(reached))}
                | _rate([np.array([value]) for value in values])
            )
    return rows


def spin_level(maps: int, say: Callable[[str], None], *, draws: int = 499) -> dict[str, Any]:
    """p of smooth random maps against areas that have nothing to do with them: spin test, and vertices as independent.

    Maps have no relation to the areas by construction. Areas are bands around the occipital pole, as visual areas are.
    """
    from scipy.stats import pearsonr

    say("spin test under the null")
    sphere = _whole_sphere()
    rng = np.random.default_rng(46)
    left = ~sphere.right
    pole = sphere.points[left][sphere.points[left][:, 1].argmin()]
    distance = np.arccos(np.clip(sphere.points @ pole, -1, 1))
    distance[sphere.right] = np.arccos(np.clip(sphere.points[sphere.right] @ (pole * [-1, 1, 1]), -1, 1))
    # Rotated values come from all vertices: from a coarser mesh they would be less smooth than the map.
    chosen = np.flatnonzero(distance < 0.9)[::8]
    steps = np.minimum(np.floor(distance[chosen] / 0.18), 4.0)
    found: dict[str, list[float]] = {"spin test": [], "vertices as independent": []}
    for index in range(maps):
        if index % _MAPS_PER_SPINS == 0:  # else all maps would share the chance of one set of rotations
            spins = spin(sphere, chosen, draws=draws, seed=47 + index)
        values = _smooth_map(rng, sphere)
        observed = float(fit_line(steps, values[chosen])[2])
        null = fit_line(steps, spun_values(values, spins))[2]
        found["spin test"].append(smoothed_p(observed, null))
        found["vertices as independent"].append(float(pearsonr(values[chosen], steps).pvalue))
    return {"p": found, "vertices": len(chosen), "rotations": draws}


_SLOPE = 0.08
_MAPS_PER_SPINS = 20


def _depth_maps(
    rng: np.random.Generator, order: AreaOrder, runs: int, share: float | None, seed_share: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Depth maps (runs, V): a line, what every image adds to slope and vertices, and what the seed adds; the images."""
    pool, vertices = 60, len(order.steps)
    steps = order.steps - order.steps.mean()

    def field(count: int) -> np.ndarray:
        return rng.standard_normal((count, 1)) * steps + 0.5 * rng.standard_normal((count, vertices))

    if share is None:
        members = [np.arange(pool // 2) + run * (pool // 2) for run in range(runs)]
        of_images = field(runs * (pool // 2))
    else:
        halves = [rng.permutation(pool) for _ in range(runs // 2)]
        members = [half for order_ in halves for half in (order_[: pool // 2], order_[pool // 2 :])]
        of_images = field(pool)
    from_images = np.stack([of_images[rows].mean(0) for rows in members])
    from_seeds = np.sqrt(seed_share / (pool // 2)) * field(runs)
    return 0.1 + _SLOPE * order.steps + 0.05 * (from_images + from_seeds), members


def _shared_parts(rng: np.random.Generator, groups: np.ndarray, size: tuple[int, int], heavy: bool) -> np.ndarray:
    """Unit variance (n, V): 30 % belong to the photograph; of both parts 30 % to all vertices of an ROI."""
    n, (vertices, in_roi) = len(groups), size
    rois = -(-vertices // in_roi)

    def noise(rows: int, columns: int) -> np.ndarray:
        if not heavy:
            return rng.standard_normal((rows, columns))
        return rng.standard_t(5, (rows, columns)) * np.sqrt(3 / 5)

    def both(rows: int) -> np.ndarray:
        shared = np.repeat(noise(rows, rois), in_roi, axis=1)[:, :vertices]
        return np.sqrt(0.3) * shared + np.sqrt(0.7) * noise(rows, vertices)

    count = int(groups.max()) + 1
    if count == n:
        return both(n)
    return np.sqrt(0.3) * both(count)[groups] + np.sqrt(0.7) * both(n)


def _true_correlations(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    r_a = rng.uniform(0.0, 0.6, VERTICES)
    return r_a, np.clip(r_a - rng.uniform(-0.05, 0.15, VERTICES), 0.0, 0.65)


def _inside(low: Any, high: Any, truth: Any) -> np.ndarray:
    return (np.asarray(low, float) <= truth) & (truth <= np.asarray(high, float))


def _roi_hits(
    groups: Any, truth: np.ndarray, centre: Callable[[np.ndarray], Any], prefix: str, measure: str = "r"
) -> np.ndarray:
    """Whether the interval of each ROI contains the centre of its true values."""
    return _inside(*_roi_ends(groups, prefix, measure), _roi_centres(truth, centre))


def _roi_ends(groups: Any, prefix: str, measure: str = "r") -> tuple[np.ndarray, np.ndarray]:
    low, high = ([groups[roi][measure][f"{prefix}{end}"] for roi in _ROIS] for end in ("low", "high"))
    return np.array(low), np.array(high)


def _roi_centres(truth: np.ndarray, centre: Callable[[np.ndarray], Any]) -> np.ndarray:
    return np.array([centre(truth[members]) for members in _ROIS.values()])


def _rate(hits: list[np.ndarray]) -> dict[str, Any]:
    """The share of hits, with a 95 % interval over data sets: the vertices of one are not independent."""
    by_dataset = np.array([each.mean() for each in hits])
    error = 1.96 * by_dataset.std(ddof=1) / np.sqrt(len(by_dataset))
    rate = float(by_dataset.mean())
    return {"rate": rate, "low": rate - float(error), "high": rate + float(error), "datasets": len(hits)}


def _whole_sphere() -> Sphere:
    """Both hemispheres of fsaverage5, all vertices with data."""
    spheres = [mesh("fsaverage5", hemisphere, "sphere")[0] for hemisphere in ("left", "right")]
    points = np.concatenate(spheres).astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return Sphere(points, np.arange(len(points)), np.arange(len(points)) >= len(spheres[0]))


def _smooth_map(rng: np.random.Generator, sphere: Sphere) -> np.ndarray:
    """A stationary smooth field on each sphere: random waves in three dimensions, about half a radian long."""
    values = np.empty(len(sphere.points))
    for side in (sphere.right, ~sphere.right):
        waves = rng.standard_normal((3, 64)) / 0.5
        values[side] = np.cos(sphere.points[side] @ waves + rng.uniform(0, 2 * np.pi, 64)) @ rng.standard_normal(64)
    return values
