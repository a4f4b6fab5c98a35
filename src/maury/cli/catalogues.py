"""Two catalogues that a user compares, published or own: names of their stars, and their labels as numbers in one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table
    from numpy.typing import NDArray

    from maury.labels import Label

    FloatArray = NDArray[np.float64]

_STAR_COLUMNS = ("star_id", "id")  # of our own catalogues; the first that both have
_NOT_COMPARED = ("rv", "resolving_power")  # in our own catalogues these were given, not found; compared where they are mapped
_OUR_DEX = {"dex(cm / s2)": ("logg",), "dex(Sun)": ("fe_h", "m_h")}  # VizieR's [cm/s2] and [Sun], and whose plain dex they are
_NO_NAME = ("nan", "--")  # what CSV makes of missing text


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A table and what it is called in print."""

    name: str
    table: Table

    def require(self, column: str, option: str) -> None:
        """Raise CatalogueError if there is no such column, or it has several values per row."""
        from maury.errors import CatalogueError

        if column not in self.table.colnames:
            raise CatalogueError(
                f"expected column {column!r} in {self.name}, got {', '.join(self.table.colnames[:30])}; correct {option}"
            )
        if self.table[column].ndim != 1:
            raise CatalogueError(
                f"expected one value per row in column {column!r} of {self.name}, got {self.table[column].shape[1:]}; "
                f"name another column with {option}"
            )


@dataclass(frozen=True)
class Compared:
    """A label, its column in either catalogue, whether the user named them, and the columns of errors (none: no pulls)."""

    label: Label
    columns: tuple[str, str]
    mapped: bool
    errors: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Values:
    """(n_rows, K) labels of a catalogue and their standard errors in label units, NaN where there are none."""

    values: FloatArray
    errors: FloatArray


def read_two(first: Path, second: Path) -> tuple[Catalogue, Catalogue]:
    """Both catalogues; one of ours has its units back, whatever its format.

    Raises
    ------
    CatalogueError, RecipeError
        If a file is missing or can not be read.
    """
    named = [path.name if first.name != second.name else str(path) for path in (first, second)]
    return Catalogue(named[0], _read(first)), Catalogue(named[1], _read(second))


def _read(path: Path) -> Any:
    from maury.catalogue import read_catalogue
    from maury.errors import CatalogueError
    from maury.recipes.label_table import read_label_table

    if not path.is_file():
        raise CatalogueError(f"expected a catalogue, got {'a folder' if path.is_dir() else 'no file'} at {path}; check the path")
    try:
        return read_catalogue(path)
    except CatalogueError:  # somebody else's, or not readable at all, which the next line says
        return read_label_table(path)


def pair_of(text: str) -> tuple[str, str]:
    """``karmn,Karmn`` -> both columns; one without comma is of both catalogues."""
    first, comma, second = text.partition(",")
    return first.strip(), second.strip() if comma else first.strip()


def star_columns(two: tuple[Catalogue, Catalogue], on: str | None) -> tuple[str, str]:
    """The columns that name the stars.

    Raises
    ------
    UsageError
        If the user named none and the catalogues have none of ours in common.
    CatalogueError
        If a catalogue lacks its column, or the column holds no names.
    """
    from maury.errors import UsageError

    if on is None:
        common = [name for name in _STAR_COLUMNS if all(name in one.table.colnames for one in two)]
        if not common:
            raise UsageError(
                f"expected --on to name the columns with the stars, got none, and {two[0].name} and {two[1].name} have no "
                "star_id or id in common; write --on COLUMN,COLUMN"
            )
        on = common[0]
    pair = pair_of(on)
    for one, column in zip(two, pair, strict=True):
        one.require(column, "--on")
    return pair


def star_names(catalogue: Catalogue, column: str) -> list[str]:
    """(n_rows,) names as text without outer blanks, "" where there is none.

    Raises
    ------
    CatalogueError
        If the column holds numbers with decimals: positions are not compared, as stars with proper motion are elsewhere at
        another epoch, and an identifier read as such a number has lost its last digits.
    """
    from maury.errors import CatalogueError
    from maury.recipes.label_table import texts

    if catalogue.table[column].dtype.kind == "f":
        raise CatalogueError(
            f"expected names of stars in column {column!r} of {catalogue.name}, got numbers with decimals; name a column of "
            "names with --on (positions are not compared: stars move from epoch to epoch)"
        )
    return ["" if name in _NO_NAME else name for name in texts(catalogue.table, column)]


