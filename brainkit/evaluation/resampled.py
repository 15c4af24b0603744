"""The scores of one model or two in many resamples of the images, and their centres over groups of vertices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainkit.metrics.paired import Scores, draw_runs, resampled_scores
from brainkit.metrics.resampling import bootstrap_weights, interval, jackknife_weights
from brainkit.metrics.scores import LEAST_CEILING

MEASURES = ("r", "R2", "explained")
_COLUMNS = 2048  # vertices whose intervals are computed at a time


class Values:
    """The scores of one model or two, in many draws."""

    def __init__(self, scores: Sequence[Scores], noise_ceiling: np.ndarray) -> None:
        self._scores = scores
        self._ceiling = np.where(np.nan_to_num(noise_ceiling) >= LEAST_CEILING, noise_ceiling, np.nan).astype(
            np.float32
        )

    def of(self, model: int, measure: str, columns: np.ndarray) -> np.ndarray:
        """A measure of some vertices, (draws, k)."""
        r, R2 = self._scores[model]
        if measure == "R2":
            return R2[:, columns]
        if measure == "r":
            return r[:, columns]
        # As `brainkit.metrics.scores.explained_share`, in float32.
        return np.asarray(np.minimum(np.nan_to_num(r[:, columns]).clip(min=0) ** 2 / self._ceiling[columns], 1))

    def difference(self, measure: str, columns: np.ndarray) -> np.ndarray:
        """Of the first model's minus the second's."""
        return self.of(0, measure, columns) - self.of(1, measure, columns)

    def centres(self, measure: str, columns: np.ndarray) -> dict[str, np.ndarray]:
        """Median and mean over some vertices: of each model, (models, draws)."""
        found = [self.of(model, measure, columns) for model in range(len(self._scores))]
        return {
            "median": np.array([np.median(each, axis=1) for each in found]),
            "mean": np.array([each.mean(axis=1, dtype=np.float64) for each in found]),
        }


class Resampled:
    """One model or two: on the data, with each stimulus (or block of them) left out, and in each bootstrap sample."""

    def __init__(
        self,
        models: Sequence[Sequence[np.ndarray]],
        responses: np.ndarray,
        codes: np.ndarray,
        noise_ceiling: np.ndarray,
        draws: int,
        seed: int,
    ) -> None:
        jackknife = jackknife_weights(codes)
        self._first_draw = 1 + len(jackknife)
        once = np.ones((1, len(codes)), np.float32)
        weights = np.concatenate([once, jackknife, bootstrap_weights(codes, draws, seed)])
        self._all = np.arange(responses.shape[1])
        self._values = Values(
            [
                resampled_scores(model, responses, weights, self._drawn_runs(len(model), draws, (seed, 1 + index)))
                for index, model in enumerate(models)
            ],
            noise_ceiling,
        )

    def difference(self, measure: str) -> np.ndarray:
        """The difference of two models per vertex, (V,)."""
        first, second = (self._values.of(model, measure, self._all)[0].astype(np.float64) for model in (0, 1))
        return np.asarray(first - second)

    def intervals(self, measure: str, level: float) -> tuple[np.ndarray, np.ndarray, str | None]:
        """Low and high of the difference per vertex, (V,), and the method."""
        ends, method = [], None
        for start in range(0, len(self._all), _COLUMNS):
            values = self._values.difference(measure, self._all[start : start + _COLUMNS])
            low, high, method = self._interval(values, level)
            ends.append((low, high))
        low, high = (np.concatenate(each) for each in zip(*ends, strict=True))
        return low, high, method

    def compare(self, members: np.ndarray, level: float) -> dict[str, dict[str, Any]]:
        """Differences of two models' means and medians over some vertices, for each measure."""
        found = {}
        for measure in MEASURES:
            columns = known_columns(self.difference(measure), members)
            line: dict[str, Any] = {"difference": None, "low": None, "high": None}
            line |= {"median_difference": None, "median_low": None, "median_high": None}
            line |= dict.fromkeys(("a", "b", "median_a", "median_b"))
            if len(columns):
                for name, (a, b) in self._values.centres(measure, columns).items():
                    start = "" if name == "mean" else "median_"
                    line |= self._line(a - b, level, f"{start}difference", start)
                    line |= {f"{start}a": or_none(a[0]), f"{start}b": or_none(b[0])}
            found[measure] = line | {"n": len(columns)}
        return found

    def summarise(self, members: np.ndarray, level: float) -> dict[str, dict[str, Any]]:
        """Median and mean of one model over some vertices, for each measure."""
        found = {}
        for measure in MEASURES:
            columns = known_columns(self._values.of(0, measure, self._all)[0], members)
            line: dict[str, Any] = {"median": None, "low": None, "high": None}
            line |= {"mean": None, "mean_low": None, "mean_high": None}
            if len(columns):
                for name, (values,) in self._values.centres(measure, columns).items():
                    line |= self._line(values, level, name, "" if name == "median" else "mean_")
            found[measure] = line | {"n": len(columns)}
        return found

    def _line(self, values: np.ndarray, level: float, name: str, start: str) -> dict[str, float | None]:
        """A statistic over vertices and its interval, from its values in all draws.

        A percentile interval: BCa takes for a bias what comes from medians, which jump from vertex to vertex, and from
        shares of noise ceilings, which are cut at 0 and 1; its 95 % intervals cover 86 % in the worst case.
        """
        low, high, _ = self._interval(values[:, None], level, corrected=False)
        return {name: or_none(values[0]), f"{start}low": or_none(low[0]), f"{start}high": or_none(high[0])}

    def _interval(
        self, values: np.ndarray, level: float, *, corrected: bool = True
    ) -> tuple[np.ndarray, np.ndarray, str | None]:
        return interval(values[self._first_draw :], values[0], values[1 : self._first_draw], level, corrected=corrected)

    def _drawn_runs(self, runs: int, draws: int, seed: tuple[int, int]) -> np.ndarray | None:
        """All runs alike for the data and the jackknife, then resampled."""
        if runs < 2:
            return None
        return np.concatenate([np.full((self._first_draw, runs), 1 / runs), draw_runs(runs, draws, seed)])


def known_columns(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members that have a value."""
    return np.asarray(members)[np.isfinite(values[members])]


def or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
