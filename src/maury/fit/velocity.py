"""Radial velocity as one more label, smooth in the velocity, for any emulator.

Spectra come in the rest frame of the velocity they were given; what is left of it (an error of the header, a binary, a zero
point) would go into the labels. The Payne fits it along and interpolates its model linearly between pixels (METHODS 0.6), which
puts a kink into chi-square at every pixel and stalls fits. Here the model is moved by cubic splines at a few velocities (Chebyshev
nodes over the range) and interpolated between those by the polynomial through them: smooth to all orders, and for an emulator
that is linear in terms still linear in terms. How many nodes are needed is measured on the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.labels import KNOWN_LABELS, LabelSet
from maury.protocols import Emulator, ModelCovariance, TermEmulator

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NAME = "delta_rv"
_NODES = (3, 5, 7, 9, 13, 17, 25)
_TOLERANCE = 1e-5  # rms of the flux: at S/N 1000 a hundredth of the noise


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

    @cached_property
    def nodes(self) -> FloatArray:
        """(m,) km/s: Chebyshev nodes of the smallest number that moves this model's spectra to 1e-5 of the flux."""
        sample = self._sample()
        check = np.linspace(-0.97, 0.97, 8) * self.velocity.max_km_s
        exact = np.stack([self.moved(sample, v) for v in check])[..., self._reached]
        for n in _NODES:
            nodes = self.velocity.max_km_s * np.cos(np.pi * (np.arange(n) + 0.5) / n)[::-1]
            at_nodes = np.stack([self.moved(sample, v) for v in nodes])[..., self._reached]
            error = np.tensordot(lagrange(nodes, check)[0], at_nodes, axes=1) - exact
            if not error.size or np.sqrt(np.mean(error**2)) < _TOLERANCE:
                return np.asarray(nodes)
        raise UsageError(
            f"expected a velocity range of a few line widths, got {self.velocity.max_km_s} km/s; measure the velocity first"
        )

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

    def moved(self, flux: FloatArray, velocity: float, derivative: int = 0) -> FloatArray:
        """(..., n_pixels) rest flux -> the same at ``velocity`` km/s, by a cubic spline over the known pixels."""
        from scipy.interpolate import CubicSpline

        wave, known = self.wavelength, self.rest.model_covariance.known
        factor = 1.0 + velocity / SPEED_OF_LIGHT_KM_S
        spline = CubicSpline(wave[known], flux[..., known], axis=-1)
        if derivative == 0:
            return np.asarray(spline(wave / factor))
        return np.asarray(spline(wave / factor, 1) * (-wave / factor**2) / SPEED_OF_LIGHT_KM_S)

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

    @cached_property
    def moved_basis(self) -> MovedBasis:
        """Mean and basis at every node.

        Raises
        ------
        UsageError
            If the emulator at rest is not linear in terms.
        """
        return MovedBasis.of(self)

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Not saved: a model file holds the emulator at rest and the fitter's velocity range."""
        return self.rest.to_arrays()

    @property
    def is_linear(self) -> bool:
        """Whether the emulator at rest is linear in terms."""
        return isinstance(self.rest, TermEmulator)


@dataclass(frozen=True, eq=False)
class MovedBasis:
    """A linear emulator at the nodes: what all spectra of a fit share.

    Parameters
    ----------
    nodes : (m,) km/s.
    rows : (m, 1 + r, n_pixels) mean and basis at every node; 0 in pixels that the model does not know.
    factors : (n_pixels, q) of the covariance; q may be 0.
    """

    nodes: FloatArray
    rows: FloatArray
    factors: FloatArray

    @classmethod
    def of(cls, moving: MovingEmulator) -> MovedBasis:
        rest = moving.rest
        if not isinstance(rest, TermEmulator):
            raise UsageError("expected an emulator that is linear in terms; others are fitted pixel by pixel")
        covariance = moving.model_covariance
        rows = np.stack([moving.moved(rest.coefficients, v) for v in moving.nodes])
        rows[..., ~covariance.known] = 0.0
        factors = np.zeros((rows.shape[2], 0)) if covariance.factors is None else covariance.factors
        return cls(moving.nodes, rows, factors)

    @property
    def rank(self) -> int:
        return int(self.rows.shape[1]) - 1

    @cached_property
    def anchors(self) -> IntArray:
        """The nodes at which A is formed: both ends and the middle."""
        last = len(self.nodes) - 1
        return np.unique([0, last // 2, last])

    @cached_property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """Rows and columns of the products: basis with basis and with factors; factors with factors only once."""
        r, q = self.rank, self.factors.shape[1]
        rows, columns = np.triu_indices(r + q)
        return rows, columns

    @cached_property
    def products(self) -> list[NDArray[np.float32]]:
        """For each anchor (n_pixels, n_pairs): products of two of [basis; factors]."""
        i, j = self.pairs
        out = []
        for k in self.anchors:
            both = np.vstack([self.rows[k, 1:], self.factors.T]).astype(np.float32)
            out.append(np.ascontiguousarray((both[i] * both[j]).T))
        return out

    @cached_property
    def flat(self) -> FloatArray:
        """(m (1 + r), n_pixels)."""
        return self.rows.reshape(-1, self.rows.shape[2])


def lagrange(nodes: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n,) positions -> (n, m) weights of the nodes and their slopes d weight / d x: the polynomial through all nodes."""
    vander = np.polynomial.chebyshev.chebvander(nodes / np.abs(nodes).max(), len(nodes) - 1)
    unit = np.asarray(x, dtype=float) / np.abs(nodes).max()
    inverse = np.linalg.inv(vander)
    values = np.polynomial.chebyshev.chebvander(unit, len(nodes) - 1)
    slopes = np.zeros_like(values)
    for k in range(1, len(nodes)):
        series = np.zeros(k + 1)
        series[k] = 1.0
        slopes[:, k] = np.polynomial.chebyshev.chebval(unit, np.polynomial.chebyshev.chebder(series))
    return values @ inverse, slopes @ inverse / np.abs(nodes).max()
