"""The cut on the slope of the continuum (Galgano+2020): what falls too steeply keeps its row and says why."""

from __future__ import annotations

import numpy as np
import pytest

from maury.errors import UsageError
from maury.prepare import Preparation, RejectSlope, Resample
from maury.spectra import Spectra, empty_meta


def straight(slopes: list[float]) -> Spectra:
    """Lines of these slopes, in units of the median per 1000 Å, at an arbitrary level."""
    wavelength = np.arange(4400.0, 5600.0, 1.0)
    flux = 700.0 * (1.0 + np.array(slopes)[:, None] * (wavelength - 5000.0) / 1000.0)
    meta = empty_meta(len(slopes))
    meta["rv"] = 0.0
    return Spectra.from_arrays(wavelength, flux, error=np.full(flux.shape, 7.0), medium="vacuum", frame="observed", meta=meta)


def test_the_slope_of_a_straight_line_is_found() -> None:
    # 3 %: the continuum of a line bends over the last 50 Å at either end, where neighbours lie on one side only
    np.testing.assert_allclose(RejectSlope().slope(straight([-1.5, 0.0, 0.8])), [-1.5, 0.0, 0.8], rtol=0.03, atol=1e-9)


def test_a_steep_spectrum_fails_alone() -> None:
    preparation = Preparation((Resample(start=4450, stop=5550), RejectSlope(minimum=-1.0)))
    result = preparation.prepare_each(straight([0.2, -1.5, -0.3]))
    assert result.spectra is not None
    assert [source.row for source in result.sources] == [0, 2]
    assert [failure.rows for failure in result.failures] == [(1,)]
    assert "expected a continuum slope of at least -1 per 1000 Å" in result.failures[0].reason
    with pytest.raises(UsageError, match="extraction or flux calibration"):
        preparation(straight([0.2, -1.5, -0.3]))


def test_masked_pixels_have_no_influence_and_no_pixels_no_verdict() -> None:
    spectra = straight([-0.5, -0.5])
    flux, ivar = np.array(spectra.flux), np.array(spectra.ivar)
    ivar[0, 300:360] = 0.0
    flux[0, 300:360] = 1e9
    ivar[1] = 0.0
    slope = RejectSlope().slope(spectra.with_pixels(flux=flux, ivar=ivar))
    assert slope[0] == pytest.approx(-0.5, rel=0.03)
    assert np.isnan(slope[1])
    assert RejectSlope(start=6000.0, stop=7000.0)(spectra) is spectra


@pytest.mark.parametrize("settings", [{"length": 0.0}, {"minimum": float("nan")}, {"start": 5500.0, "stop": 4500.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        RejectSlope(**settings)
