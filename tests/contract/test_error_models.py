"""What every error model must do, whatever it is. A new one joins by one line in ``EXAMPLES``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.table import Table

from maury.assess.calibration import ErrorInflation, ErrorModel, SnrErrorModel, error_model_from_config
from maury.assess.inflation_along import InflationAlong
from maury.assess.repeats import RepeatErrorModel
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.files import canonical_json
from maury.flags import FitStatus, ResultFlag
from maury.labels import LabelSet, make_label

TEFF, LOGG = make_label("teff", "K"), make_label("logg", "dex")
NAMES, UNITS = ("teff", "logg"), ("K", "dex")
QUADRATIC = ((0.3, 0.2, -0.5, 0.1, 0.05, 0.1, 0.0, 0.02, 0.0, 0.1), (0.1, -0.2, -0.4, 0.1, 0.05, 0.0, 0.0, 0.02, 0.1, 0.1))
RANGES = ((4000.0, 1.0, 20.0), (7000.0, 5.0, 200.0), (5500.0, 3.0, 4.0), (800.0, 1.0, 0.6))
LINEAR_SNR = ((5500.0, 3.0, 80.0), (800.0, 1.0, 50.0))

EXAMPLES: dict[str, ErrorModel] = {
    "snr": SnrErrorModel(NAMES, UNITS, ((0.01, -3.0, 300.0), (0.0, -1e-3, 0.3)), (75.0, 0.2), (150.0, 100.0), (20.0, 200.0)),
    "inflation": ErrorInflation(NAMES, UNITS, (2.0, 3.0), (40.0, 0.1), (20.0, 200.0)),
    "inflation-along": InflationAlong(
        NAMES, UNITS, "teff", (4500.0, 6000.0), ((1.0, 2.0), (1.5, 1.0)), ((40.0, 0.1), (90.0, 0.3)), snr_range=(20.0, 200.0)
    ),
    "repeats": RepeatErrorModel(NAMES, UNITS, NAMES, *RANGES, QUADRATIC),
    "repeats-absolute": RepeatErrorModel(NAMES, UNITS, NAMES, *RANGES, QUADRATIC, relative=False),
    "repeats-as-published": RepeatErrorModel(
        NAMES, UNITS, NAMES, *RANGES[:2], *LINEAR_SNR, QUADRATIC, relative=False, log_snr=False, variant="as_published"
    ),
}


@pytest.fixture(params=EXAMPLES)
def model(request: pytest.FixtureRequest) -> ErrorModel:
    return EXAMPLES[request.param]


def estimates_of(snr: list[float]) -> LabelEstimates:
    """Stars inside all ranges, the last of which failed."""
    n = len(snr)
    labels = LabelSet((TEFF, LOGG), (5000.0, 4.0), (500.0, 0.5), (4000.0, 1.0), (7000.0, 5.0))
    values = np.column_stack([np.linspace(4500.0, 6500.0, n), np.linspace(1.5, 4.5, n)])
    errors = np.column_stack([np.linspace(10.0, 60.0, n), np.linspace(0.05, 0.2, n)])
    values[-1] = errors[-1] = np.nan
    correlation = np.array([[1.0, -0.6], [-0.6, 1.0]])
    return LabelEstimates(
        labels,
        np.array([f"s{i}" for i in range(n)]),
        values,
        correlation * errors[:, :, None] * errors[:, None, :],
        np.ones(n),
        np.full(n, 100),
        (FitStatus.CONVERGED,) * n,
        np.zeros(n, np.int64),
        np.zeros((n, 2), np.int64),
        ("",) * n,
        Table({"snr": snr}),
    )


SNR = [25.0, 60.0, 120.0, 180.0, 50.0]


def test_it_is_an_error_model_that_survives_a_file(model: ErrorModel) -> None:
    assert isinstance(model, ErrorModel)
    assert error_model_from_config(json.loads(canonical_json(model.to_config(), "test"))) == model


def test_errors_change_and_nothing_else(model: ErrorModel) -> None:
    before = estimates_of(SNR)
    kept = before.covariance.copy()
    after = model.apply(before)
    np.testing.assert_array_equal(before.covariance, kept)
    np.testing.assert_array_equal(after.values, before.values)
    assert (after.errors[:-1] > 0).all()
    assert not np.allclose(after.errors[:-1], before.errors[:-1])
    np.testing.assert_allclose(after.correlation[:-1], before.correlation[:-1])
    assert after.raw_covariance is before.covariance
    assert (after.flag == 0)[:-1].all()


def test_a_failed_star_stays_failed(model: ErrorModel) -> None:
    after = model.apply(estimates_of(SNR))
    assert np.isnan(after.errors[-1]).all()
    assert np.isnan(after.values[-1]).all()


def test_a_star_alone_gets_the_same_error(model: ErrorModel) -> None:
    before = estimates_of(SNR)
    np.testing.assert_allclose(model.apply(before[1:2]).covariance[0], model.apply(before).covariance[1])


def test_the_order_of_labels_is_the_estimates_own(model: ErrorModel) -> None:
    before = estimates_of(SNR)
    turned = before.with_(
        labels=LabelSet((LOGG, TEFF), (4.0, 5000.0), (0.5, 500.0), (1.0, 4000.0), (5.0, 7000.0)),
        values=before.values[:, ::-1],
        covariance=before.covariance[:, ::-1, ::-1],
    )
    np.testing.assert_allclose(model.apply(turned).errors[:, ::-1], model.apply(before).errors)


@pytest.mark.parametrize("snr", [5.0, 900.0, np.nan, -9999.0])
def test_what_it_was_not_calibrated_for_is_flagged(model: ErrorModel, snr: float) -> None:
    after = model.apply(estimates_of([60.0, snr, 60.0, 60.0, 60.0]))
    assert [bool(flag & ResultFlag.ERROR_EXTRAPOLATED) for flag in after.flag[:4]] == [False, True, False, False]
    assert (after.errors[:4] > 0).all()


def test_snr_given_wins_over_meta(model: ErrorModel) -> None:
    expected = model.apply(estimates_of([100.0] * 5))
    np.testing.assert_array_equal(model.apply(estimates_of(SNR), [100.0] * 5).errors, expected.errors)
    with pytest.raises(UsageError, match="expected one signal-to-noise ratio for each of 5 stars"):
        model.apply(estimates_of(SNR), [1.0])


def test_estimates_of_other_labels_are_refused(model: ErrorModel) -> None:
    before = estimates_of(SNR)
    others = before.with_(
        labels=LabelSet((TEFF, make_label("fe_h", "dex")), (5000.0, 0.0), (500.0, 0.5), (4000.0, -2.0), (7000.0, 0.5))
    )
    with pytest.raises(UsageError, match=r"that the errors were learned for, got .*; use its own error model"):
        model.apply(others)
