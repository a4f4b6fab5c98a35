"""One part of a training set: files or library -> joined, selected, prepared and stacked spectra with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError
from maury.labels import KNOWN_LABELS
from maury.prepare import snr_sum
from maury.prepare.grid import with_meta
from maury.prepare.orders import Wanted, join_orders
from maury.read import read_files
from maury.read.library import read_library
from maury.recipes.build_part import BASE, built_part
from maury.recipes.data_schema import ON_SKY, PartRecipe
from maury.recipes.grid_build import BROADENING
from maury.recipes.joins import Join, join, rows_by_name
from maury.recipes.label_table import LabelTable, read_label_table
from maury.recipes.schema import Recipe
from maury.recipes.stacking import stack_visits, star_groups
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
LeftOut = list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class LoadedPart:
    """Prepared spectra of one part with their labels.

    Parameters
    ----------
    spectra : n, on one grid.
    values, errors : (n, K) in the labels' units; errors may be None.
    stars : (n,) names; spectra of one star share one. Names from ``star_column`` are the table's own, so that parts can share
        a star; all others begin with the part's name.
    left_out : (spectrum, reason) of those that are not in it.
    sources : (n,) see :func:`sources_of`.
    """

    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None
    stars: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RawPart:
    """The spectra of one part that are used, as read.

    Parameters
    ----------
    batches : each on one grid.
    names, rows : for each batch, of its spectra: the file (or the id, where that holds several), and the row of ``table``.
    table : labels.
    left_out : (spectrum, reason) of those that are not used.
    """

    batches: list[Spectra]
    names: list[list[str]]
    rows: list[IntArray]
    table: LabelTable
    left_out: LeftOut


@dataclass(frozen=True, eq=False)
class _Joined:
    """Raw batches, and for each of their spectra, one after another: name, row of the table, why it is not used."""

    batches: list[Spectra]
    names: list[str]
    join: Join
    table: LabelTable


def load_part(
    recipe: Recipe, part: PartRecipe, root: Path, progress: Progress | None = None, work: Path | None = None
) -> LoadedPart:
    """Read, join, select, prepare and, if wanted, stack what ``part`` describes below ``root``.

    Parameters
    ----------
    work : folder for a training set that is built on the way (:mod:`maury.recipes.build_part`); None: one that is removed.

    Raises
    ------
    RecipeError
        No file matches, the table or a column is missing, the join matches nothing, or nothing is left after selection or
        preparation.
    """
    raw = read_part(recipe, part, root, progress, work)
    chosen, names, rows, left_out, table = raw.batches, raw.names, raw.rows, raw.left_out, raw.table
    report = None if progress is None else partial(progress, "prepare")
    if report is not None:
        report(0, sum(map(len, chosen)))  # one batch may be all there is
    prepared = recipe.preparation_of(part).prepare_each(chosen, report)
    for failure in prepared.failures:
        left_out += [(names[failure.batch][row], failure.reason) for row in failure.rows]
    if prepared.spectra is None:
        raise RecipeError(f"expected spectra that can be prepared, got none; the first: {prepared.failures[0].reason}")
    row = np.array([rows[source.batch][source.row] for source in prepared.sources], dtype=np.int64)
    named = [names[source.batch][source.row] for source in prepared.sources]
    loaded = LoadedPart(
        prepared.spectra,
        table.values[row],
        None if table.errors is None else table.errors[row],
        stars_of(table, row),
        tuple(left_out),
        sources_of(table, row, named),
    )
    return _stacked(loaded) if part.stack_visits else loaded


def read_part(
    recipe: Recipe, part: PartRecipe, root: Path, progress: Progress | None = None, work: Path | None = None
) -> RawPart:
    """Read, join and select what ``part`` describes below ``root``; parameters and errors as for :func:`load_part`."""
    left_out: LeftOut = []
    if part.build is not None:
        with built_part(part, root, work, progress) as (file, settings):
            joined = _from_library(recipe, part, file, settings, progress)
    elif part.library is not None:
        settings = {**part.library.model_dump(exclude={"file"}), "snr": part.assumed_snr}
        joined = _from_library(recipe, part, root / part.library.file, settings, progress)
    else:
        joined = _from_files(recipe, part, root, left_out, progress)
    return RawPart(*_select(joined, part, left_out), joined.table, left_out)


# -- where the spectra come from --------------------------------------------------------------------------------------------


def _from_library(recipe: Recipe, part: PartRecipe, file: Path, settings: dict[str, Any], progress: Progress | None) -> _Joined:
    if progress is not None:
        progress("read", 0, 1)
    found = read_library(file, **settings)
    if progress is not None:
        progress("read", 1, 1)
    origin = part.build or file.name
    table = LabelTable.from_table(found.labels, recipe, part, origin)
    n = len(found.spectra)
    return _Joined([found.spectra], [str(name) for name in found.spectra.ids], Join.of(np.arange(n), [""] * n, table), table)


def _from_files(recipe: Recipe, part: PartRecipe, root: Path, left_out: LeftOut, progress: Progress | None) -> _Joined:
    assert part.spectra is not None
    assert part.table is not None  # the schema has refused the recipe otherwise
    paths = sorted(path for path in root.glob(part.spectra) if path.is_file())
    if not paths:
        raise RecipeError(f"expected spectra matching {part.spectra} in {root}, got no file; check --data and the glob")
    table = LabelTable.from_table(read_label_table(root / part.table), recipe, part, str(root / part.table))
    by_file = part.join != ON_SKY and part.join_meta is None
    if by_file:
        paths = _in_table(paths, table, left_out)
    report = None if progress is None else lambda done, total: progress("read", done, total)
    result = read_files(paths, part.format, report, medium=part.medium, snr=part.assumed_snr)
    result = join_orders(result, Wanted.by(recipe.preparation_of(part)))
    left_out += [(Path(failure.file).name, failure.reason) for failure in result.failures]
    if not result.spectra:
        raise RecipeError(f"expected spectra that can be read, got none of {len(paths)} files; the first: {left_out[-1][1]}")
    rows = join(result.spectra, result.files, table)
    names: list[str] = []
    for batch, file in zip(result.spectra, result.files, strict=True):
        several = len(batch) > 1
        if several and by_file:
            at = slice(len(names), len(names) + len(batch))
            rows.reasons[at] = f"holds {len(batch)} spectra; a training file holds one, unless join_meta names them"
        names += [str(name) for name in batch.ids] if several else [Path(file).name]
    return _Joined(result.spectra, names, rows, table)


def _in_table(paths: list[Path], table: LabelTable, left_out: LeftOut) -> list[Path]:
    """The files that the table names: no other is read."""
    part = table.part
    named = rows_by_name(table)
    wanted = [path for path in paths if path.name in named]
    left_out += [(path.name, f"not in {part.table}") for path in paths if path.name not in named]
    if not wanted:
        raise RecipeError(
            f"expected column {part.join!r} of {part.table} to name the files of {part.spectra}, got no match among "
            f"{len(paths)} files (first file {paths[0].name}, first entry {next(iter(named), 'nothing')}); correct join"
        )
    return wanted


# -- which of them are used -------------------------------------------------------------------------------------------------


def _select(joined: _Joined, part: PartRecipe, left_out: LeftOut) -> tuple[list[Spectra], list[list[str]], list[IntArray]]:
    """Batches of the spectra that pass the part's limits, their names, and their rows of the table."""
    velocity = None if part.rv_column is None else joined.table.numbers(part.rv_column)
    chosen, names, rows = [], [], []
    start = 0
    for batch in joined.batches:
        at = slice(start, start + len(batch))
        start = at.stop
        reasons = np.where(joined.join.reasons[at] != "", joined.join.reasons[at], _too_faint(batch, part))
        batch_names, batch_rows = np.array(joined.names[at], dtype=object), joined.join.rows[at]
        left_out += [(str(name), str(reason)) for name, reason in zip(batch_names, reasons, strict=True) if reason]
        keep = np.flatnonzero(reasons == "")
        if keep.size:
            part_of = batch[keep]
            chosen.append(part_of if velocity is None else with_meta(part_of, {"rv": velocity[batch_rows[keep]]}))
            names.append([str(name) for name in batch_names[keep]])
            rows.append(batch_rows[keep])
    if not chosen:
        raise RecipeError(
            f"expected spectra with labels inside the recipe's limits, got none of {start} "
            f"(the first because: {left_out[-1][1]}); widen the limits"
        )
    return chosen, names, rows


