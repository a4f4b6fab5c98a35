"""Chi-square of an emulator against spectra, with the model's own covariance, as a problem an optimiser can step through.

The residual of a star has covariance C = diag(1/ivar + diagonal) + U U^T. With D the diagonal part, Woodbury gives

    C^-1 = D^-1 - D^-1 U (I + U^T D^-1 U)^-1 U^T D^-1 .

Two problems of one shape: :class:`TermProblem` for emulators linear in known terms (pixels are touched once, then only
term-space matrices), :class:`PixelProblem` for all others. Sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maury.emulate.payne import PayneEmulator
from maury.errors import UsageError
from maury.fit.products import NumpyProducts, Products
from maury.protocols import Emulator, ModelCovariance, TermEmulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STAR_BLOCK = 128  # bounds the (stars, pixels) temporaries and keeps them in cache
_ROW_BLOCK = 512  # the same for (rows, terms, terms)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Chi-square (m,), its half gradient (m, K) and Gauss-Newton half Hessian (m, K, K), in scaled labels."""

    chi2: FloatArray
    gradient: FloatArray
    hessian: FloatArray


class Problem(Protocol):
    """What the optimiser needs to know: chi-square at any scaled labels of any star."""

    n_stars: int
    n_labels: int

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        """(m,) stars and their (m, K) scaled labels -> (m,)."""
        ...

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        """The same with derivatives."""
        ...

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        """(n_points, K) -> (n_stars, n_points): chi-square of every star at every point."""
        ...


@runtime_checkable
class ExactProblem(Problem, Protocol):
    """A problem whose chi-square is an approximation good enough to step through, and which also knows the exact one."""

    def exact(self, star: IntArray, scaled: FloatArray, hessian: FloatArray | None = None) -> Evaluation:
        """Exact chi-square and gradient, with a Hessian good enough to end with, or with the one given, of a point nearby."""
        ...


def inverse_variance(spectra: Spectra, covariance: ModelCovariance) -> FloatArray:
    """(n, n_pixels) D^-1: 1/(1/ivar + diagonal), 0 for masked pixels and those the model does not know."""
    return _weight(spectra.ivar, covariance.diagonal)


def _weight(ivar: NDArray[Any], diagonal: FloatArray) -> FloatArray:
    known = np.isfinite(diagonal)
    weight = np.multiply(ivar, np.where(known, diagonal, 0.0), dtype=np.float64)
    weight += 1.0
    np.divide(ivar, weight, out=weight)
    if not known.all():
        weight[:, ~known] = 0.0
    return np.asarray(weight)


def usable_pixels(spectra: Spectra, covariance: ModelCovariance) -> IntArray:
    """(n,) number of pixels with weight that the model knows."""
    used = (spectra.ivar > 0) & covariance.known
    return np.array([np.count_nonzero(row) for row in used], dtype=np.int64)  # per row: numpy's fast path


