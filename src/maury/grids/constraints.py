"""Which combinations of Teff, log g and [M/H] are stars: near isochrones, or near an analytic sequence of dwarfs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.grids.isochrones import Isochrones

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]

_LABELS = ("teff", "logg", "m_h")
_LATTICE_HALF_STEP = 0.05  # dex; see AnalyticDwarfSequence
_FITTED_TEFF = (2312.5, 4487.5)  # K: 2325 to 4475 by 25, and half a step
_HALVES = 2.0  # points along an isochrone every 1/2 tolerance: the ball around them is then a tube, thinner by 3 % between points
_MASS_FALLS = 0.5  # mass loss along one isochrone is slower than this from point to point; a new table starts over

# METHODS 2, fitted there to the released lattice: (Teff, value)
_WIDTH = ((2500, 0.20), (2850, 0.16), (3150, 0.13), (3450, 0.085), (3800, 0.055), (4250, 0.05))
_LOWEST = ((2325, 0.3), (2400, 0.2), (2475, -0.1), (2550, -0.2), (2625, -0.3), (2700, -0.4), (2775, -0.8), (3000, -1.0))
_HIGHEST = ((3575, 0.6), (3600, 0.3), (3725, 0.2), (3800, 0.1), (4000, 0.0), (4475, -0.1))


def analytic_dwarf_sequence(teff: FloatArray, m_h: FloatArray) -> FloatArray:
    """log g of M dwarfs as a polynomial in Teff (K) and [M/H]: METHODS 2's stand-in for the isochrones of Mas-Buitrago+2024.

    g0 = 4.780 - 0.185 t + 0.0304 t² - 0.0095 t³ - 0.195 m + 0.075 m² + 0.107 m t, t = (Teff - 3500)/1000, m = [M/H], fitted to
    the 1767 triples of the released lattice (rms 0.085 dex; Teff 2325-4475 K, [M/H] -1 to 0.6). Not a stellar model.
    """
    t, m = (teff - 3500.0) / 1000.0, m_h
    return np.asarray(4.780 - 0.185 * t + 0.0304 * t**2 - 0.0095 * t**3 - 0.195 * m + 0.075 * m**2 + 0.107 * m * t)


@dataclass(frozen=True)
class AnalyticDwarfSequence:
    """Keep |log g - g0| <= w(Teff) and m_lo(Teff) <= [M/H] <= m_hi(Teff), with g0 of :func:`analytic_dwarf_sequence`.

    Over the released lattice this keeps 95 % of the real triples, and 71 % of what it keeps is real (METHODS 2). For these
    figures a lattice value of [M/H] stands for its cell of ±0.05 dex; without that they are 94 % and 72 %. Half a step beyond the
    lattice's Teff nothing is kept: the polynomial knows no stars there. Isochrones of one's own are the better option
    (:class:`NearIsochrones`).
    """

    def keeps(self, names: Sequence[str], values: FloatArray) -> NDArray[np.bool_]:
        teff, logg, m_h = _columns(names, values).T

        def at(table: tuple[tuple[float, float], ...]) -> FloatArray:
            return np.asarray(np.interp(teff, *np.transpose(table)))

        near = np.abs(logg - analytic_dwarf_sequence(teff, m_h)) <= at(_WIDTH)
        margin = _LATTICE_HALF_STEP
        fitted = (teff >= _FITTED_TEFF[0]) & (teff <= _FITTED_TEFF[1])
        return np.asarray(near & fitted & (m_h >= at(_LOWEST) - margin) & (m_h <= at(_HIGHEST) + margin))


@dataclass(frozen=True, eq=False)
class NearIsochrones:
    """Keep what lies near an isochrone: (ΔTeff/a)² + (Δlog g/b)² + (Δ[M/H]/c)² <= 1 for some place on one.

    Passegger+2020 restrict (Teff, log g, [M/H], age) with PARSEC v1.2S isochrones before training; how is not in the paper, so
    the ellipsoid is our choice.

    Parameters
    ----------
    isochrones : of :func:`~maury.grids.read_isochrones`; followed as straight lines between their points.
    teff, logg, m_h : half-axes a (K), b and c (dex). c must reach from one metallicity of the isochrones half-way to the next.
    log_age : (low, high) of log10 age/yr to use.
    stages : PARSEC's evolutionary stages to use; all if there are none.
    """

    isochrones: Isochrones
    teff: float = 50.0
    logg: float = 0.1
    m_h: float = 0.1
    log_age: tuple[float, float] = (0.0, 11.0)
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite([self.teff, self.logg, self.m_h]).all() and min(self.teff, self.logg, self.m_h) > 0):
            raise UsageError(
                f"expected positive half-axes around isochrones, got teff {self.teff:g}, logg {self.logg:g} and m_h {self.m_h:g}"
            )
        if not self._used.any():
            stages = f"stages {list(self.stages)}" if self.stages else "any stage"
            raise UsageError(
                f"expected isochrone points with log age {self.log_age[0]:g} to {self.log_age[1]:g} and {stages}, got none of "
                f"{len(self.isochrones)}; widen them"
            )

    def keeps(self, names: Sequence[str], values: FloatArray) -> NDArray[np.bool_]:
        distance, _ = self._tree.query(_columns(names, values) / self._axes, distance_upper_bound=1.0 + 1e-9)
        return np.asarray(np.isfinite(distance))

    @property
    def _axes(self) -> FloatArray:
        return np.array([self.teff, self.logg, self.m_h])

    @property
    def _used(self) -> NDArray[np.bool_]:
        tracks = self.isochrones
        good = (tracks.log_age >= self.log_age[0]) & (tracks.log_age <= self.log_age[1]) & np.isfinite(tracks.m_h)
        return good & np.isin(tracks.stage, self.stages) if self.stages else good

    @cached_property
    def _tree(self) -> cKDTree:
        """Places on the isochrones, in units of the half-axes."""
        from scipy.spatial import cKDTree

        tracks, used = self.isochrones, np.flatnonzero(self._used)
        points = np.column_stack([tracks.teff, tracks.logg, tracks.m_h])[used] / self._axes
        a, b = used[:-1], used[1:]
        line = (b == a + 1) & (tracks.log_age[a] == tracks.log_age[b]) & (tracks.m_h[a] == tracks.m_h[b])
        line &= ~(tracks.mass[b] < _MASS_FALLS * tracks.mass[a])
        return cKDTree(np.concatenate([points, *_between(points[:-1][line], points[1:][line])]))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_tree"}


def _between(first: FloatArray, second: FloatArray) -> list[FloatArray]:
    """Points on the lines from first to second, at most 1/2 apart."""
    n = np.ceil(np.linalg.norm(second - first, axis=1) * _HALVES).astype(np.int64)
    which = np.repeat(np.arange(len(n)), np.maximum(n - 1, 0))
    step = np.concatenate([np.arange(1, k) for k in n if k > 1]) if which.size else np.empty(0)
    part = (step / n[which])[:, None]
    return [first[which] + part * (second[which] - first[which])]


def _columns(names: Sequence[str], values: FloatArray) -> FloatArray:
    """(n, 3) of Teff, log g and [M/H].

    Raises
    ------
    UsageError
        If one of them is not among the labels.
    """
    missing = [name for name in _LABELS if name not in names]
    if missing:
        raise UsageError(f"expected labels teff, logg and m_h for a constraint, got no {', '.join(missing)}; sample them too")
    return np.asarray(values[:, [list(names).index(name) for name in _LABELS]])
