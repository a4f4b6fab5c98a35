"""Error models: formal errors replaced or enlarged by what validation stars taught (see :mod:`maury.assess.learn_errors`).

Four models share the seam :class:`ErrorModel`:

* :class:`SnrErrorModel`: the error is a function of signal-to-noise alone (Galgano et al. 2020, Sect. 4.2 and Table 1).
* :class:`ErrorInflation`: e_cal^2 = (scale e)^2 + floor^2 per label, learned from the pulls of cross-validation.
* :class:`~maury.assess.inflation_along.InflationAlong`: the same with scale and floor that change along a label.
* :class:`~maury.assess.repeats.RepeatErrorModel`: a quadratic of labels and S/N, from repeat visits (Imig+2022).

All move the formal covariance to ``raw_covariance`` and rescale it so that correlations between labels stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.quality import signal_to_noise
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import ResultFlag
from maury.labels import LabelSet

FloatArray = NDArray[np.float64]
Variant = Literal["corrected", "as_published"]
SnrRange = tuple[float, float | None]


@runtime_checkable
class ErrorModel(Protocol):
    """Calibrates the errors of estimates; knows nothing of the model that made them."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    def apply(self, estimates: LabelEstimates, snr: ArrayLike | None = None) -> LabelEstimates: ...
    def to_config(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class SnrErrorModel:
    """Standard error as a quadratic in signal-to-noise: sigma_Y = a X^2 + b X + c (Galgano et al. 2020, note to Table 1).

    The table note prints a + b X + c X^2; only the reverse order reproduces the table's own errors.

    Parameters
    ----------
    labels, units : names and units of the K labels.
    coefficients : K triples (a, b, c), label units.
    floor : K errors that replace the polynomial above ``snr_floor`` ("corrected").
    snr_floor : K signal-to-noise ratios.
    snr_range : range of X in the validation set (upper limit None: open); outside it ERROR_EXTRAPOLATED is set.
    snr_column : the meta column that X is, ``snr`` or ``snr_sum``.
    variant : "corrected" uses the floor, "as_published" the bare polynomial, which rises beyond its minimum.
    """

    labels: tuple[str, ...]
    units: tuple[str, ...]
    coefficients: tuple[tuple[float, float, float], ...]
    floor: tuple[float, ...]
    snr_floor: tuple[float, ...]
    snr_range: SnrRange
    snr_column: str = "snr"
    variant: Variant = "corrected"

    def __post_init__(self) -> None:
        _check_lengths(self, ("units", "coefficients", "floor", "snr_floor"))
        if self.variant not in get_args(Variant):
            raise UsageError(f"expected variant 'corrected' or 'as_published', got {self.variant!r}; choose one")

    def sigma(self, snr: ArrayLike) -> FloatArray:
        """(n,) signal-to-noise -> (n, K) standard errors in label units; NaN where snr is not a positive number."""
        x = np.atleast_1d(np.asarray(snr, dtype=float))[:, None]
        x = np.where(np.isfinite(x) & (x > 0), x, np.nan)
        a, b, c = np.array(self.coefficients).T
        polynomial = (a * x + b) * x + c
        if self.variant == "as_published":
            return np.asarray(polynomial)
        return np.asarray(np.where(x > np.array(self.snr_floor), np.array(self.floor), polynomial))

    def apply(self, estimates: LabelEstimates, snr: ArrayLike | None = None) -> LabelEstimates:
        """Estimates whose errors are those of their signal-to-noise.

        Parameters
        ----------
        snr : (n,); default the meta column ``snr_column``. Where it is unknown the formal errors stay, flagged.

        Raises
        ------
        UsageError
            If labels or units differ, or snr has another length.
        """
        check_labels(self.labels, self.units, estimates.labels)
        x = snr_of(estimates, snr, self.snr_column)
        order = [self.labels.index(name) for name in estimates.labels.names]
        calibrated = with_errors(estimates, self.sigma(x)[:, order])
        return calibrated.add_flag(~inside_range(x, self.snr_range), int(ResultFlag.ERROR_EXTRAPOLATED))

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file; inverse of :func:`error_model_from_config`."""
        return {"kind": "snr", **asdict(self)}


@dataclass(frozen=True)
class ErrorInflation:
    """e_cal^2 = (scale e)^2 + floor^2 for each label, e being the formal standard error.

    Parameters
    ----------
    labels, units : names and units of the K labels.
    scale : K factors; above 1 where formal errors are too small.
    floor : K errors in label units, what no signal-to-noise removes (errors of the training labels among them).
    snr_range : signal-to-noise of the stars it was learned from, None if it is not to be checked.
    snr_column : the meta column that the range is of.
    """

    labels: tuple[str, ...]
    units: tuple[str, ...]
    scale: tuple[float, ...]
    floor: tuple[float, ...]
    snr_range: SnrRange | None = None
    snr_column: str = "snr"

    def __post_init__(self) -> None:
        _check_lengths(self, ("units", "scale", "floor"))
        if min(self.scale) < 0 or min(self.floor) < 0:
            raise UsageError(f"expected scales and floors that are not negative, got {self.scale} and {self.floor}")

    def sigma(self, errors: ArrayLike) -> FloatArray:
        """(n, K) formal errors -> (n, K) calibrated errors, label units."""
        return np.asarray(np.hypot(np.asarray(errors, dtype=float) * np.array(self.scale), np.array(self.floor)))

    def apply(self, estimates: LabelEstimates, snr: ArrayLike | None = None) -> LabelEstimates:
        """Estimates with inflated errors; ``snr`` (n,) serves only to flag what lies outside ``snr_range``.

        Raises
        ------
        UsageError
            If labels or units differ, or snr has another length.
        """
        check_labels(self.labels, self.units, estimates.labels)
        order = [self.labels.index(name) for name in estimates.labels.names]
        formal = np.full((len(estimates), len(order)), np.nan)
        formal[:, order] = estimates.errors
        calibrated = with_errors(estimates, self.sigma(formal)[:, order])
        if self.snr_range is None:
            return calibrated
        x = snr_of(estimates, snr, self.snr_column)
        return calibrated.add_flag(~inside_range(x, self.snr_range), int(ResultFlag.ERROR_EXTRAPOLATED))

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file; inverse of :func:`error_model_from_config`."""
        return {"kind": "inflation", **asdict(self)}


def error_model_from_config(config: dict[str, Any]) -> ErrorModel:
    """The error model that ``to_config`` described.

    Raises
    ------
    UsageError
        If the kind is unknown.
    """
    values: dict[str, Any] = {key: _as_tuple(value) for key, value in config.items() if key != "kind"}
    if config.get("kind") == "snr":
        return SnrErrorModel(**values)
    if config.get("kind") == "inflation":
        return ErrorInflation(**values)
    if config.get("kind") == "repeats":
        from maury.assess.repeats import RepeatErrorModel  # which needs this module

        return RepeatErrorModel(**values)
    if config.get("kind") == "inflation_along":
        from maury.assess.inflation_along import InflationAlong

        return InflationAlong(**values)
    raise UsageError(
        f"expected an error model of kind 'snr', 'inflation', 'inflation_along' or 'repeats', got {config.get('kind')!r}; "
        "was it written by a newer maury?"
    )


# -- Galgano et al. 2020 --------------------------------------------------------------------------------------------


def galgano2020_error_model(variant: Variant = "corrected") -> SnrErrorModel:
    """The error model of Galgano et al. (2020), note to Table 1; X is the sum of the u, g, r, i, z signal-to-noise ratios.

    "corrected" replaces the polynomial above X = 225 by the floors of the text; "as_published" is the bare polynomial, which
    Table 1 itself uses (106.8 K at X = 264.2). It was calibrated on spectra with X > 50.
    """
    return SnrErrorModel(
        labels=("teff", "radius", "mass", "luminosity"),
        units=("K", "Rsun", "Msun", "Lsun"),
        coefficients=(
            (2.594e-3, -0.942, 174.639),
            (1.3e-6, -4.692e-4, 8.688e-2),
            (1.6e-6, -5.841e-4, 0.106),
            (2.0e-7, -6.3e-5, 1.623e-2),
        ),
        floor=(89.2, 0.0432, 0.0516, 0.0097),
        snr_floor=(225.0,) * 4,
        snr_range=(50.0, None),
        snr_column="snr_sum",
        variant=variant,
    )


# -- parts ----------------------------------------------------------------------------------------------------------


def with_errors(estimates: LabelEstimates, sigma: FloatArray) -> LabelEstimates:
    """Estimates with standard errors ``sigma`` (n, K) and the correlations they had; NaN sigma keeps a star's formal errors.

    A label without usable formal error has no correlations: its covariances become 0. What the standard error of a label gains
    (in quadrature) either side of its interval gains, too: an error that all votes share lies on both; what it loses is scaled.
    """
    formal = estimates.errors
    known = np.isfinite(sigma).all(axis=1, keepdims=True) & np.isfinite(estimates.values)
    usable = np.isfinite(formal) & (formal > 0)
    ratio = np.where(usable, sigma / np.where(usable, formal, 1.0), 0.0)
    scaled = np.where(usable[:, :, None] & usable[:, None, :], estimates.covariance, 0.0) * ratio[:, :, None] * ratio[:, None, :]
    diagonal = np.arange(sigma.shape[1])
    scaled[:, diagonal, diagonal] = sigma**2
    covariance = np.where(known[:, :, None] & known[:, None, :], scaled, estimates.covariance)
    raw = estimates.covariance if estimates.raw_covariance is None else estimates.raw_covariance
    intervals = estimates.interval_errors
    if intervals is not None:
        gained = np.sqrt(np.maximum(sigma**2 - np.where(usable, formal, 0.0) ** 2, 0.0))
        own = np.where(usable[:, :, None], intervals, 0.0) * np.minimum(ratio, 1.0)[:, :, None]
        intervals = np.where(known[:, :, None], np.hypot(own, gained[:, :, None]), intervals)
    return estimates.with_(covariance=covariance, raw_covariance=raw, interval_errors=intervals)


def snr_of(estimates: LabelEstimates, snr: ArrayLike | None, column: str) -> FloatArray:
    x = signal_to_noise(estimates, column) if snr is None else np.asarray(snr, dtype=float)
    if x.shape != (len(estimates),):
        raise UsageError(f"expected one signal-to-noise ratio for each of {len(estimates)} stars, got shape {x.shape}")
    return x


def inside_range(snr: FloatArray, snr_range: SnrRange) -> NDArray[np.bool_]:
    """(n,) whether the signal-to-noise lies in the range of the stars that errors were learned from."""
    low, high = snr_range
    return (snr >= low) & (snr <= (np.inf if high is None else high))


def check_labels(names: Sequence[str], units: Sequence[str], labels: LabelSet) -> None:
    ours, theirs = dict(zip(names, units, strict=True)), dict(zip(labels.names, labels.units, strict=True))
    if ours != theirs:
        raise UsageError(
            f"expected estimates of the labels {ours} that the errors were learned for, got {theirs}; use its own error model"
        )


def _check_lengths(model: SnrErrorModel | ErrorInflation, fields: tuple[str, ...]) -> None:
    for field in fields:
        if len(getattr(model, field)) != len(model.labels):
            raise UsageError(
                f"expected {len(model.labels)} entries in {field}, got {len(getattr(model, field))}; give one per label"
            )


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value
