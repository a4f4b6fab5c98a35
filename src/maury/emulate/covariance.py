"""The model's own covariance over pixels, learned from cross-validated residuals: low rank plus diagonal.

A polynomial of three labels leaves out abundances, rotation, reddening and its own misfit; what is left in the spectra of
stars it has not seen is correlated over pixels. With only the independent scatter s^2 of The Cannon those residuals count as
thousands of independent measurements, which pulls the labels and makes formal errors far too small. The leading
principal components of held-out residuals (beyond their noise) become factors U, the rest the diagonal; the fit uses
diag + U U^T by the Woodbury identity (:mod:`maury.fit.chi2`), for any emulator. What a synthetic library lacks no residual of its
own tells: :class:`ModelError` says it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError
from maury.protocols import Emulator, ModelCovariance
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
TrainEmulator = Callable[[NDArray[np.int64]], Emulator]


def held_out_residuals(spectra: Spectra, values: ArrayLike, train: TrainEmulator, folds: list[NDArray[np.int64]]) -> FloatArray:
    """(n_stars, n_pixels) flux minus the prediction, at the true labels, of a model that did not see the star.

    Parameters
    ----------
    values : (n_stars, K) label units.
    train : (indices of the stars to train on) -> emulator.
    folds : index arrays that together hold every star once (see :func:`maury.train.splits.k_folds`).

    Returns
    -------
    Residuals; 0 where ivar is 0.
    """
    array = np.asarray(values, dtype=float)
    residuals = np.zeros(spectra.flux.shape)
    for fold in folds:
        emulator = train(np.setdiff1d(np.arange(len(spectra)), fold))
        residuals[fold] = spectra.flux[fold] - emulator.predict_flux(array[fold])
    return np.where(spectra.ivar > 0, residuals, 0.0)


def low_rank_covariance(
    residuals: FloatArray,
    ivar: ArrayLike,
    rank: int,
    *,
    star_weights: FloatArray | None = None,
    inflation: float = 1.0,
    clip: float = 5.0,
) -> ModelCovariance:
    """Covariance diag + U U^T of residuals, without the part that the given noise explains.

    Parameters
    ----------
    residuals : (n_stars, n_pixels), 0 where masked.
    ivar : (n_stars, n_pixels) of the same pixels.
    rank : number of factors; 0 gives the diagonal alone.
    star_weights : (n_stars,), in any unit.
    inflation : factor on the diagonal. What is left beyond the factors is still correlated between neighbouring pixels (the
        line-spread function alone spans several) and in many weak modes; a diagonal would count every pixel as a
        measurement of its own. ``inflation`` is the number of pixels that share one; it is chosen by cross-validation.
    clip : residuals beyond ``clip`` robust standard deviations of their pixel are moved to that limit, so one bad star can
        not make a factor of its own.

    Returns
    -------
    ModelCovariance whose total variance per pixel (inflation aside) is the clipped residuals' variance less the mean noise.

    Raises
    ------
    UsageError
        If ``rank`` is not below the number of stars, or ``inflation`` is below 1.
    """
    n, _ = residuals.shape
    if not 0 <= rank < n:
        raise UsageError(f"expected a covariance rank from 0 to {n - 1} for {n} training stars, got {rank}; lower it")
    if not inflation >= 1:
        raise UsageError(f"expected an inflation of the diagonal of at least 1, got {inflation}")
    weight = np.asarray(ivar, dtype=float)
    good = weight > 0
    star = np.ones(n) if star_weights is None else star_weights * (n / star_weights.sum())
    count = np.maximum(star @ good, 1e-300)
    clipped = _clip(residuals, good, clip) * np.sqrt(star)[:, None]
    noise = star @ np.where(good, 1.0 / np.where(good, weight, 1.0), 0.0) / count
    variance = (clipped**2).sum(axis=0) / count
    known = 2 * np.count_nonzero(good, axis=0) >= n  # as in train_cannon: elsewhere the model knows nothing
    if rank == 0:
        return ModelCovariance(np.where(known, inflation * np.maximum(variance - noise, 1e-12 * variance + 1e-300), np.inf))
    factors = _leading_factors(clipped * np.sqrt(n / count), variance, noise, rank)
    rest = variance - noise - (factors**2).sum(axis=1)
    # a pixel never becomes perfectly known: keep a hundredth of its residual variance as independent
    diagonal = np.where(known, inflation * np.maximum(rest, 0.01 * variance + 1e-300), np.inf)
    return ModelCovariance(diagonal, np.where(known[:, None], factors, 0.0))


@dataclass(frozen=True)
class ModelError:
    """What a computed spectrum is known to lack, beside the emulator's own error: added to the emulator's covariance.

    An emulator of a synthetic library reproduces the library, not stars. Line lists, LTE and scaled solar abundances leave errors
    that extend over lines, and the cores of some strong lines (the calcium triplet, filled in by chromospheres and by
    departures from LTE) are wrong in every star.

    Parameters
    ----------
    floor : error of the flux, in units of the continuum, everywhere.
    correlated_pixels : pixels that share one such error, 1 + 2 Σ ρ(k) with the residuals' autocorrelation ρ; the variance of the
        independent part is floor² times this (see :func:`low_rank_covariance` on inflation).
    lines : Å, in the medium of the model, at rest.
    core_widths : Å, one standard deviation each of the Gaussian shapes that the cores of all lines may be too deep by, together.
    core_amplitude : error at the lines' centres, in units of the continuum, of all shapes together.
    """

    floor: float = 0.0
    correlated_pixels: float = 1.0
    lines: tuple[float, ...] = ()
    core_widths: tuple[float, ...] = ()
    core_amplitude: float = 0.0

    def __post_init__(self) -> None:
        numbers = np.array([self.floor, self.correlated_pixels, self.core_amplitude])
        if not (np.isfinite(numbers).all() and (numbers >= [0, 1, 0]).all()):
            raise UsageError(
                f"expected floor >= 0, correlated_pixels >= 1 and core_amplitude >= 0 of a model error, got {self.floor:g}, "
                f"{self.correlated_pixels:g} and {self.core_amplitude:g}; correct them"
            )
        if not bool(self.lines) == bool(self.core_widths) == (self.core_amplitude > 0) or not all(
            0 < x < np.inf for x in (*self.lines, *self.core_widths)
        ):
            raise UsageError(
                f"expected lines, core_widths and core_amplitude above 0 together in a model error, got {list(self.lines)}, "
                f"{list(self.core_widths)} and {self.core_amplitude:g}; give all or none"
            )

    def added_to(self, covariance: ModelCovariance, wavelength: FloatArray) -> ModelCovariance:
        """The covariance of both together, on (n_pixels,) wavelengths."""
        diagonal = covariance.diagonal + self.correlated_pixels * self.floor**2
        if not self.lines:
            return ModelCovariance(diagonal, covariance.factors)
        away = np.abs(wavelength[:, None] - np.array(self.lines)).min(axis=1)
        share = self.core_amplitude / np.sqrt(len(self.core_widths))
        cores = share * np.exp(-0.5 * (away[:, None] / np.array(self.core_widths)) ** 2)
        return ModelCovariance(diagonal, cores if covariance.factors is None else np.hstack([covariance.factors, cores]))

    def draw(self, wavelength: FloatArray, n: int, random: np.random.Generator) -> FloatArray:
        """(n, n_pixels) errors such as it believes in, for simulations: smooth over ``correlated_pixels``, and cores.

        White noise smoothed by a Gaussian of σ pixels has Σ ρ(k) = 2 σ √π over all k.
        """
        from scipy.ndimage import gaussian_filter1d

        width = self.correlated_pixels / (2.0 * np.sqrt(np.pi))
        reach = int(np.ceil(5.0 * width))
        white = random.standard_normal((n, len(wavelength) + 2 * reach))
        smooth = gaussian_filter1d(white, width, axis=1, mode="constant")[:, reach : reach + len(wavelength)]
        out = self.floor * smooth * np.sqrt(2.0 * width * np.sqrt(np.pi))
        bare = ModelCovariance(np.zeros(len(wavelength)))
        factors = self.added_to(bare, wavelength).factors
        return np.asarray(out if factors is None else out + random.standard_normal((n, factors.shape[1])) @ factors.T)


def _leading_factors(filled: FloatArray, variance: FloatArray, noise: FloatArray, rank: int) -> FloatArray:
    """(n_pixels, rank) principal components of residuals in units of each pixel's scatter, less the noise along them."""
    n = len(filled)
    scale = np.sqrt(np.maximum(variance, 1e-300))
    unit = filled / scale
    eigenvalues, vectors = np.linalg.eigh(unit @ unit.T / n)  # (n, n): cheaper than the pixel covariance, same spectrum
    order = np.argsort(eigenvalues)[::-1][:rank]
    directions = unit.T @ vectors[:, order] / np.sqrt(np.maximum(n * eigenvalues[order], 1e-300))
    noise_along = (directions**2 * (noise / scale**2)[:, None]).sum(axis=0)
    strength = np.sqrt(np.maximum(eigenvalues[order] - noise_along, 0.0))
    return np.ascontiguousarray(directions * strength * scale[:, None])


def _clip(residuals: FloatArray, good: NDArray[np.bool_], clip: float) -> FloatArray:
    masked = np.where(good, residuals, np.nan)
    empty = ~good.any(axis=0)
    masked[:, empty] = 0.0
    centre = np.nanmedian(masked, axis=0)
    sigma = ROBUST_SIGMA_PER_MAD * np.nanmedian(np.abs(masked - centre), axis=0)
    limit = clip * np.where(sigma > 0, sigma, np.inf)
    return np.where(good, np.clip(residuals, centre - limit, centre + limit), 0.0)
