"""From a recipe's data section to a prepared training set; what was left out, and why, is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maury.errors import MauryError, RecipeError
from maury.recipes.data_schema import PartRecipe
from maury.recipes.observed import load_observed
from maury.recipes.parts import LoadedPart, load_part
from maury.recipes.schema import Recipe
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Prepared spectra with labels.

    Parameters
    ----------
    spectra : prepared, n_stars on one grid.
    values : (n_stars, K) label units, finite.
    errors : (n_stars, K) errors of the labels, or None where the recipe names none.
    stars : (n_stars,) star names for folds, or None if every spectrum is a star of its own.
    left_out : (file, reason) of every spectrum that is not in it.
    part : (n_stars,) name of the recipe's part that each spectrum belongs to.
    validated : (n_stars,) whether it is scored in cross-validation.
    weights : (n_stars,) training weights of mean 1, or None where the recipe gives its parts none.
    from_files : (n_stars,) whether it was observed, rather than taken from a library or a build.
    observed : spectra without labels that a transfer learns from, or None.
    sources : (n_stars,) what tells each spectrum in other data sets (:func:`maury.recipes.parts.sources_of`).
    """

    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None
    stars: tuple[str, ...] | None
    left_out: tuple[tuple[str, str], ...]
    part: tuple[str, ...]
    validated: NDArray[np.bool_]
    weights: FloatArray | None
    from_files: NDArray[np.bool_]
    observed: Spectra | None = None
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.spectra)

    def __getitem__(self, rows: NDArray[np.int64]) -> TrainingSet:
        """The same set with the stars of these indices alone."""
        return TrainingSet(
            self.spectra[rows],
            self.values[rows],
            None if self.errors is None else self.errors[rows],
            None if self.stars is None else tuple(self.stars[i] for i in rows),
            self.left_out,
            tuple(self.part[i] for i in rows),
            self.validated[rows],
            None if self.weights is None else self.weights[rows],
            self.from_files[rows],
            self.observed,
            tuple(self.sources[i] for i in rows) if self.sources else (),
        )


def load_training_set(
    recipe: Recipe, folder: str | Path, progress: Progress | None = None, work: Path | None = None
) -> TrainingSet:
    """Read, join, select and prepare what ``recipe.data`` describes below ``folder``.

    Parameters
    ----------
    work : folder for training sets that are built on the way; None: one that is removed.

    Raises
    ------
    RecipeError
        A part has no spectra (see :func:`maury.recipes.parts.load_part`), or the parts do not end on one grid.
    """
    parts = recipe.data.all_parts
    loaded = []
    for part in parts:
        try:
            loaded.append(load_part(recipe, part, Path(folder), progress, work))
        except MauryError as error:
            raise RecipeError(f"part {part.name!r}: {error}" if len(parts) > 1 else str(error)) from None
    sizes = [len(part.spectra) for part in loaded]
    observed, unused = load_observed(recipe, Path(folder), progress)
    return TrainingSet(
        _on_one_grid(recipe, parts, [part.spectra for part in loaded]),
        np.concatenate([part.values for part in loaded]),
        _errors(loaded),
        _stars(loaded),
        (*(entry for part in loaded for entry in part.left_out), *unused),
        tuple(np.repeat([part.name for part in parts], sizes).tolist()),
        np.repeat([part.is_validated for part in parts], sizes),
        part_weights([part.weight for part in parts], sizes),
        np.repeat([part.spectra is not None for part in parts], sizes),
        observed,
        tuple(source for part in loaded for source in part.sources),
    )


def part_weights(shares: Sequence[float | str | None], sizes: Sequence[int]) -> FloatArray | None:
    """(n_stars,) weights by which every part has its share of the whole, all stars of a part alike, and the mean is 1.

    Parameters
    ----------
    shares : per part a positive number, in any unit; "equal" counts as 1; None (then all are) leaves the stars alike.
    sizes : number of stars of each part.
    """
    if any(share is None for share in shares):
        return None
    numbers = np.array([1.0 if isinstance(share, str) else float(share or 0.0) for share in shares])
    per_star = numbers / numbers.sum() * sum(sizes) / np.asarray(sizes)
    return np.repeat(per_star, sizes)


def _on_one_grid(recipe: Recipe, parts: Sequence[PartRecipe], spectra: Sequence[Spectra]) -> Spectra:
    """All spectra as one batch that carries the fingerprint of the recipe's own preparation.

    The grid is that of the first part which the recipe's own steps prepare, else of the first part.
    """
    reference = next((s for part, s in zip(parts, spectra, strict=True) if not part.prepare), spectra[0])
    for part, some in zip(parts, spectra, strict=True):
        same = (some.medium, some.frame) == (reference.medium, reference.frame)
        if not (same and np.array_equal(some.wavelength, reference.wavelength)):
            raise RecipeError(
                f"expected part {part.name!r} on the grid of the others, {reference!r}, got {some!r} after its own prepare; "
                "let it end like the recipe's, with the same to_vacuum (or to_air) and resample"
            )
    fingerprint = recipe.preparation.fingerprint
    return Spectra.stack([some.with_pixels(preparation=fingerprint) for some in spectra])


def _errors(parts: Sequence[LoadedPart]) -> FloatArray | None:
    """(n_stars, K); the labels of a part without any error count as exact."""
    if all(part.errors is None for part in parts):
        return None
    return np.concatenate([np.zeros(part.values.shape) if part.errors is None else part.errors for part in parts])


def _stars(parts: Sequence[LoadedPart]) -> tuple[str, ...] | None:
    """(n_stars,) names, or None where no two spectra are of one star."""
    names = tuple(name for part in parts for name in part.stars)
    return names if len(set(names)) < len(names) else None
