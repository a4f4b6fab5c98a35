"""Chi-square of spectra that also move, for emulators linear in terms: pixels are touched a few times, not at every step.

A model moved to velocity v is, by :mod:`maury.fit.velocity`, flux = sum_k l_k(v) (mean_k + z(labels) @ B_k): mean and basis
moved to the nodes v_k, and the weights l_k of the polynomial through them. Chi-square would be exactly quadratic in the m (1 + r)
products l_k z_i, but their matrix is too large to form for every star. Two stages instead:

1. *Approximate*: z A(v) z - 2 b(v) z + c(v), with b and c of every node, and A, which hardly changes over a few pixels, at the
   middle; its leading rows and columns change with the velocity, through the two ends. All in float32, and of the leading basis
   vectors if there are very many. The optimiser steps here, among small matrices, with as many starts as it likes.
2. *Exact*: chi-square and gradient from the pixels, at the few points where the optimiser ended. Some Gauss-Newton steps bring
   the end to the exact minimum (:func:`maury.fit.lm.refine`), since only the gradient decides where they end. Nodes are those of
   a sixth of the velocity range, fewer and finer. Sums are float64; the moved basis is float32, good to 1e-7 of the flux.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.emulate.payne import PayneEmulator
from maury.fit.chi2 import Evaluation, check_grid, inverse_variance, joined
from maury.fit.moved_basis import MovedBasis, SingleArray, moved_basis, unpacked
from maury.fit.velocity import MovingEmulator
from maury.protocols import TermEmulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STAR_BLOCK = 128  # bounds the (stars, pixels) temporaries and keeps most of them in cache
_ROW_BLOCK = 128  # bounds the (rows, r, r) ones and keeps them in cache


class MovingTermProblem:
    """See the module; labels are those of the emulator at rest, scaled, then the velocity, scaled."""

    def __init__(self, spectra: Spectra, moving: MovingEmulator, device: str = "cpu") -> None:
        check_grid(spectra, moving)
        self.shared = moved_basis(moving, device)
        basis = self.shared.whole
        self.emulator, self.basis, self.spectra = moving, basis, spectra
        self.n_stars, self.n_labels = len(spectra), len(moving.labels)
        self._unit = moving.velocity.max_km_s
        assert isinstance(moving.rest, TermEmulator)  # moved_basis has refused others
        self._rest: TermEmulator = moving.rest
        self._rough = self.shared.rough
        n, m, r, t = len(spectra), len(basis.nodes), basis.rank, basis.leading
        self.a = np.empty((n, r, r), dtype=np.float32)
        self.a_ends = np.empty((n, 2, t, t), dtype=np.float32)  # what the ends differ by from the middle
        self.b, self.c = np.empty((n, m, r)), np.empty((n, m))
        self.inner = np.empty((n, basis.n_factors, basis.n_factors))
        for first in range(0, n, _STAR_BLOCK):
            self._project(slice(first, first + _STAR_BLOCK))

    # -- projection ---------------------------------------------------------------------------------------------

    def _project(self, block: slice) -> None:
        basis = self.basis
        weight = inverse_variance(self.spectra[block], self.emulator.model_covariance)
        residual = self.spectra.flux[block] - basis.mean[basis.middle]
        weighted = weight * residual
        single = basis.where.times(weight.astype(np.float32), basis.with_weight, turned=True)
        n, m, r, q = len(weight), len(basis.nodes), basis.rank, basis.n_factors
        if q:
            inner = basis.where.times(weight, basis.factor_pairs).reshape(n, q, q)
            self.inner[block] = np.linalg.inv(np.eye(q) + inner)
        sizes = [len(basis.middle_pairs[0]), len(basis.end_pairs[0]), len(basis.end_pairs[0])]
        gram, first, last, rest = np.split(single, np.cumsum(sizes), axis=1)
        cross_middle, cross_ends = self._quadratic(block, gram, (first, last))
        linear = basis.where.times(weighted.astype(np.float32), basis.with_residual, turned=True).reshape(n, m, r + q + 1)
        moved = rest.reshape(n, m, r + q + 1)
        self.b[block] = linear[:, :, :r] - moved[:, :, :r]
        self.c[block] = np.einsum("np,np->n", weighted, residual)[:, None] - 2.0 * linear[:, :, -1] + moved[:, :, -1]
        if q == 0:
            return
        low = np.asarray(linear[:, :, r:-1] - moved[:, :, r:-1], dtype=np.float64)  # (n, m, q)
        solved = np.matmul(low, self.inner[block])
        self.b[block] -= np.matmul(solved, cross_middle)
        for k in range(2):
            share = basis.anchors_to_nodes[:, k, None] * solved
            self.b[block, :, : basis.leading] -= np.matmul(share, cross_ends[k])
        self.c[block] -= np.einsum("nmq,nmq->nm", solved, low)

    def _quadratic(
        self, block: slice, gram: SingleArray, ends: tuple[SingleArray, SingleArray]
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Store A; (n, q, r) factors with basis at the middle, and what the ends differ by from it."""
        basis, r, q, t = self.basis, self.basis.rank, self.basis.n_factors, self.basis.leading
        middle = gram.take(unpacked(basis.middle_pairs), axis=1)
        self.a[block] = middle[:, :, :r]
        cross = middle[:, :, r:].transpose(0, 2, 1).astype(np.float64)
        if q:
            self.a[block] -= np.matmul(cross.transpose(0, 2, 1), np.matmul(self.inner[block], cross))
        differences = []
        for k, packed in enumerate(ends):
            end = packed.take(unpacked(basis.end_pairs), axis=1)
            a = end[:, :, :t]
            at_end = end[:, :, t:].transpose(0, 2, 1).astype(np.float64)
            if q:
                a = a - np.matmul(at_end.transpose(0, 2, 1), np.matmul(self.inner[block], at_end))
            self.a_ends[block, k] = a - self.a[block, :t, :t]
            differences.append(at_end - cross[:, :, :t])
        return cross, differences

    # -- approximate --------------------------------------------------------------------------------------------

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        """(m,) approximate chi-square of (m,) stars at (m, K + 1) scaled labels."""
        return self.evaluate(star, scaled).chi2

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        """The same with derivatives; the velocity's second derivative is that of chi-square itself, made positive."""
        points, which = np.unique(scaled[:, :-1], axis=0, return_inverse=True)
        shared = 2 * len(points) < len(scaled)  # as at the starts: each of the few points is computed once
        z_of, slopes_of = rough_terms(self._rough, points) if shared else (np.empty(0), np.empty(0))
        parts = []
        for i in range(0, len(star), _ROW_BLOCK):
            rows = slice(i, i + _ROW_BLOCK)
            z, slopes = (z_of[which[rows]], slopes_of[which[rows]]) if shared else rough_terms(self._rough, scaled[rows, :-1])
            parts.append(self._evaluate(star[rows], scaled[rows, -1], z, slopes))
        return joined(parts)

    def _evaluate(self, star: IntArray, velocity: FloatArray, z: FloatArray, slopes: FloatArray) -> Evaluation:
        k, t = self.n_labels - 1, self.basis.leading
        (b, db, ddb), (c, dc, ddc) = self._linear(star, velocity)
        a, ends, weights = self.a[star], self.a_ends[star], self._end_weights(velocity, 3)
        moved = np.matmul(ends, z[:, None, :t, None])[..., 0]  # (n, 2, t): what the ends add to A z
        az = np.matmul(a, z[:, :, None])[:, :, 0]
        az[:, :t] += np.einsum("ne,net->nt", weights[0], moved)
        daz, ddaz = (np.einsum("ne,net->nt", w, moved) for w in weights[1:])
        gradient = np.empty((len(z), k + 1))
        gradient[:, :k] = np.matmul((az - b)[:, None], slopes)[:, 0]
        gradient[:, k] = 0.5 * dc - np.einsum("nr,nr->n", db, z) + 0.5 * np.einsum("nt,nt->n", z[:, :t], daz)
        mixed = -db
        mixed[:, :t] += daz
        second = 0.5 * ddc - np.einsum("nr,nr->n", ddb, z) + 0.5 * np.einsum("nt,nt->n", z[:, :t], ddaz)
        hessian = self._with_velocity(self._label_hessian(slopes, a, ends, weights[0]), slopes, mixed, np.abs(second))
        return Evaluation(c - 2.0 * np.einsum("nr,nr->n", b, z) + np.einsum("nr,nr->n", z, az), gradient, hessian)

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        """(n_points, K + 1) -> (n_stars, n_points), at the velocity of the middle node whatever theirs."""
        z, middle, r = self._rough.terms(scaled[:, :-1])[:, 1:], self.basis.middle, self.basis.rank
        pairs = (z[:, :, None] * z[:, None, :]).reshape(-1, r * r).astype(np.float32)
        quadratic = self.a.reshape(-1, r * r) @ pairs.T
        return np.asarray(self.c[:, [middle]] - 2.0 * self.b[:, middle] @ z.T + quadratic)

    @staticmethod
    def _with_velocity(labels: FloatArray, slopes: FloatArray, mixed: FloatArray, second: FloatArray) -> FloatArray:
        """(n, K + 1, K + 1) Hessian from the labels' (n, K, K), (n, r) of terms with velocity and (n,) of the velocity."""
        n, k = labels.shape[:2]
        hessian = np.empty((n, k + 1, k + 1))
        hessian[:, :k, :k] = labels
        hessian[:, :k, k] = hessian[:, k, :k] = np.matmul(mixed[:, None], slopes)[:, 0]
        hessian[:, k, k] = np.maximum(second, 1e-300)
        return hessian

    def _label_hessian(self, slopes: FloatArray, a: SingleArray, ends: SingleArray, weights: FloatArray) -> FloatArray:
        """(n, K, K) slopes^T A(v) slopes."""
        single, t = slopes.astype(np.float32), self.basis.leading
        product = np.matmul(a, single)
        change = np.einsum("ne,nest->nst", weights.astype(np.float32), ends)
        product[:, :t] += np.matmul(change, single[:, :t])
        return np.asarray(np.matmul(single.transpose(0, 2, 1), product))

    def _linear(self, star: IntArray, velocity: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """b and c at scaled velocities, each with its first and second derivative by the scaled velocity."""
        weights = np.stack(self._node_weights(self.basis, velocity, 3), axis=1)  # (n, 3, m)
        b, c = np.matmul(weights, self.b[star]), np.matmul(weights, self.c[star][:, :, None])[:, :, 0]
        return [b[:, i] for i in range(3)], [c[:, i] for i in range(3)]

    def _node_weights(self, basis: MovedBasis, velocity: FloatArray, orders: int) -> list[FloatArray]:
        """(n, m) weights of the nodes at scaled velocities, and their derivatives by the scaled velocity."""
        weights = basis.polynomial.weights(velocity * self._unit, orders)
        return [w * self._unit**order for order, w in enumerate(weights)]

    def _end_weights(self, velocity: FloatArray, orders: int) -> list[FloatArray]:
        """(n, 2) the same of the two ends."""
        weights = self.basis.parabola.weights(velocity * self._unit, orders)
        return [w[:, [0, 2]] * self._unit**order for order, w in enumerate(weights)]

    # -- exact --------------------------------------------------------------------------------------------------

    def exact(self, star: IntArray, scaled: FloatArray, hessian: FloatArray | None = None) -> Evaluation:
        """Chi-square and gradient from the pixels; the Hessian as given, or formed here, its velocity's rows from the pixels."""
        k = self.n_labels
        out = Evaluation(np.empty(len(star)), np.empty((len(star), k)), np.empty((len(star), k, k)))
        panel = self.shared.panel_of(scaled[:, -1] * self._unit)
        for number in np.unique(panel):
            of_panel = np.flatnonzero(panel == number)
            for i in range(0, len(of_panel), _STAR_BLOCK):
                rows = of_panel[i : i + _STAR_BLOCK]
                basis = self.shared.panel(int(number))
                part = self._exact(basis, star[rows], scaled[rows], None if hessian is None else hessian[rows])
                out.chi2[rows], out.gradient[rows], out.hessian[rows] = part.chi2, part.gradient, part.hessian
        return out

    def _exact(self, basis: MovedBasis, star: IntArray, scaled: FloatArray, hessian: FloatArray | None) -> Evaluation:
        k, labels = self.n_labels - 1, scaled[:, :-1]
        z = self._rest.terms(labels)[:, 1:]
        slopes = rough_terms(self._rest, labels)[1] if hessian is None else None
        at, by = self._node_weights(basis, scaled[:, -1], 2)
        weight = inverse_variance(self.spectra[star], self.emulator.model_covariance)
        residual = self.spectra.flux[star] - basis.flux(at, z)
        whitened = self._whiten(star, weight, residual)
        nodes = basis.onto(whitened)  # (n, m, r)
        gradient = np.empty((len(z), k + 1))
        gradient[:, :k] = -_pulled(self._rest, labels, np.einsum("nm,nmr->nr", at, nodes), slopes)
        by_nodes = np.einsum("nm,nmr->nr", by, nodes)
        gradient[:, k] = -np.einsum("np,np->n", whitened, by @ basis.mean) - np.einsum("nr,nr->n", by_nodes, z)
        chi2 = np.einsum("np,np->n", whitened, residual)
        if slopes is None:
            return Evaluation(chi2, gradient, np.asarray(hessian))
        moved = basis.flux(by, z)  # d flux / d velocity
        whitened = self._whiten(star, weight, moved)
        mixed = np.einsum("nm,nmr->nr", at, basis.onto(whitened))
        formed = self._label_hessians(basis, star, scaled, weight, at, slopes)
        formed = self._with_velocity(formed, slopes, mixed, np.einsum("np,np->n", whitened, moved))
        return Evaluation(chi2, gradient, formed)

    def _label_hessians(
        self, basis: MovedBasis, star: IntArray, scaled: FloatArray, weight: FloatArray, at: FloatArray, slopes: FloatArray
    ) -> FloatArray:
        """(n, K, K): from A, or where A is that of a shorter basis from the pixels."""
        parts = []
        for i in range(0, len(star), _ROW_BLOCK):
            rows = slice(i, i + _ROW_BLOCK)
            if self._rough is self._rest:
                ends = self._end_weights(scaled[rows, -1], 1)[0]
                parts.append(self._label_hessian(slopes[rows], self.a[star[rows]], self.a_ends[star[rows]], ends))
            else:
                jacobian = basis.jacobian(at[rows], slopes[rows])
                weighted = weight[rows, None] * jacobian
                low = weighted @ basis.factors
                taken = np.matmul(np.matmul(low, self.inner[star[rows]]), low.transpose(0, 2, 1))
                parts.append(np.matmul(weighted, jacobian.transpose(0, 2, 1)) - taken)
        return np.concatenate(parts)

    def _whiten(self, star: IntArray, weight: FloatArray, vector: FloatArray) -> FloatArray:
        """(n, n_pixels) C^-1 times a vector, by Woodbury."""
        weighted = weight * vector
        factors = self.basis.factors
        if factors.shape[1] == 0:
            return weighted
        low = np.matmul(self.inner[star], (weighted @ factors)[:, :, None])[:, :, 0]
        return np.asarray(weighted - weight * (low @ factors.T))


def rough_terms(emulator: TermEmulator, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n, r) terms and (n, r, K) slopes at scaled labels, without the constant; float32 where the emulator has it."""
    if isinstance(emulator, PayneEmulator):
        terms, slopes = emulator.single.terms_and_jacobian(labels)
        return terms[:, 1:].astype(np.float64), slopes[:, 1:]
    return emulator.terms(labels)[:, 1:], emulator.terms_jacobian(labels)[:, 1:]


def _pulled(emulator: TermEmulator, labels: FloatArray, pull: FloatArray, slopes: FloatArray | None) -> FloatArray:
    """(n, r) numbers times the slopes of the terms -> (n, K)."""
    if slopes is None and isinstance(emulator, PayneEmulator):
        return emulator.single.terms_gradient(labels, np.column_stack([np.zeros(len(pull)), pull]))
    slopes = rough_terms(emulator, labels)[1] if slopes is None else slopes
    return np.asarray(np.matmul(pull[:, None], slopes)[:, 0])
