"""Principal components of spectra with masked pixels: the space in which a small network learns a whole spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError

FloatArray = NDArray[np.float64]

_FILL_PASSES = 5  # masked pixels converge geometrically; what is left after five is far below any noise


def principal_components(
    flux: FloatArray, good: NDArray[np.bool_], weights: FloatArray, n_components: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted principal components; masked pixels are filled from the components themselves (expectation-maximisation).

    Parameters
    ----------
    flux : (n, n_pixels); good : (n, n_pixels) False where masked.
    weights : (n,) of the spectra.
    n_components : r, fewer than spectra.

    Returns
    -------
    Mean (n_pixels,), orthonormal basis (r, n_pixels) and the scores of every spectrum (n, r).

    Raises
    ------
    UsageError
        If there are not more spectra than components.
    """
    n = len(flux)
    if not 1 <= n_components < min(flux.shape):
        raise UsageError(f"expected 1 to {min(flux.shape) - 1} principal components for {n} spectra, got {n_components}; lower it")
    share = weights / weights.sum()
    mean = (share @ (flux * good)) / np.maximum(share @ good, 1e-12)
    filled = np.where(good, flux, mean)
    for _ in range(1 if good.all() else _FILL_PASSES):
        mean = share @ filled
        basis = _leading(filled - mean, share, n_components)
        scores = (filled - mean) @ basis.T
        filled = np.where(good, flux, mean + scores @ basis)
    return mean, basis, (filled - mean) @ basis.T


def _leading(centred: FloatArray, share: FloatArray, r: int) -> FloatArray:
    """(r, n_pixels) leading right singular vectors, from the smaller of the two Gram matrices."""
    weighted = centred * np.sqrt(share)[:, None]
    n, n_pixels = weighted.shape
    if n <= n_pixels:
        values, vectors = np.linalg.eigh(weighted @ weighted.T)
        basis = (weighted.T @ vectors[:, ::-1][:, :r]) / np.sqrt(np.maximum(values[::-1][:r], 1e-300))
    else:
        basis = np.linalg.eigh(weighted.T @ weighted)[1][:, ::-1][:, :r]
    return np.ascontiguousarray(np.linalg.qr(basis)[0].T)