class TermProblem:
    """Chi-square in term space: c - 2 b.v + v A v with A = Theta C^-1 Theta^T, b = Theta C^-1 f, c = f^T C^-1 f.

    One matrix product over pixels gives A, b and c of every star; the constant term is removed from the flux first, so
    nothing cancels. The optimiser's cost no longer depends on the number of pixels.
    """

    def __init__(self, spectra: Spectra, emulator: TermEmulator, where: Products | None = None) -> None:
        check_grid(spectra, emulator)
        self.emulator, self._where = emulator, where or NumpyProducts()
        self.n_stars, self.n_labels = len(spectra), len(emulator.labels)
        covariance = emulator.model_covariance
        basis = (
            emulator.coefficients[1:]
            if covariance.factors is None
            else np.vstack([emulator.coefficients[1:], covariance.factors.T])
        )
        self.n_terms = len(emulator.coefficients) - 1
        self._constant = emulator.coefficients[0]
        self._rows, self._columns = np.triu_indices(len(basis))
        products = self._where.hold((basis[self._rows] * basis[self._columns]).T)  # (n_pixels, n_products)
        self._n_basis, held = len(basis), self._where.hold(basis.T)
        # with a last term of fixed value -1, [[A, b], [b, c]] holds the whole quadratic form
        self.form = np.empty((self.n_stars, self.n_terms + 1, self.n_terms + 1))
        for start in range(0, self.n_stars, _STAR_BLOCK):
            block = slice(start, start + _STAR_BLOCK)
            weight = _weight(spectra.ivar[block], covariance.diagonal)
            self.form[block] = self._project(spectra.flux[block], weight, held, products)
        self._triangle = np.triu_indices(self.n_terms + 1)

    def _project(self, flux: NDArray[Any], weight: FloatArray, basis: Any, products: Any) -> FloatArray:
        """(n, T + 1, T + 1) quadratic forms of some stars; writes into ``weight``."""
        residual = np.subtract(flux, self._constant, dtype=np.float64)
        gram = np.empty((len(weight), self._n_basis + 1, self._n_basis + 1))
        gram[:, self._rows, self._columns] = gram[:, self._columns, self._rows] = self._where.times(weight, products)
        weight *= residual
        gram[:, -1, :-1] = gram[:, :-1, -1] = self._where.times(weight, basis)
        gram[:, -1, -1] = np.einsum("np,np->n", weight, residual)
        t = self.n_terms
        if self._n_basis == t:
            return gram
        factors = np.arange(t, self._n_basis)
        kept = np.append(np.arange(t), self._n_basis)
        inner = gram[:, t:-1, t:-1] + np.eye(factors.size)
        cross = gram[:, factors][:, :, kept]  # (n, k, T + 1)
        reduced = gram[:, kept][:, :, kept]
        return np.asarray(reduced - np.matmul(cross.transpose(0, 2, 1), np.linalg.solve(inner, cross)))

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        v = self._terms(scaled)
        return np.asarray(np.einsum("mt,mt->m", v, np.matmul(self.form[star], v[:, :, None])[:, :, 0]))

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        # one form of [terms, their derivatives]: chi-square, half gradient and half Hessian are its blocks
        form = np.empty((len(scaled), self.n_labels + 1, self.n_labels + 1))
        for first in range(0, len(scaled), _ROW_BLOCK):
            rows = slice(first, first + _ROW_BLOCK)
            extended = self._extended(scaled[rows])
            form[rows] = np.matmul(extended.transpose(0, 2, 1), np.matmul(self.form[star[rows]], extended))
        return Evaluation(form[:, 0, 0], form[:, 1:, 0], form[:, 1:, 1:])

    def _extended(self, scaled: FloatArray) -> FloatArray:
        """(n, T + 1, K + 1): terms, and their derivatives by each label."""
        extended = np.zeros((len(scaled), self.n_terms + 1, self.n_labels + 1))
        if isinstance(self.emulator, PayneEmulator):  # for a network, both cost what one does
            terms, slopes = self.emulator.terms_and_jacobian(scaled)
        else:
            terms, slopes = self.emulator.terms(scaled), self.emulator.terms_jacobian(scaled)
        extended[:, :-1, 0], extended[:, :-1, 1:] = terms[:, 1:], slopes[:, 1:]
        extended[:, -1, 0] = -1.0
        return extended

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        v = self._terms(scaled)
        rows, columns = self._triangle
        pairs = v[:, rows] * v[:, columns] * np.where(rows == columns, 1.0, 2.0)
        return np.asarray(self.form[:, rows, columns] @ pairs.T)

    def _terms(self, scaled: FloatArray) -> FloatArray:
        """(n, T + 1): all terms but the constant, and -1."""
        v = self.emulator.terms(scaled)
        return np.concatenate([v[:, 1:], np.full((len(v), 1), -1.0)], axis=1)


