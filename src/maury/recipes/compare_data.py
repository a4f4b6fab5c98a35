"""What ``maury compare`` judges by: the test set that all recipes share, its folds, and who has seen which of its stars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError, UsageError
from maury.prepare.grid import meta_floats
from maury.prepare.orders import Wanted, join_orders
from maury.read import read_files
from maury.recipes.compare_schema import ComparisonRecipe
from maury.recipes.dataset import TrainingSet
from maury.recipes.label_table import read_label_table
from maury.recipes.parts import read_part, sources_of, stars_of
from maury.recipes.schema import LabelRecipe, Recipe
from maury.spectra import Spectra
from maury.train.splits import k_folds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[str, int, int], None]

METALLICITIES = ("fe_h", "m_h")
"""Labels that are compared with each other where a recipe has one and another the other."""
_SAME_STAR_ARCSEC = 2.0


@dataclass(frozen=True)
class SharedLabel:
    """A label that all recipes have.

    Parameters
    ----------
    name : in the first recipe.
    unit : in all.
    own : its name in each recipe.
    """

    name: str
    unit: str
    own: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TestSet:
    """Raw spectra with labels that judge, n of them.

    Parameters
    ----------
    spectra : as read, in the order of the other fields.
    names, stars, sources : (n,) file or id; star, for folds; what tells it in other data sets.
    truth : label as a recipe calls it -> (n,) values, label units.
    counted : (n,) whether its labels lie in the ranges that the recipes report.
    folds : those that are judged: rows of the set, no star in two.
    left_out : (spectrum, reason) of those that are in no fold for want of labels, limits or because they cannot be read.
    """

    __test__ = False  # not one of pytest's classes

    spectra: list[Spectra]
    names: tuple[str, ...]
    stars: tuple[str, ...]
    sources: tuple[str, ...]
    truth: dict[str, FloatArray]
    counted: NDArray[np.bool_]
    folds: tuple[IntArray, ...]
    left_out: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def judged(self) -> IntArray:
        """Rows in a fold, increasing."""
        return np.sort(np.concatenate(self.folds))

    def rows(self, chosen: IntArray) -> list[Spectra]:
        """Raw spectra of some rows, in increasing order."""
        return rows_of(self.spectra, chosen)


@dataclass(frozen=True, eq=False)
class Repeats:
    """Raw spectra of repeat visits.

    Parameters
    ----------
    spectra : as read.
    groups, sources : of each spectrum: its star, "" where the table says nothing, and its file.
    """

    spectra: list[Spectra]
    groups: tuple[str, ...]
    sources: tuple[str, ...]


def rows_of(batches: Sequence[Spectra], chosen: IntArray) -> list[Spectra]:
    """Some rows of batches that stand one after another, in increasing order."""
    starts = np.concatenate([[0], np.cumsum([len(batch) for batch in batches])])
    out = []
    for batch, start, stop in zip(batches, starts[:-1], starts[1:], strict=True):
        rows = chosen[(chosen >= start) & (chosen < stop)] - start
        if rows.size:
            out.append(batch[np.sort(rows)])
    return out


# -- what is compared ---------------------------------------------------------------------------------------------------------


def shared_labels(recipes: Sequence[Recipe]) -> tuple[SharedLabel, ...]:
    """Labels of all recipes: those of one name and, where names differ, their metallicities.

    Raises
    ------
    RecipeError
        If there is none, or units differ.
    """
    units = [{label.name: label.unit for label in recipe.label} for recipe in recipes]
    found = []
    for label in recipes[0].label:
        own = [_same(label.name, known) for known in units]
        if not all(own):
            continue
        for recipe, known, name in zip(recipes, units, own, strict=True):
            if known[name] != label.unit:
                raise RecipeError(
                    f"expected {label.name} in one unit, got {label.unit} in {recipes[0].name} and {known[name]} in "
                    f"{recipe.name}; change one of the recipes"
                )
        found.append(SharedLabel(label.name, label.unit, tuple(own)))
    if not found:
        names = "; ".join(f"{recipe.name}: {', '.join(known)}" for recipe, known in zip(recipes, units, strict=True))
        raise RecipeError(f"expected a label that all recipes have, got none in common ({names}); compare others")
    return tuple(found)


def _same(name: str, known: dict[str, str]) -> str:
    """The label of this name in a recipe, or its one metallicity; "" where it has neither."""
    if name in known:
        return name
    others = [other for other in METALLICITIES if other in known] if name in METALLICITIES else []
    return others[0] if len(others) == 1 else ""


def shared_test(recipes: Sequence[Recipe]) -> ComparisonRecipe:
    """The table [test] of all recipes, with the columns that each of them names.

    Raises
    ------
    RecipeError
        If a recipe has none, or they differ in more than the names of labels.
    """
    tests = []
    for recipe in recipes:
        if recipe.test is None:
            raise RecipeError(
                f"expected a table [test] in each recipe, got {recipe.name!r} without; say there which stars judge it"
            )
        tests.append(recipe.test)
    first = tests[0]
    for recipe, test in zip(recipes[1:], tests[1:], strict=True):
        differing = [key for key, value in first.content.items() if test.content[key] != value]
        if differing:
            key = differing[0]
            raise RecipeError(
                f"expected one test set, got {key} = {first.content[key]} in [test] of {recipes[0].name} and "
                f"{test.content[key]} in that of {recipe.name}; make them alike, or compare others"
            )
    merged = {key: dict[str, str]() for key in ("columns", "units")}
    for recipe, test in zip(recipes, tests, strict=True):
        for key, entries in merged.items():
            for name, entry in getattr(test, key).items():
                if entries.setdefault(name, entry) != entry:
                    raise RecipeError(
                        f"expected one entry for {name} in test.{key}, got {entries[name]!r} and {entry!r} ({recipe.name}); "
                        "make the recipes alike"
                    )
    return first.model_copy(update=merged)


# -- reading ------------------------------------------------------------------------------------------------------------------


def load_test_set(
    recipes: Sequence[Recipe], labels: Sequence[SharedLabel], folder: Path, progress: Progress | None, work: Path
) -> TestSet:
    """Read the stars that judge, with noise where [test] asks for it, the same for all recipes.

    Raises
    ------
    MauryError
        If no spectra can be read, a column is missing, or there are fewer stars than folds.
    """
    test = shared_test(recipes)
    raw = read_part(_with_labels(recipes, labels), test, folder, progress, work)
    rows = np.concatenate(raw.rows)
    names = tuple(name for some in raw.names for name in some)
    stars = stars_of(raw.table, rows)
    truth = {item.name: raw.table.values[rows, k] for k, item in enumerate(raw.table.label)}
    counted = np.ones(len(rows), dtype=bool)
    for name, (low, high) in test.report.items():
        if name in truth:
            counted &= (truth[name] >= low) & (truth[name] <= high)
    try:
        folds = k_folds(len(rows), test.folds, test.seed, stars)[: test.judged]
    except UsageError:
        raise RecipeError(
            f"expected at least {test.folds} test stars, one a fold, got {len(set(stars))}; change folds or limits in [test]"
        ) from None
    batches = raw.batches
    if test.snr is not None:
        batches = _with_noise(batches, names, test.snr, test.seed)
    return TestSet(
        batches,
        names,
        stars,
        sources_of(raw.table, rows, names),
        truth,
        counted,
        tuple(folds),
        tuple((str(name), reason) for name, reason in raw.left_out),
    )


def _with_labels(recipes: Sequence[Recipe], labels: Sequence[SharedLabel]) -> Recipe:
    """The first recipe with all labels that are compared, under every name they have; errors of training labels left away."""
    wanted: dict[str, LabelRecipe] = {}
    for number, recipe in enumerate(recipes):
        names = [label.own[number] for label in labels]
        for item in recipe.label:
            if item.name in names:
                wanted.setdefault(item.name, item.model_copy(update={"error_column": None, "error": None}))
    return recipes[0].model_copy(update={"label": tuple(wanted.values())})


def _with_noise(batches: Sequence[Spectra], names: Sequence[str], snr: tuple[float, float], seed: int) -> list[Spectra]:
    """White noise of a ratio drawn evenly in the logarithm, at flux 1; of each spectrum by its name, whoever is beside it."""
    out, start = [], 0
    low, high = np.log(snr)
    for batch in batches:
        flux, ivar = np.array(batch.flux), np.array(batch.ivar)
        ratios = np.empty(len(batch))
        for row, name in enumerate(names[start : start + len(batch)]):
            random = np.random.default_rng([seed, crc32(name.encode())])
            ratios[row] = np.exp(random.uniform(low, high))
            noisy = flux[row] + random.standard_normal(flux.shape[1]) / ratios[row]
            good = ivar[row] > 0
            flux[row], ivar[row] = np.where(good, noisy, 0.0), np.where(good, ratios[row] ** 2, 0.0)
        meta = batch.meta.copy()
        meta["snr"] = ratios
        out.append(batch.with_pixels(flux=flux, ivar=ivar, meta=meta))
        start += len(batch)
    return out


def load_repeats(recipe: Recipe, folder: Path, progress: Progress | None) -> Repeats | None:
    """The repeat visits of [test]; None where it names none.

    Raises
    ------
    RecipeError
        If no file matches or can be read, or the table lacks a column or names none of the files.
    """
    settings = None if recipe.test is None else recipe.test.repeats
    if settings is None:
        return None
    paths = sorted(path for path in folder.glob(settings.spectra) if path.is_file())
    if not paths:
        raise RecipeError(f"expected repeat visits matching {settings.spectra} in {folder}, got no file; check --data")
    table = read_label_table(folder / settings.table)
    for column in (settings.file_column, settings.group_column):
        if column not in table.colnames:
            raise RecipeError(
                f"expected column {column!r} in {settings.table}, got {', '.join(table.colnames[:30])}; correct test.repeats"
            )
    group_of = {
        Path(str(file).strip()).name: "" if np.ma.is_masked(group) else str(group).strip()
        for file, group in zip(table[settings.file_column], table[settings.group_column], strict=True)
    }
    paths = [path for path in paths if group_of.get(path.name)]
    if not paths:
        raise RecipeError(f"expected {settings.table} to name the files of {settings.spectra}, got no match; correct file_column")
    report = None if progress is None else lambda done, total: progress("repeats", done, total)
    result = join_orders(read_files(paths, settings.format, report, medium=settings.medium), Wanted.by(recipe.preparation))
    if not result.spectra:
        raise RecipeError(f"expected repeat visits that can be read, got none; the first: {result.failures[0].reason}")
    files = [Path(file).name for batch, file in zip(result.spectra, result.files, strict=True) for _ in range(len(batch))]
    return Repeats(result.spectra, tuple(group_of[file] for file in files), tuple(file.removesuffix(".gz") for file in files))


# -- who has seen what --------------------------------------------------------------------------------------------------------


def pairs_of(training: TrainingSet, sources: Sequence[str], spectra: Sequence[Spectra]) -> tuple[IntArray, IntArray]:
    """(row of the training set, row of the other set) of all pairs that are of one star: by source, or by place on the sky.

    Parameters
    ----------
    sources, spectra : of the other set, as in :class:`TestSet`.
    """
    rows_by_word: dict[str, list[int]] = {}
    for row, source in enumerate(training.sources):
        for word in source.split("|"):
            rows_by_word.setdefault(word, []).append(row)
    pairs = {
        (row, other) for other, source in enumerate(sources) for word in source.split("|") for row in rows_by_word.get(word, [])
    }
    pairs |= _on_sky(training.spectra, spectra)
    found = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def unseen_rows(training: TrainingSet, pairs: tuple[IntArray, IntArray], held: IntArray) -> IntArray:
    """Rows of a training set that hold none of the stars ``held`` (rows of the other set), nor another spectrum of one."""
    seen = np.zeros(len(training), dtype=bool)
    seen[pairs[0][np.isin(pairs[1], held)]] = True
    if training.stars is not None:
        names = np.array(training.stars)
        seen = np.isin(names, names[seen])
    return np.flatnonzero(~seen)


def _on_sky(training: Spectra, others: Sequence[Spectra]) -> set[tuple[int, int]]:
    """Pairs of spectra with positions (meta ``ra``, ``dec``, degrees) that lie as near as one star's."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    ours, theirs = _positions([training]), _positions(others)
    here, there = np.flatnonzero(np.isfinite(ours[0])), np.flatnonzero(np.isfinite(theirs[0]))
    if not here.size or not there.size:
        return set()
    first, second = SkyCoord(*ours[:, here], unit="deg"), SkyCoord(*theirs[:, there], unit="deg")
    i, j, _, _ = search_around_sky(first, second, _SAME_STAR_ARCSEC * u.arcsec)
    return set(zip(here[i].tolist(), there[j].tolist(), strict=True))


def _positions(batches: Sequence[Spectra]) -> FloatArray:
    """(2, n) ra and dec, degrees; NaN where a spectrum has none."""
    parts = []
    for batch in batches:
        known = {"ra", "dec"} <= set(batch.meta.colnames)
        place = [meta_floats(batch, name) for name in ("ra", "dec")] if known else np.full((2, len(batch)), np.nan)
        parts.append(np.asarray(place, dtype=np.float64))
    found = np.concatenate(parts, axis=1)
    usable = np.isfinite(found).all(axis=0) & (np.abs(found[1]) <= 90) & (np.abs(found[0]) <= 360)
    return np.where(usable, found, np.nan)


def without_scores(recipe: Recipe) -> Recipe:
    """The recipe without the cross-validation that only prints scores: errors that are not learned by it need none."""
    if recipe.errors.model in ("held_out", "snr"):
        return recipe
    return recipe.model_copy(update={"validation": recipe.validation.model_copy(update={"folds": 0})})
