"""The region of label space that the training stars fill, and who lies outside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.estimates import LabelEstimates
from maury.flags import ResultFlag
from maury.labels import LabelSet

FloatArray = NDArray[np.float64]

_MAX_HULL_LABELS = 5  # the number of facets explodes beyond; the Mahalanobis distance serves alone then
_MAHALANOBIS_QUANTILE = 0.999


@dataclass(frozen=True, eq=False)
class TrainingRegion:
    """Convex hull and Mahalanobis ellipsoid of the training labels, in scaled labels.

    Parameters
    ----------
    centre : (K,) mean; inverse_covariance : (K, K).
    limit : Mahalanobis distance that 99.9 % of the training stars do not exceed.
    facets : (n_facets, K + 1) half-spaces a.x + b <= 0 of the hull, or None (one label, or more than five).
    """

    centre: FloatArray
    inverse_covariance: FloatArray
    limit: float
    facets: FloatArray | None

    @classmethod
    def from_training(cls, labels: LabelSet, values: ArrayLike) -> TrainingRegion:
        """Region filled by (n_stars, K) training labels in label units."""
        scaled = labels.scale(values)
        covariance = np.atleast_2d(np.cov(scaled, rowvar=False))
        # nearly one-dimensional label sets (Teff, R, M, L of M dwarfs) would otherwise give a singular matrix
        inverse = np.linalg.inv(covariance + 1e-8 * np.trace(covariance) * np.eye(len(labels)))
        centre = scaled.mean(axis=0)
        distance = _mahalanobis(scaled, centre, inverse)
        limit = float(np.quantile(distance, _MAHALANOBIS_QUANTILE))
        return cls(centre, inverse, limit, _hull_facets(scaled))

    def outside(self, labels: LabelSet, values: ArrayLike) -> NDArray[np.bool_]:
        """(n,) True where labels (n, K) lie outside the hull or beyond the Mahalanobis limit; False for NaN labels."""
        scaled = labels.scale(values)
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(scaled).all(axis=1))
        point = np.where(finite[:, None], scaled, self.centre)
        out = _mahalanobis(point, self.centre, self.inverse_covariance) > self.limit
        if self.facets is not None:
            out |= (point @ self.facets[:, :-1].T + self.facets[:, -1] > 1e-9).any(axis=1)
        return np.asarray(finite & out)

    def flag(self, estimates: LabelEstimates) -> LabelEstimates:
        """Estimates with OUTSIDE_TRAINING set where it holds."""
        return estimates.add_flag(self.outside(estimates.labels, estimates.values), int(ResultFlag.OUTSIDE_TRAINING))

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings for a model file."""
        arrays: dict[str, NDArray[Any]] = {"centre": self.centre, "inverse_covariance": self.inverse_covariance}
        if self.facets is not None:
            arrays["facets"] = self.facets
        return arrays, {"limit": self.limit}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> TrainingRegion:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["centre"], arrays["inverse_covariance"], float(config["limit"]), arrays.get("facets"))


def _mahalanobis(scaled: FloatArray, centre: FloatArray, inverse: FloatArray) -> FloatArray:
    offset = scaled - centre
    return np.asarray(np.sqrt(np.maximum(np.einsum("nk,kl,nl->n", offset, inverse, offset), 0.0)))


def _hull_facets(scaled: FloatArray) -> FloatArray | None:
    from scipy.spatial import ConvexHull, QhullError

    if not 2 <= scaled.shape[1] <= _MAX_HULL_LABELS:
        return None
    try:
        equations = ConvexHull(scaled, qhull_options="QJ").equations  # QJ: joggle, so degenerate label sets still close
    except QhullError:
        return None
    return np.unique(np.round(np.asarray(equations, dtype=float), 12), axis=0)
