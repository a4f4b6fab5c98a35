"""``maury grid build``: sampler -> interpolation -> instrument, rotation -> steps -> augmentation -> a training set on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.catalogue.provenance import package_versions
from maury.errors import RecipeError
from maury.files import canonical_json
from maury.grids.chunks import ChunkFolder, chunk_folder, make_chunks
from maury.grids.grid import Grid
from maury.grids.sampling import WithConstants, sample, with_constants
from maury.grids.training_set import LargeArray, TrainingSet, check_output, check_replaceable, write_training_set
from maury.labels import KNOWN_LABELS
from maury.prepare.broadening import FASTEST_KM_S
from maury.prepare.resolving_power import check_resolving_powers, lowest_native
from maury.recipes.grid_pipeline import PATCHED, BuildJob, ChunkMaker
from maury.recipes.grid_schema import BuildRecipe, LatticeRecipe, NodesRecipe
from maury.recipes.grid_source import Broadest, needed_part, open_recipe_grid

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

_BLOCK_BYTES = 24_000_000
"""Of one copy of a chunk's model spectra; a worker holds about ten such copies at its peak."""
_MOST_ROWS = 512
_DECIDING = ("maury", "numpy", "scipy", "astropy")
"""Packages whose version may change a spectrum; another one of these does not go on with chunks of the first."""
_PER_SPECTRUM = ("labels", "row", "flag", "snr", "delta_rv")
BROADENING = ("vsini", "resolving_power")
"""Labels that no grid needs to have: they are a broadening each."""
_GOLDEN = 0.6180339887498949
_PER_LOSS = ("left_out_labels", "left_out_flag", "left_out_reason")


@dataclass(frozen=True)
class BuildSummary:
    """What was built.

    Parameters
    ----------
    n_spectra, n_pixels : of the training set.
    n_flagged : how many of the spectra have a flag.
    left_out : reason -> how many samples could not be made for it.
    medium : of the wavelengths.
    names : of the labels.
    has_ivar : whether it holds inverse variances.
    resolving_power, fwhm : of the spectra, before rotation: of the instrument, or of the grid where the recipe has none; both
        None for an instrument given as a table, and where each spectrum has a resolving power of its own.
    """

    n_spectra: int
    n_pixels: int
    n_flagged: int
    left_out: dict[str, int]
    medium: str
    names: tuple[str, ...]
    has_ivar: bool
    resolving_power: float | None
    fwhm: float | None


