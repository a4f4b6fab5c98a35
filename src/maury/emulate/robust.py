"""Weights of training stars whose spectrum does not go with their labels: wrong labels, binaries, emission, bad data.

A multivariate Student t distribution of the held-out residuals (Lange, Little & Taylor 1989, J. Am. Stat. Assoc. 84, 881)
gives each star the weight (dof + m)/(dof + d^2), d its Mahalanobis distance in the m leading principal components of
the residuals. An outlier fades instead of being cut, so no threshold decides who belongs to the training set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.errors import UsageError

FloatArray = NDArray[np.float64]


def student_weights(residuals: FloatArray, dof: float, n_components: int = 40, weights: FloatArray | None = None) -> FloatArray:
    """(n_stars,) weights of mean 1 from held-out residuals.

    Parameters
    ----------
    residuals : (n_stars, n_pixels), 0 where masked.
    dof : degrees of freedom of the Student distribution; smaller cuts outliers harder.
    n_components : principal components in which distances are measured.
    weights : (n_stars,) of an earlier pass, with which components and covariance are formed.

    Raises
    ------
    UsageError
        If ``dof`` is not positive.
    """
    if not dof > 0:
        raise UsageError(f"expected positive degrees of freedom for the star weights, got {dof}")
    n = len(residuals)
    m = min(n_components, n // 4)
    star = np.ones(n) if weights is None else weights
    pixel_scale = ROBUST_SIGMA_PER_MAD * np.median(np.abs(residuals), axis=0)
    scaled = residuals / np.where(pixel_scale > 0, pixel_scale, np.inf)
    weighted = scaled * np.sqrt(star)[:, None]
    eigenvalues, vectors = np.linalg.eigh(weighted @ weighted.T)
    leading = np.argsort(eigenvalues)[::-1][:m]
    directions = weighted.T @ vectors[:, leading] / np.sqrt(np.maximum(eigenvalues[leading], 1e-300))
    score = scaled @ directions
    covariance = (score * star[:, None]).T @ score / star.sum()
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))  # m may be a sizeable part of n
    distance = np.einsum("ni,ij,nj->n", score, np.linalg.inv(covariance), score)
    # the covariance is itself inflated by the outliers: scale so that the median star has its expected distance
    distance *= m / np.median(distance)
    new = (dof + m) / (dof + distance)
    return np.asarray(new / new.mean())
