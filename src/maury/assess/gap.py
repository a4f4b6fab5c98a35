"""The synthetic gap: how far spectra lie from those that a model was trained on, beyond what noise and model error explain.

A network answers whatever it is shown. Whether it has seen anything like it is told by the distance to the training spectra
(Passegger+2020, Sect. 4.3, see two clouds in a UMAP projection; an axis of such a map carries no metric). The number here is the
one of METHODS 1: the correlation distance to the tenth nearest training spectrum, over the 99th percentile of that distance
among training spectra. We differ in one point: noise and the model's known error lengthen the distance of a spectrum that has no
gap, so their expectation is subtracted, and five sigma of their fluctuation is added to the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.assess.gap_window import MIN_SPECTRA, GapWindow, usable_pixels
from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.emulate.components import principal_components
from maury.errors import UsageError
from maury.files import part_of
from maury.prepare.grid import windows_of
from maury.protocols import ModelCovariance
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

_BLOCK = 64  # a block of spectra stays in the cache
_FILL_COMPONENTS = 20
_STILL = 0.02  # of a pixel: velocities below it move nothing
_MIN_PIXELS = 8  # of a window: fewer have no shape that could be strange


@dataclass(frozen=True, eq=False)
class SyntheticGap:
    """The training spectra's clouds, one for each window.

    Parameters
    ----------
    wavelength : (n_pixels,) Å, of the model's grid.
    windows : at least one.
    """

    wavelength: FloatArray
    windows: tuple[GapWindow, ...]

    @classmethod
    def from_training(
        cls,
        spectra: Spectra,
        windows: Sequence[tuple[float, float]] | None = None,
        *,
        modes: FloatArray | None = None,
        n_reference: int = 1000,
        seed: int = 0,
    ) -> SyntheticGap | None:
        """The gap of prepared training spectra; None where there are too few of them (fewer than 100) to tell.

        A window is left out, rather than an error that comes when the training is over, where it has fewer than 8 pixels that
        half of the training spectra have, or fewer than 100 spectra whose features stand out of their noise. None if all are.

        Parameters
        ----------
        windows : (low, high) Å; None is one of the whole grid.
        modes : (q, n_pixels) shapes by which spectra may differ without a gap, beside a constant: what a fit marginalises.
        n_reference : spectra drawn at random to stand for all.
        seed : of the draw.
        """
        if len(spectra) < MIN_SPECTRA:
            return None
        n = min(n_reference, len(spectra))
        chosen = spectra[np.sort(np.random.default_rng(seed).choice(len(spectra), n, replace=False))]
        wave = np.array(spectra.wavelength)
        flat = np.ones((1, len(wave)))
        all_modes = flat if modes is None else np.vstack([flat, modes])
        found = []
        for low, high in [(float(wave[0]), float(wave[-1]))] if windows is None else windows:
            pixels = usable_pixels(chosen.ivar, (wave >= low) & (wave <= high))
            if len(pixels) < _MIN_PIXELS:
                continue
            flux, ivar = _filled(chosen, pixels)
            found.append(GapWindow.of((float(low), float(high)), pixels, flux, ivar, all_modes[:, pixels]))
        kept = tuple(window for window in found if window is not None)
        return cls(wave, kept) if kept else None

    def ratios(
        self, spectra: Spectra, covariance: ModelCovariance | None = None, velocity: FloatArray | None = None
    ) -> FloatArray:
        """(n, W) ratio for each window (see :meth:`GapWindow.ratio`): above 1 there is a gap; NaN where pixels are missing.

        Parameters
        ----------
        spectra : prepared, on the model's grid.
        covariance : the model's own error, which may explain a distance.
        velocity : (n,) km/s that the spectra still have; NaN counts as 0.

        Raises
        ------
        UsageError
            If the grids differ.
        """
        if not np.array_equal(spectra.wavelength, self.wavelength):
            raise UsageError(
                f"expected spectra on the model's grid of {len(self.wavelength)} pixels, got {spectra!r}; prepare them with the "
                "model's preparation"
            )
        errors = [None if covariance is None else window.error_modes(covariance) for window in self.windows]
        out = np.empty((len(spectra), len(self.windows)))
        for first in range(0, len(spectra), _BLOCK):
            rows = slice(first, first + _BLOCK)
            flux, ivar = spectra.flux[rows], spectra.ivar[rows]
            if velocity is not None:
                flux, ivar = self.at_rest(flux, ivar, velocity[rows])
            for number, (window, error) in enumerate(zip(self.windows, errors, strict=True)):
                out[rows, number] = window.ratio(flux, ivar, error)
        return out

    def at_rest(self, flux: NDArray[Any], ivar: NDArray[Any], velocity: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Flux and ivar of spectra with velocities (n,) km/s, moved to rest by cubic splines.

        Pixels that come from next to a bad one, or from beyond an end, are bad.
        """
        from scipy.interpolate import CubicSpline

        out, weight = np.array(flux, dtype=np.float64), np.array(ivar, dtype=np.float64)
        still = _STILL * float(np.min(np.diff(self.wavelength) / self.wavelength[1:])) * SPEED_OF_LIGHT_KM_S
        for row in np.flatnonzero(np.abs(velocity) > still):
            place = self.wavelength * (1.0 + velocity[row] / SPEED_OF_LIGHT_KM_S)
            good = weight[row] > 0
            if not good.any():
                continue
            variance = np.where(good, 1.0 / np.where(good, weight[row], 1.0), np.inf)
            whole = np.interp(self.wavelength, self.wavelength[good], out[row, good])
            out[row] = CubicSpline(self.wavelength, whole)(np.clip(place, self.wavelength[0], self.wavelength[-1]))
            right = np.clip(np.searchsorted(self.wavelength, place), 1, len(place) - 1)
            larger = np.maximum(variance[right - 1], variance[right])
            inside = (place >= self.wavelength[0]) & (place <= self.wavelength[-1])
            weight[row] = np.where(inside, 1.0 / larger, 0.0)
        return out, weight

    # -- files ----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and settings for a model file."""
        arrays: dict[str, NDArray[Any]] = {"wavelength": self.wavelength}
        configs = []
        for number, window in enumerate(self.windows):
            own, config = window.to_arrays()
            arrays |= {f"window{number}.{name}": array for name, array in own.items()}
            configs.append(config)
        return arrays, {"windows": configs}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]], config: dict[str, Any]) -> SyntheticGap:
        """Inverse of :meth:`to_arrays`."""
        windows = []
        for number, own in enumerate(config["windows"]):
            windows.append(GapWindow.from_arrays(part_of(arrays, f"window{number}."), own))
        return cls(arrays["wavelength"], tuple(windows))


