"""Learning errors that are right from stars the model has not seen: an S/N error model, or scale and floor of formal errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.calibration import ErrorInflation, SnrErrorModel
from maury.assess.metrics import robust_std
from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError
from maury.labels import LabelSet

FloatArray = NDArray[np.float64]

_STUDENT_DEGREES = 5.0  # tails heavy enough that a few wild stars do not set the floor
_MIN_STARS = 20
_MIN_BINS = 4  # three parameters of the curve, and one to see whether it holds


def snr_bins(residuals: ArrayLike, snr: ArrayLike, n_bins: int) -> tuple[FloatArray, FloatArray]:
    """Scatter in bins of equal count.

    Parameters
    ----------
    residuals : (n, K) estimated - true, label units; rows with NaN are left out.
    snr : (n,).

    Returns
    -------
    Median signal-to-noise (n_bins,) and robust scatter (n_bins, K) of each bin.
    """
    residual, x = np.asarray(residuals, dtype=float), np.asarray(snr, dtype=float)
    good = np.isfinite(residual).all(axis=1) & np.isfinite(x) & (x > 0)
    order = np.argsort(x[good], kind="stable")
    residual, x = residual[good][order], x[good][order]
    parts = np.array_split(np.arange(x.size), n_bins)
    centres = np.array([np.median(x[part]) for part in parts])
    return centres, np.array([[robust_std(residual[part, k]) for k in range(residual.shape[1])] for part in parts])


def fit_snr_error_model(
    residuals: ArrayLike,
    snr: ArrayLike,
    labels: LabelSet,
    *,
    bin_size: int = 1360,
    n_bins: int | None = None,
    snr_column: str = "snr",
) -> SnrErrorModel:
    """The S/N error model of one's own validation set, in the manner of Galgano et al. (2020).

    Bins of equal count, robust scatter in each, and a quadratic up to its minimum, constant beyond: the curve
    floor + a max(0, X0 - X)^2, whose three parameters are fitted together. (The paper fits a free quadratic, which rises
    again at high signal-to-noise; this form is the same below the minimum.) The minimum is not sought beyond the last bin.

    Parameters
    ----------
    residuals : (n, K) estimated - true of stars the model has not seen, label units; rows with NaN are left out.
    snr : (n,) signal-to-noise in the sense of ``snr_column``.
    bin_size : stars per bin (the paper's 18,844 spectra make bins of about 1360); ignored if ``n_bins`` is given.
        A small set gets at least four bins.

    Raises
    ------
    UsageError
        If fewer than 20 stars per bin remain in at least four bins, or shapes disagree.
    """
    residual, x = np.asarray(residuals, dtype=float), np.asarray(snr, dtype=float)
    if residual.ndim != 2 or residual.shape[1] != len(labels) or x.shape != (len(residual),):
        raise UsageError(
            f"expected residuals (n, {len(labels)}) and snr (n,), got {residual.shape} and {x.shape}; one row per star"
        )
    used = np.isfinite(residual).all(axis=1) & np.isfinite(x) & (x > 0)
    n = int(used.sum())
    bins = max(_MIN_BINS, round(n / bin_size)) if n_bins is None else n_bins
    if bins < _MIN_BINS or n < bins * _MIN_STARS:
        raise UsageError(
            f"expected at least {_MIN_BINS} bins of {_MIN_STARS} stars to learn errors from, got {n} stars in {bins} bins"
        )
    centres, scatter = snr_bins(residual, x, bins)
    curves = [_fit_floored_quadratic(centres, scatter[:, k]) for k in range(len(labels))]
    return SnrErrorModel(
        labels.names,
        labels.units,
        tuple((a, -2.0 * a * x0, floor + a * x0**2) for a, x0, floor in curves),
        tuple(floor for _, _, floor in curves),
        tuple(x0 for _, x0, _ in curves),
        (float(x[used].min()), float(x[used].max())),
        snr_column,
    )


def _fit_floored_quadratic(x: FloatArray, scatter: FloatArray) -> tuple[float, float, float]:
    """(a, X0, floor) of floor + a max(0, X0 - X)^2 by weighted least squares, X0 on a fine grid, a >= 0, floor > 0.

    The error of a bin's scatter is proportional to the scatter, hence the weights.
    """
    best = (0.0, float(x[0]), float(np.median(scatter)))
    best_cost = float(np.sum((1.0 - best[2] / scatter) ** 2))
    for x0 in np.linspace(x[1], x[-1], 400):
        design = np.column_stack([np.maximum(0.0, x0 - x) ** 2, np.ones_like(x)]) / scatter[:, None]
        (a, floor), *_ = np.linalg.lstsq(design, np.ones_like(x), rcond=None)
        cost = float(np.sum((1.0 - design @ np.array([a, floor])) ** 2))
        if a > 0 and floor > 0 and cost < best_cost:
            best, best_cost = (float(a), float(x0), float(floor)), cost
    return best


def fit_error_inflation(
    residuals: ArrayLike,
    errors: ArrayLike,
    labels: LabelSet,
    *,
    snr: ArrayLike | None = None,
    snr_column: str = "snr",
) -> ErrorInflation:
    """Scale and floor of the errors from stars that the model has not seen (cross-validation).

    Along the line of all ratios floor : scale, each pair is normalised so that the pulls have robust standard deviation 1
    (1.4826 times the median |pull|, about zero: a bias is an error too); the ratio of largest Student likelihood
    (5 degrees of freedom, so that wild stars do not set the floor) is taken. The scale is at least 1 where there is a floor:
    an error never gets smaller than the noise of its own spectrum makes it.

    Parameters
    ----------
    residuals : (n, K) estimated - true, label units.
    errors : (n, K) formal standard errors, label units.
    snr : (n,), if stars outside its range are to be flagged later.

    Raises
    ------
    UsageError
        If shapes disagree, or fewer than 20 stars have residual and error in some label.
    """
    residual, formal = np.asarray(residuals, dtype=float), np.asarray(errors, dtype=float)
    if residual.ndim != 2 or residual.shape[1] != len(labels) or formal.shape != residual.shape:
        raise UsageError(
            f"expected residuals and errors (n, {len(labels)}), got {residual.shape} and {formal.shape}; one row per star"
        )
    pairs = []
    for k, name in enumerate(labels.names):
        good = np.isfinite(residual[:, k]) & np.isfinite(formal[:, k]) & (formal[:, k] > 0)
        if good.sum() < _MIN_STARS:
            raise UsageError(
                f"expected at least {_MIN_STARS} stars with residual and error of {name}, got {good.sum()}; add stars"
            )
        pairs.append(_fit_scale_and_floor(np.abs(residual[good, k]), formal[good, k]))
    snr_range = None
    if snr is not None:
        known = np.asarray(snr, dtype=float)
        known = known[np.isfinite(known)]
        snr_range = (float(known.min()), float(known.max())) if known.size else None
    scale, floor = zip(*pairs, strict=True)
    return ErrorInflation(labels.names, labels.units, scale, floor, snr_range, snr_column)


def _fit_scale_and_floor(residual: FloatArray, formal: FloatArray) -> tuple[float, float]:
    """(scale, floor) for |residual| (n,) and formal errors (n,) of one label.

    With a floor the scale is at least 1: training stars have much the same signal-to-noise ratio, so their residuals alone
    could be described by a constant; a star with ten times the noise would then get their error.
    """
    typical = float(np.median(formal))
    best, best_cost = (1.0, 0.0), np.inf
    for angle in np.linspace(0.0, np.pi / 2.0, 361):  # 0 is a pure scale, pi/2 a pure floor
        shape = np.hypot(formal * np.cos(angle), typical * np.sin(angle))
        factor = ROBUST_SIGMA_PER_MAD * float(np.median(residual / shape))
        if not factor > 0 or (angle > 0 and factor * np.cos(angle) < 1.0):
            continue
        squared = (residual / (factor * shape)) ** 2
        tail = 0.5 * (_STUDENT_DEGREES + 1.0) * np.log1p(squared / _STUDENT_DEGREES)
        cost = float(np.sum(np.log(factor * shape) + tail))
        if cost < best_cost - 1e-9:  # equal formal errors make all ratios equal: keep the pure scale
            best, best_cost = (factor * float(np.cos(angle)), factor * typical * float(np.sin(angle))), cost
    return best
