"""Radial velocity as one more label, smooth in the velocity, for any emulator.

Spectra come in the rest frame of the velocity they were given; what is left of it (an error of the header, a binary, a zero
point) would go into the labels. The Payne fits it along and interpolates its model linearly between pixels (METHODS 0.6), which
puts a kink into chi-square at every pixel and stalls fits. Here the model is moved by quintic splines. For an emulator that is
linear in terms, this is done at a few velocities (Chebyshev nodes over the range), with the polynomial through them in between:
smooth to all orders, and still linear in terms. How many nodes are needed is measured on the model itself; quintic, because cubic
splines have a kink in their third derivative at every pixel: polynomials need twice the nodes to follow them to 1e-5, and at 2.4
pixels per line width the spline itself errs twice as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.labels import KNOWN_LABELS, LabelSet
from maury.protocols import Emulator, ModelCovariance, TermEmulator

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

FloatArray = NDArray[np.float64]

NAME = "delta_rv"
_CHECKS = np.array([-0.97, -0.7, -0.4, -0.15, 0.3, 0.55, 0.85])  # of half the range: where nodes are tried, between most of them
_DEGREE = 5
_CHECKED_PIXELS = 1500  # of those reached, evenly spread: enough to measure an rms


@dataclass(frozen=True)
class VelocityLabel:
    """The velocity that is fitted along with the labels.

    Parameters
    ----------
    max_km_s : bound on either side; a few line widths. A star that needs more is at the bound and flagged so.
    """

    max_km_s: float

    def __post_init__(self) -> None:
        if not 0 < self.max_km_s < 0.01 * SPEED_OF_LIGHT_KM_S:
            raise UsageError(f"expected a largest velocity between 0 and 3000 km/s, got {self.max_km_s}; measure it first")

    def labels(self, labels: LabelSet) -> LabelSet:
        """The labels with the velocity as the last one."""
        return labels.with_label(KNOWN_LABELS[NAME], -self.max_km_s, self.max_km_s)

    def extend(self, emulator: Emulator) -> MovingEmulator:
        """The emulator with the velocity as its last label."""
        return MovingEmulator(emulator, self)


@dataclass(frozen=True, eq=False)
class MovingEmulator:
    """An emulator whose last label is a velocity: flux(λ) = rest flux(λ / (1 + v/c)).

    Pixels within the largest velocity of an end of the grid, or of a pixel that the model does not know, are unknown here.

    Parameters
    ----------
    rest : the emulator at rest.
    velocity : range of the velocity.
    """

    rest: Emulator
    velocity: VelocityLabel

    @property
    def labels(self) -> LabelSet:
        return self.velocity.labels(self.rest.labels)

    @property
    def wavelength(self) -> FloatArray:
        return self.rest.wavelength

    @cached_property
    def model_covariance(self) -> ModelCovariance:
        covariance = self.rest.model_covariance
        return ModelCovariance(np.where(self._reached, covariance.diagonal, np.inf), covariance.factors)

    @cached_property
    def _reached(self) -> NDArray[np.bool_]:
        """(n_pixels,) whose flux comes from known pixels at every velocity allowed."""
        wave, known = self.wavelength, self.rest.model_covariance.known
        reach = wave * self.velocity.max_km_s / SPEED_OF_LIGHT_KM_S
        if not known.any():
            return known
        unknown = np.concatenate([[wave[0] - 1e-9], wave[~known], [wave[-1] + 1e-9]])
        right = np.searchsorted(unknown, wave, side="left")
        nearest = np.minimum(np.abs(unknown[np.minimum(right, len(unknown) - 1)] - wave), np.abs(wave - unknown[right - 1]))
        return np.asarray(known & (nearest > reach))

    def nodes(self, low: float, high: float, tolerance: float, numbers: tuple[int, ...]) -> FloatArray:
        """(m,) km/s: Chebyshev nodes between two velocities, as few as move this model's spectra to ``tolerance``.

        The tolerance is the rms of what is lost of the flux.

        Parameters
        ----------
        low, high : ends of the range, km/s.
        numbers : of nodes, those that are tried.

        Raises
        ------
        UsageError
            If the range is too wide for a polynomial.
        """
        spline, wave = self._checked
        check = 0.5 * (high + low) + 0.5 * (high - low) * _CHECKS
        exact = _at_velocities(spline, wave, check)
        for n in numbers:
            nodes = chebyshev_nodes(low, high, n)
            error = np.tensordot(NodePolynomial(nodes).weights(check, 1)[0], _at_velocities(spline, wave, nodes), axes=1) - exact
            if not error.size or np.sqrt(np.mean(error**2)) < tolerance:
                return np.asarray(nodes)
        raise UsageError(
            f"expected a velocity range of a few line widths, got {self.velocity.max_km_s} km/s; measure the velocity first"
        )

    @cached_property
    def _checked(self) -> tuple[BSpline, FloatArray]:
        """Sample spectra and the wavelengths at which nodes are tried."""
        reached = np.flatnonzero(self._reached)
        return self.spline(self._sample()), self.wavelength[reached[:: max(1, len(reached) // _CHECKED_PIXELS)]]

    @cached_property
    def prepared(self) -> dict[str, Any]:
        """What the fits of this emulator share, by device (see :func:`maury.fit.moved_basis.moved_basis`)."""
        return {}

    def _sample(self) -> FloatArray:
        """A few spectra, across the range of every label."""
        labels = self.rest.labels
        corners = labels.scale(np.array([labels.lower, labels.upper]))
        rows = [0.5 * corners.sum(axis=0)]
        for k in range(len(labels)):
            for end in corners:
                row = rows[0].copy()
                row[k] = 0.75 * end[k] + 0.25 * row[k]
                rows.append(row)
        return self.rest.predict_flux(labels.unscale(np.array(rows)))

    def spline(self, flux: FloatArray) -> BSpline:
        """(..., n_pixels) rest flux -> its quintic spline over wavelength, values (n_pixels, ...).

        Pixels that the model does not know are filled by a cubic spline over the known ones, so that knots stay evenly spaced.
        """
        from scipy.interpolate import CubicSpline, make_interp_spline

        wave, known = self.wavelength, self.rest.model_covariance.known
        rows = np.moveaxis(np.asarray(flux, dtype=np.float64), -1, 0)
        if not known.all():
            rows = np.where(known.reshape(-1, *[1] * (rows.ndim - 1)), rows, CubicSpline(wave[known], rows[known])(wave))
        return make_interp_spline(wave, rows, k=min(_DEGREE, len(wave) - 1))

    def moved(self, flux: FloatArray, velocity: float, derivative: int = 0) -> FloatArray:
        """(..., n_pixels) rest flux -> the same at ``velocity`` km/s, or its derivative by the velocity."""
        factor = 1.0 + velocity / SPEED_OF_LIGHT_KM_S
        at = self.spline(flux)(self.wavelength / factor, derivative)
        moved = np.moveaxis(at, 0, -1)
        if derivative == 0:
            return np.asarray(moved)
        return np.asarray(moved * (-self.wavelength / factor**2) / SPEED_OF_LIGHT_KM_S)

    def predict_flux(self, values: FloatArray) -> FloatArray:
        """(n, K + 1) label units, the last in km/s -> (n, n_pixels)."""
        array = np.atleast_2d(values)
        rest = self.rest.predict_flux(array[:, :-1])
        return np.stack([self.moved(row, v) for row, v in zip(rest, array[:, -1], strict=True)])

    def predict_jacobian(self, values: FloatArray) -> FloatArray:
        """(n, K + 1) -> (n, n_pixels, K + 1), per label unit and per km/s."""
        array = np.atleast_2d(values)
        rest, slopes = self.rest.predict_flux(array[:, :-1]), self.rest.predict_jacobian(array[:, :-1])
        rows = []
        for flux, slope, v in zip(rest, slopes, array[:, -1], strict=True):
            rows.append(np.column_stack([self.moved(slope.T, v).T, self.moved(flux, v, derivative=1)]))
        return np.stack(rows)

    def with_covariance(self, covariance: ModelCovariance) -> MovingEmulator:
        """The same emulator with another covariance."""
        return MovingEmulator(self.rest.with_covariance(covariance), self.velocity)

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Not saved: a model file holds the emulator at rest and the fitter's velocity range."""
        return self.rest.to_arrays()

    @property
    def is_linear(self) -> bool:
        """Whether the emulator at rest is linear in terms."""
        return isinstance(self.rest, TermEmulator)


