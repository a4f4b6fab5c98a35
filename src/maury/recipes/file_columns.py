"""What a table says of spectra that were read, by the name of their file: velocities, photometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Column, Table
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.read import ReadResult
from maury.recipes.label_table import read_label_table
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]

_VELOCITY = {"rv": ("km/s", "radial velocity used to reach the rest frame")}
_PHOTOMETRY = {
    "bp_rp": ("mag", "Gaia BP - RP as given, corrected for extinction"),
    "m_g": ("mag", "absolute Gaia G magnitude as given, corrected for extinction"),
}
"""Columns a table may bring to spectra: unit here and what they are."""


def with_velocities(result: ReadResult, path: Path) -> ReadResult:
    """The same spectra with the velocities of a table (columns file, rv) in place of their headers'; raises as ReadError."""
    return _with_columns(result, path, _VELOCITY)


def with_photometry(result: ReadResult, path: Path) -> ReadResult:
    """The same spectra with colours and magnitudes of a table (columns file, bp_rp, m_g); raises as ReadError."""
    return _with_columns(result, path, _PHOTOMETRY)


def _with_columns(result: ReadResult, path: Path, columns: dict[str, tuple[str, str]]) -> ReadResult:
    """The same spectra with meta columns from a table joined on ``file``; spectra it does not name keep what they have.

    Raises
    ------
    ReadError
        If the table lacks a column, names a file twice, or holds a unit that does not fit.
    """
    table = read_label_table(path)
    missing = [name for name in ("file", *columns) if name not in table.colnames]
    if missing:
        wanted = ", ".join(f"{name} ({unit})" for name, (unit, _) in columns.items())
        raise ReadError(f"expected columns file and {wanted} in {path}, got {', '.join(table.colnames)}; rename them")
    files = [Path(str(entry).strip()).name for entry in table["file"]]
    twice = next((file for file in files if files.count(file) > 1), None) if len(set(files)) < len(files) else None
    if twice is not None:
        raise ReadError(f"expected one row per file in {path}, got {twice} twice; remove one")
    row_of = {file: row for row, file in enumerate(files)}
    given = {name: _numbers(table, name, unit, path) for name, (unit, _) in columns.items()}
    return replace(result, spectra=[_with_meta(batch, row_of, given, columns) for batch in result.spectra])


def _numbers(table: Table, name: str, unit: str, path: Path) -> FloatArray:
    """(n,) a column of the table in ``unit``, which it is in already where the table says nothing; NaN where masked."""
    column = table[name]
    try:
        values = np.ma.filled(np.ma.MaskedArray(column, dtype=np.float64), np.nan)
        return np.asarray(values if column.unit is None else (values * column.unit).to_value(unit), dtype=np.float64)
    except (ValueError, TypeError, u.UnitConversionError):
        raise ReadError(f"expected numbers in {unit} in column {name} of {path}, got others; correct the table") from None


def _with_meta(
    batch: Spectra, row_of: dict[str, int], given: dict[str, FloatArray], columns: dict[str, tuple[str, str]]
) -> Spectra:
    meta = batch.meta.copy()
    rows = [row_of.get(str(file)) for file in meta["file"]]
    for name, (unit, text) in columns.items():
        own = np.ma.filled(np.ma.MaskedArray(meta[name], dtype=np.float64), np.nan) if name in meta.colnames else None
        values = [given[name][row] if row is not None else np.nan if own is None else own[i] for i, row in enumerate(rows)]
        meta[name] = Column(values, unit=unit, description=text)
    return batch.with_pixels(meta=meta)
