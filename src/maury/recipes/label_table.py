"""A part's table of labels: its columns as numbers in the labels' units, and why a row cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError
from maury.recipes.data_schema import ON_SKY, PartRecipe
from maury.recipes.label_units import errors_to_label_unit, to_label_unit
from maury.recipes.schema import LabelRecipe, Recipe

if TYPE_CHECKING:
    from astropy.table import Table

FloatArray = NDArray[np.float64]

_MISSING_BELOW = -9000.0  # surveys write -9999 for "no value"


def read_label_table(path: Path) -> Table:
    """A table of labels: CSV, ECSV, FITS (its first table), VOTable or Parquet, by extension.

    Raises
    ------
    RecipeError
        If it is missing or can not be read.
    """
    from astropy.table import Table

    if not path.is_file():
        raise RecipeError(f"expected the label table {path}, got no such file; check --data and the recipe's table")
    formats = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable", ".parquet": "parquet"}
    kind = formats.get(path.suffix.lower(), "fits")
    # of a survey's gigabytes only the columns that are used come into memory
    options = {"hdu": _first_table(path), "memmap": True, "mask_invalid": False} if kind == "fits" else {}
    try:
        return Table.read(path, format=kind, **options)
    except Exception as error:  # astropy's readers raise many kinds; the user needs one sentence
        raise _unreadable(path, error) from None


def _first_table(path: Path) -> int:
    """Number of the first binary table in a FITS file; 1 if there is none, so that the reader says what is wrong."""
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            return next((i for i, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU)), 1)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> RecipeError:
    text = " ".join(str(error).split())[:200]
    return RecipeError(f"expected a table that can be read in {path}, got: {text}; correct the file")


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The rows of a part's table that its spectra are joined to.

    Parameters
    ----------
    table : as read; its name in errors is ``origin``.
    part, label : what the recipe says about it.
    values : (n_rows, K) in the labels' units; NaN where the table has no value.
    errors : (n_rows, K) or None if the recipe names no error at all; a label without one counts as exact.
    reasons : (n_rows,) of str: why a row cannot be used; "" where it can.
    """

    table: Table
    origin: str
    part: PartRecipe
    label: tuple[LabelRecipe, ...]
    values: FloatArray
    errors: FloatArray | None
    reasons: NDArray[Any]

    @classmethod
    def from_table(cls, table: Table, recipe: Recipe, part: PartRecipe, origin: str) -> LabelTable:
        """The table as the recipe describes it.

        Raises
        ------
        RecipeError
            If a column that the recipe names is missing or holds vectors.
        """
        _require_columns(table, _columns_used(recipe, part), origin)
        labels = recipe.labels
        raw = [numbers(table, column_of(item, part)) for item in recipe.label]
        units = [part.units.get(item.name, item.unit) for item in recipe.label]
        values = np.column_stack([to_label_unit(x, u, label) for x, u, label in zip(raw, units, labels, strict=True)])
        columns = [_error_column(item, part) for item in recipe.label]
        errors = None
        if any(columns) or any(item.error is not None for item in recipe.label):
            errors = np.column_stack(
                [
                    np.full(len(table), item.error or 0.0)
                    if column is None
                    else _usable_errors(errors_to_label_unit(x, numbers(table, column), unit, label))
                    for item, label, x, unit, column in zip(recipe.label, labels, raw, units, columns, strict=True)
                ]
            )
        return cls(table, origin, part, recipe.label, values, errors, _reasons(table, part, recipe.label, values))

    def text(self, column: str) -> list[str]:
        """(n_rows,) a column as text; see :func:`texts`."""
        return texts(self.table, column)

    def numbers(self, column: str) -> FloatArray:
        """(n_rows,) a column as numbers; see :func:`numbers`."""
        return numbers(self.table, column)


def column_of(item: LabelRecipe, part: PartRecipe) -> str:
    """The column that holds a label in this part's table."""
    return part.columns.get(item.name, item.column)


def texts(table: Any, column: str) -> list[str]:
    """(n_rows,) a column as stripped strings; "" where it is masked."""
    return [_word(entry) for entry in np.ma.filled(np.ma.asarray(table[column]).astype(object), "")]


def numbers(table: Any, column: str) -> FloatArray:
    """(n_rows,) a column as floats; NaN where it is masked, empty, no number or a survey's "no value"."""
    entries = table[column]
    mask = np.ma.getmaskarray(entries)
    data = np.asarray(entries.filled() if hasattr(entries, "filled") else entries)
    if data.dtype.kind in "biuf":
        values = data.astype(np.float64)
    else:
        values = np.array([_number(entry) for entry in data], dtype=np.float64)
    usable = np.isfinite(values) & (values > _MISSING_BELOW) & ~mask
    return np.where(usable, values, np.nan)


def _word(entry: object) -> str:
    return (entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)).strip()


def _number(entry: object) -> float:
    try:
        return float(_word(entry))
    except ValueError:
        return float("nan")


def _error_column(item: LabelRecipe, part: PartRecipe) -> str | None:
    """The column of a label's errors; one that the recipe names for another table's label column does not count here."""
    return part.error_columns.get(item.name, None if item.name in part.columns else item.error_column)


def _usable_errors(errors: FloatArray) -> FloatArray:
    """Errors that can be used, the typical one where there is none."""
    usable = np.isfinite(errors) & (errors >= 0)
    return np.where(usable, errors, np.median(errors[usable]) if usable.any() else 0.0)


def _columns_used(recipe: Recipe, part: PartRecipe) -> list[str]:
    named = {item.name for item in recipe.label}
    joined = [] if part.spectra is None else [part.ra_column, part.dec_column] if part.join == ON_SKY else [part.join]
    optional = [*(_error_column(item, part) for item in recipe.label), part.rv_column, part.star_column]
    used = joined + [column_of(item, part) for item in recipe.label] + [name for name in optional if name is not None]
    return used + [name for name in part.limits if name not in named]


def _require_columns(table: Table, names: Iterable[str], origin: str) -> None:
    for name in names:
        if name not in table.colnames:
            raise RecipeError(
                f"expected column {name!r} in {origin}, got columns {', '.join(table.colnames[:30])}; correct the recipe"
            )
        if table[name].ndim != 1:
            raise RecipeError(
                f"expected one value per row in column {name!r} of {origin}, got {table[name].shape[1:]}; name another column"
            )


def _reasons(table: Table, part: PartRecipe, label: tuple[LabelRecipe, ...], values: FloatArray) -> NDArray[Any]:
    """(n_rows,) of str: the first thing that speaks against each row, or ""."""
    reasons = np.full(len(table), "", dtype=object)
    named = {item.name: k for k, item in enumerate(label)}
    for name, k in named.items():
        reasons[(reasons == "") & ~np.isfinite(values[:, k])] = f"no {name} in the table"
    for name, (low, high) in part.limits.items():
        x = values[:, named[name]] if name in named else numbers(table, name)
        for row in np.flatnonzero((reasons == "") & ~((x >= low) & (x <= high))):
            reasons[row] = f"{name} = {x[row]:g} outside {low:g} to {high:g}"
    return reasons