def _at_velocities(spline: BSpline, wavelength: FloatArray, velocities: FloatArray) -> FloatArray:
    """(m, ..., n_pixels) a spline's flux at m velocities."""
    return np.stack([np.moveaxis(spline(wavelength / (1.0 + v / SPEED_OF_LIGHT_KM_S)), 0, -1) for v in velocities])


def chebyshev_nodes(low: float, high: float, n: int) -> FloatArray:
    """(n,) places between two ends, crowded towards them: polynomials through them do not swing."""
    return np.asarray(0.5 * (high + low) - 0.5 * (high - low) * np.cos(np.pi * (np.arange(n) + 0.5) / n))


class NodePolynomial:
    """The polynomial through m nodes: at any place, what each node's value counts there.

    Parameters
    ----------
    nodes : (m,) places.
    """

    def __init__(self, nodes: FloatArray) -> None:
        self.centre = 0.5 * float(nodes.max() + nodes.min())
        self.largest = 0.5 * float(np.ptp(nodes))
        unit = (nodes - self.centre) / self.largest
        coefficients = np.linalg.inv(np.polynomial.chebyshev.chebvander(unit, len(nodes) - 1))
        self._orders = [coefficients]  # Chebyshev series of each node's weight, and of its derivatives
        for _ in range(2):
            self._orders.append(np.polynomial.chebyshev.chebder(self._orders[-1]) / self.largest)

    def weights(self, at: FloatArray, orders: int) -> list[FloatArray]:
        """(n,) places -> (n, m) weights, and their first ``orders`` - 1 derivatives."""
        series = np.polynomial.chebyshev.chebvander((np.asarray(at) - self.centre) / self.largest, len(self._orders[0]) - 1)
        return [np.asarray(series[:, : len(c)] @ c) for c in self._orders[:orders]]