def build_training_set(
    recipe: BuildRecipe,
    root: Path,
    output: Path,
    *,
    processes: int = 1,
    progress: Progress | None = None,
    rows_per_chunk: int | None = None,
) -> BuildSummary:
    """Build a training set, or go on with one that was stopped.

    Memory does not grow with the number of spectra, save for 8 bytes per label; each process holds one chunk at a time.

    Parameters
    ----------
    root : folder below which the recipe's files lie.
    output : ends in ``.zarr`` or ``.npz``; until it is whole, finished chunks lie in ``OUTPUT.building`` beside it.
    processes : each with one thread of the matrix library.
    progress : called with (stage, done, all).
    rows_per_chunk : spectra that are made at a time; by default as many as fit into a worker's share of memory.

    Raises
    ------
    MauryError
        A file is missing or unfit, the recipe does not fit the grid, or the output cannot be written.
    """
    check_output(output)
    check_replaceable(output)
    root, output = root.resolve(), output.resolve()
    grid = open_recipe_grid(recipe, root)
    names, labels = draw_labels(recipe, grid, root)
    broadest = Broadest.of(recipe, names, labels)
    grid = needed_part(grid, recipe, broadest)
    if recipe.has_own_resolutions:
        native = lowest_native(grid.wavelength, grid.resolving_power, grid.fwhm)
        check_resolving_powers(labels[:, names.index("resolving_power")], native)
    maker = ChunkMaker(recipe, grid, names)  # a grid that cannot be interpolated says so before anything is written
    for row in _extremes(recipe, len(labels)):
        maker(row, labels[row : row + 1])  # likewise a range that the largest velocities leave
    plan = _plan(recipe, grid, names, labels)
    rows = rows_per_chunk or max(1, min(_MOST_ROWS, _BLOCK_BYTES // (8 * grid.n_pixels)))
    report = None if progress is None else partial(progress, "build")
    with chunk_folder(output, plan, labels, rows) as folder:
        make_chunks(folder, BuildJob(recipe, root, names, broadest), processes, report)
        assemble = None if progress is None else partial(progress, "assemble")
        content, summary = _content(folder, names, plan, _sharpness(recipe, grid), assemble)
        write_training_set(output, content, folder.path)
        folder.remove()
    return summary


def draw_labels(recipe: BuildRecipe, grid: Grid, root: Path) -> tuple[tuple[str, ...], FloatArray]:
    """Names and (n, K) values of the labels of the training set.

    A label of which the grid has one value only needs none in the recipe.

    Raises
    ------
    RecipeError
        If a label of the grid gets no value, or one has no effect.
    """
    of_nodes = grid.names if isinstance(recipe.sample, NodesRecipe) else ()
    given = (*of_nodes, *recipe.sampled, *recipe.grid.fixed)
    single = {
        name: column[0]
        for name, column in zip(grid.names, grid.values.T, strict=True)
        if name not in given and (column == column[0]).all()
    }
    fixed = recipe.grid.fixed | single
    names = (*of_nodes, *recipe.sampled, *fixed)
    if len(set(names)) != len(names):
        raise RecipeError(f"expected each label once in sample and grid.fixed, got {', '.join(names)}; remove the repeated one")
    missing = [name for name in grid.names if name not in names]
    if missing:
        raise RecipeError(
            f"expected values for {', '.join(grid.names)}, the labels of the grid, got none for {', '.join(missing)}; sample "
            "them, or give a value in grid.fixed"
        )
    idle = [name for name in names if name not in (*grid.names, *BROADENING)]
    if idle:
        known = " and ".join((", ".join((*grid.names, *BROADENING[:-1])), BROADENING[-1]))
        raise RecipeError(f"expected labels among {known}, got {idle[0]}; the grid does not have it")
    if recipe.has_own_resolutions and "resolving_power" in grid.names:
        raise RecipeError(
            f"expected a grid of one resolution where resolving_power is sampled, got {grid.name} with a label of that name; "
            "sample its own spectra (nodes) or another grid"
        )
    constraint = None if recipe.constraint is None else WithConstants(recipe.constraint.constraint(root), fixed)
    if isinstance(recipe.sample, NodesRecipe):
        values = _nodes(recipe.sample, recipe.seed, grid, names, constraint)
    else:
        values = sample(recipe.sample.sampler(recipe.seed), constraint)
    drawn = bool(recipe.sampled) and not isinstance(recipe.sample, LatticeRecipe)
    table = with_constants(values if recipe.only is None else _spread(values, recipe.only, drawn), fixed)
    _check_broadening(names, table, recipe.has_own_resolutions)
    return names, np.ascontiguousarray(table)


def _nodes(settings: NodesRecipe, seed: int, grid: Grid, names: tuple[str, ...], constraint: WithConstants | None) -> FloatArray:
    """(n, K) the grid's own label sets that the constraint keeps, and behind them what the grid does not have."""
    values = np.repeat(grid.values, settings.copies, axis=0)
    further = settings.sampler(len(values), seed)
    if further is not None:
        values = np.column_stack([values, sample(further)])
    if constraint is not None:
        values = values[constraint.keeps(names[: values.shape[1]], values)]
        if not len(values):
            raise RecipeError(f"expected nodes of {grid.name} that the constraint keeps, got none; widen the constraint")
    return values


def _check_broadening(names: tuple[str, ...], table: FloatArray, has_own_resolutions: bool) -> None:
    """Raise MauryError for impossible values: now, and not in the chunk where the first of them is."""
    if "vsini" in names:
        vsini = table[:, names.index("vsini")]
        if not 0 <= vsini.min() <= vsini.max() <= FASTEST_KM_S:
            raise RecipeError(
                f"expected vsini between 0 and {FASTEST_KM_S:g} km/s, got {vsini.min():g} to {vsini.max():g}; correct its values"
            )
    if has_own_resolutions:
        check_resolving_powers(table[:, names.index("resolving_power")])


def _sharpness(recipe: BuildRecipe, grid: Grid) -> tuple[float | None, float | None]:
    """Resolving power and FWHM (Å) of all spectra, before rotation."""
    if recipe.has_own_resolutions:
        return None, None
    sharpness = recipe.instrument or grid
    return sharpness.resolving_power, sharpness.fwhm


def _extremes(recipe: BuildRecipe, n: int) -> list[int]:
    """The rows with the largest velocities either way; none without velocity jitter."""
    if recipe.augment.jitter is None:
        return []
    velocity = recipe.augment.jitter.velocities(recipe.seed, np.arange(n))
    return [int(velocity.argmin()), int(velocity.argmax())]


def _plan(recipe: BuildRecipe, grid: Grid, names: tuple[str, ...], labels: FloatArray) -> dict[str, Any]:
    """Everything that decides the bytes of the training set, and nothing else."""
    described = recipe.model_dump(mode="json")
    if recipe.grid.file is not None and Path(recipe.grid.file).is_absolute():
        described["grid"]["file"] = Path(recipe.grid.file).name  # where the grid lies on this machine decides nothing
    return {
        "recipe": described,
        "preparation": recipe.preparation.fingerprint,
        "grid": grid.fingerprint,
        "grid_provenance": dict(grid.provenance),
        "grid_resolution": {"resolving_power": grid.resolving_power, "fwhm": grid.fwhm},
        "seed": recipe.seed,
        "label_names": list(names),
        "labels_sha256": hashlib.sha256(labels.tobytes()).hexdigest(),
        "versions": {name: version for name, version in package_versions().items() if name in _DECIDING},
    }


def _spread(values: FloatArray, n: int, drawn: bool) -> FloatArray:
    """n of the rows in their order, the first of each of n stretches of equal length; all where there are no more.

    Of values that are ``drawn`` it is another one in each stretch, by the golden ratio: every tenth point of a Sobol set fills
    half of a label's range.
    """
    if n >= len(values):
        return values
    ends = np.arange(n + 1) * len(values) // n
    place = np.arange(n) * _GOLDEN % 1.0 if drawn else np.zeros(n)
    rows: IntArray = ends[:-1] + (place * np.diff(ends)).astype(np.int64)
    return values[rows]


# -- from chunks to a training set -------------------------------------------------------------------------------------------


def _content(
    folder: ChunkFolder,
    names: tuple[str, ...],
    plan: dict[str, Any],
    sharpness: tuple[float | None, float | None],
    progress: Callable[[int, int], None] | None,
) -> tuple[TrainingSet, BuildSummary]:
    counts = [len(folder.load(number, ("row",))["row"]) for number in range(folder.n_chunks)]
    left_out = [folder.load(number, _PER_LOSS) for number in range(folder.n_chunks)]
    reasons = np.concatenate([chunk["left_out_reason"] for chunk in left_out])
    whole = [number for number, count in enumerate(counts) if count]
    if not whole:
        folder.remove()  # nobody wants to go on with these
        raise RecipeError(
            f"expected spectra for the labels, got none of {folder.n_rows} (the first: {reasons[0]}); move the ranges"
        )
    first = folder.load(whole[0], ("wavelength", "medium"))
    wavelength, medium = first["wavelength"], str(first["medium"])
    per_spectrum = (*_PER_SPECTRUM, "base") if plan["recipe"]["sample"]["kind"] == "nodes" else _PER_SPECTRUM
    table = [folder.load(number, per_spectrum) for number in whole]
    small = {name: np.concatenate([chunk[name] for chunk in table]) for name in per_spectrum}
    small |= {name: np.concatenate([chunk[name] for chunk in left_out]) for name in ("left_out_labels", "left_out_flag")}
    small["wavelength"] = wavelength

    def blocks(name: str) -> Iterator[NDArray[Any]]:
        for done, number in enumerate(whole):
            yield folder.load(number, (name,))[name]
            if progress is not None and name == "flux":
                progress(done + 1, len(whole))

    shape = (sum(counts), wavelength.size)
    augment = plan["recipe"]["augment"]
    has_ivar = augment["snr"] is not None or augment["dropped"] is not None or bool((small["flag"] & PATCHED).any())
    large = {name: LargeArray(shape, "<f4", partial(blocks, name)) for name in ("flux", "ivar")[: 1 + has_ivar]}
    texts: dict[str, str | list[str]] = {
        "medium": medium,
        "label_names": list(names),
        "label_units": [KNOWN_LABELS[name].unit for name in names],
        "left_out_reason": [str(reason) for reason in reasons],
        "provenance": canonical_json({**plan, "n_spectra": shape[0]}, "provenance"),
    }
    words, numbers = np.unique(reasons, return_counts=True)
    lost = dict(zip(words.tolist(), numbers.tolist(), strict=True))
    n_flagged = int(np.count_nonzero(small["flag"]))
    summary = BuildSummary(*shape, n_flagged, lost, medium, names, has_ivar, *sharpness)
    return TrainingSet(large, small, texts, folder.rows_per_chunk), summary
