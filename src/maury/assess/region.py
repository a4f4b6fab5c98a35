"""The region of label space that the training stars fill: who lies outside it, and who lies where it is thin.

Hull and ellipsoid enclose the training stars but say nothing of the voids between them (MaStar has one near 10,000 K, Imig+2022
Sect. 6). The local density does: a star whose k-th nearest training star is farther away than that of nearly all training
stars from one another has few neighbours that could have taught the model how such a spectrum looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.estimates import LabelEstimates
from maury.flags import ResultFlag
from maury.labels import LabelSet

if TYPE_CHECKING:
    from scipy.spatial import KDTree

FloatArray = NDArray[np.float64]

_MAX_HULL_LABELS = 5  # the number of facets explodes beyond; the Mahalanobis distance serves alone then
_MAHALANOBIS_QUANTILE = 0.999
_NEIGHBOUR = 10  # a choice: fewer follow single stars, more blur the voids
_DENSITY_QUANTILE = 0.99
_MIN_STARS = 10 * _NEIGHBOUR  # with fewer the tenth neighbour is no neighbour


@dataclass(frozen=True, eq=False)
class TrainingDensity:
    """How densely the training stars lie, by the distance to the k-th nearest of them in scaled labels.

    Parameters
    ----------
    stars : (n_stars, K) scaled training labels, float32.
    neighbour : k.
    limit : distance to the k-th nearest *other* training star that 99 % of the training stars do not exceed.
    """

    stars: NDArray[np.float32]
    neighbour: int
    limit: float

    @classmethod
    def from_training(cls, scaled: FloatArray) -> TrainingDensity | None:
        """Density of (n_stars, K) scaled training labels; None for fewer than 100 stars, of which it could say nothing."""
        if len(scaled) < _MIN_STARS:
            return None
        stars = scaled.astype(np.float32)
        bare = cls(stars, _NEIGHBOUR + 1, np.inf)  # a training star is its own nearest neighbour
        limit = float(np.quantile(bare.distance(stars.astype(np.float64)), _DENSITY_QUANTILE))
        return cls(stars, _NEIGHBOUR, limit)

    @cached_property
    def _tree(self) -> KDTree:
        from scipy.spatial import KDTree

        return KDTree(self.stars.astype(np.float64))

    def distance(self, scaled: FloatArray) -> FloatArray:
        """(n,) distance of scaled labels (n, K), all finite, to the k-th nearest training star."""
        return np.asarray(self._tree.query(scaled, k=[self.neighbour])[0][:, 0], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class TrainingRegion:
    """Convex hull, Mahalanobis ellipsoid and local density of the training labels, in scaled labels.

    Parameters
    ----------
    centre : (K,) mean; inverse_covariance : (K, K).
    limit : Mahalanobis distance that 99.9 % of the training stars do not exceed.
    facets : (n_facets, K + 1) half-spaces a.x + b <= 0 of the hull, or None (one label, or more than five).
    density : how densely the training stars lie, or None (few stars, or a model file of before).
    """

    centre: FloatArray
    inverse_covariance: FloatArray
    limit: float
    facets: FloatArray | None
    density: TrainingDensity | None = None

    @classmethod
    def from_training(cls, labels: LabelSet, values: ArrayLike, *, hull: bool = True) -> TrainingRegion:
        """Region of (n_stars, K) training labels in label units; labels drawn from a box need no ``hull`` beside its range."""
        scaled = labels.scale(values)
        covariance = np.atleast_2d(np.cov(scaled, rowvar=False))
        # nearly one-dimensional label sets (Teff, R, M, L of M dwarfs) would otherwise give a singular matrix
        inverse = np.linalg.inv(covariance + 1e-8 * np.trace(covariance) * np.eye(len(labels)))
        centre = scaled.mean(axis=0)
        distance = _mahalanobis(scaled, centre, inverse)
        limit = float(np.quantile(distance, _MAHALANOBIS_QUANTILE))
        return cls(centre, inverse, limit, _hull_facets(scaled) if hull else None, TrainingDensity.from_training(scaled))

    def outside(self, labels: LabelSet, values: ArrayLike) -> NDArray[np.bool_]:
        """(n,) True where labels (n, K) lie outside the hull or beyond the Mahalanobis limit; False for NaN labels."""
        scaled = labels.scale(values)
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(scaled).all(axis=1))
        point = np.where(finite[:, None], scaled, self.centre)
        out = _mahalanobis(point, self.centre, self.inverse_covariance) > self.limit
        if self.facets is not None:
            out |= (point @ self.facets[:, :-1].T + self.facets[:, -1] > 1e-9).any(axis=1)
        return np.asarray(finite & out)

    def thin(self, labels: LabelSet, values: ArrayLike) -> NDArray[np.bool_]:
        """(n,) True where few training stars lie near labels (n, K), inside or outside the hull; False for NaN labels."""
        scaled = labels.scale(values)
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(scaled).all(axis=1))
        if self.density is None:
            return np.zeros(len(scaled), dtype=bool)
        point = np.where(finite[:, None], scaled, self.centre)
        return np.asarray(finite & (self.density.distance(point) > self.density.limit))

    def bits(self, labels: LabelSet, values: ArrayLike) -> NDArray[np.int64]:
        """(n,) OUTSIDE_TRAINING and THIN_TRAINING of labels (n, K)."""
        outside = np.where(self.outside(labels, values), int(ResultFlag.OUTSIDE_TRAINING), 0)
        return np.asarray(outside | np.where(self.thin(labels, values), int(ResultFlag.THIN_TRAINING), 0), dtype=np.int64)

    def flag(self, estimates: LabelEstimates) -> LabelEstimates:
        """Estimates with OUTSIDE_TRAINING and THIN_TRAINING set where they hold."""
        return estimates.with_(flag=estimates.flag | self.bits(estimates.labels, estimates.values))

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings for a model file."""
        arrays: dict[str, NDArray[Any]] = {"centre": self.centre, "inverse_covariance": self.inverse_covariance}
        if self.facets is not None:
            arrays["facets"] = self.facets
        config: dict[str, Any] = {"limit": self.limit, "density": None}
        if self.density is not None:
            arrays["stars"] = self.density.stars
            config["density"] = {"neighbour": self.density.neighbour, "limit": self.density.limit}
        return arrays, config

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> TrainingRegion:
        """Inverse of :meth:`to_arrays`."""
        stored = config.get("density")  # models of before have none
        density = None
        if stored is not None:
            density = TrainingDensity(arrays["stars"], int(stored["neighbour"]), float(stored["limit"]))
        return cls(arrays["centre"], arrays["inverse_covariance"], float(config["limit"]), arrays.get("facets"), density)


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
