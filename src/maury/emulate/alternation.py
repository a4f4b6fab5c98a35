"""Coefficients and scatter of all pixels of a Cannon together: the work behind :func:`maury.emulate.cannon.train_cannon`.

Per pixel the objective of METHODS 0.5 is minimised over theta and s^2. In each round

1. the weights 1/(s^2 + sigma^2) give the normal matrices of all pixels by one matrix product (over the distinct products of
   two terms) and theta by a Cholesky factorisation,
2. the residuals give s^2 by Fisher scoring (:class:`ScatterScoring`),
3. theta moves to the new weights by one step with the *old* factors. It promises a decrease of the objective; where that is
   small the step is accurate to second order, the pixel is done, and no second normal matrix is needed.

The first s^2 comes from fits with one weight per star; it is right within some per cent, so the first round is nearly always
the last.

Sums for theta are float64. The scoring and the last step run in float32: both act on residuals, in units of the pixel's own
scatter, and are accurate to 1e-5 of an error.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.emulate.batched import Cholesky, lasso_coordinate_descent
from maury.emulate.polynomial import PolynomialTerms
from maury.errors import UsageError

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]

_BLOCK_ELEMENTS = 1 << 19  # stars x pixels of a block: its arrays stay in the last-level cache, few calls per pixel
_JITTER = 1e-12  # of a pixel's total weight: a pixel that no star covers gets coefficients 0
_START_STARS = 4  # the search for the first s^2 looks at every fourth star,
_START_PER_TERM = 8  # unless that leaves fewer stars than this per term
_STEPS_PER_ROUND = 3  # with the same factors; each gains some factor of 100
_GROWTH = 0.5  # of a weight since the factorisation: a step with old factors multiplies theta's error by it
_SMALL_STEP = 0.3  # standard errors of s^2: below it, the series of scoring steps is summed


class Settings(Protocol):
    """What the alternation needs of :class:`maury.emulate.cannon.CannonConfig`."""

    @property
    def ridge(self) -> float: ...
    @property
    def l1(self) -> float: ...
    @property
    def fit_scatter(self) -> bool: ...
    @property
    def max_iterations(self) -> int: ...
    @property
    def tolerance(self) -> float: ...


class TrainingProblem:
    """What depends on the labels alone, computed once, and the alternation for one block of pixels.

    Parameters
    ----------
    polynomial, scaled : the terms and the (n_stars, K) scaled labels.
    settings : see :class:`maury.emulate.cannon.CannonConfig`.
    star_weights : (n_stars,) or None.

    Raises
    ------
    UsageError
        If star weights are negative, not finite or all 0.
    """

    def __init__(
        self, polynomial: PolynomialTerms, scaled: FloatArray, settings: Settings, star_weights: ArrayLike | None
    ) -> None:
        self.settings = settings
        self.rows, self.star = _check_weights(star_weights, len(scaled))
        scaled = scaled[self.rows]
        double, self.pair_index = polynomial.products
        self.design = polynomial.evaluate(scaled)  # (n_stars, n_terms)
        self.design_jacobian = polynomial.jacobian(scaled)  # (n_stars, n_terms, K)
        star = 1.0 if self.star is None else self.star
        self.design_right = np.ascontiguousarray(self.design.T * star)  # (n_terms, n_stars)
        self.moment_design = np.ascontiguousarray(double.evaluate(scaled).T * star)  # (n_monomials, n_stars)
        self.design_right32 = self.design_right.astype(np.float32)
        enough = len(scaled) >= _START_STARS * _START_PER_TERM * polynomial.n_terms
        self.start_rows = slice(None, None, _START_STARS if enough else 1)

    @property
    def block_size(self) -> int:
        """Pixels per block."""
        return int(np.clip(_BLOCK_ELEMENTS // len(self.design), 32, 2048))

    def solve(self, flux: FloatArray, ivar: FloatArray, label_errors: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """(n_terms, block) coefficients and (block,) variance s^2 from (n_stars, block) flux and ivar; both are kept intact."""
        centred, noise, centre, unit = _standardised(flux[self.rows], ivar[self.rows])
        theta, variance = self._alternate(centred, noise, self.settings.l1 * unit)
        if label_errors is not None:
            for k in range(label_errors.shape[1]):
                slope = self.design_jacobian[:, :, k] @ theta
                noise += (slope * label_errors[self.rows, k : k + 1]) ** 2
            theta, variance = self._alternate(centred, noise, self.settings.l1 * unit)
        theta *= unit
        theta[0] += centre
        return theta, variance * unit**2

    def _alternate(self, flux: FloatArray, noise: FloatArray, l1: FloatArray) -> tuple[FloatArray, FloatArray]:
        variance = np.zeros(flux.shape[1])
        if not self.settings.fit_scatter:
            return _Round(self, flux, noise, variance, l1=l1).theta, variance
        scoring = ScatterScoring(noise, self.star)
        variance = self._first_variance(flux, scoring)
        theta = np.zeros((self.design.shape[1], flux.shape[1]))
        left = np.arange(flux.shape[1])
        for _ in range(self.settings.max_iterations):
            this = _Round(self, flux, noise, variance[left], l1=l1, scoring=scoring)
            for _ in range(1 if self.settings.l1 > 0 else _STEPS_PER_ROUND):
                again = this.improve()
                theta[:, left], variance[left] = this.theta, this.variance
                if not again.any():
                    return theta, variance
                left, this = left[again], this.take(again)
            flux, noise, l1, scoring = this.flux, this.noise, this.l1, this.scoring
        return theta, variance

    def _first_variance(self, flux: FloatArray, scoring: ScatterScoring) -> FloatArray:
        """(block,) s^2, right within a per cent, from the residuals of fits with one weight per star."""
        residual = flux.astype(np.float32)
        n_stars, n_terms = self.design.shape
        noise = np.median(scoring.noise[:, :: 1 + flux.shape[1] // 32], axis=1)
        root = 1.0 / np.sqrt(noise + np.median(noise) + 1e-12)  # stars differ in noise more than pixels do
        basis = np.linalg.qr(self.design * root[:, None])[0]
        residual -= (basis / root[:, None]).astype(np.float32) @ ((basis * root[:, None]).T.astype(np.float32) @ residual)
        residual *= np.float32(np.sqrt(n_stars / max(n_stars - n_terms, 1)))
        sample = residual[self.start_rows]
        variance = scoring.rows(self.start_rows).solve(sample, 0.5 * np.einsum("np,np->p", sample, sample) / len(sample))
        return np.maximum(variance + scoring.step(residual, variance), 0.0)


class _Round:
    """Some pixels on their way: normal matrices and theta at a given s^2, then steps of s^2 and theta with the same factors."""

    def __init__(
        self,
        problem: TrainingProblem,
        flux: FloatArray,
        noise: FloatArray,
        variance: FloatArray,
        *,
        l1: FloatArray,
        scoring: ScatterScoring | None = None,
    ) -> None:
        self.problem, self.flux, self.noise, self.variance, self.l1 = problem, flux, noise, variance, l1
        self.factor_variance = variance
        if scoring is not None:
            self.scoring = scoring
        weight = noise + variance
        np.divide(1.0, weight, out=weight)
        moments = problem.moment_design @ weight  # (n_monomials, block)
        normal = moments[problem.pair_index]  # (n_terms, n_terms, block)
        weight *= flux
        right = problem.design_right @ weight
        diagonal = np.arange(len(right))
        normal[diagonal, diagonal] += _JITTER * moments[0] + 1e-300
        normal[diagonal[1:], diagonal[1:]] += problem.settings.ridge * moments[0]
        self.factors = Cholesky(normal)
        self.theta = self.factors.solve(right)
        if problem.settings.l1 > 0:
            self.theta = lasso_coordinate_descent(normal, right, self.theta, l1)

    def improve(self) -> NDArray[np.bool_]:
        """Find s^2 at the residuals, step theta to the new weights; (block,) which pixels need more than that."""
        problem, scoring = self.problem, self.scoring
        residual = problem.design @ self.theta
        residual32 = np.subtract(self.flux, residual, out=residual).astype(np.float32)
        self.variance = scoring.solve(residual32, self.variance)
        weight = scoring.weights(self.variance)
        # how far the weights have moved since the factorisation, relative, rms over stars: the factors are wrong by that much
        moved = np.abs(self.variance - self.factor_variance) * np.sqrt(scoring.curvature / len(weight))
        if problem.settings.l1 > 0:  # not linear: there is no such step, the next round starts afresh
            return np.asarray(moved**2 * len(weight) > problem.settings.tolerance)
        gradient = (problem.design_right32 @ np.multiply(weight, residual32, out=residual32)).astype(np.float64)
        if problem.settings.ridge > 0:
            gradient[1:] -= problem.settings.ridge * scoring.star_sum(weight) * self.theta[1:]
        step = self.factors.solve(gradient)
        outgrown = self._outgrown(weight)
        step[:, outgrown] = 0.0
        self.theta = self.theta + step
        promised = np.einsum("tp,tp->p", step, gradient)
        return np.asarray(moved**2 * promised > problem.settings.tolerance) | outgrown

    def _outgrown(self, weight: Float32Array) -> NDArray[np.bool_]:
        """(block,) pixels with a weight above 1 + _GROWTH times what it was when factorised; from twice on, steps diverge."""
        fell = self.factor_variance - self.variance
        # a cheap bound where stars count alike; nearly all pixels are below it
        out = fell * np.sqrt(self.scoring.curvature) > _GROWTH if self.scoring.star is None else fell > 0
        some = np.flatnonzero(out)
        out[some] = fell[some] * weight[:, some].max(axis=0) > _GROWTH
        return np.asarray(out)

    def take(self, pixels: NDArray[np.bool_]) -> _Round:
        """The same with some of the pixels."""
        part = copy.copy(self)
        for name in ("flux", "noise", "variance", "factor_variance", "l1", "theta"):
            setattr(part, name, getattr(self, name)[..., pixels])
        part.factors = self.factors.take(pixels)
        part.scoring = ScatterScoring(part.noise, self.problem.star)
        return part


class ScatterScoring:
    """Fisher scoring of s^2 at fixed residuals, all pixels of a block at once.

    The score of the objective in s^2 is sum w^2 (r^2 - 1/w), w = 1/(s^2 + noise); its expected curvature is sum w^2. A step
    d = score/curvature would be exact if all noises were equal; after one small step the next ones shrink by a constant
    ratio, so the rest of the series is added at once (Aitken). float32, in units in which flux varies by about 1.
    """

    def __init__(self, noise: NDArray[Any], star: NDArray[Any] | None) -> None:
        self.noise: Float32Array = noise.astype(np.float32)
        np.minimum(self.noise, np.float32(1e15), out=self.noise)  # weights of masked pixels: their squares are no denormals
        self.star = None if star is None else star.astype(np.float32)
        self._ones = np.ones(len(noise), np.float32)
        self.weight = np.empty_like(self.noise)
        self.buffer = np.empty_like(self.noise)
        self.curvature: FloatArray = np.ones(noise.shape[1])

    def rows(self, rows: slice) -> ScatterScoring:
        """The same with some of the stars."""
        return ScatterScoring(self.noise[rows], None if self.star is None else self.star[rows])

    def star_sum(self, array: Float32Array) -> FloatArray:
        """(block,) weighted sum over stars."""
        return np.asarray((self._ones if self.star is None else self.star) @ array, dtype=np.float64)

    def weights(self, variance: FloatArray) -> Float32Array:
        """(n_stars, block) 1/(s^2 + noise), in a buffer that the next call writes into."""
        np.add(self.noise, np.maximum(variance, 1e-12).astype(np.float32), out=self.weight)
        return np.divide(np.float32(1.0), self.weight, out=self.weight)

    def solve(self, residual: Float32Array, variance: FloatArray, max_steps: int = 30) -> FloatArray:
        """(block,) s^2 at these residuals, found from a start."""
        previous = np.full(variance.shape, np.inf)
        for _ in range(max_steps):
            step = self.step(residual, variance)
            error = np.abs(np.maximum(step, -variance)) * np.sqrt(0.5 * self.curvature)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.nan_to_num(np.clip(step / previous, -0.5, 0.5))
            small = error <= _SMALL_STEP
            if small.all():
                return np.asarray(np.maximum(variance + step / (1.0 - ratio), 0.0))
            previous = step
            variance = np.maximum(variance + step, 0.0)
        return variance

    def step(self, residual: Float32Array, variance: FloatArray) -> FloatArray:
        """(block,) one scoring step from ``variance``, not yet limited to s^2 >= 0."""
        weight = self.weights(variance)
        scaled = np.multiply(weight, residual, out=self.buffer)
        total = self.star_sum(weight)
        if self.star is None:
            curvature = np.einsum("np,np->p", weight, weight)
            square = np.einsum("np,np->p", scaled, scaled)
        else:
            curvature = np.einsum("n,np,np->p", self.star, weight, weight)
            square = np.einsum("n,np,np->p", self.star, scaled, scaled)
        self.curvature = np.maximum(curvature.astype(np.float64), 1e-30)
        return np.asarray((square - total) / self.curvature)


def _standardised(flux: FloatArray, ivar: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Flux less its mean, in units of its own rms, the noise variance in those units, and (block,) mean and unit of each pixel.

    Masked pixels get flux 0 and infinite noise. No flux unit can then overflow float32, and nothing cancels.
    """
    masked = ivar <= 0
    count = np.maximum(len(flux) - masked.sum(axis=0), 1)
    some = slice(None, None, 1 + len(flux) // 64)  # the level taken off is a reference: a few stars will do
    centre = np.where(masked[some], 0.0, flux[some]).sum(axis=0) / np.maximum((~masked[some]).sum(axis=0), 1)
    centred = np.subtract(flux, centre, dtype=np.float64)
    if masked.any():
        np.putmask(centred, masked, 0.0)
    unit = np.sqrt(np.einsum("np,np->p", centred, centred) / count)
    unit[~(unit > 0)] = 1.0
    centred *= 1.0 / unit
    with np.errstate(divide="ignore"):
        noise = np.divide(1.0 / unit**2, ivar, dtype=np.float64)
    return centred, noise, centre, unit


def _check_weights(star_weights: ArrayLike | None, n_stars: int) -> tuple[Any, FloatArray | None]:
    """Rows that take part, and their weights (None: all 1)."""
    if star_weights is None:
        return slice(None), None
    star = np.asarray(star_weights, dtype=float)
    if star.shape != (n_stars,) or not np.isfinite(star).all() or (star < 0).any() or not star.any():
        raise UsageError(f"expected {n_stars} finite star weights >= 0, not all 0, got shape {star.shape}")
    return (slice(None) if (star > 0).all() else np.flatnonzero(star > 0)), star[star > 0]
