"""A part of a training's data that is built on the way: a recipe of ``maury grid build``, run before the spectra are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maury.errors import MauryError, RecipeError
from maury.prepare import Crop, Gisic, Preparation, Resample, ToAir, ToVacuum, air_to_vacuum, vacuum_to_air
from maury.prepare.grid import FloatArray
from maury.protocols import Step
from maury.recipes.data_schema import PartRecipe
from maury.recipes.grid_build import BuildSummary, build_training_set
from maury.recipes.grid_schema import BuildRecipe, load_build_recipe
from maury.recipes.grid_source import open_recipe_grid
from maury.spectra import Medium

Progress = Callable[[str, int, int], None]

BASE = "base"
"""Column of a training set that was drawn from the spectra of a grid: the number of each draw's own one."""

_NOMINAL_SNR = 1000.0
"""Of spectra without noise, where the recipe says nothing (see :mod:`maury.grids.training_set`)."""


@contextmanager
def built_part(
    part: PartRecipe, root: Path, work: Path | None, progress: Progress | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The file of the training set that ``part.build`` makes, and how :func:`~maury.read.library.read_library` reads it.

    Parameters
    ----------
    root : folder below which the grid recipe's files lie.
    work : folder in which the training set is built, and where a build that was stopped goes on; None: one that is removed.
    progress : called with (stage, done, all).

    Raises
    ------
    MauryError
        If there is no such recipe, or the build fails (see :func:`~maury.recipes.grid_build.build_training_set`).
    """
    assert part.build is not None  # the caller has looked
    recipe = load_build_recipe(part.build)
    if part.only is not None:
        recipe = recipe.model_copy(update={"only": part.only})
    if part.build_window is not None:
        recipe = for_window(recipe, part.build_window, open_recipe_grid(recipe, root).medium)
    with TemporaryDirectory(prefix="maury-") if work is None else nullcontext(work) as folder:
        file = Path(folder) / f"{part.name}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            summary = build_training_set(recipe, root, file, progress=progress)  # one process: scripts need no __main__ guard
        except MauryError:
            with suppress(OSError):
                file.parent.rmdir()  # nothing lies in it, or it stays
            raise
        if part.assumed_snr is not None and summary.has_ivar:
            raise RecipeError(
                f"expected no assumed_snr for part {part.name!r}, whose build {part.build} has errors of its own, got "
                f"{part.assumed_snr:g}; remove it"
            )
        yield file, _settings(summary, part.assumed_snr)
        file.unlink(missing_ok=True)


_GRID_KEYS = ("start", "stop", "spacing", "log_spacing", "wavelengths", "windows")


def for_window(recipe: BuildRecipe, window: tuple[float, float, float], medium: Medium) -> BuildRecipe:
    """The same recipe for the pixels of one window.

    Its ``resample`` step makes them, and ``grid.wavelength`` follows with the margins on either side that the recipe has itself.
    Steps ``crop`` and ``gisic`` fall away: the training normalises what it gets, as it does observed spectra, and twice would be
    once too often.

    Parameters
    ----------
    window : start, stop (excluded) and spacing, Å, in the medium in which the recipe resamples.
    medium : of the recipe's grid.

    Raises
    ------
    RecipeError
        If the recipe has no ``resample`` step, or the window is impossible.
    """
    steps = recipe.preparation.steps
    place = next((i for i, step in enumerate(steps) if isinstance(step, Resample)), None)
    if place is None:
        raise RecipeError(
            f"expected a step resample in the grid recipe {recipe.name}, which build_window changes, got none; add one, or leave "
            "build_window out"
        )
    start, stop, spacing = window
    own = {key: value for key, value in recipe.prepare[place].items() if key not in _GRID_KEYS}
    changed = own | {"start": start, "stop": stop, "spacing": spacing}
    dropped = [i for i, step in enumerate(steps) if isinstance(step, Gisic | Crop)]
    prepare = [changed if i == place else step for i, step in enumerate(recipe.prepare) if i not in dropped]
    new, old = Preparation.from_config([changed]).steps[0], steps[place]
    assert isinstance(new, Resample)
    assert isinstance(old, Resample)
    ends, old_ends = (_in_medium(step.grid()[[0, -1]], medium, steps[:place]) for step in (new, old))
    margin = np.maximum(np.abs(old_ends - recipe.grid.wavelength), spacing)
    wavelength = (float(ends[0] - margin[0]), float(ends[1] + margin[1]))
    grid = recipe.grid.model_copy(update={"wavelength": wavelength})
    return recipe.model_copy(update={"grid": grid, "prepare": tuple(prepare)})


def _in_medium(wavelength: FloatArray, medium: Medium, steps: Sequence[Step]) -> FloatArray:
    """Wavelengths of spectra that have passed the steps, in the ``medium`` that they had before."""
    after = medium
    for step in steps:
        after = "vacuum" if isinstance(step, ToVacuum) else "air" if isinstance(step, ToAir) else after
    if after == medium:
        return wavelength
    return vacuum_to_air(wavelength) if medium == "air" else air_to_vacuum(wavelength)


def _settings(summary: BuildSummary, snr: float | None) -> dict[str, Any]:
    """Names of arrays, units and resolution, as the module of training sets on disk documents them."""
    names = {name: name for name in ("wavelength", "flux", "labels", "label_names")}
    errors = {"ivar": "ivar"} if summary.has_ivar else {"snr": snr or _NOMINAL_SNR}
    sharpness = {"resolving_power": summary.resolving_power, "fwhm": summary.fwhm}
    return {**names, **errors, **sharpness, "wavelength_unit": "Angstrom", "medium": summary.medium}
