"""Broadening against a direct sum over a grid twenty times finer, of spectra that are known between the pixels.

The reference shares nothing with the package: its profiles are written out here (rotation and macroturbulence as integrals over
the disk of a star), and the spectrum is evaluated, not interpolated.

The lines are Gaussian in optical depth with σ = 0.07 Å (2.5 km/s: thermal motion and microturbulence of iron in a cool star) on
pixels of 0.04 Å. What a grid does not hold cannot be convolved: with σ = 1.2 pixels, 8e-4 of a line's height lies beyond the
Nyquist frequency, with 1.75 it is 3e-7 (and, for a saturated line, some 1e-5).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import voigt_profile, wofz

from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.prepare import convolve_instrument, macroturbulence_flux, rotate_flux

TOLERANCE = 1e-4
"""Of the continuum: what the issue asks."""
OVERSAMPLING = 20
START, STOP, STEP = 8500.0, 8560.0, 0.04
LINE_SIGMA = 0.07
_RNG = np.random.default_rng(11)  # fixed: the same lines every time
LINES = np.column_stack([_RNG.uniform(START - 30, STOP + 30, 90), _RNG.uniform(0.1, 1.5, 90)])
VSINI = [0.0, 0.1, 0.7, 1.5, 2.5, 2.8, 4.0, 10.0, 50.0, 300.0]


def flux_at(wavelength: np.ndarray) -> np.ndarray:
    """The spectrum, wherever it is asked for."""
    depth = np.zeros(wavelength.shape)
    for centre, strength in LINES:
        depth += strength * np.exp(-0.5 * ((wavelength - centre) / LINE_SIGMA) ** 2)
    return np.exp(-depth)


GRIDS = {
    "linear": np.arange(START, STOP, STEP),
    "log": START * np.exp(np.arange(0, np.log(STOP / START), STEP / STOP)),
    "warped": np.arange(START, STOP, STEP) + 0.1 * np.sin(np.arange(START, STOP, STEP)),
    "two steps": np.concatenate([np.arange(START, 8530.0, STEP / 2), np.arange(8530.0, STOP, STEP)]),  # as PHOENIX at 1 µm
    "rounded": np.round(np.arange(START, STOP, 0.0375), 2),  # steps of 0.03 and 0.04: two decimals, as tables have
}


def _direct(wavelength: np.ndarray, half: np.ndarray, weights) -> np.ndarray:
    """∫ K f by a sum over points twenty times finer than the pixels; ``weights(offset Å, step Å, pixel)`` are bin integrals."""
    step = STEP / OVERSAMPLING
    out = np.empty(wavelength.size)
    for i, centre in enumerate(wavelength):
        offset = step * np.arange(-int(half[i] / step) - 1, int(half[i] / step) + 2)
        w = weights(offset, step, centre)
        out[i] = w @ flux_at(centre + offset) / w.sum()
    return out


def _gray(x: np.ndarray, limb_darkening: float) -> np.ndarray:
    """METHODS 0.1, as it stands there, its norm aside."""
    e, inside = limb_darkening, np.maximum(1 - x**2, 0)
    return 2 * (1 - e) * np.sqrt(inside) + np.pi / 2 * e * inside


def _macroturbulence(x: np.ndarray) -> np.ndarray:
    """∫ over the disk: at the projected radius sin θ the speeds are Gaussians of ζ cos θ (radial) and ζ sin θ (tangential)."""
    theta = (np.arange(400) + 0.5) * (np.pi / 2) / 400
    area = np.sin(theta) * np.cos(theta)
    speeds = np.concatenate([np.cos(theta), np.sin(theta)])
    density = np.exp(-((x[..., None] / speeds) ** 2)) / speeds
    return density @ np.concatenate([area, area])


def _velocity(density, velocity: float):
    """Bin integrals of a density in x = v / velocity, by the midpoint rule with 40 points in a bin."""

    def weights(offset, step, centre):
        width = centre * velocity / SPEED_OF_LIGHT_KM_S
        points = offset[:, None] + step * ((np.arange(40) + 0.5) / 40 - 0.5)
        return density(points / width).sum(axis=1)

    return weights


def _some(wavelength: np.ndarray, margin: float) -> np.ndarray:
    """Every ninth pixel that is no nearer to an end than a margin in Å."""
    inside = np.flatnonzero((wavelength > START + margin) & (wavelength < STOP - margin))
    return inside[::9]


@cache
def _rotated(grid: str, vsini: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and the exact flux there."""
    wavelength = GRIDS[grid]
    reach = wavelength * vsini / SPEED_OF_LIGHT_KM_S
    at = _some(wavelength, reach.max() + 0.5)
    if vsini == 0:
        return at, flux_at(wavelength[at])
    return at, _direct(wavelength[at], reach[at], _velocity(lambda x: _gray(x, 0.6), vsini))


