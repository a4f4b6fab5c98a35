"""Tables that a user gives beside spectra: which files are visits of one star, and what their labels are known to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maury.estimates import LabelEstimates
    from maury.model import Model


def read_stars(path: Path, file_column: str, column: str) -> dict[str, str]:
    """File name (or id of a spectrum) -> its star, "" where the table says nothing.

    Raises
    ------
    ReadError
        If a column is missing or a file is said to be of two stars.
    """
    import numpy as np

    from maury.errors import ReadError

    table = _table(path, file_column, column)
    out: dict[str, str] = {}
    for file, entry in zip(table[file_column], table[column], strict=True):
        name, text = Path(str(file).strip()).name, "" if np.ma.is_masked(entry) else str(entry).strip()
        if out.setdefault(name, text) != text:
            raise ReadError(f"expected one star for {name} in {path}, got {out[name]} and {text}; correct the table")
    return out


def stars_of(star_of: dict[str, str], spectra: Sequence[str], path: Path) -> list[str]:
    """The star of each spectrum, "" where the table does not say.

    Raises
    ------
    ReadError
        If the table names none of the spectra.
    """
    from maury.errors import ReadError

    if not set(spectra) & set(star_of):
        example = next(iter(star_of), "nothing")
        raise ReadError(
            f"expected {path} to name the spectra, got no match (first spectrum {spectra[0]}, first entry {example}); "
            "correct the file column"
        )
    return [star_of.get(name, "") for name in spectra]


def names_in_tables(estimates: LabelEstimates) -> list[str]:
    """What tables know a spectrum by: its file, or its id where the file holds several spectra."""
    from collections import Counter

    files = [str(file) for file in estimates.meta["file"]]
    count = Counter(files)
    return [file if count[file] == 1 else str(name) for file, name in zip(files, estimates.ids, strict=True)]


def read_labels(
    path: Path, file_column: str, columns: dict[str, str], model: Model, spectra: Sequence[str]
) -> NDArray[np.float64]:
    """(n, K) known labels of the spectra in label units, NaN where unknown, as a velocity that is fitted along may be.

    Parameters
    ----------
    columns : label -> column; others are looked for as in the model's recipe, then under the label's own name.

    Raises
    ------
    ReadError
        If a column is missing or the table names none of the spectra.
    """
    import numpy as np

    from maury.errors import ReadError
    from maury.fit.inferrer import own_labels
    from maury.recipes.label_table import numbers

    table = _table(path, file_column, *columns.values())
    wanted = own_labels(model.inferrer).names
    recipe = {entry["name"]: entry.get("column", "") for entry in model.provenance.get("recipe", {}).get("label", [])}
    found = {name: recipe[name] if recipe.get(name) in table.colnames else name for name in model.labels.names} | columns
    absent = [name for name, column in found.items() if column not in table.colnames and name in wanted]
    if absent:
        raise ReadError(
            f"expected columns {', '.join(wanted)} in {path}, got {', '.join(table.colnames[:30])}; "
            f"say which column it is with --label-column {absent[0]}=COLUMN"
        )
    row_of = {Path(str(file).strip()).name: row for row, file in enumerate(table[file_column])}
    rows = np.array([row_of.get(name, -1) for name in spectra])
    if rows.max() < 0:
        raise ReadError(f"expected column {file_column!r} of {path} to name the spectra, got no match; name another column")
    unknown = np.full(len(table), np.nan)
    values = np.column_stack([numbers(table, found[n]) if found[n] in table.colnames else unknown for n in model.labels.names])
    return np.asarray(np.where(rows[:, None] >= 0, values[rows], np.nan))


def label_columns(options: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """``fe_h=feh`` -> {"fe_h": "feh"}.

    Raises
    ------
    UsageError
        If an option is of another form or names no label.
    """
    from maury.errors import UsageError

    pairs = [option.partition("=") for option in options]
    for option, (name, _, column) in zip(options, pairs, strict=True):
        if name not in labels or not column:
            raise UsageError(f"expected LABEL=COLUMN with a label among {', '.join(labels)}, got {option!r}; correct the option")
    return {name: column for name, _, column in pairs}


def _table(path: Path, *columns: str) -> Any:
    from maury.errors import ReadError
    from maury.recipes.label_table import read_label_table

    table = read_label_table(path)
    missing = [name for name in columns if name not in table.colnames]
    if missing:
        raise ReadError(
            f"expected column {missing[0]!r} in {path}, got {', '.join(table.colnames[:30])}; name the right one with an option"
        )
    return table
