"""The Cannon: every pixel's flux is a polynomial of the labels, with a scatter of its own (Ness+2015; METHODS 0.5).

For each pixel we minimise over coefficients theta and scatter s

    sum_n [ (f_n - theta . v_n)^2 / (s^2 + sigma_n^2) + ln(s^2 + sigma_n^2) ]  (+ ridge and L1 penalties on theta)

for all pixels at once. Where the published code scans 19 values of ln s and interpolates, we alternate the exact linear
solution for theta with Fisher scoring of s^2, which reaches a lower objective in every pixel (a recovery test holds it to
that). L1 regularisation (Casey+2016, eq. 8) is solved by coordinate descent on the same normal matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.emulate.polynomial import PolynomialTerms
from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

_PIXEL_BLOCK = 192  # keeps a block's (n_stars, block) arrays in the second-level cache for a few thousand stars


@dataclass(frozen=True)
class CannonConfig:
    """How a Cannon is trained.

    Parameters
    ----------
    order : degree of the label polynomial (2 is the published one).
    terms : names such as "teff", "logg^3", "teff*fe_h" instead of all terms up to ``order``.
    ridge : L2 penalty on all terms but the constant, in units of the total weight of a pixel: a term of unit variance is
        shrunk by 1/(1 + ridge). Tames the near-degenerate labels of M dwarfs.
    l1 : strength Lambda of the L1 penalty of Casey+2016 on all terms but the constant; 0 switches it off.
    fit_scatter : False sets s = 0 (weights are the given errors alone).
    ivar_floor : training inverse variances (also those of masked pixels) below this are raised to it. The published code
        uses 0.01, which lets masked pixels in with sigma = 10; the default 0 leaves them out.
    max_iterations, tolerance : of the alternation; it stops when no s^2 moves by more than ``tolerance`` of its own
        standard error (0.02 changes the objective by 2e-4).
    """

    order: int = 2
    terms: tuple[str, ...] = ()
    ridge: float = 0.0
    l1: float = 0.0
    fit_scatter: bool = True
    ivar_floor: float = 0.0
    max_iterations: int = 20
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        for name in ("ridge", "l1", "ivar_floor"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"expected {name} >= 0, got {getattr(self, name)}; 0 switches it off")

    def polynomial(self, labels: tuple[str, ...]) -> PolynomialTerms:
        """The terms of this configuration for labels of these names."""
        if self.terms:
            return PolynomialTerms.from_names(self.terms, labels)
        return PolynomialTerms.of_order(len(labels), self.order)


@dataclass(frozen=True, eq=False)
class CannonEmulator:
    """A trained Cannon: flux = terms(labels) @ coefficients, with its covariance.

    Parameters
    ----------
    labels : label set with scaling and training range.
    wavelength : (n_pixels,) Å.
    coefficients : (n_terms, n_pixels).
    model_covariance : scatter s^2 as diagonal, plus low-rank factors where learned.
    polynomial : the terms.
    """

    labels: LabelSet
    wavelength: FloatArray
    coefficients: FloatArray
    model_covariance: ModelCovariance
    polynomial: PolynomialTerms

    def __post_init__(self) -> None:
        expected = (self.polynomial.n_terms, len(self.wavelength))
        if self.coefficients.shape != expected:
            raise UsageError(f"expected Cannon coefficients of shape {expected}, got {self.coefficients.shape}")

    @property
    def scatter(self) -> FloatArray:
        """(n_pixels,) the model's own standard deviation s, flux units."""
        return np.asarray(np.sqrt(self.model_covariance.diagonal))

    @property
    def term_names(self) -> tuple[str, ...]:
        return self.polynomial.names(self.labels.names)

    def terms(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., n_terms)."""
        return self.polynomial.evaluate(scaled)

    def terms_jacobian(self, scaled: FloatArray) -> FloatArray:
        """(..., K) scaled labels -> (..., n_terms, K)."""
        return self.polynomial.jacobian(scaled)

    def predict_flux(self, values: FloatArray) -> FloatArray:
        """(n, K) label units -> (n, n_pixels)."""
        return np.asarray(self.terms(self.labels.scale(np.atleast_2d(values))) @ self.coefficients)

    def predict_jacobian(self, values: FloatArray) -> FloatArray:
        """(n, K) label units -> (n, n_pixels, K), per label unit."""
        scaled = self.labels.scale(np.atleast_2d(values))
        per_scaled = np.einsum("ntk,tp->npk", self.terms_jacobian(scaled), self.coefficients, optimize=True)
        return np.asarray(per_scaled / self.labels.unscale_slope(scaled)[:, None, :])

    def with_covariance(self, covariance: ModelCovariance) -> CannonEmulator:
        """The same model with another covariance (see :mod:`maury.emulate.covariance`)."""
        return CannonEmulator(self.labels, self.wavelength, self.coefficients, covariance, self.polynomial)

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays: dict[str, NDArray[Any]] = {
            "wavelength": self.wavelength,
            "coefficients": self.coefficients,
            "covariance_diagonal": self.model_covariance.diagonal,
        }
        if self.model_covariance.factors is not None:
            arrays["covariance_factors"] = self.model_covariance.factors
        terms = self.polynomial.names(self.labels.names)
        return arrays, {"kind": "cannon", "terms": list(terms), "label_set": self.labels.to_config()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> CannonEmulator:
        """Inverse of :meth:`to_arrays`."""
        covariance = ModelCovariance(arrays["covariance_diagonal"], arrays.get("covariance_factors"))
        labels = LabelSet.from_config(config["label_set"])
        terms = PolynomialTerms.from_names(config["terms"], labels.names)
        return cls(labels, arrays["wavelength"], arrays["coefficients"], covariance, terms)


def train_cannon(
    spectra: Spectra,
    labels: tuple[Label, ...],
    values: ArrayLike,
    config: CannonConfig | None = None,
    *,
    label_errors: ArrayLike | None = None,
    star_weights: ArrayLike | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CannonEmulator:
    """Train The Cannon on normalised spectra of stars with known labels.

    Parameters
    ----------
    spectra : n_stars prepared spectra; ivar = 0 pixels take no part.
    labels, values : the labels and their (n_stars, K) values in label units, all finite.
    config : see :class:`CannonConfig`.
    label_errors : (n_stars, K) standard deviations of ``values``; their effect on the flux (J^2 sigma^2) is added to each
        pixel's variance in a second pass (effective-variance method).
    star_weights : (n_stars,) factors on each star's term of the objective, 0 for a star to be left out (see
        :func:`maury.emulate.robust.student_weights`).
    progress : called with (pixels done, pixels in all).

    Returns
    -------
    CannonEmulator with s^2 as the diagonal of its covariance.

    Raises
    ------
    UsageError
        If labels are not finite, or there are fewer stars than terms.
    """
    config = config or CannonConfig()
    label_set = LabelSet.from_training(labels, values)
    scaled = label_set.scale(values)
    polynomial = config.polynomial(label_set.names)
    if len(scaled) != len(spectra):
        raise UsageError(f"expected labels for {len(spectra)} spectra, got {len(scaled)} rows; join them first")
    if len(scaled) < polynomial.n_terms:
        raise UsageError(
            f"expected at least {polynomial.n_terms} training stars for {len(labels)} labels and as many terms, "
            f"got {len(scaled)}; add stars or lower the order"
        )
    problem = _TrainingProblem(polynomial, scaled, config, star_weights)
    coefficients = np.empty((polynomial.n_terms, spectra.n_pixels))
    variance = np.empty(spectra.n_pixels)
    scaled_errors = _scaled_errors(label_set, scaled, label_errors)
    for start in range(0, spectra.n_pixels, _PIXEL_BLOCK):
        block = slice(start, min(start + _PIXEL_BLOCK, spectra.n_pixels))
        flux = np.ascontiguousarray(spectra.flux[:, block], dtype=np.float64)
        ivar = np.array(spectra.ivar[:, block], dtype=np.float64)
        if config.ivar_floor > 0:
            np.maximum(ivar, config.ivar_floor, out=ivar)
        coefficients[:, block], variance[block] = problem.solve(flux, ivar, scaled_errors)
        if progress is not None:
            progress(block.stop, spectra.n_pixels)
    wavelength = np.array(spectra.wavelength, dtype=np.float64)
    return CannonEmulator(label_set, wavelength, coefficients, ModelCovariance(variance), polynomial)


def condition_number(labels: LabelSet, values: ArrayLike, polynomial: PolynomialTerms) -> float:
    """Condition number of the design matrix of the training labels.

    Above about 1e4 labels can hardly be told apart: use ``ridge`` or ``l1``, or drop a label.
    """
    return float(np.linalg.cond(polynomial.evaluate(labels.scale(values))))


def training_objective(emulator: CannonEmulator, spectra: Spectra, values: ArrayLike) -> FloatArray:
    """(n_pixels,) the objective of METHODS 0.5 (no penalties) of a trained Cannon on a training set."""
    residual = spectra.flux - emulator.predict_flux(np.asarray(values, dtype=float))
    good = spectra.ivar > 0
    with np.errstate(divide="ignore"):
        variance = np.where(good, 1.0 / spectra.ivar + emulator.model_covariance.diagonal, 1.0)
    return np.asarray(np.where(good, residual**2 / variance + np.log(variance), 0.0).sum(axis=0))


def _scaled_errors(labels: LabelSet, scaled: FloatArray, label_errors: ArrayLike | None) -> FloatArray | None:
    if label_errors is None:
        return None
    errors = np.asarray(label_errors, dtype=float)
    if errors.shape != scaled.shape or not np.isfinite(errors).all() or (errors < 0).any():
        raise UsageError(f"expected finite label errors >= 0 of shape {scaled.shape}, got {errors.shape}; one per label")
    return np.asarray(errors / np.abs(labels.unscale_slope(scaled)))


class _TrainingProblem:
    """The alternation for one block of pixels; what depends on the labels alone is computed once."""

    def __init__(
        self, polynomial: PolynomialTerms, scaled: FloatArray, config: CannonConfig, star_weights: ArrayLike | None
    ) -> None:
        double, self.pair_index = polynomial.products
        self.design = polynomial.evaluate(scaled)  # (n_stars, n_terms)
        self.design_jacobian = polynomial.jacobian(scaled)  # (n_stars, n_terms, K)
        self.moment_design = np.ascontiguousarray(double.evaluate(scaled).T)  # (n_monomials, n_stars)
        self.config = config
        self.star: FloatArray | None = None
        if star_weights is not None:
            star = np.asarray(star_weights, dtype=float)
            if star.shape != (len(scaled),) or not np.isfinite(star).all() or (star < 0).any() or not star.any():
                raise UsageError(f"expected {len(scaled)} finite star weights >= 0, not all 0, got shape {star.shape}")
            self.design_right = self.design * star[:, None]
            self.moment_design = self.moment_design * star
            self.star = star
        else:
            self.design_right = self.design

    def solve(self, flux: FloatArray, ivar: FloatArray, label_errors: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """(n_terms, block) coefficients and (block,) variance s^2 of a block of pixels."""
        good = ivar > 0
        noise = np.divide(1.0, ivar, out=np.full_like(ivar, np.inf), where=good)
        theta, variance = self._alternate(flux, noise, ivar)
        if label_errors is not None:
            for k in range(label_errors.shape[1]):
                slope = self.design_jacobian[:, :, k] @ theta
                noise += (slope * label_errors[:, k : k + 1]) ** 2
            theta, variance = self._alternate(flux, noise, 1.0 / noise)
        return theta, variance

    def _alternate(self, flux: FloatArray, noise: FloatArray, ivar: FloatArray) -> tuple[FloatArray, FloatArray]:
        config = self.config
        variance = np.zeros(flux.shape[1])
        theta = self._coefficients(flux, ivar)
        if not config.fit_scatter:
            return theta, variance
        scoring = _ScatterScoring(noise, self.star)
        for _ in range(config.max_iterations):
            residual = flux - self.design @ theta
            new, information = scoring.solve(residual, variance)
            # a change matters when it moves the objective: compare it with the standard error of s^2
            small = np.abs(new - variance) * np.sqrt(information) <= config.tolerance
            variance = new
            if small.all():
                break
            theta = self._coefficients(flux, np.divide(1.0, noise + variance))
        return theta, variance

    def _coefficients(self, flux: FloatArray, weight: FloatArray) -> FloatArray:
        """Weighted least squares with penalties for all pixels of the block: (n_terms, block)."""
        moments = self.moment_design @ weight  # (n_monomials, block)
        normal = np.ascontiguousarray(moments.T)[:, self.pair_index]  # (block, n_terms, n_terms)
        right = (self.design_right.T @ (weight * flux)).T  # (block, n_terms)
        n_terms = right.shape[1]
        total = np.maximum(moments[0], 1e-300)
        # a pixel that no star covers gets coefficients 0; the tiny jitter keeps its matrix regular
        jitter = 1e-12 * total + 1e-300
        diagonal = np.arange(n_terms)
        normal[:, diagonal, diagonal] += jitter[:, None]
        if self.config.ridge > 0:
            normal[:, diagonal[1:], diagonal[1:]] += self.config.ridge * total[:, None]
        theta: FloatArray = np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0])
        if self.config.l1 > 0:
            theta = lasso_coordinate_descent(normal, right, theta, self.config.l1)
        return np.ascontiguousarray(theta.T)


class _ScatterScoring:
    """Fisher scoring of s^2 at fixed residuals, all pixels of a block at once.

    The score of the objective in s^2 is sum w^2 (r^2 - 1/w), w = 1/(s^2 + noise); its expected curvature is sum w^2. Runs in
    float32 (a tenth of a per mille of s^2 is far below its own error; the division is the cost of the whole training), in
    units of each pixel's mean squared residual so that no flux unit overflows.
    """

    def __init__(self, noise: FloatArray, star: FloatArray | None) -> None:
        self.noise = noise
        self.star = np.ones(len(noise), np.float32) if star is None else star.astype(np.float32)
        self.scaled_noise = np.empty(noise.shape, np.float32)
        self.weight = np.empty(noise.shape, np.float32)
        self.buffer = np.empty(noise.shape, np.float32)

    def solve(self, residual: FloatArray, variance: FloatArray, max_steps: int = 30) -> tuple[FloatArray, FloatArray]:
        """(block,) s^2 and (block,) its information, half the sum of squared weights."""
        square = np.where(np.isfinite(self.noise), residual, 0.0)
        np.square(square, out=square)
        unit = square.mean(axis=0)
        unit[unit < 1e-200] = 1.0  # a pixel without data, or described exactly
        square32 = (square / unit).astype(np.float32)
        np.minimum(self.noise / unit, 1e30, out=self.scaled_noise, casting="unsafe")
        scaled = (variance / unit).astype(np.float32)
        for _ in range(max_steps):
            np.add(self.scaled_noise, scaled, out=self.weight)
            np.maximum(self.weight, np.float32(1e-6), out=self.weight)
            np.divide(np.float32(1.0), self.weight, out=self.weight)
            total = self.star @ self.weight
            np.multiply(self.weight, self.weight, out=self.buffer)
            curvature = np.maximum(self.star @ self.buffer, np.float32(1e-30))
            np.multiply(self.buffer, square32, out=self.buffer)
            step = (self.star @ self.buffer - total) / curvature
            new = np.maximum(scaled + step, np.float32(0.0))
            converged = np.abs(new - scaled) * np.sqrt(curvature) <= 1e-2
            scaled = new
            if converged.all():
                break
        return scaled.astype(np.float64) * unit, 0.5 * curvature.astype(np.float64) / unit**2


def lasso_coordinate_descent(
    normal: FloatArray, right: FloatArray, theta: FloatArray, strength: float, max_sweeps: int = 500, tolerance: float = 1e-9
) -> FloatArray:
    """Minimise theta' N theta - 2 r' theta + strength * sum_{d>=1} |theta_d| for many pixels at once.

    Parameters
    ----------
    normal : (n_pixels, T, T); right, theta : (n_pixels, T); theta is the start. The constant term (index 0) is free.

    Returns
    -------
    (n_pixels, T). Convex: cyclic coordinate descent converges to the global minimum (Casey+2016 eq. 8 at fixed s).
    """
    theta = theta.copy()
    diagonal = np.einsum("ptt->pt", normal)
    n_terms = theta.shape[1]
    scale = np.maximum(np.abs(right).max(axis=1), 1e-300)
    for _ in range(max_sweeps):
        largest = np.zeros(len(theta))
        for d in range(n_terms):
            gap = right[:, d] - np.einsum("pt,pt->p", normal[:, d], theta) + diagonal[:, d] * theta[:, d]
            threshold = 0.0 if d == 0 else 0.5 * strength
            new = np.sign(gap) * np.maximum(np.abs(gap) - threshold, 0.0) / diagonal[:, d]
            largest = np.maximum(largest, np.abs(new - theta[:, d]) * diagonal[:, d])
            theta[:, d] = new
        if (largest <= tolerance * scale).all():
            break
    return theta
