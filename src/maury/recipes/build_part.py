"""A part of a training's data that is built on the way: a recipe of ``maury grid build``, run before the spectra are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maury.errors import MauryError, RecipeError
from maury.recipes.data_schema import PartRecipe
from maury.recipes.grid_build import BuildSummary, build_training_set
from maury.recipes.grid_schema import load_build_recipe

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


def _settings(summary: BuildSummary, snr: float | None) -> dict[str, Any]:
    """Names of arrays, units and resolution, as the module of training sets on disk documents them."""
    names = {name: name for name in ("wavelength", "flux", "labels", "label_names")}
    errors = {"ivar": "ivar"} if summary.has_ivar else {"snr": snr or _NOMINAL_SNR}
    sharpness = {"resolving_power": summary.resolving_power, "fwhm": summary.fwhm}
    return {**names, **errors, **sharpness, "wavelength_unit": "Angstrom", "medium": summary.medium}
