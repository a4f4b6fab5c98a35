"""How well an emulator generates spectra.

Real ones: the share of pixels within 1, 2 and 4 % of the observed flux (Imig et al. 2022). The observed flux has noise: at a
signal-to-noise of 50 per pixel a perfect emulator is within 2 % in 68 % of the pixels. Computed ones: errors of the flux over
all pixels, and of the depths of lines, which an error over all pixels hides (Gebran 2024, sect. 2.2; METHODS 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.fit.inferrer import FittedInferrer
from maury.fit.regional import RegionalInferrer, blend_weights
from maury.prepare.air import air_to_vacuum
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LIMITS = (0.01, 0.02, 0.04)
IMIG2022_TEFF_BINS = ((3000.0, 5000.0), (5000.0, 8000.0), (8000.0, 12000.0), (12000.0, 20000.0), (20000.0, 35000.0))
"""K; the bins of their Table 3."""

CA_TRIPLET = {"Ca II 8498": 8498.02, "Ca II 8542": 8542.09, "Ca II 8662": 8662.14}
"""Å in air: the calcium triplet (NIST Atomic Spectra Database; METHODS 3)."""


@dataclass(frozen=True)
class LineDepthError:
    """How well the depth of one line, 1 - flux at its centre, is generated.

    Parameters
    ----------
    line : its name.
    n : spectra that have the pixels on both sides of the centre.
    depth : mean true depth; ``bias``, ``mae``, ``rmse`` of generated - true depth, in units of the normalised flux; NaN if n = 0.
    """

    line: str
    n: int
    depth: float
    bias: float
    mae: float
    rmse: float


@dataclass(frozen=True)
class SpectrumMetrics:
    """Errors of generated spectra; NaN where nothing can be compared.

    Parameters
    ----------
    n_spectra, n_pixels : how many spectra, and pixels of all of them together, were compared.
    mse, mae : mean squared and mean absolute error of the flux.
    explained_variance : 1 - Var(error)/Var(flux); r2 : 1 - mean(error²)/Var(flux); variances over spectra, pixel by pixel, then
        the mean over pixels (as scikit-learn has it, which the paper's names are from) whose flux varies at all. R² is never the
        larger one (the paper's 0.999 against 0.998 cannot both be of one average).
    relative_error : mean of |error|/flux where the flux is above 0, in per cent.
    lines : depths of lines.
    """

    n_spectra: int
    n_pixels: int
    mse: float
    mae: float
    explained_variance: float
    r2: float
    relative_error: float
    lines: tuple[LineDepthError, ...]


def spectrum_metrics(
    spectra: Spectra,
    flux: ArrayLike,
    *,
    known: ArrayLike | None = None,
    lines: Mapping[str, float] = CA_TRIPLET,
) -> SpectrumMetrics:
    """Errors of generated or reconstructed spectra against the true ones.

    Parameters
    ----------
    spectra : the true ones, normalised and in the rest frame; pixels of ivar 0 are left out.
    flux : (n_spectra, n_pixels) generated on the same pixels; NaN is left out.
    known : (n_pixels,) pixels of which the emulator knows anything; all if None.
    lines : names and wavelengths in *air* (Å); lines outside the spectra are left out.

    Raises
    ------
    UsageError
        If shapes disagree.
    """
    model, usable = _comparable(spectra, flux, known)
    error = np.where(usable, model - spectra.flux, np.nan)
    n = int(usable.sum())
    positive = usable & (spectra.flux > 0)
    relative = np.abs(error[positive]) / spectra.flux[positive]
    explained, r2 = _explained(np.where(usable, spectra.flux, np.nan), error)
    return SpectrumMetrics(
        n_spectra=int(usable.any(axis=1).sum()),
        n_pixels=n,
        mse=float(np.nansum(error**2) / n) if n else float("nan"),
        mae=float(np.nansum(np.abs(error)) / n) if n else float("nan"),
        explained_variance=explained,
        r2=r2,
        relative_error=100.0 * float(relative.mean()) if relative.size else float("nan"),
        lines=tuple(_line_depths(spectra, error, usable, lines)),
    )


def _explained(true: FloatArray, error: FloatArray) -> tuple[float, float]:
    """Explained variance and R²; both arrays (n, n_pixels) with NaN where there is nothing to compare."""
    count = np.isfinite(error).sum(axis=0)
    some = count > 0
    true, error, count = true[:, some], error[:, some], count[some]

    def mean(array: FloatArray) -> FloatArray:
        return np.asarray(np.nansum(array, axis=0) / count)

    variance, unexplained = mean((true - mean(true)) ** 2), mean((error - mean(error)) ** 2)
    varies = variance > 0
    if not varies.any():
        return float("nan"), float("nan")
    explained, r2 = (float((1.0 - left[varies] / variance[varies]).mean()) for left in (unexplained, mean(error**2)))
    return explained, r2


def _line_depths(spectra: Spectra, error: FloatArray, usable: BoolArray, lines: Mapping[str, float]) -> Iterator[LineDepthError]:
    """Depths at the lines' centres, linear between the pixels on both sides."""
    grid = spectra.wavelength
    for line, air in lines.items():
        centre = float(air_to_vacuum(np.array([air]))[0]) if spectra.medium == "vacuum" else air
        if not grid[0] <= centre <= grid[-1]:
            continue
        right = min(max(int(np.searchsorted(grid, centre)), 1), len(grid) - 1)
        share = (centre - grid[right - 1]) / (grid[right] - grid[right - 1])
        here, weights = slice(right - 1, right + 1), np.array([1.0 - share, share])
        rows = usable[:, here].all(axis=1)
        if not rows.any():
            yield LineDepthError(line, 0, *[float("nan")] * 4)
            continue
        depth, off = 1.0 - spectra.flux[rows, here] @ weights, -(error[rows, here] @ weights)
        numbers = (depth.mean(), off.mean(), np.abs(off).mean(), np.sqrt((off**2).mean()))
        yield LineDepthError(line, int(rows.sum()), *(float(number) for number in numbers))


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


def _comparable(spectra: Spectra, flux: ArrayLike, known: ArrayLike | None) -> tuple[FloatArray, BoolArray]:
    """The emulator's flux, and which of its pixels can be compared."""
    model = np.asarray(flux, dtype=float)
    if model.shape != spectra.flux.shape:
        raise UsageError(f"expected the emulator's flux of shape {spectra.flux.shape}, got {model.shape}; use the same pixels")
    usable = (spectra.ivar > 0) & np.isfinite(model)
    if known is not None:
        usable &= np.asarray(known, dtype=bool)
    return model, usable


def _deviation(spectra: Spectra, flux: ArrayLike, known: ArrayLike | None) -> FloatArray:
    """(n_spectra, n_pixels) |flux/observed - 1|, NaN where there is nothing to compare."""
    model, usable = _comparable(spectra, flux, known)
    usable &= spectra.flux > 0
    difference = np.abs(model - spectra.flux)
    return np.asarray(np.where(usable, difference / np.where(usable, spectra.flux, 1.0), np.nan))


def _accuracy(selection: str, deviation: FloatArray, limits: Sequence[float]) -> EmulatorAccuracy:
    finite = np.isfinite(deviation)
    n = int(finite.sum())
    shares = tuple(float((deviation <= limit).sum() / n) if n else float("nan") for limit in limits)
    return EmulatorAccuracy(selection, int(finite.any(axis=1).sum()), n, shares)
