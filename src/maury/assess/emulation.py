"""How well an emulator generates real spectra: the share of pixels within 1, 2 and 4 % of the observed flux (Imig et al. 2022).

The observed flux has noise: at a signal-to-noise of 50 per pixel a perfect emulator is within 2 % in 68 % of the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.fit.inferrer import FittedInferrer
from maury.fit.regional import RegionalInferrer, blend_weights
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LIMITS = (0.01, 0.02, 0.04)
IMIG2022_TEFF_BINS = ((3000.0, 5000.0), (5000.0, 8000.0), (8000.0, 12000.0), (12000.0, 20000.0), (20000.0, 35000.0))
"""K; the bins of their Table 3."""


@dataclass(frozen=True)
class EmulatorAccuracy:
    """Shares of the pixels of a selection of stars within each limit of the observed flux.

    Parameters
    ----------
    selection : "all" or the bin.
    n_spectra, n_pixels : how many stars, and pixels of all of them together, were compared.
    shares : one per limit, 0 to 1; NaN where there is no pixel.
    """

    selection: str
    n_spectra: int
    n_pixels: int
    shares: tuple[float, ...]


def emulator_accuracy(
    spectra: Spectra,
    flux: ArrayLike,
    *,
    known: ArrayLike | None = None,
    by: tuple[str, ArrayLike] | None = None,
    ranges: Sequence[tuple[float, float]] = (),
    limits: Sequence[float] = LIMITS,
) -> list[EmulatorAccuracy]:
    """Shares over all stars and pixels, then for each bin of a label.

    Parameters
    ----------
    spectra : prepared; pixels of ivar 0 and of flux that is not above 0 are left out.
    flux : (n_spectra, n_pixels) of the emulator on the same pixels; NaN is left out.
    known : (n_pixels,) pixels of which the emulator knows anything; all if None.
    by, ranges : (name, (n_spectra,) values) and bins low <= value < high.
    limits : relative deviations.

    Raises
    ------
    UsageError
        If shapes disagree.
    """
    deviation = _deviation(spectra, flux, known)
    selections = {"all": np.ones(len(spectra), bool)}
    if by is not None:
        name, values = by[0], np.asarray(by[1], dtype=float)
        if values.shape != (len(spectra),):
            raise UsageError(f"expected one {name} for each of {len(spectra)} spectra, got shape {values.shape}; give one each")
        selections |= {f"{low:g} <= {name} < {high:g}": (values >= low) & (values < high) for low, high in ranges}
    return [_accuracy(selection, deviation[chosen], limits) for selection, chosen in selections.items()]


def share_per_pixel(
    spectra: Spectra, flux: ArrayLike, *, known: ArrayLike | None = None, limits: Sequence[float] = LIMITS
) -> FloatArray:
    """(n_limits, n_pixels) share of the stars within each limit, pixel by pixel; NaN where no star has the pixel.

    Parameters, and what is left out, as :func:`emulator_accuracy`.
    """
    deviation = _deviation(spectra, flux, known)
    n = np.isfinite(deviation).sum(axis=0)
    inside = np.array([(deviation <= limit).sum(axis=0) for limit in limits], dtype=float)
    return np.asarray(np.where(n > 0, inside / np.maximum(n, 1), np.nan))


def fitted_flux(inferrer: FittedInferrer, spectra: Spectra, values: ArrayLike) -> FloatArray:
    """(n_spectra, n_pixels) flux that a model gives for these labels.

    Regional emulators are blended as their labels are. Where the fit allows for smooth calibration errors of a spectrum
    (:class:`~maury.fit.continuum.ContinuumModes`), its most probable ones are added: they are no fault of the emulator.

    Parameters
    ----------
    spectra : prepared.
    values : (n_spectra, K) label units; a star with NaN gets NaN.
    """
    labels = np.asarray(values, dtype=float)
    complete = np.isfinite(labels).all(axis=1)
    out = np.full(spectra.flux.shape, np.nan)
    if complete.any():
        out[complete] = _blended(inferrer, labels[complete])
        out[complete] += _calibration(inferrer, spectra[complete], out[complete])
    return out


def _blended(inferrer: FittedInferrer, values: FloatArray) -> FloatArray:
    if not isinstance(inferrer, RegionalInferrer):
        return inferrer.emulator.predict_flux(values)
    share = blend_weights(inferrer.labels, inferrer.label, inferrer.centres, values)
    parts = [weight[:, None] * region.predict_flux(values) for weight, region in zip(share.T, inferrer.regions, strict=True)]
    return np.asarray(np.sum(parts, axis=0))


def _calibration(inferrer: FittedInferrer, spectra: Spectra, flux: FloatArray) -> FloatArray:
    """(n_spectra, n_pixels) most probable smooth calibration errors given the residuals; 0 where none are allowed for.

    With W the model's own factors and the modes together, the amplitudes are (I + W' D^-1 W)^-1 W' D^-1 r, of which those of
    the modes are used (D is the noise plus the independent part of the model's covariance).
    """
    out = np.zeros(flux.shape)
    modes = inferrer.fitter.continuum
    if modes is None:
        return out
    own, needed = inferrer.emulator.model_covariance, modes.needed(spectra)
    factors = modes.extend(inferrer.emulator).model_covariance.factors
    if factors is None or not needed.any():
        return out
    for row in np.flatnonzero(needed):
        used = (spectra.ivar[row] > 0) & own.known
        weight = 1.0 / (1.0 / spectra.ivar[row, used] + own.diagonal[used])
        basis = factors[used]
        right = basis.T @ (weight * (spectra.flux[row, used] - flux[row, used]))
        amplitude = np.linalg.solve(np.eye(basis.shape[1]) + (basis.T * weight) @ basis, right)
        out[row] = factors[:, own.rank :] @ amplitude[own.rank :]
    return out


def _deviation(spectra: Spectra, flux: ArrayLike, known: ArrayLike | None) -> FloatArray:
    """(n_spectra, n_pixels) |flux/observed - 1|, NaN where there is nothing to compare."""
    model = np.asarray(flux, dtype=float)
    if model.shape != spectra.flux.shape:
        raise UsageError(f"expected the emulator's flux of shape {spectra.flux.shape}, got {model.shape}; use the same pixels")
    usable = (spectra.ivar > 0) & (spectra.flux > 0) & np.isfinite(model)
    if known is not None:
        usable &= np.asarray(known, dtype=bool)
    difference = np.abs(model - spectra.flux)
    return np.asarray(np.where(usable, difference / np.where(usable, spectra.flux, 1.0), np.nan))


def _accuracy(selection: str, deviation: FloatArray, limits: Sequence[float]) -> EmulatorAccuracy:
    finite = np.isfinite(deviation)
    n = int(finite.sum())
    shares = tuple(float((deviation <= limit).sum() / n) if n else float("nan") for limit in limits)
    return EmulatorAccuracy(selection, int(finite.any(axis=1).sum()), n, shares)