def compared_labels(
    two: tuple[Catalogue, Catalogue], label_columns: Sequence[str], error_columns: Sequence[str]
) -> list[Compared]:
    """The labels to compare: those the user mapped, or else all that both catalogues call by the house's name.

    Parameters
    ----------
    label_columns, error_columns : ``teff=Teff,TEFF_MODE``: a label, its column in the first and in the second catalogue, or
        one column that both have. Without a column of errors, ``e_COLUMN`` is taken where both catalogues have it.

    Raises
    ------
    UsageError
        If an option is of another form, or there is nothing to compare.
    CatalogueError
        If a column is missing.
    """
    from maury.cli.tables import label_columns as parse
    from maury.errors import UsageError
    from maury.labels import KNOWN_LABELS

    mapped = {name: pair_of(text) for name, text in parse(label_columns, tuple(KNOWN_LABELS)).items()}
    same = [name for name in KNOWN_LABELS if name not in _NOT_COMPARED and all(name in one.table.colnames for one in two)]
    chosen = mapped or {name: (name, name) for name in same}
    if not chosen:
        raise UsageError(
            f"expected labels that {two[0].name} and {two[1].name} both have, got none of the same name; "
            "say which columns they are with --label-column LABEL=COLUMN,COLUMN"
        )
    errors = {name: pair_of(text) for name, text in parse(error_columns, tuple(chosen)).items()}
    for option, pairs in (("--label-column", chosen), ("--error-column", errors)):
        for pair in pairs.values():
            for one, column in zip(two, pair, strict=True):
                one.require(column, option)
    out = []
    for name, pair in chosen.items():
        if name in errors:
            found: tuple[tuple[str, ...], tuple[str, ...]] = ((errors[name][0],), (errors[name][1],))
        else:
            found = (_error_columns(two[0], pair[0]), _error_columns(two[1], pair[1]))
        out.append(Compared(KNOWN_LABELS[name], pair, name in mapped, found if all(found) else ((), ())))
    return out


def _error_columns(catalogue: Catalogue, column: str) -> tuple[str, ...]:
    """``e_COLUMN``; with ``E_COLUMN``, the field's name for an upper error, where the errors are not symmetric."""
    lower, upper = f"e_{column}", f"E_{column}"
    if lower not in catalogue.table.colnames:
        return ()
    return (lower, upper) if upper in catalogue.table.colnames else (lower,)


def values_of(catalogue: Catalogue, compared: Sequence[Compared], place: int) -> Values:
    """All K labels of a catalogue, the first (``place`` 0) or the second (1), in the labels' units.

    Raises
    ------
    CatalogueError
        If a column is not numeric, or has no unit and the user did not say which label it is, or another kind of unit.
    """
    import numpy as np

    values, errors = zip(*(_values(catalogue, item, place) for item in compared), strict=True)
    return Values(np.column_stack(values), np.column_stack(errors))


def _values(catalogue: Catalogue, compared: Compared, place: int) -> tuple[FloatArray, FloatArray]:
    """(n_rows,) values and errors of one label; of a lower and an upper error the mean is taken: half of the interval."""
    import numpy as np

    from maury.errors import CatalogueError, RecipeError
    from maury.recipes.label_units import errors_to_label_unit, to_label_unit

    label, column = compared.label, compared.columns[place]
    values = _numeric(catalogue, column, "--label-column")
    unit = _unit(catalogue, column, compared)
    sides = [_numeric(catalogue, name, "--error-column") for name in compared.errors[place]]
    errors = np.mean(sides, axis=0) if sides else np.full(values.shape, np.nan)
    try:
        return to_label_unit(values, unit, label), errors_to_label_unit(values, errors, unit, label)
    except RecipeError:
        raise CatalogueError(
            f"expected column {column!r} of {catalogue.name} in a unit that can become {label.unit} for {label.name}, "
            f"got {unit!r}; name another column with --label-column"
        ) from None


def _unit(catalogue: Catalogue, column: str, compared: Compared) -> str:
    """The table's unit; the house's where the table has none and the user said what label the column holds."""
    from maury.errors import CatalogueError

    text = "" if catalogue.table[column].unit is None else str(catalogue.table[column].unit)
    label = compared.label
    if label.name in _OUR_DEX.get(text, ()):
        return "dex"
    if text:
        return text
    if not compared.mapped:
        raise CatalogueError(
            f"expected a unit of column {column!r} in {catalogue.name}, got none; if it holds {label.name} in {label.unit}, "
            f"say so with --label-column {label.name}={','.join(dict.fromkeys(compared.columns))}"
        )
    return label.unit


def _numeric(catalogue: Catalogue, column: str, option: str) -> FloatArray:
    import numpy as np

    from maury.errors import CatalogueError
    from maury.recipes.label_table import numbers, texts

    found = numbers(catalogue.table, column)
    if catalogue.table[column].dtype.kind not in "biuf" and not np.isfinite(found).any():
        example = next((text for text in texts(catalogue.table, column) if text), "")
        if example:
            raise CatalogueError(
                f"expected numbers in column {column!r} of {catalogue.name}, got {example!r}; name another column with {option}"
            )
    return found
