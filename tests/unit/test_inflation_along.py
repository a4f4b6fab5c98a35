"""Errors whose scale and floor change along a label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maury.assess.calibration import error_model_from_config
from maury.assess.inflation_along import InflationAlong, fit_inflation_along
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import FitStatus
from maury.labels import LabelSet, make_label
from maury.spectra import empty_meta


def stars(n: int, seed: int = 5) -> tuple[LabelSet, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, estimated values, formal errors (30 K, 0.05 dex), residuals of 1 % of Teff and 0.1 dex (0.4 above 8000 K)."""
    rng = np.random.default_rng(seed)
    values = np.column_stack([np.exp(rng.uniform(np.log(4000), np.log(20_000), n)), rng.uniform(1, 5, n)])
    labels = LabelSet.from_training((make_label("teff", "K", "log10"), make_label("logg", "dex")), values)
    errors = np.tile([30.0, 0.05], (n, 1))
    true_error = np.column_stack([0.01 * values[:, 0], np.where(values[:, 0] > 8000, 0.4, 0.1)])
    return labels, values, errors, true_error * rng.normal(size=(n, 2))


def test_errors_follow_the_residuals_along_teff() -> None:
    labels, values, errors, residuals = stars(4000)
    model = fit_inflation_along(residuals, errors, values, labels, by="teff", stars_per_bin=400)
    sigma = model.sigma(values, errors)
    pulls = residuals / sigma
    # the step at 8000 K is smeared over the bins beside it, each 17 % of Teff wide
    for low, high in ((4000, 5500), (5500, 6700), (9500, 20_000)):
        chosen = (values[:, 0] > low) & (values[:, 0] < high)
        # 480 stars and more: the scatter of the robust scatter is 4 %
        assert 1.4826 * np.median(np.abs(pulls[chosen]), axis=0) == pytest.approx([1, 1], abs=0.13)
    at = np.array([[5000.0, 3.0], [15_000.0, 3.0]])
    assert model.sigma(at, errors[:2])[:, 0] == pytest.approx([50, 150], rel=0.15)


def test_outside_the_nodes_the_ends_hold_and_nan_stays_nan() -> None:
    labels, values, errors, residuals = stars(400)
    model = fit_inflation_along(residuals, errors, values, labels, by="teff", stars_per_bin=100)
    ends = np.array([[model.nodes[0], 3.0], [100.0, 3.0], [model.nodes[-1], 3.0], [1e6, 3.0], [np.nan, np.nan]])
    sigma = model.sigma(ends, np.tile([30.0, 0.05], (5, 1)))
    np.testing.assert_allclose(sigma[0], sigma[1])
    np.testing.assert_allclose(sigma[2], sigma[3])
    assert np.isnan(sigma[4]).all()


def test_estimates_keep_correlations_and_the_model_its_file() -> None:
    labels, values, errors, residuals = stars(400)
    model = fit_inflation_along(residuals, errors, values, labels, by="teff", stars_per_bin=100)
    covariance = np.tile(np.array([[900.0, 0.75], [0.75, 0.0025]]), (3, 1, 1))
    ids, zero = np.array(["a", "b", "c"]), np.zeros(3, np.int64)
    before = LabelEstimates(
        labels, ids, values[:3], covariance, np.ones(3), zero + 100, (FitStatus.CONVERGED,) * 3, zero,
        np.zeros((3, 2), np.int64), ("",) * 3, empty_meta(3),
    )  # fmt: skip
    after = error_model_from_config(model.to_config()).apply(before)
    np.testing.assert_allclose(after.errors, model.sigma(values[:3], before.errors))
    np.testing.assert_allclose(after.correlation, before.correlation)
    np.testing.assert_array_equal(after.raw_covariance, covariance)


def test_wrong_usage() -> None:
    labels, values, errors, residuals = stars(100)
    with pytest.raises(UsageError, match="expected at least two bins of at least 40 stars for errors along teff, got 100 stars"):
        fit_inflation_along(residuals, errors, values, labels, by="teff", stars_per_bin=75)
    model = fit_inflation_along(residuals, errors, values, labels, by="teff", stars_per_bin=50)
    with pytest.raises(UsageError, match="expected increasing nodes"):
        replace(model, nodes=model.nodes[::-1])
    with pytest.raises(UsageError, match="expected a label among teff, logg to sort by, got 'fe_h'"):
        InflationAlong(model.labels, model.units, "fe_h", model.nodes, model.scale, model.floor)
