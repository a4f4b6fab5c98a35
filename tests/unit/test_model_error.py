"""What a synthetic library lacks, as a covariance: sizes by hand, draws that follow it, and its way from a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maury.emulate.covariance import ModelError
from maury.errors import MauryError, UsageError
from maury.fit.regional import RegionalInferrer
from maury.grids import AnalyticSpectra
from maury.protocols import ModelCovariance
from maury.recipes import parse_recipe
from maury.recipes.dataset import TrainingSet
from maury.recipes.run import train_on

WAVELENGTH = np.arange(8490.0, 8560.0, 0.1)
LINES = (8500.0, 8545.0)
CORES = ModelError(floor=0.01, correlated_pixels=11.0, lines=LINES, core_widths=(0.8, 1.6), core_amplitude=0.05)
BARE = ModelCovariance(np.full(len(WAVELENGTH), 4e-6))


def at(wavelength: float) -> int:
    return int(np.abs(WAVELENGTH - wavelength).argmin())


class TestCovariance:
    def test_the_diagonal_grows_by_the_floor_squared_times_the_pixels_that_share_it(self) -> None:
        total = CORES.added_to(BARE, WAVELENGTH)
        np.testing.assert_allclose(total.diagonal, 4e-6 + 11 * 0.01**2, rtol=1e-12)

    def test_factors_have_the_amplitude_in_quadrature_at_the_centres_and_fall_off_as_gaussians(self) -> None:
        """By hand at 1.6 Å: 2 and 1 of the two standard deviations; half of the variance each."""
        factors = CORES.added_to(BARE, WAVELENGTH).factors
        assert factors is not None
        variance = (factors**2).sum(axis=1)
        for line in LINES:
            assert variance[at(line)] == pytest.approx(0.05**2, rel=1e-9)
            for side in (-1.6, 1.6):
                assert variance[at(line + side)] == pytest.approx(0.05**2 / 2 * (np.exp(-4.0) + np.exp(-1.0)), rel=1e-9)
        assert variance[at(8522.5)] < 1e-12

    def test_all_lines_are_too_deep_together(self) -> None:
        factors = CORES.added_to(BARE, WAVELENGTH).factors
        assert factors is not None
        one, other = (factors[at(line)] for line in LINES)
        assert one @ other == pytest.approx(0.05**2, rel=1e-9)  # a correlation of 1

    def test_factors_that_are_there_stay(self) -> None:
        own = np.random.default_rng(1).normal(size=(len(WAVELENGTH), 3))
        both = CORES.added_to(ModelCovariance(BARE.diagonal, own), WAVELENGTH)
        alone = CORES.added_to(BARE, WAVELENGTH)
        assert both.factors is not None
        np.testing.assert_array_equal(both.factors[:, :3], own)
        np.testing.assert_array_equal(both.factors[:, 3:], alone.factors)
        floor = replace(CORES, lines=(), core_widths=(), core_amplitude=0.0).added_to(
            ModelCovariance(BARE.diagonal, own), WAVELENGTH
        )
        np.testing.assert_array_equal(floor.factors, own)

    def test_pixels_that_the_model_does_not_know_stay_unknown(self) -> None:
        diagonal = np.where(np.arange(len(WAVELENGTH)) < 5, np.inf, 1e-6)
        assert np.flatnonzero(~CORES.added_to(ModelCovariance(diagonal), WAVELENGTH).known).tolist() == [0, 1, 2, 3, 4]

    def test_none_of_it_changes_nothing(self) -> None:
        same = ModelError().added_to(BARE, WAVELENGTH)
        np.testing.assert_array_equal(same.diagonal, BARE.diagonal)
        assert same.factors is None


class TestDraws:
    def test_a_pixel_has_the_floor_and_a_sum_the_variance_of_the_diagonal(self) -> None:
        """Sum over 200 pixels: 200 floor² (11 - Σ|k|ρ(k)/200), where a Gaussian of σ = 11/(2√π) pixels has Σ|k|ρ(k) = 4σ² = 38.5.

        4000 draws: variances to 2.2 %, the limit is four of that.
        """
        error = ModelError(floor=0.01, correlated_pixels=11.0)
        drawn = error.draw(WAVELENGTH[:200], 4000, np.random.default_rng(3))
        assert drawn.std() == pytest.approx(0.01, rel=0.02)
        expected = 200 * 0.01**2 * (11.0 - 38.5 / 200)
        assert drawn.sum(axis=1).var() == pytest.approx(expected, rel=4 * 0.022)

    def test_cores_are_drawn_with_their_amplitude(self) -> None:
        """1000 draws: a standard deviation to 2.2 %, the limit is four of that."""
        drawn = replace(CORES, floor=0.0).draw(WAVELENGTH, 1000, np.random.default_rng(4))
        assert drawn[:, at(LINES[1])].std() == pytest.approx(0.05, rel=4 * 0.022)
        assert np.abs(drawn[:, at(8522.5)]).max() < 1e-6
        assert np.corrcoef(drawn[:, [at(line) for line in LINES]].T)[0, 1] > 0.999


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"floor": -0.1}, "expected floor >= 0, .* got -0.1, 1 and 0; correct them"),
        ({"correlated_pixels": 0.5}, "correlated_pixels >= 1"),
        ({"core_amplitude": -1.0}, "core_amplitude >= 0"),
        (
            {"lines": (8500.0,)},
            r"expected lines, core_widths and core_amplitude above 0 .* got \[8500.0\], \[\] and 0; give all or none",
        ),
        ({"core_widths": (1.0,)}, "give all or none"),
        ({"core_amplitude": 0.05}, "give all or none"),
        ({"lines": (8500.0,), "core_widths": (1.0, 0.0)}, "above 0 together"),
    ],
)
def test_impossible_settings_are_said(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ModelError(**settings)


# -- from a recipe into the model -------------------------------------------------------------------------------------------


def content(**train: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"build": "gaia-rvs"},  # never built here: the training set is given
        "label": [{"name": "teff", "column": "teff", "unit": "K"}, {"name": "logg", "column": "logg", "unit": "dex"}],
        "prepare": [{"step": "to_vacuum"}],
        "validation": {"folds": 0},
        "errors": {"model": "formal"},
        "train": train,
    }


@pytest.fixture(scope="module")
def stars() -> TrainingSet:
    values = np.random.default_rng(2).uniform([4500.0, 2.0], [6000.0, 4.5], (60, 2))
    spectra = AnalyticSpectra(("teff", "logg")).spectra(WAVELENGTH, values, snr=500.0, seed=1)
    return TrainingSet(spectra, values, None, None, (), ("data",) * 60, np.ones(60, dtype=bool), None, np.ones(60, dtype=bool))


TABLE = {"floor": 0.01, "correlated_pixels": 11, "lines": list(LINES), "core_widths": [0.8, 1.6], "core_amplitude": 0.05}
REGIONS = {"label": "teff", "centres": [4800, 5700]}


@pytest.mark.parametrize("more", [{}, {"covariance": {"rank": 2}}, {"regions": REGIONS}], ids=["plain", "covariance", "regions"])
def test_a_recipes_model_error_reaches_every_emulator(stars: TrainingSet, more: dict[str, Any]) -> None:
    plain = train_on(parse_recipe(content(**more), "test"), stars).model.inferrer
    wider = train_on(parse_recipe(content(model_error=TABLE, **more), "test"), stars).model.inferrer
    pairs = [(plain.emulator, wider.emulator)]
    if "regions" in more:
        assert isinstance(wider, RegionalInferrer)
        pairs += list(zip(plain.regions, wider.regions, strict=True))
        assert len(pairs) == 3
    for before, after in pairs:
        expected = CORES.added_to(before.model_covariance, WAVELENGTH)
        np.testing.assert_allclose(after.model_covariance.diagonal, expected.diagonal, rtol=1e-9)
        np.testing.assert_allclose(after.model_covariance.factors, expected.factors, atol=1e-12)
        assert expected.rank == (4 if "covariance" in more else 2)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (
            {"method": "pca_mlp", "model_error": TABLE},
            r"expected no \[train.model_error\] for train.method = 'pca_mlp', got some",
        ),
        ({"model_error": {"floor": -1}}, "expected floor >= 0"),
        ({"model_error": {"flor": 1}}, r"expected a known key in \[train.model_error\], got 'flor'; known are floor"),
    ],
)
def test_what_a_recipe_gets_wrong_is_said(train: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MauryError, match=sentence):
        parse_recipe(content(**train), "test")


@pytest.mark.parametrize("method", ["cannon", "payne", "generator"])
def test_every_emulator_may_have_one(method: str) -> None:
    assert parse_recipe(content(method=method, model_error=TABLE), "test").train.model_error is not None
