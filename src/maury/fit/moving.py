"""Chi-square of spectra that also move, for emulators linear in terms: pixels are touched twice, whatever the number of steps.

A model moved to velocity v is, by :mod:`maury.fit.velocity`, flux = sum_k l_k(v) (mean_k + z(labels) @ B_k): mean and basis moved to
the nodes v_k, and the weights l_k of the polynomial through them. Chi-square would be exactly quadratic in the m (1 + r) products
l_k z_i, but their matrix is too large to form for every star. Two stages instead:

1. *Approximate*: z A(v) z - 2 b(v) z + c(v), with b and c of every node and A (which hardly changes over a few pixels) through the ends
   and the middle of the range, in float32. The optimiser steps here, among small matrices, with as many starts as it likes.
2. *Exact*: chi-square, gradient and the velocity's part of the Hessian from the pixels, in float64, at the few points where the
   optimiser ended. Some Gauss-Newton steps with the approximate Hessian bring the end to the exact minimum
   (:func:`maury.fit.lm.refine`), since only the gradient decides where they end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.fit.chi2 import Evaluation, check_grid, inverse_variance
from maury.fit.velocity import MovingEmulator, lagrange
from maury.protocols import TermEmulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STAR_BLOCK = 128  # bounds the (stars, pixels) temporaries and keeps them in cache


class MovingTermProblem:
    """See the module; labels are those of the emulator at rest, scaled, then the velocity, scaled."""

    def __init__(self, spectra: Spectra, moving: MovingEmulator) -> None:
        check_grid(spectra, moving)
        basis = moving.moved_basis
        self.emulator, self.basis, self.spectra = moving, basis, spectra
        self.n_stars, self.n_labels = len(spectra), len(moving.labels)
        self._unit = moving.velocity.max_km_s
        n, m, r, q = len(spectra), len(basis.nodes), basis.rank, basis.factors.shape[1]
        self.a = np.empty((n, len(basis.anchors), r, r), dtype=np.float32)
        self.b, self.c = np.empty((n, m, r)), np.empty((n, m))
        self.inner = np.empty((n, q, q))
        to_nodes = lagrange(basis.nodes[basis.anchors], basis.nodes)[0]  # (m, anchors)
        for first in range(0, n, _STAR_BLOCK):
            self._project(slice(first, first + _STAR_BLOCK), to_nodes)

    def _project(self, block: slice, to_nodes: FloatArray) -> None:
        basis, r = self.basis, self.basis.rank
        weight = inverse_variance(self.spectra[block], self.emulator.model_covariance)
        flux = np.asarray(self.spectra.flux[block], dtype=np.float64)
        i, j = basis.pairs
        single = weight.astype(np.float32)
        gram = np.empty((len(weight), len(basis.anchors), r + basis.factors.shape[1], r + basis.factors.shape[1]), np.float32)
        for k, products in enumerate(basis.products):
            gram[:, k, i, j] = gram[:, k, j, i] = single @ products
        inner = np.eye(basis.factors.shape[1]) + gram[:, 0, r:, r:].astype(np.float64)
        self.inner[block] = np.linalg.inv(inner) if r < gram.shape[2] else inner
        solved = np.matmul(self.inner[block][:, None], gram[:, :, r:, :r].astype(np.float64))  # (n, anchors, q, r)
        self.a[block] = gram[:, :, :r, :r] - np.matmul(gram[:, :, :r, r:], solved.astype(np.float32))
        for k in range(len(basis.nodes)):
            residual = flux - basis.rows[k, 0]
            weighted = weight * residual
            low = weighted @ basis.factors
            here = np.tensordot(to_nodes[k], solved, axes=(0, 1)) if low.shape[1] else solved[:, 0]
            self.b[block, k] = weighted @ basis.rows[k, 1:].T - np.einsum("nq,nqr->nr", low, here)
            lowest = np.einsum("nq,nqp,np->n", low, self.inner[block], low)
            self.c[block, k] = np.einsum("np,np->n", weighted, residual) - lowest

    # -- approximate --------------------------------------------------------------------------------------------

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        """(m,) approximate chi-square of (m,) stars at (m, K + 1) scaled labels."""
        z = self._terms(scaled)
        b, c, a = (part[0] for part in self._at(star, scaled[:, -1]))
        return np.asarray(c - 2.0 * np.einsum("nr,nr->n", b, z) + np.einsum("nr,nrs,ns->n", z, a, z, optimize=True))

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        """The same with derivatives; the velocity's second derivative is that of chi-square itself, made positive."""
        z, slopes = self._terms(scaled), self._slopes(scaled)
        (b, db, ddb), (c, dc, ddc), (a, da, dda) = self._at(star, scaled[:, -1], 3)
        az, daz, ddaz = (np.matmul(part, z[:, :, None])[:, :, 0] for part in (a, da, dda))
        chi2 = c - 2.0 * np.einsum("nr,nr->n", b, z) + np.einsum("nr,nr->n", z, az)
        k = self.n_labels - 1
        gradient, hessian = np.empty((len(z), k + 1)), np.empty((len(z), k + 1, k + 1))
        turned = slopes.transpose(0, 2, 1)
        gradient[:, :k] = np.matmul(turned, (az - b)[:, :, None])[:, :, 0]
        gradient[:, k] = 0.5 * dc - np.einsum("nr,nr->n", db, z) + 0.5 * np.einsum("nr,nr->n", z, daz)
        hessian[:, :k, :k] = np.matmul(turned, np.matmul(a, slopes))
        hessian[:, :k, k] = hessian[:, k, :k] = np.matmul(turned, (daz - db)[:, :, None])[:, :, 0]
        second = 0.5 * ddc - np.einsum("nr,nr->n", ddb, z) + 0.5 * np.einsum("nr,nr->n", z, ddaz)
        hessian[:, k, k] = np.maximum(np.abs(second), 1e-300)
        return Evaluation(chi2, gradient, hessian)

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        """(n_points, K + 1) -> (n_stars, n_points), at the velocity of the middle node whatever theirs."""
        z = self._terms(scaled)
        middle, anchor = len(self.basis.nodes) // 2, len(self.basis.anchors) // 2
        rows, columns = np.triu_indices(self.basis.rank)
        pairs = z[:, rows] * z[:, columns] * np.where(rows == columns, 1.0, 2.0)
        quadratic = self.a[:, anchor, rows, columns] @ pairs.T.astype(np.float32)
        return np.asarray(self.c[:, [middle]] - 2.0 * self.b[:, middle] @ z.T + quadratic)

    def _at(self, star: IntArray, velocity: FloatArray, orders: int = 1) -> tuple[list[FloatArray], ...]:
        """b, c and A at scaled velocities, each with ``orders`` - 1 derivatives by the scaled velocity."""
        v = velocity * self._unit
        weights = _weights(self.basis.nodes, v, self._unit, orders)
        ends = _weights(self.basis.nodes[self.basis.anchors], v, self._unit, orders)
        b = [np.einsum("nm,nmr->nr", w, self.b[star]) for w in weights]
        c = [np.einsum("nm,nm->n", w, self.c[star]) for w in weights]
        a = [np.einsum("nm,nmrs->nrs", w, self.a[star]) for w in ends]
        return b, c, a

    def _terms(self, scaled: FloatArray) -> FloatArray:
        return np.asarray(self._rest.terms(scaled[:, :-1])[:, 1:])

    def _slopes(self, scaled: FloatArray) -> FloatArray:
        return np.asarray(self._rest.terms_jacobian(scaled[:, :-1])[:, 1:])

    @property
    def _rest(self) -> TermEmulator:
        rest = self.emulator.rest
        assert isinstance(rest, TermEmulator)  # moved_basis has refused others
        return rest

    # -- exact --------------------------------------------------------------------------------------------------

    def exact(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        """Chi-square and gradient from the pixels; of the Hessian the rows of the velocity (Gauss-Newton), the rest as above."""
        parts = [self._exact(star[i : i + _STAR_BLOCK], scaled[i : i + _STAR_BLOCK]) for i in range(0, len(star), _STAR_BLOCK)]
        fields = (np.concatenate([getattr(part, name) for part in parts]) for name in ("chi2", "gradient", "hessian"))
        return Evaluation(*fields)

    def _exact(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        basis, k = self.basis, self.n_labels - 1
        z, slopes = self._rest.terms(scaled[:, :-1]), self._slopes(scaled)
        at, by = _weights(basis.nodes, scaled[:, -1] * self._unit, self._unit, 2)
        n, m = at.shape
        spectra = self.spectra[star]
        weight = inverse_variance(spectra, self.emulator.model_covariance)
        residual = spectra.flux - (at[:, :, None] * z[:, None, :]).reshape(n, -1) @ basis.flat
        moved = (by[:, :, None] * z[:, None, :]).reshape(n, -1) @ basis.flat  # d flux / d velocity
        whitened, whitened_moved = self._whiten(star, weight, residual), self._whiten(star, weight, moved)
        # (n, m, r): of every node's basis with residual and slope
        with_residual = (whitened @ basis.flat.T).reshape(n, m, -1)[:, :, 1:]
        with_moved = (whitened_moved @ basis.flat.T).reshape(n, m, -1)[:, :, 1:]
        gradient, hessian = np.empty((n, k + 1)), np.empty((n, k + 1, k + 1))
        gradient[:, :k] = -np.einsum("nrk,nr->nk", slopes, np.einsum("nm,nmr->nr", at, with_residual))
        gradient[:, k] = -np.einsum("np,np->n", whitened, moved)
        ends = _weights(basis.nodes[basis.anchors], scaled[:, -1] * self._unit, self._unit, 1)[0]
        a = np.einsum("nm,nmrs->nrs", ends, self.a[star])
        hessian[:, :k, :k] = np.matmul(slopes.transpose(0, 2, 1), np.matmul(a, slopes))
        hessian[:, :k, k] = np.einsum("nrk,nr->nk", slopes, np.einsum("nm,nmr->nr", at, with_moved))
        hessian[:, k, :k] = hessian[:, :k, k]
        hessian[:, k, k] = np.einsum("np,np->n", whitened_moved, moved)
        return Evaluation(np.einsum("np,np->n", whitened, residual), gradient, hessian)

    def _whiten(self, star: IntArray, weight: FloatArray, vector: FloatArray) -> FloatArray:
        """(n, n_pixels) C^-1 times a vector, by Woodbury."""
        weighted = weight * vector
        factors = self.basis.factors
        if factors.shape[1] == 0:
            return weighted
        low = np.matmul(self.inner[star], (weighted @ factors)[:, :, None])[:, :, 0]
        return np.asarray(weighted - weight * (low @ factors.T))


def _weights(nodes: FloatArray, velocity: FloatArray, unit: float, orders: int) -> list[FloatArray]:
    """Weights of the nodes at (n,) velocities, and their first and second derivatives by the scaled velocity."""
    value, slope = lagrange(nodes, velocity)
    if orders < 3:
        return [value, slope * unit][:orders]
    step = 1e-4 * unit  # the weights are polynomials: a central difference is good to 1e-8
    second = (lagrange(nodes, velocity + step)[1] - lagrange(nodes, velocity - step)[1]) / (2.0 * step)
    return [value, slope * unit, second * unit**2]