class PixelProblem:
    """Chi-square over pixels, for any emulator; the whitening of each star is factorised once."""

    def __init__(self, spectra: Spectra, emulator: Emulator) -> None:
        check_grid(spectra, emulator)
        self.emulator = emulator
        self.n_stars, self.n_labels = len(spectra), len(emulator.labels)
        covariance = emulator.model_covariance
        self.flux = np.asarray(spectra.flux, dtype=np.float64)
        self.weight = inverse_variance(spectra, covariance)
        self.factors = covariance.factors
        if self.factors is not None:
            inner = np.eye(covariance.rank) + np.matmul(self.factors.T * self.weight[:, None, :], self.factors)
            self.inner_inverse = np.linalg.inv(np.linalg.cholesky(inner))  # (n, k, k): |L^-1 U' D^-1 r|^2 is subtracted

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        return self.with_gradient(star, scaled)[0]

    def with_gradient(self, star: IntArray, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(m,) chi-square and (m, n_pixels) its half gradient by the model's flux."""
        residual = self.flux[star] - self._flux(scaled)
        weight = self.weight[star]
        weighted = weight * residual
        chi2 = np.einsum("mp,mp->m", weighted, residual)
        if self.factors is None:
            return np.asarray(chi2), -weighted
        inverse = self.inner_inverse[star]
        low = np.einsum("mij,mj->mi", inverse, weighted @ self.factors)
        shared = np.einsum("mij,mi->mj", inverse, low) @ self.factors.T
        return np.asarray(chi2 - np.einsum("mi,mi->m", low, low)), np.asarray(weight * shared - weighted)

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        residual = self.flux[star] - self._flux(scaled)
        jacobian = self._jacobian(scaled)
        weight = self.weight[star]
        weighted = weight * residual
        chi2 = np.einsum("mp,mp->m", weighted, residual)
        weighted_jacobian = weight[:, :, None] * jacobian
        gradient = -np.einsum("mpk,mp->mk", weighted_jacobian, residual)
        hessian = np.matmul(weighted_jacobian.transpose(0, 2, 1), jacobian)
        if self.factors is not None:
            inverse = self.inner_inverse[star]
            low = np.einsum("mij,mj->mi", inverse, weighted @ self.factors)
            low_jacobian = np.matmul(inverse, np.matmul(self.factors.T, weighted_jacobian))
            chi2 = chi2 - np.einsum("mi,mi->m", low, low)
            gradient = gradient + np.einsum("mik,mi->mk", low_jacobian, low)
            hessian = hessian - np.matmul(low_jacobian.transpose(0, 2, 1), low_jacobian)
        return Evaluation(chi2, gradient, hessian)

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        every = np.arange(self.n_stars)
        return np.stack([self.chi2(every, np.broadcast_to(point, (self.n_stars, self.n_labels))) for point in scaled], axis=1)

    def _flux(self, scaled: FloatArray) -> FloatArray:
        return self.emulator.predict_flux(self.emulator.labels.unscale(scaled))

    def _jacobian(self, scaled: FloatArray) -> FloatArray:
        labels = self.emulator.labels
        return self.emulator.predict_jacobian(labels.unscale(scaled)) * labels.unscale_slope(scaled)[:, None, :]


def joined(parts: list[Evaluation]) -> Evaluation:
    """Evaluations of blocks of rows as one."""
    fields = (np.concatenate([getattr(part, name) for part in parts]) for name in ("chi2", "gradient", "hessian"))
    return Evaluation(*fields)


def check_grid(spectra: Spectra, emulator: Emulator) -> None:
    """Raise UsageError unless the spectra are on the emulator's grid."""
    if spectra.n_pixels != len(emulator.wavelength) or not np.allclose(
        spectra.wavelength, emulator.wavelength, rtol=0, atol=1e-6
    ):
        raise UsageError(
            f"expected spectra on the model's grid ({len(emulator.wavelength)} pixels from {emulator.wavelength[0]:.2f} to "
            f"{emulator.wavelength[-1]:.2f} Å), got {spectra!r}; prepare them with the model's own preparation"
        )
