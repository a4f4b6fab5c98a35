"""From a recipe's data section to a prepared training set; what was left out, and why, is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError
from maury.prepare import snr_sum
from maury.read import read_files
from maury.recipes.schema import DataRecipe, Recipe
from maury.spectra import Spectra

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

_MISSING_BELOW = -9000.0  # surveys write -9999 for "no value"


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
    """

    spectra: Spectra
    values: FloatArray
    errors: FloatArray | None
    stars: tuple[str, ...] | None
    left_out: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.spectra)


def load_training_set(recipe: Recipe, folder: str | Path, progress: Progress | None = None) -> TrainingSet:
    """Read, join, select and prepare what ``recipe.data`` describes below ``folder``.

    Raises
    ------
    RecipeError
        No file matches, the table or a column is missing, the join matches nothing, or nothing is left after selection.
    """
    data = recipe.data
    root = Path(folder)
    paths = sorted(path for path in root.glob(data.spectra) if path.is_file())
    if not paths:
        raise RecipeError(f"expected spectra matching {data.spectra} in {root}, got no file; check --data and the glob")
    table = read_label_table(root / data.table)
    _require_columns(table, recipe, root / data.table)
    left_out: list[tuple[str, str]] = []
    rows = _rows_by_file(table, data)
    wanted = [path for path in paths if path.name in rows]
    left_out += [(path.name, f"not in {data.table}") for path in paths if path.name not in rows]
    if not wanted:
        raise RecipeError(
            f"expected column {data.join!r} of {data.table} to name the files of {data.spectra}, got no match among "
            f"{len(paths)} files (first file {paths[0].name}, first entry {table[data.join][0]}); correct join"
        )
    report = None if progress is None else lambda done, total: progress("read", done, total)
    result = read_files(wanted, data.format, report, medium=data.medium, snr=data.assumed_snr)
    left_out += [(Path(failure.file).name, failure.reason) for failure in result.failures]
    chosen, numbers = _select(result.spectra, result.files, rows, table, recipe, left_out)
    return _prepare(recipe, chosen, table, numbers, left_out, progress)


def read_label_table(path: Path) -> Table:
    """A table of labels: CSV, ECSV, FITS, VOTable or Parquet, by extension.

    Raises
    ------
    RecipeError
        If it is missing or can not be read.
    """
    from astropy.table import Table

    if not path.is_file():
        raise RecipeError(f"expected the label table {path}, got no such file; check --data and the recipe's table")
    formats = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable", ".parquet": "parquet"}
    try:
        return Table.read(path, format=formats.get(path.suffix.lower(), "fits"))
    except Exception as error:  # astropy's readers raise many kinds; the user needs one sentence
        text = " ".join(str(error).split())[:200]
        raise RecipeError(f"expected a table that can be read in {path}, got: {text}; correct the file") from None


def _require_columns(table: Table, recipe: Recipe, path: Path) -> None:
    data = recipe.data
    names = [data.join, *(label.column for label in recipe.label), *(label.error_column for label in recipe.label)]
    names += [data.rv_column, data.star_column]
    known_labels = {label.name for label in recipe.label}
    names += [name for name in data.limits if name not in known_labels]
    missing = [name for name in names if name is not None and name not in table.colnames]
    if missing:
        raise RecipeError(
            f"expected column {missing[0]!r} in {path}, got columns {', '.join(table.colnames[:30])}; correct the recipe"
        )


def _rows_by_file(table: Table, data: DataRecipe) -> dict[str, int]:
    rows: dict[str, int] = {}
    for number, name in enumerate(str(entry).strip() for entry in table[data.join]):
        if name in rows:
            raise RecipeError(f"expected one row per file in {data.table}, got {name!r} twice; remove one")
        rows[name] = number
    return rows


