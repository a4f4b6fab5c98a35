"""Rotation and instrument on a spectrum of the SYNSPEC library, taken as known between its pixels by cubic splines.

The library's pixels of 0.04 Å are means; at R = 100,000 (0.086 Å) they are what the instrument hardly resolves. So the spline,
convolved with that instrument twenty times finer than the pixels, is the spectrum that is then rotated or degraded.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.prepare import convolve_instrument, rotate_flux

STEP = 0.04 / 20
POWER = 60_000.0


@pytest.fixture(scope="module")
def spectrum(data):
    """Wavelength and flux 20 times finer than the library's, broadened to the native R by a direct sum: a cool dwarf."""
    with np.load(data / "synspec_rvs/spectra.npz", allow_pickle=False) as archive:
        wavelength = archive["wavelength_air_angstrom"]
        labels = archive["labels"]
        row = int(np.argmin(np.abs(labels - [4800, 4.5, 0.2, 1.0]) @ [1 / 100, 1, 1, 0.1]))
        flux = archive["flux_u16"][row] * np.float64(archive["flux_scale"])
    fine = np.arange(8450.0, 8560.0, STEP)
    sigma = 8500 / POWER / FWHM_PER_SIGMA
    offset = STEP * np.arange(-int(7 * sigma / STEP), int(7 * sigma / STEP) + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    return fine, np.convolve(CubicSpline(wavelength, flux)(fine), kernel / kernel.sum(), mode="same")


def _direct(fine, flux, at, weights_of):
    """∫ K f at pixels, by sums over the fine grid; ``weights_of(offset, centre)`` need no normalisation."""
    out = np.empty(at.size)
    for i, centre in enumerate(fine[at]):
        low, high = np.searchsorted(fine, [centre - 14, centre + 14])
        weight = weights_of(fine[low:high] - centre, centre)
        out[i] = weight @ flux[low:high] / weight.sum()
    return out


@pytest.mark.parametrize("vsini", [0.5, 1.4, 3.0, 5.0, 20.0, 100.0, 300.0])
def test_rotation_of_a_real_synthetic_spectrum(spectrum, vsini):
    fine, flux = spectrum
    at = np.arange(20 * 500, fine.size - 20 * 500, 20 * 13)  # pixels, and every 13th of them compared

    def weights(offset, centre):
        reach = centre * vsini / SPEED_OF_LIGHT_KM_S
        points = (offset[:, None] + STEP * ((np.arange(20) + 0.5) / 20 - 0.5)) / reach  # 20 in a bin
        inside = np.maximum(1 - points**2, 0)
        return (2 * 0.4 * np.sqrt(inside) + np.pi / 2 * 0.6 * inside).sum(axis=1)  # METHODS 0.1, its norm aside

    got = rotate_flux(fine[::20], flux[::20], vsini)
    np.testing.assert_allclose(got[at // 20], _direct(fine, flux, at, weights), atol=1e-4)


@pytest.mark.parametrize("power", [1800.0, 11_500.0, 50_000.0])
def test_the_instrument_on_a_real_synthetic_spectrum(spectrum, power):
    fine, flux = spectrum
    at = np.arange(20 * 500, fine.size - 20 * 500, 20 * 13)
    native = 8500 / POWER
    got = convolve_instrument(fine[::20], flux[::20], resolving_power=power, native_fwhm=native)

    def weights(offset, centre):
        sigma = np.sqrt((centre / power) ** 2 - native**2) / FWHM_PER_SIGMA
        return np.exp(-0.5 * (offset / sigma) ** 2)

    np.testing.assert_allclose(got[at // 20], _direct(fine, flux, at, weights), atol=1e-4)