def stretches(wavelength: FloatArray, seen: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(low, high) Å of the stretches of neighbouring pixels where (n_pixels,) ``seen`` is true; a gap of the grid ends one.

    Each window of the grid (:func:`~maury.prepare.grid.windows_of`) may have a spacing of its own.
    """
    found = []
    for window in windows_of(wavelength):
        places = window.start + np.flatnonzero(seen[window])
        parts = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        found += [(float(wavelength[part[0]]), float(wavelength[part[-1]])) for part in parts if part.size]
    return found


def largest(ratios: FloatArray) -> FloatArray:
    """(n,) the largest of (n, W) ratios over the windows; NaN where none is known.

    A spectrum that lacks a window (its ratio there is NaN) is judged by the others alone: what was not observed is no gap.
    """
    known = np.isfinite(ratios)
    return np.where(known.any(axis=1), np.where(known, ratios, -np.inf).max(axis=1), np.nan)


def _filled(spectra: Spectra, pixels: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
    """(n, m) flux of some pixels, bad ones filled from principal components, and ivar."""
    flux, ivar = spectra.flux[:, pixels].astype(np.float64), spectra.ivar[:, pixels].astype(np.float64)
    good = ivar > 0
    if good.all():
        return flux, ivar
    r = min(_FILL_COMPONENTS, len(flux) // 5, len(pixels) - 1)
    mean, basis, scores = principal_components(flux, good, np.ones(len(flux)), r)
    return np.where(good, flux, mean + scores @ basis), ivar
