"""Whether the numbers of `brainkit compare` mean what they say, by simulation: for ``bench.validation`` and the tests.

Each function returns shares over simulations: how often an interval covers the true value, how often a test is
significant where there is nothing to find.
"""

from __future__ import annotations

import numpy as np

from brainkit.cortex.surface import mesh
from brainkit.cortex.vertices import SPACES, Vertices
from brainkit.evaluation.compare import compare_predictions
from brainkit.evaluation.hierarchy import AreaOrder, fit_line, run_interval, shared_images
from brainkit.metrics.paired import draw_exchanges, exchanged_scores, sign_flip_p
from brainkit.metrics.scores import explained_share
from brainkit.metrics.spin import fsaverage_sphere, smoothed_p, spin, spun_values

SPACE = "fsaverage5"
_SPUN = 1500  # vertices that are rotated, about


def difference_coverage(
    simulations: int,
    *,
    images: int = 200,
    vertices: int = 40,
    group_size: int = 1,
    bootstrap: int = 1000,
    advantage: float = 0.3,
    seed: int = 0,
) -> dict[str, float]:
    """How often 95 % intervals of differences cover the true ones.

    Predictions are signal plus errors that are correlated between the two models, between vertices, and between the
    images of a stimulus; model b has larger errors, by `advantage` at the average vertex.

    Returns
    -------
    dict
        ``vertex``: of single vertices' r; ``mean``, ``median``: of those over vertices; ``explained``: of the mean
        share of the noise ceiling.
    """
    truth = {"noise": np.linspace(0.6, 1.8, vertices), "b": 1 + advantage * np.linspace(0.2, 1.8, vertices)}
    ceiling = 1 / (1 + truth["noise"] ** 2)
    found = _simulated(np.random.default_rng((seed, 0)), 200_000, 1, truth)
    true = np.array([_correlation(p, found["responses"]) for p in (found["a"], found["b"])])
    expected = true[0] - true[1]
    shares = explained_share(true[0], ceiling).mean() - explained_share(true[1], ceiling).mean()
    covered = np.zeros((simulations, 4))
    for number in range(simulations):
        rng = np.random.default_rng((seed, 1, number))
        found = _simulated(rng, images, group_size, truth)
        result = compare_predictions(**found, noise_ceiling=ceiling, bootstrap=bootstrap, permutations=19, seed=number)
        line, explained = (result.groups["all"][measure] for measure in ("r", "explained"))
        covered[number] = (
            np.mean((result.low <= expected) & (expected <= result.high)),
            line["low"] <= expected.mean() <= line["high"],
            line["median_low"] <= np.subtract(*np.median(true, axis=1)) <= line["median_high"],
            explained["low"] <= shares <= explained["high"],
        )
    return dict(zip(("vertex", "mean", "median", "explained"), covered.mean(0).tolist(), strict=True))


