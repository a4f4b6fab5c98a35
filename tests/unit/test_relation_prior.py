"""One label known from others: what the prior adds to chi-square, what it leaves free, and what a fit makes of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from maury.emulate import train_cannon
from maury.errors import MauryError, UsageError
from maury.fit import ChiSquareFitter
from maury.fit.prior import LabelPrior
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.recipes import load_recipe, parse_recipe
from maury.recipes.training import Trainer

# the coordinate of Teff is 5040/Teff, as in gaia-rvs
LABELS = LabelSet.from_training(
    (make_label("teff", "K", "inverse"), make_label("logg", "dex"), make_label("m_h", "dex"), make_label("v_micro", "km/s")),
    np.random.default_rng(1).uniform([3600.0, 2.0, -1.5, 0.0], [15_000.0, 5.0, 0.5, 4.0], (200, 4)),
)
# Tsantaki+2013 (A&A 555, A150) through the Sun, as in gaia-rvs
RELATION: dict[str, Any] = {
    "label": "v_micro",
    "at": {"teff": 5777.0, "logg": 4.44, "v_micro": 1.02},
    "slopes": {"teff": 6.932e-4, "logg": -0.348},
    "sigma": 0.3,
}
PRIOR = LabelPrior.from_relation(LABELS, **RELATION)
SUN = np.array([5777.0, 4.44, 0.0, 1.02])


def rise(values: np.ndarray) -> np.ndarray:
    """(n,) by how much -2 ln density is above that of the point the relation goes through."""
    lowest = PRIOR.evaluate(LABELS.scale(SUN[None])).chi2
    return np.asarray(PRIOR.evaluate(LABELS.scale(np.atleast_2d(values))).chi2 - lowest)


class TestValue:
    @pytest.mark.parametrize("sigmas", [-2.0, 1.0, 3.0])
    def test_off_the_relation_it_rises_by_the_square_of_the_sigmas(self, sigmas: float) -> None:
        # a millionth of (scaled label)² on top: the precision of what is free
        assert rise(SUN + np.array([0, 0, 0, sigmas * 0.3]))[0] == pytest.approx(sigmas**2, abs=1e-4)

    def test_along_the_relation_it_stays(self) -> None:
        """0.5 dex change v_micro by -0.174; a Kelvin by 6.932e-4 (Teff's coordinate is curved: of 1 K, by 1 K/5777 of it)."""
        assert rise(SUN + np.array([0, 0.5, 0, -0.174]))[0] == pytest.approx(0.0, abs=1e-4)
        assert rise(SUN + np.array([1.0, 0, 0, 6.932e-4]))[0] == pytest.approx(0.0, abs=1e-4)
        assert rise(SUN + np.array([0, 0.5, 0, 0.174]))[0] == pytest.approx((2 * 0.174 / 0.3) ** 2, abs=1e-3)  # the wrong sign

    def test_it_is_linear_in_5040_over_teff(self) -> None:
        """At 7000 K, by hand: dv/d(1/T) = -slope T², so v = 1.02 - 6.932e-4 x 5777² x (1/7000 - 1/5777)."""
        expected = 1.02 - 6.932e-4 * 5777.0**2 * (1 / 7000.0 - 1 / 5777.0)
        assert rise(np.array([7000.0, 4.44, 0.0, expected]))[0] == pytest.approx(0.0, abs=1e-4)
        assert rise(np.array([7000.0, 4.44, 0.0, expected + 0.3]))[0] == pytest.approx(1.0, abs=1e-3)

    def test_other_labels_are_free(self) -> None:
        assert np.abs(rise(SUN + np.array([[0, 0, -1.5, 0], [0, 0, 0.5, 0]]))).max() < 1e-4

    def test_gradient_is_half_the_slope(self) -> None:
        place = LABELS.scale(np.array([[5000.0, 3.0, -1.0, 2.5]]))
        step = 1e-5 * np.eye(4)
        slope = [(PRIOR.evaluate(place + s).chi2 - PRIOR.evaluate(place - s).chi2)[0] / 2e-5 for s in step]
        np.testing.assert_allclose(PRIOR.evaluate(place).gradient[0], 0.5 * np.array(slope), rtol=1e-6, atol=1e-6)

    def test_what_it_expects_of_the_label(self) -> None:
        """The relation itself, in scaled labels; its scatter in units of v_micro's spread."""
        values = np.array([[5777.0, 3.44, -1.0, 3.0]])
        expected, sigma = PRIOR.expected(LABELS.scale(values), 3)
        assert expected[0] == pytest.approx(LABELS.scale(np.array([[5777.0, 3.44, -1.0, 1.02 + 0.348]]))[0, 3], abs=1e-4)
        assert sigma == pytest.approx(0.3 / LABELS.spread[3], rel=1e-4)

    def test_through_a_model_file_it_stays_the_same(self) -> None:
        again = LabelPrior.from_config(json.loads(json.dumps(PRIOR.to_config())))
        place = LABELS.scale(np.array([[5000.0, 3.0, -1.0, 2.5]]))
        np.testing.assert_array_equal(again.evaluate(place).chi2, PRIOR.evaluate(place).chi2)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "vsini"},
        {"at": {"teff": 5777.0, "v_micro": 1.0}},  # logg has a slope, but no value
        {"at": {"teff": 5777.0, "logg": 4.44}},  # the label itself has none
        {"slopes": {"teff": 1e-3, "vsini": 1.0}},
        {"slopes": {"v_micro": 1.0}},
        {"sigma": 0.0},
    ],
)
def test_impossible_relations_are_said(change: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=r"expected a relation of \w+ among teff, logg, m_h, v_micro with sigma > 0 .*correct it$"
    ):
        LabelPrior.from_relation(LABELS, **RELATION | change)


