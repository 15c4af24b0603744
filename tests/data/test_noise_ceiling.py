"""Noise ceilings are fractions or percent; what is neither is refused."""

from __future__ import annotations

import numpy as np
import pytest
from subject_folders import refused, save, write_algonauts, write_own

from brainkit.data import Algonauts, Folder, noise_ceiling_from_file
from brainkit.data.noise_ceiling import read_noise_ceiling
from brainkit.errors import DataError
from brainkit.metrics import official_score

rng = np.random.default_rng(0)


def read(path, values):
    save(path / "noise_ceiling.npy", values)
    return read_noise_ceiling([(path / "noise_ceiling.npy", np.size(values))])


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 2.3, 200),  # NSD's ncsnr
        np.linspace(0, 1.2, 200),  # estimates above 1
        np.linspace(0, 6, 200),
        np.r_[np.linspace(0, 1, 199), 45.0],  # one estimate that failed
        np.r_[rng.gamma(2, 0.2, 4999), 30.0],  # ncsnr, with an outlier
        np.array([0, 1, 2]),
    ],
)
def test_what_is_neither_is_refused_with_the_formula(tmp_path, values):
    with pytest.raises(DataError) as caught:
        read(tmp_path, values)
    for word in ("noise_ceiling.npy", "ncsnr", "s**2 / (s**2 + 1/n)", f"{values.max():g}"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_formula_of_the_message_is_that_of_the_metrics():
    from brainkit.metrics import noise_ceiling_from_ncsnr

    s = np.linspace(0, 3, 7)
    np.testing.assert_allclose(s**2 / (s**2 + 1 / 3), noise_ceiling_from_ncsnr(s, (10, 0, 0)))


@pytest.mark.parametrize(
    ("values", "unit", "scale"),
    [
        (np.linspace(0, 0.95, 50), "fractions", 1),
        (np.r_[np.linspace(0, 0.9, 50), 1.004], "fractions", 1),
        (np.ones(5, int), "fractions", 1),
        (np.zeros(5), "fractions", 1),
        (np.r_[0.2, np.nan, 0.4], "fractions", 1),
        (np.linspace(0, 95, 50), "percent", 100),
        (np.r_[np.linspace(0, 60, 50), 100.004], "percent", 100),
        (np.arange(0, 80), "percent", 100),
        (np.r_[20.0, np.nan, 40.0], "percent", 100),
        (np.r_[np.zeros(900), rng.gamma(1, 0.8, 900), rng.uniform(5, 60, 200)], "percent", 100),  # a whole brain
        (np.full((4, 1), 30, np.uint8), "percent", 100),
    ],
)
def test_fractions_and_percent(tmp_path, values, unit, scale):
    found = read(tmp_path, values)
    assert (found.units, found.values.dtype) == (unit, np.float32)
    expected = np.clip(np.asarray(values, float).ravel() / scale, 0, 1)
    assert found.counts["without"] == np.isnan(expected).sum()
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)


@pytest.mark.parametrize("values", [np.r_[0.1, np.inf], np.r_[-0.2, 0.5], np.r_[10, 130.0], np.array([True, False])])
def test_values_of_no_unit(tmp_path, values):
    with pytest.raises(DataError, match=r"noise_ceiling\.npy"):
        read(tmp_path, values)


def test_the_unit_is_told(tmp_path):
    write_own(tmp_path)
    for scale, unit in ((1, "fractions"), (100, "percent")):
        save(tmp_path / "noise_ceiling.npy", np.array([0.1, 0.2, 0.3, 0.4]) * scale)
        subject = Folder(tmp_path)
        assert subject.noise_ceiling_unit == unit and unit in subject.describe()
        alone = noise_ceiling_from_file(tmp_path / "noise_ceiling.npy")
        assert (alone.units, alone.values.tolist()) == (unit, subject.noise_ceiling.tolist())
    refused(lambda path: noise_ceiling_from_file(path, 5), tmp_path / "noise_ceiling.npy", "noise_ceiling.npy", "5")
    (tmp_path / "noise_ceiling.npy").unlink()
    assert Folder(tmp_path).noise_ceiling_unit is None


def test_vertices_without_a_ceiling_are_counted_and_explain_nothing(tmp_path):
    write_own(tmp_path)
    save(tmp_path / "noise_ceiling.npy", np.array([0.1, np.nan, 0.3, 0.0]))
    subject = Folder(tmp_path)
    assert np.isnan(subject.noise_ceiling).tolist() == [False, True, False, False]
    assert "none at 1 vertex" in subject.describe()
    assert official_score(np.full(4, 0.2), subject.noise_ceiling).n == 2


def test_both_readers_refuse_a_ratio_and_name_the_file(tmp_path):
    write_own(tmp_path / "own")
    save(tmp_path / "own/noise_ceiling.npy", np.linspace(0, 2, 4))
    refused(Folder, tmp_path / "own", "noise_ceiling.npy", "ncsnr")
    write_algonauts(tmp_path / "alg")
    save(tmp_path / "alg/noise_ceiling/lh_noise_ceiling.npy", np.linspace(0, 0.9, 7))
    save(tmp_path / "alg/noise_ceiling/rh_noise_ceiling.npy", np.linspace(0, 2.1, 5))
    refused(Algonauts, tmp_path / "alg", "rh_noise_ceiling.npy", "ncsnr", "0 to 2.1")