@pytest.mark.parametrize("grid", GRIDS)
def test_rotation_is_exact_whatever_the_grid(grid):
    """v sin i from 0 over less than a pixel (1.4 km/s) to 300 km/s: together with own values, and one at a time."""
    wavelength = GRIDS[grid]
    flux = flux_at(wavelength)
    many = rotate_flux(wavelength, flux, VSINI)
    for vsini, row in zip(VSINI, many, strict=True):
        at, exact = _rotated(grid, vsini)
        np.testing.assert_allclose(row[at], exact, atol=TOLERANCE, err_msg=f"vsini {vsini}")
        np.testing.assert_allclose(rotate_flux(wavelength, flux, vsini), row, atol=1e-12)
    own = rotate_flux(wavelength, np.tile(flux, (len(VSINI), 1)), VSINI)
    np.testing.assert_allclose(own, many, atol=1e-12)


@pytest.mark.parametrize("limb_darkening", [0.0, 1.0])
def test_limb_darkening(limb_darkening):
    wavelength = GRIDS["linear"]
    at = _some(wavelength, 1.5)
    reach = wavelength[at] * 20 / SPEED_OF_LIGHT_KM_S
    exact = _direct(wavelength[at], reach, _velocity(lambda x: _gray(x, limb_darkening), 20.0))
    got = rotate_flux(wavelength, flux_at(wavelength), 20.0, limb_darkening)
    np.testing.assert_allclose(got[at], exact, atol=TOLERANCE)


@pytest.mark.parametrize("v_macro", [0.5, 1.5, 2.4, 3.0, 6.0, 30.0])
def test_macroturbulence_is_exact(v_macro):
    wavelength = GRIDS["linear"]
    grid = np.linspace(0, 5, 2001)
    table = CubicSpline(grid, _macroturbulence(grid))
    macro = lambda x: table(np.minimum(np.abs(x), 5))  # noqa: E731
    reach = 4 * wavelength * v_macro / SPEED_OF_LIGHT_KM_S
    at = _some(wavelength, reach.max() + 0.5)
    exact = _direct(wavelength[at], reach[at], _velocity(macro, v_macro))
    got = macroturbulence_flux(wavelength, flux_at(wavelength), v_macro)
    np.testing.assert_allclose(got[at], exact, atol=TOLERANCE)


def _parts(fwhm: float, eta: float) -> tuple[float, float]:
    """FWHM of the Gaussian and Lorentzian parts of a Voigt profile: METHODS 0.2, solved for f_G by bisection."""
    gauss = brentq(lambda g: 0.5346 * eta * g + np.sqrt(0.2166 * (eta * g) ** 2 + g**2) - fwhm, 0.0, fwhm, xtol=1e-14)
    return gauss, eta * gauss


POWERS = [1800.0, 11_500.0, 40_000.0, 60_000.0, 100_000.0, 300_000.0]


# a Voigt profile of R = 1800 reaches 20 FWHM, beyond this grid: test_a_broad_voigt_profile
@pytest.mark.parametrize(
    ("profile", "resolving_power"), [*(("gaussian", r) for r in POWERS), *(("voigt", r) for r in POWERS[1:])]
)
def test_the_instrument_is_exact(profile, resolving_power):
    """FWHM from 120 pixels down to 0.7."""
    wavelength = GRIDS["linear"]
    got = convolve_instrument(wavelength, flux_at(wavelength), resolving_power=resolving_power, profile=profile)
    fwhm = wavelength / resolving_power
    eta = 0.6 if profile == "voigt" else 0.0
    reach = fwhm * (20 if profile == "voigt" else 3)
    at = _some(wavelength, reach.max() + 0.5)

    def weights(offset, step, centre):
        gauss, lorentz = _parts(centre / resolving_power, eta)
        return wofz((offset + 0.5j * lorentz) / (gauss / FWHM_PER_SIGMA * np.sqrt(2))).real

    np.testing.assert_allclose(got[at], _direct(wavelength[at], reach[at], weights), atol=TOLERANCE)


def test_a_broad_voigt_profile():
    """Of a Voigt line a Voigt kernel makes a Voigt line: widths of the parts add up linearly and in squares."""
    wavelength = np.arange(8000.0, 9000.0, 1.0)
    own_sigma, own_lorentz, area = 2.0, 1.5, 2.0
    gauss, lorentz = _parts(8500.0 / 1800, 0.6)
    sigma = gauss / FWHM_PER_SIGMA
    before = 1 - area * voigt_profile(wavelength - 8500, own_sigma, own_lorentz / 2)
    got = convolve_instrument(wavelength, before, fwhm=8500 / 1800, profile="voigt")
    after = 1 - area * voigt_profile(wavelength - 8500, np.hypot(own_sigma, sigma), (own_lorentz + lorentz) / 2)
    middle = np.abs(wavelength - 8500) < 50
    # beyond 20 FWHM the wings, f_L/(2π d²), are cut, and the 0.7 % that they hold is given to the rest (METHODS 0.2)
    kept = 1 - lorentz / (np.pi * 20 * 8500 / 1800)
    np.testing.assert_allclose(1 - got[middle], (1 - after[middle]) / kept, atol=TOLERANCE)


