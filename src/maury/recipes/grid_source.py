"""Where the model spectra of a build come from: a grid, between its nodes or at them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import RecipeError
from maury.grids.description import GridDescription, open_described
from maury.grids.grid import FluxRows, Grid
from maury.grids.interpolate import GridInterpolator
from maury.grids.open import open_grid
from maury.prepare.lsf import Lsf, lsf_from
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
    base: IntArray | None = None
    """(m,) number of the grid's spectrum that each is; None where they are interpolated."""


class Broadest(NamedTuple):
    """The most that any spectrum of a build is broadened by its labels."""

    vsini: float
    """The largest, km/s; 0 where it is no label."""
    resolving_power: float | None
    """The lowest; None where it is no label."""

    @classmethod
    def of(cls, recipe: BuildRecipe, names: tuple[str, ...], labels: FloatArray) -> Broadest:
        """Of all (n, K) labels with these names."""
        fastest = float(labels[:, names.index("vsini")].max()) if "vsini" in names else 0.0
        return cls(fastest, float(labels[:, names.index("resolving_power")].min()) if recipe.has_own_resolutions else None)


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


def needed_part(grid: Grid, recipe: BuildRecipe, broadest: Broadest) -> Grid:
    """The pixels that reach into the wanted range through instrument and rotation.

    With ``edges = "continue"`` a grid that ends within the margins goes on with the flux of its end pixels: as far inside its
    ends as instrument and rotation reach (14 Å at 8400 Å for 300 km/s and R = 5000), spectra are then approximate, because the
    lines of beyond are missing; elsewhere nothing changes.

    Raises
    ------
    RecipeError
        If the grid does not hold them all; where it may be continued, if it does not hold the range without margins, to a pixel.
    """
    low, high = _with_margins(recipe, broadest)
    if recipe.grid.edges == "continue":
        grid = _continued(grid, recipe.grid.wavelength, low, high)
    wavelength = grid.wavelength
    if low < wavelength[0] - _EDGE or high > wavelength[-1] + _EDGE:
        raise RecipeError(
            f"expected a grid that covers {low:.2f} to {high:.2f} Å (grid.wavelength and the margins of rotation and "
            f"instrument), got {wavelength[0]:.2f} to {wavelength[-1]:.2f} Å; narrow grid.wavelength or download more"
        )
    start, stop = np.searchsorted(wavelength, [low + _EDGE, high - _EDGE])
    begin, end = max(int(start) - _MORE_PIXELS, 0), min(int(stop) + _MORE_PIXELS - 1, wavelength.size - 1)
    return grid.crop(float(wavelength[begin]), float(wavelength[end]))


def _with_margins(recipe: BuildRecipe, broadest: Broadest) -> tuple[float, float]:
    """The wanted range and what reaches into it, Å."""
    low, high = recipe.grid.wavelength
    instrument, lsf, reach = recipe.instrument, None, _REACH_FWHM["gaussian"]
    if broadest.resolving_power is not None:
        lsf = Lsf(broadest.resolving_power)
    elif instrument is not None:
        lsf = lsf_from("instrument", instrument.resolving_power, instrument.fwhm, instrument.table)
        reach = _REACH_FWHM[instrument.profile if instrument.eta > 0 else "gaussian"]
    if lsf is not None:
        first, last = lsf.fwhm_at(np.array([low, high]))
        low, high = low - reach * float(first), high + reach * float(last)
    return low * (1 - broadest.vsini / SPEED_OF_LIGHT_KM_S), high * (1 + broadest.vsini / SPEED_OF_LIGHT_KM_S)


def _continued(grid: Grid, wanted: tuple[float, float], low: float, high: float) -> Grid:
    """The grid with as many pixels more at its ends as ``low`` and ``high`` (Å) ask for, on the step that it has there.

    A grid that misses ``wanted`` by more than a pixel stays as it is.
    """
    wavelength = grid.wavelength
    steps = wavelength[1] - wavelength[0], wavelength[-1] - wavelength[-2]
    if wanted[0] < wavelength[0] - steps[0] - _EDGE or wanted[1] > wavelength[-1] + steps[1] + _EDGE:
        return grid
    missing = (wavelength[0] - low) / steps[0], (high - wavelength[-1]) / steps[1]
    before, after = (int(np.ceil(n)) + _MORE_PIXELS if n * step > _EDGE else 0 for n, step in zip(missing, steps, strict=True))
    if not before and not after:
        return grid
    ends = wavelength[0] - steps[0] * np.arange(before, 0, -1), wavelength[-1] + steps[1] * np.arange(1, after + 1)
    rows = ContinuedRows(grid.rows, before, after)
    return replace(grid, wavelength=np.concatenate([ends[0], wavelength, ends[1]]), rows=rows)


@dataclass(frozen=True, eq=False)
class ContinuedRows:
    """Other rows with pixels ``before`` and ``after`` them that repeat their end pixels (:class:`~maury.grids.grid.FluxRows`)."""

    whole: FluxRows
    before: int
    after: int

    @property
    def shape(self) -> tuple[int, int]:
        n, n_pixels = self.whole.shape
        return n, self.before + n_pixels + self.after

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    @property
    def n_bytes(self) -> int:
        return self.whole.n_bytes

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        pixel = np.clip(np.arange(self.shape[1])[pixels] - self.before, 0, self.whole.shape[1] - 1)
        if not pixel.size:
            return self.whole.read(rows, slice(0, 0))
        first = int(pixel.min())
        return self.whole.read(rows, slice(first, int(pixel.max()) + 1))[:, pixel - first]


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
            base = np.array([self._row[tuple(row)] for row in values.tolist()], dtype=np.int64)
            flux, n = np.asarray(self.grid.flux(base), dtype=np.float64), len(base)
            return Found(flux, np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool), [""] * n, base)
        found = self._between.spectra(values)
        flag = OUTSIDE * found.outside.astype(np.int64) | HOLE * found.hole.astype(np.int64)
        return Found(found.flux, flag, found.usable, self._between.reasons(values, found))
