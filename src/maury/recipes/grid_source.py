"""Where the model spectra of a build come from: a grid, between its nodes or at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import RecipeError
from maury.grids.description import GridDescription, open_described
from maury.grids.grid import Grid
from maury.grids.interpolate import GridInterpolator
from maury.grids.open import open_grid
from maury.prepare.lsf import lsf_from
from maury.recipes.grid_schema import BuildRecipe, NodesRecipe

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OUTSIDE, HOLE = 1 << 0, 1 << 1
"""Bits of ``flag``: the labels lie outside the grid's box; a node that the spectrum needs is missing."""

_REACH_FWHM = {"gaussian": 3.0, "voigt": 20.0}  # where kernels end (maury.prepare.instrument)
_EDGE = 1e-6  # Å: wavelengths computed as start + i * step end a rounding short of where they should
_MORE_PIXELS = 5  # where there are any: rotation is a little wrong (6e-4) on the pixels next to those its profile leaves
_HELD_BYTES = 200_000_000  # of node spectra that each process may keep


class Found(NamedTuple):
    """Model spectra for m label sets."""

    flux: FloatArray
    """(m, n_pixels); NaN in rows that could not be made."""
    flag: IntArray
    """(m,) 0, or :data:`OUTSIDE`, :data:`HOLE`."""
    usable: NDArray[np.bool_]
    """(m,) whether there is a spectrum."""
    reason: list[str]
    """(m,) what is wrong with the labels, in words; "" where nothing is."""


def open_recipe_grid(recipe: BuildRecipe, root: Path) -> Grid:
    """The grid that a recipe names, below ``root``; little of it is read.

    Raises
    ------
    MauryError
        If the file is missing or unfit.
    """
    if recipe.grid.library is None:
        assert recipe.grid.file is not None  # the schema has refused the recipe otherwise
        return open_grid(root / recipe.grid.file)
    entries: dict[str, Any] = recipe.grid.library.model_dump(exclude_none=True)
    return open_described(GridDescription.from_dict(entries | {"file": str(root / recipe.grid.library.file)}, recipe.name))


def needed_part(grid: Grid, recipe: BuildRecipe, fastest: float) -> Grid:
    """The pixels that reach into the wanted range through instrument and rotation.

    Parameters
    ----------
    fastest : the largest v sin i, km/s.

    Raises
    ------
    RecipeError
        If the grid does not hold them all.
    """
    low, high = recipe.grid.wavelength
    instrument = recipe.instrument
    if instrument is not None:
        lsf = lsf_from("instrument", instrument.resolving_power, instrument.fwhm, instrument.table)
        assert lsf is not None  # likewise
        reach = _REACH_FWHM[instrument.profile if instrument.eta > 0 else "gaussian"]
        first, last = lsf.fwhm_at(np.array([low, high]))
        low, high = low - reach * first, high + reach * last
    low, high = low * (1 - fastest / SPEED_OF_LIGHT_KM_S), high * (1 + fastest / SPEED_OF_LIGHT_KM_S)
    wavelength = grid.wavelength
    if low < wavelength[0] - _EDGE or high > wavelength[-1] + _EDGE:
        raise RecipeError(
            f"expected a grid that covers {low:.2f} to {high:.2f} Å (grid.wavelength and the margins of rotation and "
            f"instrument), got {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å; narrow grid.wavelength or download more"
        )
    start, stop = np.searchsorted(wavelength, [low + _EDGE, high - _EDGE])
    begin, end = max(int(start) - _MORE_PIXELS, 0), min(int(stop) + _MORE_PIXELS - 1, wavelength.size - 1)
    return grid.crop(float(wavelength[begin]), float(wavelength[end]))


class Source:
    """Model spectra by labels.

    Parameters
    ----------
    grid : with the pixels that are wanted.
    recipe : says whether spectra are interpolated, how, and what becomes of labels outside.
    """

    def __init__(self, grid: Grid, recipe: BuildRecipe) -> None:
        self.grid = grid
        settings = recipe.grid
        if isinstance(recipe.sample, NodesRecipe):
            self._between = None
            self._row = {tuple(values): row for row, values in enumerate(grid.values.tolist())}
        else:
            self._between = GridInterpolator(grid, settings.interpolation, settings.outside, memory=_HELD_BYTES)

    def spectra(self, values: FloatArray) -> Found:
        """Spectra for (m, K) label sets; of nodes, those of the grid itself."""
        if self._between is None:
            flux = self.grid.flux([self._row[tuple(row)] for row in values.tolist()])
            n = len(values)
            return Found(np.asarray(flux, dtype=np.float64), np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool), [""] * n)
        found = self._between.spectra(values)
        flag = OUTSIDE * found.outside.astype(np.int64) | HOLE * found.hole.astype(np.int64)
        return Found(found.flux, flag, found.usable, self._between.reasons(values, found))
