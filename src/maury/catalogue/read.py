"""A catalogue from its file, with units and provenance back, and its description for ``maury info``."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maury.catalogue.columns import CATALOGUE_FORMAT, CATALOGUE_VERSION, all_meanings
from maury.catalogue.formats import FITS_META_KEYWORD, PARQUET_META_KEY, VOTABLE_META_NAME, format_of, import_pyarrow
from maury.errors import CatalogueError
from maury.files import one_line
from maury.flags import RESULT_FLAG_MEANING, ResultFlag
from maury.labels import KNOWN_LABELS

if TYPE_CHECKING:
    from astropy.table import Table

_OURS = ("id", "status", "flag", "flag_names", "model_id")
_NO_META = "expected a catalogue of maury, got another table: {path}; give a file that `maury infer` wrote"


def read_catalogue(path: str | os.PathLike[str]) -> Table:
    """Read a catalogue; columns with unit, description and UCD, ``meta`` as :func:`~maury.catalogue.build_catalogue` made it.

    CSV carries no units: those of the house's own column names come back (teff is in K by definition), others do not,
    and the provenance is empty. Missing numbers are NaN, missing text is "".

    Raises
    ------
    CatalogueError
        If there is no such file, it cannot be read, is no catalogue of ours, or is of a newer format.
    """
    file = Path(path)
    reader = _READERS[format_of(file)]
    if not file.is_file():
        raise CatalogueError(f"expected a catalogue, got {'a folder' if file.is_dir() else 'no file'} at {file}; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table, meta = reader(file)
    except CatalogueError:
        raise
    except Exception as failure:  # a damaged file makes astropy, its XML parser or pyarrow raise almost anything
        raise CatalogueError(
            f"expected a catalogue that can be read in {file}, got {one_line(failure)}; copy it again"
        ) from failure
    if not isinstance(meta, dict) or meta.get("format") != CATALOGUE_FORMAT or not set(_OURS) <= set(table.colnames):
        raise CatalogueError(_NO_META.format(path=file))
    if meta.get("format_version", 0) > CATALOGUE_VERSION:
        raise CatalogueError(
            f"expected a catalogue of format {CATALOGUE_VERSION} or older, got {meta['format_version']}: {file}; update maury"
        )
    table.meta = meta
    return table


def describe_catalogue(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a catalogue holds, as plain JSON values.

    Returns
    -------
    dict with ``file``, ``n_stars``, ``model_id``, ``columns`` (name, unit, ucd, description, and for numbers the smallest,
    median and largest finite value), ``status`` and ``flags`` (name -> number of stars; flags with bit and meaning),
    ``n_unflagged`` and ``provenance``.
    """
    table = read_catalogue(path)
    flag = np.asarray(table["flag"], dtype=np.int64)
    bits = dict(sorted(table.meta.get("flag_bits", {}).items(), key=lambda item: int(item[1]["bit"])))
    return {
        "file": os.fspath(path),
        "n_stars": len(table),
        "model_id": table.meta.get("model_id", ""),
        "columns": [_describe_column(table[name]) for name in table.colnames],
        "status": dict(Counter(str(s) for s in table["status"])),
        "flags": {name: {**entry, "n_stars": int(np.count_nonzero(flag & entry["bit"]))} for name, entry in bits.items()},
        "n_unflagged": int(np.count_nonzero(flag == 0)),
        "provenance": table.meta.get("provenance", {}),
    }


def _describe_column(column: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": column.name,
        "unit": "" if column.unit is None else str(column.unit),
        "ucd": column.meta.get("ucd", ""),
        "description": column.description or "",
    }
    if column.dtype.kind == "f":
        finite = np.asarray(column)[np.isfinite(np.asarray(column))]
        about["n_missing"] = len(column) - len(finite)
        if len(finite):
            about["range"] = [float(finite.min()), float(np.median(finite)), float(finite.max())]
    return about


# -- one reader per format: (columns, meta as built) ----------------------------------------------------------------