def test_rotation_and_instrument_commute():
    wavelength = GRIDS["linear"]
    flux = flux_at(wavelength)
    for vsini in (1.0, 10.0, 100.0):
        for resolving_power in (11_500.0, 100_000.0):
            one = convolve_instrument(wavelength, rotate_flux(wavelength, flux, vsini), resolving_power=resolving_power)
            other = rotate_flux(wavelength, convolve_instrument(wavelength, flux, resolving_power=resolving_power), vsini)
            at = _some(wavelength, 9000 * (vsini / SPEED_OF_LIGHT_KM_S + 3 / resolving_power))
            np.testing.assert_allclose(one[at], other[at], atol=TOLERANCE)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("profile", ["gaussian", "voigt"])
def test_the_instrument_is_exact_whatever_the_grid(grid, profile):
    """At a change of step a sum over pixel centres was off by 2e-4, and on rounded wavelengths by 7e-3."""
    wavelength = GRIDS[grid]
    for resolving_power in (40_000.0, 100_000.0):
        reach = wavelength / resolving_power * (20 if profile == "voigt" else 3)
        at = np.flatnonzero((wavelength > START + 5) & (wavelength < STOP - 5))
        at = np.unique(np.concatenate([at[::29], at[np.abs(wavelength[at] - 8530) < 0.3]]))

        def weights(offset, step, centre, power=resolving_power):
            gauss, lorentz = _parts(centre / power, 0.6 if profile == "voigt" else 0.0)
            return wofz((offset + 0.5j * lorentz) / (gauss / FWHM_PER_SIGMA * np.sqrt(2))).real

        got = convolve_instrument(wavelength, flux_at(wavelength), resolving_power=resolving_power, profile=profile)
        exact = _direct(wavelength[at], reach[at], weights)
        np.testing.assert_allclose(got[at], exact, atol=TOLERANCE, err_msg=f"R {resolving_power}")


@pytest.mark.parametrize("vsini", [2.0, 5.0, 50.0])
def test_windows_far_apart_are_each_as_exact_as_alone(vsini):
    """One grid in ln λ over both would be 18 times coarser than the pixels (and was capped there: 5e-3 off at 50 km/s)."""
    red, blue = GRIDS["linear"], GRIDS["linear"] - 5000
    both = np.concatenate([blue, red])
    flux = np.concatenate([flux_at(blue + 5000), flux_at(red)])
    got = rotate_flux(both, np.stack([flux, flux]), vsini)
    np.testing.assert_allclose(got[0, blue.size :], rotate_flux(red, flux_at(red), vsini), atol=1e-12)
    np.testing.assert_allclose(got[1, : blue.size], rotate_flux(blue, flux_at(red), vsini), atol=1e-12)


def test_gray_s_profile_is_that_of_a_rotating_disk():
    """A narrow line at 20 km/s against the disk of a star, summed over 1.6e5 points: I = 1 − ε + ε cos θ, shift x v sin i."""
    wavelength, v = GRIDS["linear"], 20.0
    n = 400
    x, y = ((np.arange(n) + 0.5) / n * 2 - 1)[:, None], (np.arange(n) + 0.5) / n * 2 - 1
    inside = x**2 + y**2 < 1
    surface = np.where(inside, 0.4 + 0.6 * np.sqrt(np.where(inside, 1 - x**2 - y**2, 0)), 0).sum(axis=1)
    strip = surface / surface.sum()
    at = _some(wavelength, 1.5)
    exact = np.array([strip @ flux_at(w * (1 + x[:, 0] * v / SPEED_OF_LIGHT_KM_S)) for w in wavelength[at]])
    np.testing.assert_allclose(rotate_flux(wavelength, flux_at(wavelength), v)[at], exact, atol=TOLERANCE)


@pytest.mark.parametrize("grid", ["linear", "log", "two steps"])
@pytest.mark.parametrize("vsini", [0.3, 2.0, 5.0, 300.0])
def test_flux_is_conserved_and_a_constant_stays(grid, vsini):
    """One line well inside: its equivalent width in Å. (v/c)² ⟨x²⟩ / 2 is 1e-7 at 300 km/s: the limit of profiles in ln λ."""
    wavelength = GRIDS[grid]
    line = 1 - 0.7 * np.exp(-0.5 * ((wavelength - 8535.0) / (2.5 * STEP)) ** 2)
    before, after = (CubicSpline(wavelength, 1 - f).integrate(START, 8559) for f in (line, rotate_flux(wavelength, line, vsini)))
    np.testing.assert_allclose(after, before, rtol=1e-6)
    np.testing.assert_allclose(rotate_flux(wavelength, np.full(wavelength.size, 7.25), vsini), 7.25, rtol=1e-12)
    np.testing.assert_allclose(macroturbulence_flux(wavelength, np.full(wavelength.size, 7.25), vsini / 5), 7.25, rtol=1e-12)
