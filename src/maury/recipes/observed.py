"""Observed spectra without labels, which a transfer learns from: files -> prepared spectra on the training's grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from maury.errors import RecipeError
from maury.prepare.orders import Wanted, join_orders
from maury.read import read_files
from maury.recipes.data_schema import ObservedRecipe
from maury.recipes.file_columns import with_velocities
from maury.recipes.schema import Recipe
from maury.spectra import Spectra

Progress = Callable[[str, int, int], None]


def load_observed(recipe: Recipe, root: Path, progress: Progress | None = None) -> tuple[Spectra | None, list[tuple[str, str]]]:
    """The spectra of all ``[[data.observed]]`` tables below ``root``, prepared, and (file, reason) of those that are left out.

    None where the recipe has no such table.

    Raises
    ------
    RecipeError
        If no file matches a table, or none of its spectra can be used.
    ReadError
        If a table of velocities cannot be read.
    """
    found, left_out = [], []
    for some in recipe.data.observed:
        spectra, reasons = _load(recipe, some, root, progress)
        meta = spectra.meta.copy()
        meta["set"] = np.full(len(spectra), some.name)  # what its spectra have in common is not of the stars
        found.append(spectra.with_pixels(meta=meta))
        left_out += reasons
    return (Spectra.stack(found) if found else None), left_out


def _load(recipe: Recipe, some: ObservedRecipe, root: Path, progress: Progress | None) -> tuple[Spectra, list[tuple[str, str]]]:
    paths = sorted(path for path in root.glob(some.spectra) if path.is_file())
    if not paths:
        raise RecipeError(
            f"expected observed spectra {some.name!r} matching {some.spectra} in {root}, got no file; check --data and the glob"
        )
    report = None if progress is None else partial(progress, "read")
    result = read_files(paths, some.format, report, medium=some.medium, snr=some.assumed_snr)
    left_out = [(Path(failure.file).name, failure.reason) for failure in result.failures]
    if some.velocities is not None:
        result = with_velocities(result, root / some.velocities)
    result = join_orders(result, Wanted.by(recipe.preparation))
    chosen, names = [], []
    for batch, file in zip(result.spectra, result.files, strict=True):
        snr = np.asarray(batch.meta["snr"], dtype=np.float64)
        keep = np.ones(len(batch), dtype=bool) if some.min_snr is None else snr >= some.min_snr
        left_out += [(Path(file).name, f"snr = {snr[row]:.1f} below {some.min_snr:g}") for row in np.flatnonzero(~keep)]
        if keep.any():
            chosen.append(batch[np.flatnonzero(keep)])
            names.append(Path(file).name)
    spectra = None
    if chosen:
        prepared = recipe.preparation.prepare_each(chosen, None if progress is None else partial(progress, "prepare"))
        left_out += [(names[failure.batch], failure.reason) for failure in prepared.failures for _ in failure.rows]
        spectra = prepared.spectra
    if spectra is None:
        raise RecipeError(
            f"expected observed spectra {some.name!r} that can be used, got none of {len(paths)} files; the first: "
            f"{left_out[0][1]}"
        )
    return spectra, left_out
