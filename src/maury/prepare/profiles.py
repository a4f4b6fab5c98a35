"""Line-broadening profiles in closed form: each as a density, as its integral, and as its Fourier transform.

A profile is written in a coordinate x = distance from the line's centre over the profile's width, so that one function serves
every velocity and wavelength. All integrate to 1. The transform is ∫ K(x) cos(s x) dx at the angular frequency s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial
from typing import ClassVar, Protocol

import numpy as np

from maury.errors import UsageError
from maury.prepare.arrays import real_number
from maury.prepare.grid import FloatArray

_STEP = 0.004
"""Spacing of tabulated transforms in s: linear interpolation is then off by less than 1/8 · 0.004² · ⟨x²⟩ = 5e-7."""
_SMALL = 0.3
"""Below this argument a power series replaces formulas that lose digits."""


class VelocityProfile(Protocol):
    """A symmetric profile whose width is a velocity, so that it is the same everywhere in ln λ (hashable)."""

    reach: ClassVar[float]
    """Beyond this x there is nothing (or, for infinite wings, less than 1e-7 of the whole)."""

    def __hash__(self) -> int: ...
    def density(self, x: FloatArray) -> FloatArray: ...
    def cumulative(self, x: FloatArray) -> FloatArray: ...
    def transform(self, s: FloatArray) -> FloatArray: ...
    def moment(self, k: int) -> float:
        """⟨x²ᵏ⟩."""
        ...


@dataclass(frozen=True)
class RotationProfile:
    """Gray's profile of a rigidly rotating sphere with linear limb darkening; the width is v sin i, |x| ≤ 1.

    K(x) = [2(1−ε) √(1−x²) + (π/2) ε (1−x²)] / [π (1−ε/3)] (Gray 2005, The Observation and Analysis of Stellar Photospheres,
    3rd ed., eq. 18.14; METHODS 0.1). Transform: [(1−ε) 2 J₁(s)/s + 2 ε (sin s − s cos s)/s³] / (1−ε/3).

    Parameters
    ----------
    limb_darkening : ε in [0, 1]; 0.6 is the field's default.
    """

    limb_darkening: float = 0.6

    reach: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 0 <= real_number("limb darkening", self.limb_darkening) <= 1:
            raise UsageError(f"expected limb darkening in [0, 1], got {self.limb_darkening}; 0.6 is usual")

    def density(self, x: FloatArray) -> FloatArray:
        e, inside = self.limb_darkening, np.maximum(1 - x**2, 0.0)
        values: FloatArray = (2 * (1 - e) * np.sqrt(inside) + 0.5 * np.pi * e * inside) / (np.pi * (1 - e / 3))
        return values

    def cumulative(self, x: FloatArray) -> FloatArray:
        e, x = self.limb_darkening, np.clip(x, -1.0, 1.0)
        disk = (1 - e) * (x * np.sqrt(1 - x**2) + np.arcsin(x))
        values: FloatArray = 0.5 + (disk + 0.5 * np.pi * e * (x - x**3 / 3)) / (np.pi * (1 - e / 3))
        return values

    def transform(self, s: FloatArray) -> FloatArray:
        from scipy.special import j1

        e, small = self.limb_darkening, np.abs(s) < _SMALL
        t = np.where(small, 1.0, s)
        squared = np.where(small, s, 0.0) ** 2
        disk = np.where(small, 1 - squared / 8 * (1 - squared / 24 * (1 - squared / 48)), 2 * j1(t) / t)
        # J3/2: (sin s − s cos s)/s³ = 1/3 − s²/30 + s⁴/840 − s⁶/45360 ...
        series = 1 / 3 - squared / 30 * (1 - squared / 28 * (1 - squared / 54))
        darkened = np.where(small, series, (np.sin(t) - t * np.cos(t)) / t**3)
        values: FloatArray = ((1 - e) * disk + 2 * e * darkened) / (1 - e / 3)
        return values

    def moment(self, k: int) -> float:
        e, catalan = self.limb_darkening, comb(2 * k, k) / (k + 1)
        return float((1 - e) * catalan / 4**k + 2 * e / ((2 * k + 1) * (2 * k + 3))) / (1 - e / 3)


@dataclass(frozen=True)
class RadialTangentialProfile:
    """Gray's radial–tangential macroturbulence of a disk without limb darkening; the width is ζ = ζ_R = ζ_T.

    Half of the surface (any part: it drops out when the two velocities are equal) moves radially, half tangentially, with
    Gaussian speeds exp(−v²/ζ²). Over the disk (Gray 2005, sect. 17.4; Gray 1975, ApJ 202, 148):
    K(x) = (2/√π) ∫₀¹ exp(−x²/u²) du = (2/√π) [exp(−x²) − √π |x| erfc |x|]. Transform: [1 − exp(−s²/4)] / (s²/4).
    """

    reach: ClassVar[float] = 4.0

    def density(self, x: FloatArray) -> FloatArray:
        from scipy.special import erfc

        a = np.abs(x)
        values: FloatArray = 2 * (np.exp(-(a**2)) / np.sqrt(np.pi) - a * erfc(a))
        return np.maximum(values, 0.0)

    def cumulative(self, x: FloatArray) -> FloatArray:
        from scipy.special import erf, erfc

        a = np.abs(x)
        half = 0.5 * erf(a) - a**2 * erfc(a) + a * np.exp(-(a**2)) / np.sqrt(np.pi)
        values: FloatArray = 0.5 + np.sign(x) * half
        return values

    def transform(self, s: FloatArray) -> FloatArray:
        quarter = 0.25 * s**2
        values: FloatArray = np.where(quarter > 0, -np.expm1(-quarter) / np.where(quarter > 0, quarter, 1.0), 1.0)
        return values

    def moment(self, k: int) -> float:
        return float(factorial(2 * k) / (4**k * factorial(k) * (k + 1)))


def tabulated_transform(profile: VelocityProfile, s: FloatArray) -> FloatArray:
    """The transform at s ≥ 0 to 5e-7, from a table that is kept: ten times as fast."""
    largest = float(s.max(initial=0.0))
    table, slope = _table(profile, 1 << int(np.ceil(np.log2(largest / _STEP + 2))))
    place = s * (1 / _STEP)
    index = place.astype(np.int32)
    place -= index
    place *= slope[index]
    place += table[index]
    return place


@lru_cache(maxsize=8)
def _table(profile: VelocityProfile, size: int) -> tuple[FloatArray, FloatArray]:
    values = profile.transform(_STEP * np.arange(size + 1.0))
    return values[:-1], np.diff(values)


def voigt_profile(distance: FloatArray, sigma: FloatArray, lorentz_fwhm: FloatArray) -> FloatArray:
    """V = Re w(z) / (σ √2π), z = (d + i f_L/2) / (σ √2) (METHODS 0.2); a Lorentzian where σ is 0; its integral is 1."""
    from scipy.special import voigt_profile as voigt

    values: FloatArray = voigt(distance, sigma, 0.5 * lorentz_fwhm)
    return values


def voigt_widths(fwhm: FloatArray, eta: float) -> tuple[FloatArray, FloatArray]:
    """FWHM of the Gaussian and of the Lorentzian part, in the unit of ``fwhm``.

    From f_V = 0.5346 f_L + √(0.2166 f_L² + f_G²) (Olivero & Longbothum 1977, JQSRT 17, 233; good to 0.02 %) and η = f_L/f_G.
    """
    gauss = fwhm / (0.5346 * eta + np.sqrt(0.2166 * eta**2 + 1.0))
    return gauss, eta * gauss
