"""Tables of any kind as named columns with units: FITS, VOTable, ECSV, and plain text with a header line."""

from __future__ import annotations

import csv
import io
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.read._fits import Hdu
from maury.read._source import Source


@dataclass(frozen=True, eq=False)
class Column:
    """One column: (n_rows,) or (n_rows, n_elements), with what the file says about it."""

    name: str
    values: NDArray[Any]
    unit: str = ""
    note: str = ""
    """Description and UCD."""


@dataclass(frozen=True, eq=False)
class NamedColumns:
    """A table's columns and its metadata (keys in upper case, values as text)."""

    columns: list[Column]
    meta: dict[str, str] = field(default_factory=dict)

    def lookup(self, key: str) -> str:
        """Text of a piece of metadata, "" where absent."""
        return self.meta.get(key.upper(), "")

    def number(self, *keys: str) -> float:
        """The first of these pieces of metadata that is a number; NaN if none is."""
        for key in keys:
            try:
                return float(self.meta[key.upper()])
            except (KeyError, ValueError):
                continue
        return float("nan")


def load_columns(source: Source) -> list[NamedColumns]:
    """The tables of a file.

    Raises
    ------
    ReadError
        If the file cannot be parsed as the table that it begins as, or holds none.
    """
    if source.kind == "fits":
        return [_from_fits(source, hdu) for hdu in source.tables() if hdu.shape[0] > 0]
    if source.kind == "votable":
        return [_from_votable(source.text)]
    return [_from_ecsv(source.text) if source.kind == "ecsv" else _from_text(source.text)]


def _from_fits(source: Source, hdu: Hdu) -> NamedColumns:
    header = hdu.header
    meta = {key.upper(): source.hdus[0].header.text(key) for key in source.hdus[0].header}
    meta |= {key.upper(): header.text(key) for key in header if header.text(key)}
    columns = []
    for i, name in enumerate(hdu.names, start=1):
        note = " ".join(header.text(f"{key}{i}") for key in ("TUCD", "TCOMM", "TUTYP", "TDESC"))
        columns.append(Column(name, _LazyColumn(hdu, name), hdu.unit(name), note))  # type: ignore[arg-type]
    return NamedColumns(columns, meta)


class _LazyColumn:
    """Stands in for a FITS column until it is used: a table of results may have hundreds."""

    def __init__(self, hdu: Hdu, name: str) -> None:
        self._hdu, self._name = hdu, name

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self._hdu.column(self._name)
        return values if dtype is None else values.astype(dtype)


def _from_votable(text: str) -> NamedColumns:
    if re.search(r"<STREAM[^>]*href", text, re.IGNORECASE) or "<!ENTITY" in text:
        raise ReadError(
            "expected a VOTable that holds its data, got one that points to another file; save it with the data inside"
        )
    from astropy.io.votable import parse_single_table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parsed = parse_single_table(io.BytesIO(text.encode()), verify="ignore")
            table = parsed.to_table(use_names_over_ids=True)
            columns = [_of_astropy(table[name]) for name in table.colnames]
            params = {str(p.name).upper(): str(p.value) for p in parsed.params}
            infos = {str(i.name).upper(): str(i.value) for i in parsed.infos}
        except Exception as error:  # the parser raises many kinds for a damaged file
            raise ReadError(f"expected a whole VOTable, got one that does not parse ({_short(error)}); fetch it again") from error
    return NamedColumns(columns, infos | params)


def _from_ecsv(text: str) -> NamedColumns:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            table = Table.read(text.splitlines(), format="ascii.ecsv")
            columns = [_of_astropy(table[name]) for name in table.colnames]
            meta = {str(key).upper(): str(value) for key, value in table.meta.items()}
        except Exception as error:  # yaml and csv errors of many kinds
            raise ReadError(
                f"expected a whole ECSV table, got one that does not parse ({_short(error)}); fetch it again"
            ) from error
    return NamedColumns(columns, meta)


def _of_astropy(column: Any) -> Column:
    values = np.ma.asarray(column) if hasattr(column, "mask") else np.asarray(column)
    if values.dtype.kind == "f":
        values = np.ma.filled(values, np.nan)
    elif np.ma.is_masked(values):
        values = np.ma.filled(values.astype(np.float64), np.nan) if values.dtype.kind in "iu" else np.ma.filled(values)
    else:
        values = np.asarray(values)
    unit = getattr(column, "unit", None)
    ucd = str(getattr(column, "meta", {}).get("ucd", ""))
    return Column(str(column.info.name), values, "" if unit is None else str(unit), f"{column.info.description or ''} {ucd}")


_COMMENT = re.compile(r"^#\s*([A-Za-z_][\w -]{0,40}?)\s*[:=]\s*(.{1,200})$")
_UNIT_IN_NAME = re.compile(r"^(.+?)\s*[\[(]\s*([^\])]*)\s*[\])]$")


def _from_text(text: str) -> NamedColumns:
    """Text with a header line of names; units in the names, as in ``wavelength[nm]`` or ``wavelength (nm)``.

    Comment lines ``# key: value`` are metadata (medium, frame, unit, rv, teff, ...).
    """
    lines = text.splitlines()
    meta = {found[1].strip().upper(): found[2].strip() for line in lines[:500] if (found := _COMMENT.match(line))}
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    if len(body) < 3:
        raise ReadError(f"expected a header line and at least 2 pixels, got {len(body)} lines of data; check the file")
    delimiter = next((d for d in (",", "\t", ";", "|") if d in body[0]), None)
    try:
        rows = list(csv.reader(body, delimiter=delimiter)) if delimiter else [line.split() for line in body]
    except csv.Error as error:
        raise ReadError(f"expected a text table, got lines that do not parse ({_short(error)}); fetch it again") from error
    names = [name.strip() for name in rows[0]]
    if all(_is_number(name) for name in names):
        raise ReadError(
            "expected a header line that names the columns and their units, got numbers; write 'wavelength[nm],flux,error'"
        )
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if uneven is not None:
        raise ReadError(
            f"expected {len(names)} columns as in the first line of the table, got {len(rows[uneven])} in line {uneven + 1}: "
            "no such table, or truncated; check the file"
        )
    columns = []
    for name, cells in zip(names, zip(*rows[1:], strict=True), strict=True):
        found = _UNIT_IN_NAME.match(name)
        columns.append(Column(found[1] if found else name, _numbers(cells), found[2] if found else ""))
    return NamedColumns(columns, meta)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(cells: tuple[str, ...]) -> NDArray[Any]:
    """Floats, empty cells NaN (exact integers beyond 2**53, as Gaia's source ids, stay text); text where a cell is none."""
    if any(len(cell) > 15 and cell.strip().isdigit() for cell in cells[:1]):
        return np.array(cells, dtype=np.str_)
    try:
        return np.array([float(cell) if cell.strip() not in ("", "null", "--") else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=np.str_)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