def exchange_p(
    simulations: int,
    *,
    images: int = 120,
    group_size: int = 1,
    permutations: int = 199,
    scale: float = 1.0,
    alike: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """p of the difference in r of one vertex between two models that are equally accurate, (simulations,).

    Parameters
    ----------
    scale : float
        Predictions of model b are larger by this factor.
    alike : bool
        Whether the errors of both models have one distribution, so that the models are exchangeable; else those of
        model b have heavy tails, and only the accuracies are equal.
    """
    p = np.empty(simulations)
    for number in range(simulations):
        rng = np.random.default_rng((seed, number))
        codes = np.repeat(np.arange(images // group_size), group_size)
        signal, errors_a = rng.standard_normal((2, images, 1))
        # Heavy tails: Student's t with 5 degrees of freedom, whose variance is 5/3.
        errors_b = rng.standard_normal((images, 1)) if alike else rng.standard_t(5, (images, 1)) / np.sqrt(5 / 3)
        shared = rng.standard_normal((3, codes.max() + 1, 1))[:, codes] if group_size > 1 else np.zeros((3, images, 1))
        responses = signal + shared[0] + 0.7 * rng.standard_normal((images, 1))
        a, b = signal + errors_a + shared[1], scale * (signal + errors_b + shared[2])
        exchanges = draw_exchanges(codes, permutations, number)
        observed = _correlation(a, responses) - _correlation(b, responses)
        (r_a, _), (r_b, _) = exchanged_scores([a], [b], responses, exchanges)
        p[number] = sign_flip_p(observed, r_a - r_b)[0]
    return p


def slope_coverage(
    simulations: int,
    *,
    runs: int = 6,
    images: int = 400,
    part: str = "halves",
    seed_noise: float = 0.0,
    seed: int = 0,
) -> float:
    """How often 95 % intervals of a slope cover the true one.

    Each image moves the depth of all vertices a little, along the areas; a run's depth is the mean over its images.

    Parameters
    ----------
    part : {"halves", "random", "own"}
        Training images of a run: complementary halves of the pool, random 80 % of it, or images of its own.
    seed_noise : float
        S.d. of what a run's seed adds to its slope, in units of what the images of the pool add.
    """
    true, steps = 0.1, np.repeat(np.arange(5.0), 6)
    covered = np.zeros(simulations)
    for number in range(simulations):
        rng = np.random.default_rng((seed, number))
        pool = images * runs if part == "own" else images
        effects = true + rng.standard_normal(pool)  # each image's own slope
        chosen = _training_sets(rng, runs, pool, part)
        slopes = np.array([effects[rows].mean() for rows in chosen])
        slopes += seed_noise / np.sqrt(pool) * rng.standard_normal(runs)
        depth = 0.2 + slopes[:, None] * steps
        low, high = run_interval(fit_line(steps, depth)[0], shared_images(chosen))
        covered[number] = low <= true <= high
    return float(covered.mean())


def spin_level(
    simulations: int,
    *,
    cover: float = 0.25,
    length: float = 0.5,
    mirrored: bool = True,
    rotations: int = 199,
    seed: int = 0,
) -> dict[str, float]:
    """How often the spin test finds an order in smooth random maps, at 0.05: of it, and of the usual test of r.

    Parameters
    ----------
    cover : float
        Share of each hemisphere of fsaverage5 that the data cover, around the occipital pole; areas are rings.
    length : float
        Over which the maps are smooth, in units of the sphere's radius.
    mirrored : bool
        Whether the map of the right hemisphere mirrors that of the left, or is another.
    """
    from scipy.stats import pearsonr

    vertices, distance = _occipital(cover)
    rings = np.digitize(distance, np.quantile(distance, [0.2, 0.4, 0.6, 0.8]))
    fewer = max(len(rings) // _SPUN, 1)  # neighbours tell the same, and rotating all takes long
    order = AreaOrder(tuple("12345"), tuple(np.flatnonzero(rings == ring)[::fewer] for ring in range(5)))
    spins = spin(fsaverage_sphere(vertices), order.vertices, rotations, seed)
    found = np.zeros((simulations, 2))
    for number in range(simulations):
        values = _smooth_map(np.random.default_rng((seed, number)), length, mirrored)[vertices.ids]
        null = fit_line(order.steps, spun_values(values, spins))[2]
        own = values[order.vertices]
        found[number] = smoothed_p(float(fit_line(order.steps, own)[2]), null), pearsonr(order.steps, own).pvalue
    spun, plain = (found <= 0.05).mean(0).tolist()
    return {"spin": spun, "plain": plain, "overlap": spins.overlap}


def _simulated(rng: np.random.Generator, images: int, size: int, truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predictions of two models and responses, (images, V), and the stimuli."""
    stimuli = images // size
    vertices = len(truth["noise"])

    def draw() -> np.ndarray:
        own, shared = rng.standard_normal((images, vertices)), rng.standard_normal((images, 1))
        mixed = np.sqrt(0.7) * own + np.sqrt(0.3) * shared
        if size == 1:
            return mixed
        of_stimulus = np.repeat(rng.standard_normal((stimuli, vertices)), size, axis=0)
        return np.asarray((mixed + of_stimulus) / np.sqrt(2))

    signal, common = draw(), draw()
    return {
        "a": signal + 0.5 * common + draw(),
        "b": signal + 0.5 * common + truth["b"] * draw(),
        "responses": signal + truth["noise"] * draw(),
        "groups": np.repeat(np.arange(stimuli), size),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(0), b - b.mean(0)
    return np.asarray((a * b).sum(0) / np.sqrt((a * a).sum(0) * (b * b).sum(0)))


def _training_sets(rng: np.random.Generator, runs: int, pool: int, part: str) -> list[np.ndarray]:
    if part == "own":
        return np.split(np.arange(pool), runs)
    if part == "random":
        return [rng.permutation(pool)[: int(0.8 * pool)] for _ in range(runs)]
    halves = [np.split(rng.permutation(pool), 2) for _ in range((runs + 1) // 2)]
    return [half for pair in halves for half in pair][:runs]


def _occipital(cover: float) -> tuple[Vertices, np.ndarray]:
    """The vertices of fsaverage5 nearest to both occipital poles, and their distance from the pole, 0 to 1."""
    ids, distances = [], []
    for index, side in enumerate(("left", "right")):
        points = mesh(SPACE, side, "sphere")[0]
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        pole = points[mesh(SPACE, side, "pial")[0][:, 1].argmin()]
        angle = np.arccos(np.clip(points @ pole, -1, 1))
        nearest = np.sort(np.argsort(angle, kind="stable")[: int(cover * len(points))])
        ids.append(nearest + index * SPACES[SPACE])
        distances.append(angle[nearest] / angle[nearest].max())
    return Vertices(SPACE, np.concatenate(ids)), np.concatenate(distances)


def _smooth_map(rng: np.random.Generator, length: float, mirrored: bool) -> np.ndarray:
    """A random field on both spheres, stationary and isotropic: random Fourier features. (2 M,)"""
    frequencies = rng.standard_normal((3, 200)) / length
    phases, loads = rng.uniform(0, 2 * np.pi, 200), rng.standard_normal((2, 200))
    sides = []
    for index, side in enumerate(("left", "right")):
        points = mesh(SPACE, side, "sphere")[0] / 100.0 * np.array([1.0 if index == 0 else -1.0, 1.0, 1.0])
        sides.append(np.cos(points @ frequencies + phases) @ loads[0 if mirrored else index])
    return np.concatenate(sides)
