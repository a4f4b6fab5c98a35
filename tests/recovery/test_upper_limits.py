"""Broadening too small to be seen: zero with an upper limit, in the label's own flag alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import draw, quadratic_model

from maury.emulate.cannon import CannonEmulator
from maury.fit.fitter import ChiSquareFitter
from maury.flags import ResultFlag
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra


def _rotating(name: str) -> CannonEmulator:
    """A linear model whose third label is a broadening of 4 to 100 km/s, trained where nothing is below 4."""
    labels = (Label("teff", "K"), Label("logg", "dex"), Label(name, "km/s"))
    values = np.random.default_rng(5).uniform([4500.0, 2.0, 4.0], [6000.0, 5.0, 100.0], (300, 3))
    model = quadratic_model(200)
    linear = np.array([sum(powers) for powers in model.polynomial.powers])[:, None] < 2
    coefficients = np.where(linear, model.coefficients, 0.0)
    return replace(model, labels=LabelSet.from_training(labels, values), coefficients=coefficients)


def _slow(model: CannonEmulator, broadening: float) -> Spectra:
    values = np.tile([[5200.0, 3.5, broadening]], (2, 1))
    values[1, 2] = 50.0
    return draw(model, values, np.random.default_rng(7), error=0.002, masked=0.0)


@pytest.mark.parametrize("name", ["vsini", "v_macro"])
def test_a_broadening_at_zero_is_an_upper_limit_and_no_doubtful_star(name: str) -> None:
    """The spectrum of -20 km/s, further than its error from 0: the minimum lies on the bound of zero, below the training's 4."""
    model = _rotating(name)
    fitter = ChiSquareFitter(bounds_of=((name, 0.0, 110.0),))
    estimates = fitter.fit(_slow(model, -20.0), model)
    assert estimates.values[0, 2] == pytest.approx(0.0, abs=1e-6)
    assert 0 < estimates.errors[0, 2] < 20.0
    assert estimates.label_flags[0].tolist() == [0, 0, int(ResultFlag.UPPER_LIMIT)]
    assert estimates.flag.tolist() == [0, 0]
    assert estimates.label_flags[1].tolist() == [0, 0, 0]  # the star of 50 km/s is none


def test_other_bounds_and_other_labels_have_no_upper_limit() -> None:
    """At a bound above zero, at the upper bound, or of a label that is no broadening: AT_BOUND, and the star is flagged."""
    cases = (("vsini", (2.0, 110.0), -20.0), ("vsini", (0.0, 30.0), 45.0), ("v_micro", (0.0, 110.0), -20.0))
    for name, (low, high), broadening in cases:
        model = _rotating(name)
        estimates = ChiSquareFitter(bounds_of=((name, low, high),)).fit(_slow(model, broadening)[[0]], model)
        assert estimates.label_flags[0, 2] & int(ResultFlag.AT_BOUND), (name, low, high)
        assert not estimates.label_flags[0, 2] & int(ResultFlag.UPPER_LIMIT), (name, low, high)
        assert estimates.flag[0] & int(ResultFlag.AT_BOUND)


def test_a_small_broadening_that_is_measured_is_out_of_the_training_range() -> None:
    """2 km/s, found to be above zero, but below the training's 4: no limit, and the catalogue says where it lies."""
    model = _rotating("vsini")
    estimates = ChiSquareFitter(bounds_of=(("vsini", 0.0, 110.0),)).fit(
        draw(model, np.array([[5200.0, 3.5, 2.0]]), np.random.default_rng(7), error=1e-5, masked=0.0),
        model.with_covariance(ModelCovariance(np.full(200, 1e-12))),
    )
    assert estimates.label_flags[0, 2] == int(ResultFlag.OUT_OF_RANGE)