def _too_faint(batch: Spectra, part: PartRecipe) -> NDArray[np.object_]:
    """(n_spectra,) of str: which spectra lie below the part's S/N."""
    reasons = np.full(len(batch), "", dtype=object)
    if part.min_snr is not None:
        snr = snr_sum(batch) if part.snr_column == "snr_sum" else np.asarray(batch.meta["snr"], dtype=np.float64)
        for row in np.flatnonzero(~(snr >= part.min_snr)):
            reasons[row] = f"{part.snr_column} = {snr[row]:.1f} below {part.min_snr:g}"
    return reasons


# -- which of them are one star ---------------------------------------------------------------------------------------------


def stars_of(table: LabelTable, rows: IntArray) -> tuple[str, ...]:
    """(n,) names: the table's own where the part has a ``star_column`` and it holds one, else one per row of the table.

    Spectra of a build that were made of one atmosphere, with other broadenings, are one star.
    """
    part = table.part
    if part.star_column is not None:
        entries = table.text(part.star_column)
    else:
        entries = [""] * len(table.values) if part.build is None else _atmospheres(table)
    prefix = "" if part.star_column is not None else f"{part.name}:"
    return tuple(f"{prefix}{entries[row]}" if entries[row] else f"{part.name}:{row}" for row in rows)