def _read_fits(file: Path) -> tuple[Table, Any]:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(file, memmap=False) as hdus:
        ours = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU) and FITS_META_KEYWORD in hdu.header]
        if not ours:
            raise CatalogueError(_NO_META.format(path=file))
        meta = json.loads(ours[0].header[FITS_META_KEYWORD])
        return _plain_columns(Table.read(ours[0], format="fits", character_as_bytes=False, mask_invalid=False)), meta


def _read_votable(file: Path) -> tuple[Table, Any]:
    from astropy.io.votable import parse

    votable = parse(str(file))
    infos = {info.name: info.value for resource in votable.resources for info in resource.infos}
    if VOTABLE_META_NAME not in infos:
        raise CatalogueError(_NO_META.format(path=file))
    return _plain_columns(votable.get_first_table().to_table(use_names_over_ids=True)), json.loads(infos[VOTABLE_META_NAME])


def _read_parquet(file: Path) -> tuple[Table, Any]:
    from astropy.table import Column, Table

    _, parquet = import_pyarrow()
    content = parquet.read_table(file)
    meta = (content.schema.metadata or {}).get(PARQUET_META_KEY)
    if meta is None:
        raise CatalogueError(_NO_META.format(path=file))
    columns = []
    for field, array in zip(content.schema, content.columns, strict=True):
        about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        values = array.to_pylist()
        data = (
            np.array(values, dtype=np.str_)
            if str(field.type) == "string"
            else np.array(values, dtype=field.type.to_pandas_dtype())
        )
        columns.append(
            Column(
                data,
                name=field.name,
                unit=about.get("unit") or None,
                description=about.get("description"),
                meta={"ucd": about["ucd"]} if about.get("ucd") else {},
            )
        )
    return Table(columns), json.loads(meta)


def _read_ecsv(file: Path) -> tuple[Table, Any]:
    from astropy.table import Table

    table = Table.read(file, format="ascii.ecsv", fill_values=None)
    return _plain_columns(table), dict(table.meta)


def _read_csv(file: Path) -> tuple[Table, Any]:
    from astropy.table import Table

    table = Table.read(file, format="ascii.csv", fill_values=[("", "nan")])
    meanings = {meaning.name: meaning for meaning in all_meanings(tuple(KNOWN_LABELS.values()))}
    if not set(_OURS) <= set(table.colnames):
        raise CatalogueError(_NO_META.format(path=file))
    for name in table.colnames:
        known = meanings.get(name)
        if known is not None:
            table[name].unit = known.unit or None
            table[name].description = known.description
            table[name].meta["ucd"] = known.ucd
    bits = {str(bit.name): {"bit": int(bit), "meaning": RESULT_FLAG_MEANING[bit]} for bit in ResultFlag}
    model_id = str(table["model_id"][0]) if len(table) else ""
    meta = {"format": CATALOGUE_FORMAT, "format_version": 1, "model_id": model_id, "provenance": {}, "flag_bits": bits}
    return _plain_columns(table), meta


def _plain_columns(table: Table) -> Table:
    """Masked columns, in which readers hand over NaN and "", back to what was written."""
    from astropy.table import Column, Table

    columns = []
    for name in table.colnames:
        column = table[name]
        mask = np.asarray(getattr(column, "mask", np.zeros(len(column), bool)), dtype=bool)
        data = np.array(getattr(column, "filled", lambda c=column: c)())
        if data.dtype.kind in "SUO":
            data = np.array(["" if masked else str(value) for value, masked in zip(data, mask, strict=True)], dtype=np.str_)
        elif mask.any():
            data = np.where(mask, np.nan, data.astype(np.float64))
        meta = {"ucd": column.meta["ucd"]} if column.meta.get("ucd") else {}
        unit = str(column.unit) or None if column.unit is not None else None  # astropy's VOTable dex is another than u.dex
        columns.append(Column(data, name=name, unit=unit, description=column.description or "", meta=meta))
    return Table(columns, copy=False)


_READERS: dict[str, Callable[[Path], tuple[Table, Any]]] = {
    "fits": _read_fits,
    "votable": _read_votable,
    "parquet": _read_parquet,
    "ecsv": _read_ecsv,
    "csv": _read_csv,
}
