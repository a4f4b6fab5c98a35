"""Spectra as a few scores of principal components, with the covariance that noise and masked pixels give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.emulate.cannon import covered
from maury.emulate.components import principal_components
from maury.errors import UsageError
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

_SMALLEST_REST = 1e-12  # of the flux's variance: spectra of fewer dimensions than components leave nothing at all
_QUANTILE, _FAR = 0.999, 2.0  # "far above the training spectra": twice the misfit that 99.9 % of them do not exceed
_NOISE_SIGMA = 5.0


@dataclass(frozen=True, eq=False)
class Scores:
    """What :meth:`ScoreSpace.project` finds in n spectra.

    Parameters
    ----------
    values : (n, r) likely scores; covariance : (n, r, r) of them, from the noise, the masked pixels and the pull towards 0.
    chi2 : (n,) of the spectrum that the scores describe; n_pixels : (n,) pixels used.
    strange : (n,) where the components leave far more than they leave of training spectra.
    """

    values: FloatArray
    covariance: FloatArray
    chi2: FloatArray
    n_pixels: NDArray[np.int64]
    strange: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ScoreSpace:
    """Principal components of training spectra: flux = mean + scores @ basis + rest.

    Parameters
    ----------
    wavelength, mean : (n_pixels,); basis : (r, n_pixels), orthonormal.
    spread : (r,) standard deviation of each score over the training spectra.
    rest : (n_pixels,) variance that the components leave in a pixel, beyond noise; infinite where too few spectra had the pixel.
    limit : mean square of what may be left of a spectrum, beyond noise, before it is called strange.
    """

    wavelength: FloatArray
    mean: FloatArray
    basis: FloatArray
    spread: FloatArray
    rest: FloatArray
    limit: float

    def __post_init__(self) -> None:
        r, n_pixels = self.basis.shape
        if self.spread.shape != (r,) or any(a.shape != (n_pixels,) for a in (self.wavelength, self.mean, self.rest)):
            raise UsageError(f"expected {r} spreads and mean, rest and wavelength of {n_pixels} pixels, got others; correct them")
        if not (self.spread > 0).all() or not (self.rest > 0).all() or not np.isfinite(self.rest).any():
            raise UsageError("expected spreads and left variances > 0, some of them finite, got others; correct them")

    @classmethod
    def of(cls, spectra: Spectra, n_components: int) -> ScoreSpace:
        """The components of training spectra; masked pixels are filled (:func:`~maury.emulate.components.principal_components`).

        Raises
        ------
        UsageError
            If there are not more spectra than components, or no pixel that half of them have.
        """
        flux, good, known = np.asarray(spectra.flux, dtype=np.float64), spectra.ivar > 0, covered(spectra)
        if not known.any():
            raise UsageError("expected pixels that half of the training spectra have, got none; prepare them on one grid")
        mean, basis, scores = principal_components(flux, good, np.ones(len(flux)), n_components)
        spread = scores.std(axis=0)
        spread = np.maximum(spread, 1e-9 * spread.max() + 1e-300)
        count = np.maximum(good.sum(axis=0), 1)
        left = (np.where(good, flux - mean - scores @ basis, 0.0) ** 2).sum(axis=0) / count
        noise = _noise(spectra, good).sum(axis=0) / count
        total = np.where(good, (flux - mean) ** 2, 0.0).sum(axis=0) / count
        rest = np.maximum(left - noise, 0.01 * left) + _SMALLEST_REST * total[known].mean() + 1e-300
        space = cls(np.array(spectra.wavelength), mean, basis, spread, np.where(known, rest, np.inf), np.inf)
        # where training spectra are noisy their own scatter stays in: what they hide can not be called strange later
        excess = np.quantile(space._excess(spectra, space.project(spectra).values)[0], _QUANTILE)
        return cls(space.wavelength, mean, basis, spread, space.rest, float(_FAR * max(excess, space.mean_rest)))

    @property
    def mean_rest(self) -> float:
        """Variance that the components leave in a pixel, mean over pixels."""
        return float(self.rest[np.isfinite(self.rest)].mean())

    @property
    def n_components(self) -> int:
        return len(self.basis)

    def project(self, spectra: Spectra) -> Scores:
        """Likely scores: least squares over the good pixels, with the training spectra's spread as prior.

        With weights w = 1/(1/ivar + mean rest), M = basis w basis' and A = M + 1/spread² scores are A⁻¹ basis w (flux - mean).
        One number for the rest of all pixels: with even noise and no gap the rest, which is orthogonal to the basis, then has no
        influence, and only noise, gaps and the prior are in the covariance A⁻¹ - rest A⁻¹ M² A⁻¹.

        Raises
        ------
        UsageError
            If the grids differ.
        """
        self.check_grid(spectra)
        good, weight = self._weights(spectra)
        offset = np.where(good, spectra.flux - self.mean, 0.0)
        i, j = np.triu_indices(self.n_components)
        normal = np.empty((len(offset), self.n_components, self.n_components))
        normal[:, i, j] = normal[:, j, i] = weight @ (self.basis[i] * self.basis[j]).T
        # in units of the spread the matrix is 1 + something positive: regular whatever is masked
        scaled = normal * (self.spread[:, None] * self.spread)
        inverse = np.linalg.inv(scaled + np.eye(self.n_components))
        inverse = inverse * (self.spread[:, None] * self.spread)
        values = np.einsum("nij,nj->ni", inverse, (weight * offset) @ self.basis.T)
        pulled = np.matmul(inverse, normal)
        covariance = inverse - self.mean_rest * np.matmul(pulled, pulled.transpose(0, 2, 1))
        left = np.where(good, offset - values @ self.basis, 0.0)
        chi2 = (left**2 / np.where(good, _noise(spectra, good) + self.rest, np.inf)).sum(axis=1)
        excess, margin = self._excess(spectra, values)
        return Scores(values, covariance, chi2, good.sum(axis=1), excess > self.limit + margin)

    def _excess(self, spectra: Spectra, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) mean square of what the scores leave, over good pixels, less the noise; and (n,) five sigma of that by noise."""
        good, weight = self._weights(spectra)
        left = np.where(good, spectra.flux - self.mean - values @ self.basis, 0.0)
        noise = weight * _noise(spectra, good)
        total = np.maximum(weight.sum(axis=1), 1e-300)
        margin = _NOISE_SIGMA * np.sqrt(2.0 * (noise**2).sum(axis=1))
        return ((weight * left**2).sum(axis=1) - noise.sum(axis=1)) / total, margin / total

    def _weights(self, spectra: Spectra) -> tuple[NDArray[np.bool_], FloatArray]:
        good = (spectra.ivar > 0) & np.isfinite(self.rest)
        return good, np.where(good, 1.0 / (_noise(spectra, good) + self.mean_rest), 0.0)

    def check_grid(self, spectra: Spectra) -> None:
        """Raise UsageError unless the spectra are on the grid of the components."""
        if not np.array_equal(spectra.wavelength, self.wavelength):
            raise UsageError(
                f"expected spectra on the model's grid of {len(self.wavelength)} pixels from {self.wavelength[0]:.2f} to "
                f"{self.wavelength[-1]:.2f} Å, got {spectra!r}; prepare them with the model's preparation"
            )

    # -- files --------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and plain settings for a model file; inverse of :meth:`from_arrays`."""
        arrays = {name: getattr(self, name) for name in ("wavelength", "mean", "basis", "spread", "rest")}
        return arrays, {"limit": self.limit}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> ScoreSpace:
        """Inverse of :meth:`to_arrays`."""
        names = ("wavelength", "mean", "basis", "spread", "rest")
        return cls(**{name: arrays[name] for name in names}, limit=float(config["limit"]))


def _noise(spectra: Spectra, good: NDArray[np.bool_]) -> FloatArray:
    """(n, n_pixels) variance of the noise; 0 where not good."""
    return np.where(good, 1.0 / np.where(good, spectra.ivar, 1.0), 0.0)
