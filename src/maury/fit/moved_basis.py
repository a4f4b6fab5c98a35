"""A linear emulator at the nodes of a velocity range: what all spectra of a fit share, laid out for its matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.emulate.payne import PayneEmulator
from maury.errors import UsageError
from maury.fit.products import Products, products_on
from maury.fit.velocity import MovingEmulator, NodePolynomial, chebyshev_nodes
from maury.protocols import TermEmulator

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

FloatArray = NDArray[np.float64]
SingleArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_MAKING = Lock()  # blocks of stars are fitted in threads
_ROUGH = 1e-4  # rms of the flux that nodes over the whole range may lose: the optimiser's, not the result's
_FINE = 1e-5  # the same for the exact stage: at S/N 1000 a hundredth of the noise
_PANELS = 6  # parts of the velocity range, each with its own few nodes, for the exact stage
_LEADING = 16  # basis vectors whose products are also formed at the ends of the velocity range


class SharedBasis:
    """All that the fits of one moving emulator share.

    Parameters
    ----------
    moving : the emulator; at rest it must be linear in terms.
    where : the matrix products are computed.

    Raises
    ------
    UsageError
        If the emulator at rest is not linear in terms.
    """

    def __init__(self, moving: MovingEmulator, where: Products) -> None:
        if not isinstance(moving.rest, TermEmulator):
            raise UsageError("expected an emulator that is linear in terms; others are fitted pixel by pixel")
        self.where, self._moving, self._known = where, moving, moving.model_covariance.known
        self.rough = rough_emulator(moving.rest)
        self._spline = moving.spline(moving.rest.coefficients)
        factors = moving.model_covariance.factors
        kept = np.zeros((len(moving.wavelength), 0)) if factors is None else factors
        self.factors = np.where(self._known[:, None], kept, 0.0)
        self._edges = np.linspace(-1.0, 1.0, _PANELS + 1) * moving.velocity.max_km_s
        self._panels: dict[int, MovedBasis] = {}
        reach = float(self._edges[-1])
        spline = self._spline if self.rough is moving.rest else moving.spline(self.rough.coefficients)
        self.whole = self._at(spline, moving.nodes(-reach, reach, _ROUGH, (3, 5, 7, 9, 11, 13, 17, 25)))  # odd: one lies at 0

    def panel_of(self, velocity: FloatArray) -> IntArray:
        """(n,) velocities, km/s -> the number of the panel of each."""
        return np.clip(np.searchsorted(self._edges, velocity, side="right") - 1, 0, _PANELS - 1)

    def panel(self, number: int) -> MovedBasis:
        """The basis for velocities of one panel; a panel's polynomial serves a little beyond it, too."""
        with _MAKING:
            if number not in self._panels:
                low, high = self._edges[number : number + 2]
                self._panels[number] = self._at(self._spline, chebyshev_nodes(float(low), float(high), self._n_fine))
        return self._panels[number]

    @cached_property
    def _n_fine(self) -> int:
        low, high = self._edges[:2]
        return len(self._moving.nodes(float(low), float(high), _FINE, (3, 4, 5, 6, 7, 9, 13)))

    def _at(self, spline: BSpline, nodes: FloatArray) -> MovedBasis:
        wave, known = self._moving.wavelength, self._known
        mean = np.zeros((len(nodes), len(wave)))
        basis = np.zeros((len(nodes), spline.c.shape[1] - 1, len(wave)), dtype=np.float32)
        for k, velocity in enumerate(nodes):
            at = spline(wave[known] / (1.0 + velocity / SPEED_OF_LIGHT_KM_S))
            mean[k, known], basis[k][:, known] = at[:, 0], at[:, 1:].T
        return MovedBasis(nodes, mean, basis, self.factors, self.where)


def rough_emulator(emulator: TermEmulator) -> TermEmulator:
    """The emulator, or for a network of many basis vectors one of few: A grows with their square, and steps need no exact one."""
    return emulator.shortened if isinstance(emulator, PayneEmulator) else emulator


def moved_basis(moving: MovingEmulator, device: str = "cpu") -> SharedBasis:
    """What fits of this emulator on this device share, made once."""
    with _MAKING:
        if device not in moving.prepared:
            moving.prepared[device] = SharedBasis(moving, products_on(device))
    found: SharedBasis = moving.prepared[device]
    return found


