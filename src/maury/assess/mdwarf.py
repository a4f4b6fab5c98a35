"""Empirical relations of M dwarfs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MANN2015_TEFF_RANGE_K = (2700.0, 4100.0)
"""Effective temperatures of the stars behind the relation."""

_MANN2015_RADIUS = (10.5440, -33.7546, 35.1909, -11.5928)


def mann2015_radius(teff: ArrayLike) -> NDArray[np.float64]:
    """Radius of an M dwarf from its effective temperature, solar metallicity assumed.

    R/Rsun = 10.5440 - 33.7546 x + 35.1909 x^2 - 11.5928 x^3 with x = Teff/3500 K (Mann et al. 2015, ApJ 804, 64, Table 1).
    Galgano et al. (2020) drop training stars more than 0.01 Rsun off this sequence; their Table 1 follows it to 0.005 Rsun.

    Parameters
    ----------
    teff : any shape, K.

    Returns
    -------
    Same shape, solar radii; NaN outside 2700-4100 K, where the cubic means nothing.
    """
    kelvin = np.asarray(teff, dtype=float)
    low, high = MANN2015_TEFF_RANGE_K
    radius = np.polynomial.polynomial.polyval(kelvin / 3500.0, _MANN2015_RADIUS)
    return np.asarray(np.where((kelvin >= low) & (kelvin <= high), radius, np.nan))
