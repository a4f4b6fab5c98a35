"""Scale and floor of errors that change along one label: what holds at 5000 K does not at 20,000 K.

The errors of hot stars are ten times those of solar ones, in kelvin and in metallicity: one floor for all is wrong for both.
Held-out stars are sorted by one label into bins of equal count, each bin gets the scale and floor of
:func:`~maury.assess.learn_errors.fit_error_inflation`, and between the medians of bins the squared errors are interpolated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.assess.calibration import SnrRange, check_labels, inside_range, snr_of, with_errors
from maury.assess.learn_errors import fit_error_inflation
from maury.errors import UsageError
from maury.estimates import LabelEstimates
from maury.flags import ResultFlag
from maury.labels import LabelSet

FloatArray = NDArray[np.float64]

_MIN_STARS = 40  # of a bin: the robust scatter of 40 stars is good to 15 %


@dataclass(frozen=True)
class InflationAlong:
    """e_cal² = (scale e)² + floor² with scale and floor interpolated along the label ``by``.

    Parameters
    ----------
    labels, units : names and units of the K labels.
    by : the label along which they change; its logarithm is interpolated where ``logarithmic``.
    nodes : (m,) values of that label, increasing; outside them the ends hold.
    scale, floor : m tuples of K.
    snr_range : signal-to-noise of the stars it was learned from, None if it is not to be checked.
    snr_column : the meta column that the range is of.
    """

    labels: tuple[str, ...]
    units: tuple[str, ...]
    by: str
    nodes: tuple[float, ...]
    scale: tuple[tuple[float, ...], ...]
    floor: tuple[tuple[float, ...], ...]
    logarithmic: bool = False
    snr_range: SnrRange | None = None
    snr_column: str = "snr"

    def __post_init__(self) -> None:
        shape = (len(self.nodes), len(self.labels))
        if np.shape(self.scale) != shape or np.shape(self.floor) != shape or list(self.nodes) != sorted(set(self.nodes)):
            raise UsageError(f"expected increasing nodes with {shape} scales and floors, got others; learn the errors again")
        if self.by not in self.labels:
            raise UsageError(f"expected a label among {', '.join(self.labels)} to sort by, got {self.by!r}; correct the name")

    def sigma(self, values: ArrayLike, errors: ArrayLike) -> FloatArray:
        """(n, K) labels and formal errors, in the order of ``labels`` -> (n, K) calibrated errors, label units."""
        formal = np.asarray(errors, dtype=float)
        position = self._coordinate(np.asarray(values, dtype=float)[:, self.labels.index(self.by)])
        nodes = self._coordinate(np.array(self.nodes))
        out = np.full(formal.shape, np.nan)
        for k in range(len(self.labels)):
            scale2 = np.interp(position, nodes, np.array(self.scale)[:, k] ** 2)
            floor2 = np.interp(position, nodes, np.array(self.floor)[:, k] ** 2)
            out[:, k] = np.sqrt(scale2 * formal[:, k] ** 2 + floor2)
        return out

    def apply(self, estimates: LabelEstimates, snr: ArrayLike | None = None) -> LabelEstimates:
        """Estimates with inflated errors and the correlations they had; ``snr`` (n,) only flags what is outside its range.

        Raises
        ------
        UsageError
            If labels or units differ, or snr has another length.
        """
        check_labels(self.labels, self.units, estimates.labels)
        order = [estimates.labels.index(name) for name in self.labels]
        sigma = self.sigma(estimates.values[:, order], estimates.errors[:, order])
        calibrated = with_errors(estimates, sigma[:, np.argsort(order)])
        if self.snr_range is None:
            return calibrated
        x = snr_of(estimates, snr, self.snr_column)
        return calibrated.add_flag(~inside_range(x, self.snr_range), int(ResultFlag.ERROR_EXTRAPOLATED))

    def to_config(self) -> dict[str, Any]:
        """Plain values for a model file; inverse of :func:`~maury.assess.calibration.error_model_from_config`."""
        return {"kind": "inflation_along", **asdict(self)}

    def _coordinate(self, values: FloatArray) -> FloatArray:
        return np.asarray(np.log(np.maximum(values, 1e-300)) if self.logarithmic else values)


def fit_inflation_along(
    residuals: ArrayLike, errors: ArrayLike, values: ArrayLike, labels: LabelSet, *, by: str, stars_per_bin: int
) -> InflationAlong:
    """Scales and floors from stars that the model has not seen.

    Parameters
    ----------
    residuals, errors, values : (n, K) estimated - true, formal errors and *estimated* labels, label units.
    by : label to sort by.
    stars_per_bin : at least 40; the bins are as many as fit, of equal count.

    Raises
    ------
    UsageError
        If bins would be smaller than 40 stars, or there are not stars enough for two.
    """
    residual, formal, value = (np.asarray(array, dtype=float) for array in (residuals, errors, values))
    k = labels.index(by)
    good = np.isfinite(residual).all(axis=1) & np.isfinite(formal).all(axis=1) & np.isfinite(value[:, k])
    n_bins = int(good.sum()) // max(stars_per_bin, 1)
    if stars_per_bin < _MIN_STARS or n_bins < 2:
        raise UsageError(
            f"expected at least two bins of at least {_MIN_STARS} stars for errors along {by}, got {int(good.sum())} stars "
            f"in bins of {stars_per_bin}; change stars_per_bin or leave 'along' out"
        )
    order = np.flatnonzero(good)[np.argsort(value[good, k], kind="stable")]
    bins = np.array_split(order, n_bins)
    fits = [fit_error_inflation(residual[rows], formal[rows], labels) for rows in bins]
    return InflationAlong(
        labels.names,
        labels.units,
        by,
        tuple(float(np.median(value[rows, k])) for rows in bins),
        tuple(fit.scale for fit in fits),
        tuple(fit.floor for fit in fits),
        labels.labels[k].coordinate != "linear",
    )