@dataclass(frozen=True, eq=False)
class MovedBasis:
    """Mean and basis at some nodes; 0 in pixels that the model does not know.

    Parameters
    ----------
    nodes : (m,) km/s.
    mean : (m, n_pixels).
    basis : (m, r, n_pixels), float32: what it loses is below 1e-7 of the flux.
    factors : (n_pixels, q) of the covariance; q may be 0.
    where : the matrix products are computed.
    """

    nodes: FloatArray
    mean: FloatArray
    basis: SingleArray
    factors: FloatArray
    where: Products

    @property
    def rank(self) -> int:
        return int(self.basis.shape[1])

    @property
    def n_factors(self) -> int:
        return int(self.factors.shape[1])

    @property
    def leading(self) -> int:
        return min(self.rank, _LEADING)

    @property
    def middle(self) -> int:
        return len(self.nodes) // 2

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The nodes, beside the middle, at which products of the leading basis vectors are formed."""
        return 0, len(self.nodes) - 1

    @cached_property
    def anchors(self) -> FloatArray:
        """(3,) velocities of the first end, the middle and the last end."""
        return self.nodes[[0, self.middle, len(self.nodes) - 1]]

    @cached_property
    def polynomial(self) -> NodePolynomial:
        """Through all nodes."""
        return NodePolynomial(self.nodes)

    @cached_property
    def parabola(self) -> NodePolynomial:
        """Through the anchors."""
        return NodePolynomial(self.anchors)

    @cached_property
    def anchors_to_nodes(self) -> FloatArray:
        """(m, 2) weights of the ends at every node; that of the middle is what is left to 1."""
        return self.parabola.weights(self.nodes, 1)[0][:, [0, 2]]

    @cached_property
    def flat(self) -> Any:
        """Held (m r, n_pixels)."""
        return self.where.hold(self.basis.reshape(-1, self.basis.shape[2]))

    def flux(self, weights: FloatArray, z: FloatArray) -> FloatArray:
        """(n, n_pixels) sum over nodes of (n, m) weights times the flux at (n, r) outputs of the network."""
        products = (weights[:, :, None] * z[:, None, :]).reshape(len(z), -1).astype(np.float32)
        return np.asarray(weights @ self.mean + self.where.times(products, self.flat))

    def jacobian(self, weights: FloatArray, slopes: FloatArray) -> FloatArray:
        """(n, K, n_pixels) sum over nodes of (n, m) weights times (n, r, K) slopes of the network's outputs with the basis."""
        n, _, k = slopes.shape
        products = (weights[:, None, :, None] * slopes.transpose(0, 2, 1)[:, :, None, :]).reshape(n * k, -1).astype(np.float32)
        return np.asarray(self.where.times(products, self.flat), dtype=np.float64).reshape(n, k, -1)

    def onto(self, vector: FloatArray) -> FloatArray:
        """(n, n_pixels) -> (n, m, r) products with the basis at every node."""
        products = self.where.times(vector.astype(np.float32), self.flat, turned=True)
        return products.reshape(len(vector), len(self.nodes), -1).astype(np.float64)

    @cached_property
    def with_weight(self) -> Any:
        """Held (..., n_pixels): what a star's weights are multiplied with; rows as the problem takes them apart."""
        m, r, n_pixels = self.basis.shape
        q, t = self.n_factors, self.leading
        factors = self.factors.T.astype(np.float32)
        n_rows = len(self.middle_pairs[0]) + 2 * len(self.end_pairs[0]) + m * (r + q + 1)
        out = np.empty((n_rows, n_pixels), dtype=np.float32)
        first = _fill_pairs(out, 0, np.concatenate([self.basis[self.middle], factors]), r)
        for k in self.ends:
            first = _fill_pairs(out, first, np.concatenate([self.basis[k, :t], factors]), t)
        for k, delta in enumerate(self._moved_mean):
            for rows in (self.basis[k], factors, delta[None]):
                np.multiply(rows, delta, out=out[first : first + len(rows)])
                first += len(rows)
        return self.where.hold(out)

    @cached_property
    def with_residual(self) -> Any:
        """Held (m (r + q + 1), n_pixels): what weight times residual is multiplied with."""
        factors = self.factors.T.astype(np.float32)
        parts = [part for k, delta in enumerate(self._moved_mean) for part in (self.basis[k], factors, delta[None])]
        return self.where.hold(np.concatenate(parts))

    @cached_property
    def _moved_mean(self) -> SingleArray:
        """(m, n_pixels) the mean at every node less that at the middle."""
        return np.asarray(self.mean - self.mean[self.middle], dtype=np.float32)

    @cached_property
    def factor_pairs(self) -> Any:
        """Held (n_pixels, q q), float64: what is taken away by Woodbury must be exact."""
        q = self.n_factors
        return self.where.hold((self.factors[:, :, None] * self.factors[:, None, :]).reshape(-1, q * q))

    @cached_property
    def middle_pairs(self) -> tuple[IntArray, IntArray]:
        """Which products are formed at the middle: pairs of the basis, and of basis with factors."""
        return _pairs(self.rank, self.n_factors)

    @cached_property
    def end_pairs(self) -> tuple[IntArray, IntArray]:
        """Which products are formed at an end: the same for the leading basis vectors."""
        return _pairs(self.leading, self.n_factors)


def _fill_pairs(out: SingleArray, first: int, rows: SingleArray, n_basis: int) -> int:
    """Write the products of every pair of rows, in the order of :func:`_pairs`; the row of ``out`` after the last one."""
    for i in range(n_basis):
        last = first + len(rows) - i
        np.multiply(rows[i:], rows[i], out=out[first:last])
        first = last
    return first


def _pairs(n_basis: int, n_factors: int) -> tuple[IntArray, IntArray]:
    rows, columns = np.triu_indices(n_basis + n_factors)
    kept = rows < n_basis
    return rows[kept], columns[kept]


def unpacked(pairs: tuple[IntArray, IntArray]) -> IntArray:
    """(n_basis, n_basis + n_factors) column of the product of every pair."""
    rows, columns = pairs
    n_basis = int(rows[-1]) + 1
    out = np.zeros((n_basis, int(columns[-1]) + 1), dtype=np.int64)
    out[rows, columns] = np.arange(len(rows))
    inner = columns < n_basis
    out[columns[inner], rows[inner]] = np.flatnonzero(inner)
    return out
