"""Chi-square of an emulator against spectra, with the model's own covariance, as a problem an optimiser can step through.

The residual of a star has covariance C = diag(1/ivar + diagonal) + U U^T. With D the diagonal part, Woodbury gives

    C^-1 = D^-1 - D^-1 U (I + U^T D^-1 U)^-1 U^T D^-1 .

Two problems of one shape: :class:`TermProblem` for emulators linear in known terms (pixels are touched once, then only
term-space matrices), :class:`PixelProblem` for all others. Sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.protocols import Emulator, ModelCovariance, TermEmulator
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STAR_BLOCK = 128  # bounds the (stars, pixels) temporaries and keeps them in cache


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


def inverse_variance(spectra: Spectra, covariance: ModelCovariance) -> FloatArray:
    """(n, n_pixels) D^-1: 1/(1/ivar + diagonal), 0 for masked pixels."""
    ivar = np.asarray(spectra.ivar, dtype=np.float64)
    return np.asarray(ivar / (1.0 + ivar * covariance.diagonal))


def usable_pixels(spectra: Spectra) -> IntArray:
    """(n,) number of pixels with weight."""
    return np.asarray((spectra.ivar > 0).sum(axis=1), dtype=np.int64)


class TermProblem:
    """Chi-square in term space: c - 2 b.v + v A v with A = Theta C^-1 Theta^T, b = Theta C^-1 f, c = f C^-1 f.

    One matrix product over pixels gives A, b and c of every star; the constant term is removed from the flux first, so
    nothing cancels. The optimiser's cost no longer depends on the number of pixels.
    """

    def __init__(self, spectra: Spectra, emulator: TermEmulator) -> None:
        _check_grid(spectra, emulator)
        self.emulator = emulator
        self.n_stars, self.n_labels = len(spectra), len(emulator.labels)
        covariance = emulator.model_covariance
        basis = emulator.coefficients[1:] if covariance.factors is None else np.vstack(
            [emulator.coefficients[1:], covariance.factors.T]
        )
        self.n_terms = len(emulator.coefficients) - 1
        self._constant = emulator.coefficients[0]
        rows, columns = np.triu_indices(len(basis))
        products = basis[rows] * basis[columns]  # (n_products, n_pixels)
        a = np.empty((self.n_stars, self.n_terms, self.n_terms))
        b = np.empty((self.n_stars, self.n_terms))
        c = np.empty(self.n_stars)
        for start in range(0, self.n_stars, _STAR_BLOCK):
            block = slice(start, start + _STAR_BLOCK)
            part = spectra[block]
            a[block], b[block], c[block] = self._project(part, inverse_variance(part, covariance), basis, products)
        self.a, self.b, self.c = a, b, c

    def _project(
        self, spectra: Spectra, weight: FloatArray, basis: FloatArray, products: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        residual = spectra.flux - self._constant
        weighted = weight * residual
        n, t = len(weight), self.n_terms
        rows, columns = np.triu_indices(len(basis))
        gram = np.empty((n, len(basis), len(basis)))
        gram[:, rows, columns] = gram[:, columns, rows] = weight @ products.T
        projection = weighted @ basis.T  # (n, T + k)
        c = np.einsum("np,np->n", weighted, residual)
        a, b = gram[:, :t, :t], projection[:, :t]
        if len(basis) == t:
            return a, b, c
        inner = gram[:, t:, t:] + np.eye(len(basis) - t)
        right = np.concatenate([gram[:, t:, :t], projection[:, t:, None]], axis=2)
        solved = np.linalg.solve(inner, right)
        a = a - np.einsum("nkt,nku->ntu", gram[:, t:, :t], solved[:, :, :t], optimize=True)
        b = b - np.einsum("nkt,nk->nt", gram[:, t:, :t], solved[:, :, t])
        c = c - np.einsum("nk,nk->n", projection[:, t:], solved[:, :, t])
        return a, b, c

    def chi2(self, star: IntArray, scaled: FloatArray) -> FloatArray:
        v = self.emulator.terms(scaled)[:, 1:]
        av = np.matmul(self.a[star], v[:, :, None])[:, :, 0]
        return np.asarray(self.c[star] + np.einsum("mt,mt->m", v, av - 2.0 * self.b[star]))

    def evaluate(self, star: IntArray, scaled: FloatArray) -> Evaluation:
        v = self.emulator.terms(scaled)[:, 1:]
        jacobian = self.emulator.terms_jacobian(scaled)[:, 1:]  # (m, T, K)
        a, b = self.a[star], self.b[star]
        av = np.matmul(a, v[:, :, None])[:, :, 0]
        chi2 = self.c[star] + np.einsum("mt,mt->m", v, av - 2.0 * b)
        transposed = jacobian.transpose(0, 2, 1)
        gradient = np.matmul(transposed, (av - b)[:, :, None])[:, :, 0]
        return Evaluation(chi2, gradient, np.matmul(transposed, np.matmul(a, jacobian)))

    def chi2_table(self, scaled: FloatArray) -> FloatArray:
        v = self.emulator.terms(scaled)[:, 1:]
        pairs = (v[:, :, None] * v[:, None, :]).reshape(len(v), -1)
        return np.asarray(self.c[:, None] - 2.0 * self.b @ v.T + self.a.reshape(self.n_stars, -1) @ pairs.T)


class PixelProblem:
    """Chi-square over pixels, for any emulator; the whitening of each star is factorised once."""

    def __init__(self, spectra: Spectra, emulator: Emulator) -> None:
        _check_grid(spectra, emulator)
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
        residual = self.flux[star] - self._flux(scaled)
        weighted = self.weight[star] * residual
        chi2 = np.einsum("mp,mp->m", weighted, residual)
        if self.factors is None:
            return np.asarray(chi2)
        low = np.einsum("mij,mj->mi", self.inner_inverse[star], weighted @ self.factors)
        return np.asarray(chi2 - np.einsum("mi,mi->m", low, low))

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


def make_problem(spectra: Spectra, emulator: Emulator) -> Problem:
    """The fastest problem for this emulator."""
    if isinstance(emulator, TermEmulator):
        return TermProblem(spectra, emulator)
    return PixelProblem(spectra, emulator)


def _check_grid(spectra: Spectra, emulator: Emulator) -> None:
    if spectra.n_pixels != len(emulator.wavelength) or not np.allclose(spectra.wavelength, emulator.wavelength, rtol=0, atol=1e-6):
        raise UsageError(
            f"expected spectra on the model's grid ({len(emulator.wavelength)} pixels from {emulator.wavelength[0]:.2f} to "
            f"{emulator.wavelength[-1]:.2f} Å), got {spectra!r}; prepare them with the model's own preparation"
        )
