"""Which row of a table belongs to which spectrum: by file name, by a meta column, or by position on the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import RecipeError
from maury.prepare.grid import meta_floats
from maury.recipes.data_schema import ON_SKY
from maury.recipes.label_table import LabelTable
from maury.spectra import Spectra

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_TIE = 0.1
"""Two rows are equally near if their separations differ by less than this part of the radius."""


@dataclass(frozen=True, eq=False)
class Join:
    """Rows of a table for a list of spectra.

    Parameters
    ----------
    rows : (n_spectra,) row numbers, -1 where there is none.
    reasons : (n_spectra,) of str: why there is none, or why the row cannot be used; "" where all is well.
    """

    rows: IntArray
    reasons: NDArray[Any]

    @classmethod
    def of(cls, rows: IntArray, reasons: Sequence[str], table: LabelTable) -> Join:
        """A join whose reasons are completed by those of the table's rows."""
        own = np.array(reasons, dtype=object)
        return cls(rows, np.where(rows >= 0, table.reasons[rows], own) if len(table.reasons) else own)


def rows_by_name(table: LabelTable) -> dict[str, int]:
    """Row number by what the column ``join`` holds; rows where it holds nothing have no name.

    Raises
    ------
    RecipeError
        If an entry stands in two rows.
    """
    rows: dict[str, int] = {}
    what = "file" if table.part.join_meta is None else table.part.join_meta
    for number, name in enumerate(table.text(table.part.join)):
        if not name:
            continue
        if name in rows:
            raise RecipeError(f"expected one row per {what} in {table.part.table}, got {name!r} twice; remove one")
        rows[name] = number
    return rows


def join(batches: Sequence[Spectra], files: Sequence[str], table: LabelTable) -> Join:
    """The row of every spectrum of all batches, one after another.

    Parameters
    ----------
    files : the file of each batch.

    Raises
    ------
    RecipeError
        If the meta column or positions are missing, or nothing at all matches.
    """
    part = table.part
    if part.join == ON_SKY:
        return _on_sky(batches, table)
    rows = rows_by_name(table)
    if part.join_meta is None:
        names = [Path(file).name for batch, file in zip(batches, files, strict=True) for _ in range(len(batch))]
    else:
        names = [str(entry).strip() for batch in batches for entry in _meta(batch, part.join_meta)]
    numbers = np.array([rows.get(name, -1) for name in names], dtype=np.int64)
    if not (numbers >= 0).any():
        raise RecipeError(
            f"expected column {part.join!r} of {part.table} to hold the {part.join_meta or 'file'} of {part.spectra}, got no "
            f"match among {len(names)} spectra (the first: {names[0]}, the first entry: {next(iter(rows), 'none')}); correct join"
        )
    return Join.of(numbers, [f"not in {part.table}"] * len(names), table)


def _meta(batch: Spectra, column: str) -> Any:
    if column not in batch.meta.colnames:
        raise RecipeError(
            f"expected meta column {column!r} of the spectra to join by, got {', '.join(batch.meta.colnames)}; choose one of them"
        )
    return batch.meta[column]


def _on_sky(batches: Sequence[Spectra], table: LabelTable) -> Join:
    """The nearest usable row within the radius; rows that cannot be used count only where there is no other.

    Two usable rows as good as equally near leave the spectrum without a row: a survey's table then holds the star twice, and
    which of its labels are meant is for the recipe's limits to say.
    """
    from astropy import units as u
    from astropy.coordinates import search_around_sky

    part = table.part
    ra, dec = (np.concatenate([_degrees(batch, name) for batch in batches]) for name in ("ra", "dec"))
    ours, here = _positions(ra, dec, "the spectra")
    theirs, there = _positions(table.numbers(part.ra_column), table.numbers(part.dec_column), table.origin)
    i, j, separation, _ = search_around_sky(ours, theirs, part.radius_arcsec * u.arcsec)
    spectrum, row, distance = here[i], there[j], separation.to_value(u.arcsec)
    if spectrum.size == 0:
        raise RecipeError(
            f"expected rows of {part.table} within {part.radius_arcsec:g} arcsec of the spectra of {part.spectra}, got none "
            f"among {len(theirs)}; check {part.ra_column} and {part.dec_column} (degrees) and radius_arcsec"
        )
    n = sum(len(batch) for batch in batches)
    rows = np.full(n, -1, dtype=np.int64)
    reasons = [f"no row of {part.table} within {part.radius_arcsec:g} arcsec"] * n
    useless = table.reasons[row] != ""
    order = np.lexsort((distance, useless, spectrum))
    starts = np.flatnonzero(np.diff(spectrum[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        first, second = group[0], group[1] if len(group) > 1 else None
        if second is not None and not useless[second] and distance[second] - distance[first] < _TIE * part.radius_arcsec:
            reasons[spectrum[first]] = (
                f"several rows of {part.table} as near, at {distance[first]:.2f} and {distance[second]:.2f} arcsec: "
                "limits can leave all but one out"
            )
        else:
            rows[spectrum[first]] = row[first]
    return Join.of(rows, reasons, table)


def _degrees(batch: Spectra, name: str) -> FloatArray:
    _meta(batch, name)
    return meta_floats(batch, name)


def _positions(ra: FloatArray, dec: FloatArray, origin: str) -> tuple[Any, IntArray]:
    """Sky coordinates of the entries that have a position, and which entries those are."""
    from astropy.coordinates import SkyCoord

    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    beyond = np.flatnonzero((np.abs(dec[known]) > 90) | (np.abs(ra[known]) > 360))
    if beyond.size:
        at = known[beyond[0]]
        raise RecipeError(
            f"expected positions in degrees in {origin}, got ra {ra[at]:g}, dec {dec[at]:g}; convert them or name other columns"
        )
    return SkyCoord(ra[known], dec[known], unit="deg"), known
