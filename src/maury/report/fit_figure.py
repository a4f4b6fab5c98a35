"""One spectrum and the model that was fitted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.errors import UsageError
from maury.fit.inferrer import FittedInferrer
from maury.flags import ResultFlag
from maury.report.style import GREY, INK, ORANGE, SKY, VERMILION, decimals, new_figure, signed, styled, symbol, unit_text
from maury.spectra import Spectra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maury.estimates import LabelEstimates

FloatArray = NDArray[np.float64]


def fit_figure(star: Spectra, inferrer: FittedInferrer, estimate: LabelEstimates) -> Figure:
    """A prepared spectrum and what was fitted to it: the emulator at the labels found, their velocity and the continuum modes.

    Errors are those of chi-square: of the spectrum and, added in quadrature, of the model (with the variance of its correlated
    part, so residuals look smaller than chi-square says where that part is large). Pixels that the fit did not use are shaded.

    Parameters
    ----------
    star : one spectrum, as the model prepared it.
    inferrer : what fitted it.
    estimate : its one row of estimates.
    """
    fitter, emulator = inferrer.fitter, inferrer.emulator
    model = emulator if fitter.velocity is None else fitter.velocity.extend(emulator)
    values = estimate.values
    flux = model.predict_flux(values) if fitter.continuum is None else fitter.continuum.fitted(star, model, values)
    covariance = model.model_covariance
    variance = covariance.diagonal if covariance.factors is None else covariance.diagonal + (covariance.factors**2).sum(axis=1)
    used = (star.ivar[0] > 0) & covariance.known
    weight = np.where(used, 1.0 / (1.0 / np.where(used, star.ivar[0], 1.0) + np.where(used, variance, 0.0)), 0.0)
    text = f"{_label_lines(estimate)}\nχ² = {estimate.chi2[0]:.0f} for {estimate.n_pixels[0]} pixels"
    snr = float(np.ma.filled(np.ma.MaskedArray(estimate.meta["snr"], dtype=float), np.nan)[0])
    title = f"{estimate.ids[0]}, S/N {snr:.0f} per pixel"
    shown = np.where(covariance.known, flux[0], np.nan)
    return fit_example(star.wavelength, star.flux[0], weight, shown, medium=star.medium, title=title, text=text)


def _label_lines(estimate: LabelEstimates) -> str:
    """A line for each label: value, error, unit, and whether it stands at a bound of the fit or is an upper limit."""
    lines = []
    labels, values, errors, flags = estimate.labels.labels, estimate.values[0], estimate.errors[0], estimate.label_flags[0]
    for label, value, error, flag in zip(labels, values, errors, flags, strict=True):
        digits = decimals(error)
        number = signed(value, digits) if value < 0 else f"{value:.{digits}f}"
        unit = "" if label.unit == "dex" else f" {unit_text(label.unit)}"
        bound = ", at a bound" if flag & ResultFlag.AT_BOUND else ""
        size = f"< {value + error:.{digits}f}" if flag & ResultFlag.UPPER_LIMIT else f"= {number} ± {error:.{digits}f}"
        lines.append(f"{symbol(label.name)} {size}{unit}{bound}")
    return "\n".join(lines)


@styled
def fit_example(
    wavelength: ArrayLike,
    flux: ArrayLike,
    ivar: ArrayLike,
    model_flux: ArrayLike,
    *,
    medium: str = "",
    title: str = "",
    text: str = "",
) -> Figure:
    """A spectrum, the model that was fitted, and the residuals in units of their error.

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    flux, ivar, model_flux : (n_pixels,). Pixels with ivar = 0 were not used: shaded, and not drawn as data.
    medium : "air" or "vacuum", for the axis.
    text : numbers to print beside it, for example the labels found.

    Raises
    ------
    UsageError
        If the lengths differ.
    """
    x, data, weight, model = (np.asarray(a, dtype=float) for a in (wavelength, flux, ivar, model_flux))
    if not x.shape == data.shape == weight.shape == model.shape or x.ndim != 1:
        raise UsageError(
            f"expected wavelength, flux, ivar and model of one length, got {x.shape}, {data.shape}, {weight.shape}, {model.shape}"
        )
    used = weight > 0
    sigma = np.where(used, 1.0 / np.sqrt(np.where(used, weight, 1.0)), np.nan)
    shown = np.where(used, data, np.nan)
    figure = new_figure(10.6 if text else 9.0, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.8, 1.0])
    upper.fill_between(x, shown - sigma, shown + sigma, step="mid", color=GREY, alpha=0.35, lw=0, label="flux ± error")
    upper.step(x, shown, where="mid", color=INK, lw=0.7, label="flux")
    upper.plot(x, model, color=VERMILION, lw=1.0, label="model")
    lower.axhspan(-2, 2, color=SKY, alpha=0.25, lw=0)
    lower.axhline(0.0, color=VERMILION, lw=0.9)
    lower.step(x, (shown - model) / sigma, where="mid", color=INK, lw=0.6)
    for low, high in _runs(x, ~used):
        for axes in (upper, lower):
            axes.axvspan(low, high, color=ORANGE, alpha=0.16, lw=0)
    _flux_limits(upper, lower, shown, model, (shown - model) / sigma)
    upper.set(ylabel="normalised flux", xlim=(x[0], x[-1]), title=title)
    lower.set(xlabel=f"wavelength  [Å{', ' + medium if medium else ''}]", ylabel="residual / σ")
    upper.legend(loc="lower right", ncols=3)
    if text:  # beside the panel: in none of its corners is room for seven lines in every spectrum
        upper.text(1.015, 1.0, text, transform=upper.transAxes, va="top", fontsize=8.5, linespacing=1.5)
    return figure


def _runs(x: FloatArray, mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Wavelength intervals of consecutive masked pixels, half a pixel wider on both sides."""
    steps = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    edges = np.r_[x[0], 0.5 * (x[1:] + x[:-1]), x[-1]]
    return [(float(edges[a]), float(edges[b])) for a, b in zip(steps[::2], steps[1::2], strict=True)]


def _flux_limits(upper: Axes, lower: Axes, shown: FloatArray, model: FloatArray, residual: FloatArray) -> None:
    """Limits that a cosmic ray does not set."""
    if not np.isfinite(shown).any():
        return
    low, high = np.nanpercentile(np.r_[shown, model], [0.2, 99.8])
    upper.set_ylim(low - 0.22 * (high - low), high + 0.08 * (high - low))
    reach = max(4.0, 1.2 * float(np.nanpercentile(np.abs(residual), 99.0)))
    lower.set_ylim(-reach, reach)