def _atmospheres(table: LabelTable) -> list[str]:
    """One per row of a build's table: the base spectrum that it is a draw of, else its labels without those of broadening."""
    if BASE in table.table.colnames:
        return table.text(BASE)
    return [" ".join(f"{value:.12g}" for value in row) for row in _atmosphere_labels(table).tolist()]


def _atmosphere_labels(table: LabelTable) -> FloatArray:
    """(n_rows, k) labels without those of broadening; the recipe's own where no column has a label's name."""
    others = (*BROADENING, "delta_rv")  # what is done to a spectrum, not what it is of
    names = [name for name in table.table.colnames if name in KNOWN_LABELS and name not in others]
    return np.column_stack([table.numbers(name) for name in names]) if names else table.values


def sources_of(table: LabelTable, rows: IntArray, names: Sequence[str]) -> tuple[str, ...]:
    """(n,) what tells a spectrum in other data sets, words joined by "|": two that share one are of the same star.

    An observed one has its file's name, and the star's where the part has a ``star_column``. A computed one has the labels of its
    atmosphere, as builds from one library name theirs in ways of their own; in single precision, which some are stored in.
    """
    part = table.part
    stars = [""] * len(table.values) if part.star_column is None else table.text(part.star_column)
    if part.spectra is None:
        labels = _atmosphere_labels(table)[rows].astype(np.float32)
        own = [" ".join(f"{value:.9g}" for value in row) for row in labels.tolist()]
    else:
        own = [name.removesuffix(".gz") for name in names]
    return tuple(f"{one}|star {stars[row]}" if stars[row] else one for one, row in zip(own, rows, strict=True))


def _stacked(part: LoadedPart) -> LoadedPart:
    """One spectrum per star; labels and their errors are the visits' means (the errors of one label do not average out)."""
    first, star = star_groups(part.stars)
    n = np.bincount(star)[:, None]

    def mean(values: FloatArray) -> FloatArray:
        total = np.zeros((len(first), values.shape[1]))
        np.add.at(total, star, values)
        return np.asarray(total / n)

    return LoadedPart(
        stack_visits(part.spectra, part.stars),
        mean(part.values),
        None if part.errors is None else mean(part.errors),
        tuple(part.stars[i] for i in first),
        part.left_out,
        tuple("|".join(part.sources[i] for i in np.flatnonzero(star == k)) for k in range(len(first))),
    )