# -- in a fit ---------------------------------------------------------------------------------------------------------------


def test_a_label_that_the_spectrum_does_not_tell_comes_from_the_relation() -> None:
    """Spectra of teff and logg alone: v_micro must be that of the relation, its error the relation's and what the others leave.

    chi-square in the catalogue stays that of the spectrum alone.
    """
    wavelength = np.arange(5000.0, 5060.0, 0.25)
    values = np.random.default_rng(3).uniform([5300.0, 3.9, 0.0], [6300.0, 4.9, 2.0], (200, 3))
    analytic = AnalyticSpectra(("teff", "logg"))
    training = analytic.spectra(wavelength, values[:, :2], snr=1e5, seed=1)
    names = (make_label("teff", "K"), make_label("logg", "dex"), make_label("v_micro", "km/s"))
    emulator = train_cannon(training, names, values)
    star = analytic.spectra(wavelength, np.array([[5900.0, 4.2]]), snr=100.0, seed=2)
    prior = LabelPrior.from_relation(emulator.labels, **RELATION)
    found = ChiSquareFitter(prior=prior).fit(star, emulator)
    plain = ChiSquareFitter().fit(star, emulator)
    teff, logg, v_micro = found.values[0]
    expected = 1.02 + 6.932e-4 * (teff - 5777.0) - 0.348 * (logg - 4.44)
    assert v_micro == pytest.approx(expected, abs=0.1 * 0.3)
    slopes = np.array([6.932e-4, -0.348])
    variance = 0.3**2 + slopes @ found.covariance[0, :2, :2] @ slopes
    assert found.errors[0, 2] == pytest.approx(np.sqrt(variance), rel=0.05)
    assert plain.errors[0, 2] > 3 * found.errors[0, 2]
    assert found.chi2[0] == pytest.approx(plain.chi2[0], abs=2.0)


# -- in a recipe ------------------------------------------------------------------------------------------------------------


def content(**fit: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"spectra": "*.fits", "table": "labels.csv"},
        "label": [
            {"name": label.name, "column": label.name, "unit": label.unit, "coordinate": label.coordinate}
            for label in LABELS.labels
        ],
        "prepare": [{"step": "to_vacuum"}],
        "fit": fit,
    }


def test_a_recipes_relation_reaches_the_fit() -> None:
    recipe = parse_recipe(content(relation=RELATION), "test")
    prior = Trainer(recipe, None).fitter(LABELS, np.zeros((1, 4))).prior  # type: ignore[arg-type]
    assert prior is not None
    np.testing.assert_array_equal(prior.precisions, PRIOR.precisions)
    np.testing.assert_array_equal(prior.means, PRIOR.means)


def test_the_shipped_recipe_has_this_one() -> None:
    relation = load_recipe("gaia-rvs").fit.relation
    assert relation is not None
    half = RELATION | {"slopes": RELATION["slopes"] | {"teff": 3.5e-4}}  # the whole slope gives cool dwarfs less than nothing
    assert relation.model_dump() == half


@pytest.mark.parametrize(
    ("fit", "sentence"),
    [
        ({"relation": RELATION, "prior": {}}, r"expected one of \[fit.prior\] and \[fit.relation\], got both; remove one"),
        ({"relation": RELATION | {"label": "vsini"}}, r"expected labels among teff, .* in \[fit.relation\], got 'vsini'"),
        ({"relation": RELATION | {"slopes": {"colour": 1.0}}}, r"in \[fit.relation\], got 'colour'; correct it"),
        ({"relation": RELATION | {"sigma": 0.0}}, "expected a valid value for fit.relation.sigma, got 0"),
        ({"relation": RELATION | {"width": 1.0}}, r"expected a known key in \[fit.relation\], got 'width'; known are label, at"),
    ],
)
def test_what_a_recipe_gets_wrong_is_said(fit: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MauryError, match=sentence):
        parse_recipe(content(**fit), "test")


def test_a_relation_without_a_value_of_its_label_is_said_before_training() -> None:
    """Found out only after hours of training, it would be of little use."""
    with pytest.raises(MauryError, match="value of each of its labels"):
        parse_recipe(content(relation=RELATION | {"at": {"teff": 5777.0}}), "test")
