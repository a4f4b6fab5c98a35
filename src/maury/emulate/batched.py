"""Small linear algebra for many pixels at once, with the pixel as the *last* axis.

A Cannon has thousands of pixels and some ten terms: numpy's own batched solvers call LAPACK once per pixel, which costs more
than the arithmetic. Here every operation runs over all pixels of a block, contiguously.
"""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_SMALLEST_PIVOT = 1e-13  # of the diagonal: what rounding leaves of a singular matrix


class Cholesky:
    """Factors N = L L^T of symmetric positive-definite matrices (T, T, n_pixels), of which only the lower half is read.

    Pivots that rounding made vanish or negative are replaced by 1e-13 of the diagonal.
    """

    def __init__(self, normal: FloatArray) -> None:
        size = len(normal)
        self.lower = np.empty_like(normal)
        self.inverse_pivot = np.empty((size, normal.shape[2]))
        for j in range(size):
            column = normal[j:, j].copy()
            smallest = _SMALLEST_PIVOT * column[0]
            if j:
                column -= np.einsum("ikp,kp->ip", self.lower[j:, :j], self.lower[j, :j])
            self.inverse_pivot[j] = 1.0 / np.sqrt(np.maximum(column[0], smallest))
            self.lower[j:, j] = column * self.inverse_pivot[j]

    def take(self, pixels: NDArray[np.bool_]) -> Cholesky:
        """The factors of some of the pixels."""
        part = copy.copy(self)
        part.lower, part.inverse_pivot = self.lower[..., pixels], self.inverse_pivot[:, pixels]
        return part

    def solve(self, right: FloatArray) -> FloatArray:
        """(T, n_pixels) right-hand sides -> (T, n_pixels)."""
        out = right.copy()
        size = len(out)
        for j in range(size):
            if j:
                out[j] -= np.einsum("kp,kp->p", self.lower[j, :j], out[:j])
            out[j] *= self.inverse_pivot[j]
        for j in reversed(range(size)):
            if j < size - 1:
                out[j] -= np.einsum("kp,kp->p", self.lower[j + 1 :, j], out[j + 1 :])
            out[j] *= self.inverse_pivot[j]
        return out


def lasso_coordinate_descent(
    normal: FloatArray,
    right: FloatArray,
    theta: FloatArray,
    strength: FloatArray,
    *,
    max_sweeps: int = 1000,
    tolerance: float = 1e-9,
) -> FloatArray:
    """Minimise theta' N theta - 2 r' theta + strength * sum_{d>=1} |theta_d| for many pixels at once.

    Parameters
    ----------
    normal : (T, T, n_pixels).
    right, theta : (T, n_pixels); theta is the start. The constant term (index 0) is free.
    strength : (n_pixels,).

    Returns
    -------
    (T, n_pixels). Convex: cyclic coordinate descent converges to the global minimum (Casey+2016 eq. 8 at fixed s).
    """
    theta = theta.copy()
    n_terms = len(theta)
    scale = np.maximum(np.abs(right).max(axis=0), 1e-300)
    for _ in range(max_sweeps):
        largest = np.zeros(theta.shape[1])
        for d in range(n_terms):
            diagonal = normal[d, d]
            gap = right[d] - np.einsum("tp,tp->p", normal[d], theta) + diagonal * theta[d]
            threshold = 0.0 if d == 0 else 0.5 * strength
            new = np.sign(gap) * np.maximum(np.abs(gap) - threshold, 0.0) / diagonal
            largest = np.maximum(largest, np.abs(new - theta[d]) * diagonal)
            theta[d] = new
        if (largest <= tolerance * scale).all():
            break
    return theta
