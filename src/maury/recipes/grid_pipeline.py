"""One chunk of a training set: labels -> model spectra -> instrument, rotation -> prepared spectra -> disturbed ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError
from maury.flags import PixelFlag
from maury.grids.chunks import Arrays, Make
from maury.grids.grid import Grid
from maury.prepare import Preparation, convolve_instrument, rotate_flux
from maury.prepare.resolving_power import convolve_resolving_power
from maury.recipes.grid_schema import BuildRecipe
from maury.recipes.grid_source import Broadest, Source, needed_part, open_recipe_grid
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNUSABLE = 1 << 7
"""Bit of ``flag``: the spectrum could not be prepared, or no pixel of it is left (the lower bits are the grid's own)."""
PATCHED = 1 << 6
"""Bit of ``flag``: a step gave up some pixels; what it wrote there is no model flux."""

_NOMINAL_SNR = 1000.0  # of noise-free spectra on their way through steps that weigh pixels; no step sees another


@dataclass(frozen=True)
class BuildJob:
    """What every process needs to make chunks (see :class:`~maury.grids.chunks.Job`).

    Parameters
    ----------
    recipe : of the build.
    root : folder of its files.
    names : of the columns of the labels.
    broadest : what the labels of all spectra ask for at most.
    """

    recipe: BuildRecipe
    root: Path
    names: tuple[str, ...]
    broadest: Broadest

    def open(self) -> Make:
        part = needed_part(open_recipe_grid(self.recipe, self.root), self.recipe, self.broadest)
        return ChunkMaker(self.recipe, part, self.names)


class ChunkMaker:
    """Labels -> arrays of a chunk."""

    def __init__(self, recipe: BuildRecipe, grid: Grid, names: tuple[str, ...]) -> None:
        self._recipe, self._grid, self._source = recipe, grid, Source(grid, recipe)
        self._of_grid = [names.index(name) for name in grid.names]
        self._vsini = names.index("vsini") if "vsini" in names else None
        self._power = names.index("resolving_power") if recipe.has_own_resolutions else None
        self._preparation: Preparation = recipe.preparation

    def __call__(self, first: int, labels: FloatArray) -> Arrays:
        rows = first + np.arange(len(labels))
        nodes, place = np.unique(labels[:, self._of_grid], axis=0, return_inverse=True)
        place = place.reshape(-1)
        found = self._source.spectra(nodes)
        flag, reason = found.flag[place], np.array(found.reason, dtype=object)[place]
        keep = np.flatnonzero(found.usable[place])
        if not keep.size:
            return self._nothing(rows, labels, flag, reason)
        sharp = np.unique(place[keep])
        wavelength, flux = self._broadened(found.flux[sharp], np.searchsorted(sharp, place[keep]), labels[keep])
        spectra, velocity = self._observed(wavelength, flux, rows[keep], labels[keep])
        prepared = self._preparation.prepare_each(spectra)
        for failure in prepared.failures:
            at = keep[list(failure.rows)]
            flag[at], reason[at] = flag[at] | UNUSABLE, failure.reason
        if prepared.spectra is None:
            return self._nothing(rows, labels, flag, reason)
        self._check_covered(prepared.spectra)
        good = prepared.spectra.ivar > 0
        left = np.flatnonzero(good.any(axis=1))
        made = np.array([source.row for source in prepared.sources], dtype=np.int64)
        empty = keep[np.delete(made, left)]
        flag[empty], reason[empty] = flag[empty] | UNUSABLE, "the steps leave no pixel"
        if not left.size:
            return self._nothing(rows, labels, flag, reason)
        made = made[left]
        flag[keep[made]] |= np.where(good[left].all(axis=1), 0, PATCHED)
        done = prepared.spectra[left]
        for augmentation in self._recipe.augment.steps:
            done = augmentation(done, self._recipe.seed, rows[keep[made]])
        base = {} if found.base is None else {"base": found.base[place[keep[made]]]}
        return base | self._arrays(done, rows, labels, flag, reason, keep[made], velocity[made])

    # -- from the grid to the spectrograph ------------------------------------------------------------------------------------

    def _broadened(self, sharp: FloatArray, place: IntArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Wavelengths wanted, and (n, n_pixels) spectra of ``place`` among the sharp ones, through instrument and rotation.

        The instrument comes first, as in Passegger+2020: the two commute, and spectra that differ in v sin i only share it.
        """
        wavelength, instrument, darkening = self._grid.wavelength, self._recipe.instrument, self._recipe.rotation.limb_darkening
        native: dict[str, Any] = {"native_resolving_power": self._grid.resolving_power, "native_fwhm": self._grid.fwhm}
        if self._power is not None:
            power = labels[:, self._power]
            sharp = _versions(sharp, place, power, lambda flux, own: convolve_resolving_power(wavelength, flux, own, **native))
            place = np.arange(len(labels))
        elif instrument is not None:
            sharp = convolve_instrument(wavelength, sharp, **instrument.model_dump(), **native)
        vsini = np.zeros(len(labels)) if self._vsini is None else labels[:, self._vsini]
        if vsini.any():
            flux = _versions(sharp, place, vsini, lambda flux, own: rotate_flux(wavelength, flux, own, darkening))
        else:
            flux = sharp[place]
        low, high = self._recipe.grid.wavelength
        wanted = (wavelength >= low - 1e-6) & (wavelength <= high + 1e-6)
        return wavelength[wanted], flux[:, wanted]

    def _observed(
        self, wavelength: FloatArray, flux: FloatArray, rows: IntArray, labels: FloatArray
    ) -> tuple[Spectra, FloatArray]:
        """Spectra for the steps, and (n,) the velocities they are left with: the rest-frame shift is told to miss by so much."""
        from astropy.table import Table

        jitter = self._recipe.augment.jitter
        velocity = np.full(len(rows), np.nan) if jitter is None else jitter.velocities(self._recipe.seed, rows)
        n = len(rows)
        meta = Table({"file": np.full(n, self._recipe.name), "format": np.full(n, "grid"), "instrument": np.full(n, "synthetic")})
        meta["snr"], meta["rv"] = np.nan, 0.0 if jitter is None else -velocity
        instrument = self._recipe.instrument
        if self._power is None:
            meta["resolving_power"] = np.nan if instrument is None else instrument.resolving_power or np.nan
        else:
            meta["resolving_power"] = labels[:, self._power]
        meta["fwhm"] = np.nan if instrument is None else instrument.fwhm or np.nan
        level = np.maximum(np.median(np.abs(flux), axis=1, keepdims=True), 1e-300)
        error = np.broadcast_to(level / _NOMINAL_SNR, flux.shape)
        spectra = Spectra.from_arrays(
            wavelength,
            flux,
            error=error,
            medium=self._grid.medium,
            frame="rest" if jitter is None else "observed",
            ids=[str(row) for row in rows],
            meta=meta,
        )
        return spectra, velocity

    @staticmethod
    def _check_covered(spectra: Spectra) -> None:
        """Raise RecipeError where the ends have no data; holes in between are a step's own (a mask)."""
        if spectra.mask is None:
            return
        beyond = ((spectra.mask & PixelFlag.WAVELENGTH) != 0).any(axis=0)
        if beyond[0] or beyond[-1]:
            lost = spectra.wavelength[beyond]
            raise RecipeError(
                f"expected grid.wavelength to cover what the steps use, got pixels without data at {lost[0]:.2f} to "
                f"{lost[-1]:.2f} Å; widen it, or narrow the resample or crop step"
            )

    # -- what is kept ---------------------------------------------------------------------------------------------------------

    def _nothing(self, rows: IntArray, labels: FloatArray, flag: IntArray, reason: NDArray[Any]) -> Arrays:
        return self._left_out(rows, labels, flag, reason, np.empty(0, np.int64)) | {"row": np.empty(0, np.int64)}

    @staticmethod
    def _left_out(rows: IntArray, labels: FloatArray, flag: IntArray, reason: NDArray[Any], made: IntArray) -> Arrays:
        lost = np.setdiff1d(np.arange(len(rows)), made)
        words = np.array([str(word) for word in reason[lost]], dtype=np.str_)
        return {"left_out_labels": labels[lost], "left_out_flag": flag[lost].astype(np.uint32), "left_out_reason": words}

    def _arrays(
        self,
        spectra: Spectra,
        rows: IntArray,
        labels: FloatArray,
        flag: IntArray,
        reason: NDArray[Any],
        made: IntArray,
        velocity: FloatArray,
    ) -> Arrays:
        arrays: Arrays = {
            "row": rows[made],
            "wavelength": np.asarray(spectra.wavelength),
            "medium": np.array(spectra.medium),
            "flux": spectra.flux.astype(np.float32),
            "labels": labels[made],
            "flag": flag[made].astype(np.uint32),
            "snr": np.asarray(spectra.meta["snr"], dtype=np.float64),
            "delta_rv": velocity,
            "ivar": spectra.ivar.astype(np.float32),
        }
        return arrays | self._left_out(rows, labels, flag, reason, made)


def _versions(
    sharp: FloatArray, place: IntArray, width: FloatArray, broaden: Callable[[FloatArray, FloatArray], FloatArray]
) -> FloatArray:
    """(n, n_pixels) the spectra of ``place`` (n,) among the (m, n_pixels) sharp ones, each broadened by a width of its own.

    Parameters
    ----------
    broaden : of (n, n_pixels) or (n_pixels,) flux and (n,) widths.
    """
    if 2 * len(sharp) > place.size:
        return broaden(sharp[place], width)
    flux = np.empty((place.size, sharp.shape[1]))
    for number, spectrum in enumerate(sharp):  # one transform of the spectrum serves all its versions
        own = np.flatnonzero(place == number)
        flux[own] = broaden(spectrum, width[own])
    return flux