def _select(
    batches: list[Spectra],
    files: list[str],
    rows: dict[str, int],
    table: Table,
    recipe: Recipe,
    left_out: list[tuple[str, str]],
) -> tuple[list[Spectra], list[int]]:
    """Batches of one spectrum each that pass the recipe's limits, and their rows in the table."""
    chosen, numbers = [], []
    for batch, file in zip(batches, files, strict=True):
        name = Path(file).name
        number = rows[name]
        reason = _reason_to_drop(batch, table, number, recipe)
        if len(batch) != 1:
            reason = f"holds {len(batch)} spectra; a training file holds one"
        if reason:
            left_out.append((name, reason))
            continue
        chosen.append(_with_velocity(batch, table, number, recipe.data))
        numbers.append(number)
    if not chosen:
        raise RecipeError(
            f"expected spectra with labels inside the recipe's limits, got none of {len(batches)} "
            f"(the first because: {left_out[-1][1]}); widen the limits"
        )
    return chosen, numbers


def _reason_to_drop(batch: Spectra, table: Table, number: int, recipe: Recipe) -> str:
    data = recipe.data
    columns = {label.name: label.column for label in recipe.label}
    for name, column in columns.items():
        if not np.isfinite(_number(table, column, number)):
            return f"no {name} in the table"
    for name, (low, high) in data.limits.items():
        value = _number(table, columns.get(name, name), number)
        if not low <= value <= high:
            return f"{name} = {value:g} outside {low:g} to {high:g}"
    if data.min_snr is not None:
        snr = float(snr_sum(batch)[0]) if data.snr_column == "snr_sum" else float(batch.meta["snr"][0])
        if not snr >= data.min_snr:
            return f"{data.snr_column} = {snr:.1f} below {data.min_snr:g}"
    return ""


def _with_velocity(batch: Spectra, table: Table, number: int, data: DataRecipe) -> Spectra:
    if data.rv_column is None:
        return batch
    meta = batch.meta.copy()
    meta["rv"] = [_number(table, data.rv_column, number)]
    return batch.with_pixels(meta=meta)


def _prepare(
    recipe: Recipe,
    chosen: list[Spectra],
    table: Table,
    numbers: list[int],
    left_out: list[tuple[str, str]],
    progress: Progress | None,
) -> TrainingSet:
    report = None if progress is None else lambda done, total: progress("prepare", done, total)
    prepared = recipe.preparation.prepare_each(chosen, report)
    for failure in prepared.failures:
        left_out += [(str(chosen[failure.batch].meta["file"][row]), failure.reason) for row in failure.rows]
    if prepared.spectra is None:
        raise RecipeError(f"expected spectra that can be prepared, got none; the first: {prepared.failures[0].reason}")
    rows = [numbers[source.batch] for source in prepared.sources]

    def column(name: str) -> FloatArray:
        return np.array([_number(table, name, row) for row in rows])

    values = np.column_stack([column(label.column) for label in recipe.label])
    star = recipe.data.star_column
    return TrainingSet(
        prepared.spectra,
        values,
        _label_errors(recipe, column, len(rows)),
        None if star is None else tuple(str(table[star][row]) for row in rows),
        tuple(left_out),
    )


def _label_errors(recipe: Recipe, column: Callable[[str], FloatArray], n: int) -> FloatArray | None:
    """(n, K), or None if the recipe names no error at all; a label without one counts as exact."""
    if all(label.error is None and label.error_column is None for label in recipe.label):
        return None
    parts = []
    for label in recipe.label:
        if label.error_column is not None:
            errors = column(label.error_column)
            typical = np.nanmedian(errors) if np.isfinite(errors).any() else 0.0
            parts.append(np.where(np.isfinite(errors) & (errors >= 0), errors, typical))
        else:
            parts.append(np.full(n, label.error or 0.0))
    return np.column_stack(parts)


def _number(table: Any, column: str, row: int) -> float:
    """A cell as a float; NaN where it is masked, empty or a survey's "no value"."""
    cell = table[column][row]
    if np.ma.is_masked(cell):
        return float("nan")
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return float("nan")
    return value if np.isfinite(value) and value > _MISSING_BELOW else float("nan")
