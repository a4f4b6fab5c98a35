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

from maury.emulate.alternation import TrainingProblem
from maury.emulate.polynomial import PolynomialTerms
from maury.errors import UsageError
from maury.labels import Label, LabelSet
from maury.protocols import ModelCovariance
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]


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
    max_iterations, tolerance : of the alternation; a pixel is done when its objective is within about ``tolerance`` of the
        minimum (a change of 1 moves it by one standard error).
    """

    order: int = 2
    terms: tuple[str, ...] = ()
    ridge: float = 0.0
    l1: float = 0.0
    fit_scatter: bool = True
    ivar_floor: float = 0.0
    max_iterations: int = 20
    tolerance: float = 1e-5

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
    problem = TrainingProblem(polynomial, scaled, config, star_weights)
    coefficients = np.empty((polynomial.n_terms, spectra.n_pixels))
    variance = np.empty(spectra.n_pixels)
    scaled_errors = _scaled_errors(label_set, scaled, label_errors)
    for start in range(0, spectra.n_pixels, problem.block_size):
        block = slice(start, min(start + problem.block_size, spectra.n_pixels))
        ivar = spectra.ivar[:, block]
        if config.ivar_floor > 0:
            ivar = np.maximum(ivar, config.ivar_floor)
        coefficients[:, block], variance[block] = problem.solve(spectra.flux[:, block], ivar, scaled_errors)
        if progress is not None:
            progress(block.stop, spectra.n_pixels)
    wavelength = np.array(spectra.wavelength, dtype=np.float64)
    if config.ivar_floor == 0:  # with the published floor masked pixels count as (poor) measurements
        variance[~covered(spectra)] = np.inf
    return CannonEmulator(label_set, wavelength, coefficients, ModelCovariance(variance), polynomial)


def covered(spectra: Spectra) -> NDArray[np.bool_]:
    """(n_pixels,) pixels that at least half of the training stars have: elsewhere a model is an extrapolation from a few."""
    return np.asarray(2 * np.count_nonzero(spectra.ivar > 0, axis=0) >= len(spectra))


def condition_number(labels: LabelSet, values: ArrayLike, polynomial: PolynomialTerms) -> float:
    """Condition number of the design matrix of the training labels.

    Above about 1e4 labels can hardly be told apart: use ``ridge`` or ``l1``, or drop a label.
    """
    return float(np.linalg.cond(polynomial.evaluate(labels.scale(values))))


def training_objective(emulator: CannonEmulator, spectra: Spectra, values: ArrayLike) -> FloatArray:
    """(n_pixels,) the objective of METHODS 0.5 (no penalties) of a trained Cannon on a training set."""
    residual = spectra.flux - emulator.predict_flux(np.asarray(values, dtype=float))
    good = (spectra.ivar > 0) & emulator.model_covariance.known
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
