"""A catalogue into a file, the format by extension; written beside its place and moved there when it is whole."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maury.catalogue.columns import ascii_text
from maury.catalogue.formats import (
    ASTROPY_PARQUET_KEY,
    FITS_META_KEYWORD,
    PARQUET_META_KEY,
    VOTABLE_META_NAME,
    format_of,
    import_pyarrow,
)
from maury.errors import CatalogueError, UsageError
from maury.files import canonical_json, replacing

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU
    from astropy.table import Table


def write_catalogue(table: Table, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Write a catalogue as FITS, VOTable, Parquet, ECSV or CSV.

    All but CSV keep units, UCDs, descriptions and provenance. FITS and VOUnits know no ``dex``: in FITS such a unit
    stands where astropy looks for it (its YAML comment cards) and in the column's sentence, not in TUNITn.

    Parameters
    ----------
    table : of :func:`~maury.catalogue.build_catalogue`, or of :func:`~maury.catalogue.votes_file.build_votes` (not as CSV).
    path : the extension names the format: .fits, .fits.gz, .vot, .votable, .xml, .parquet, .ecsv or .csv.
    overwrite : False refuses a path that exists.

    Raises
    ------
    CatalogueError
        For another extension, a path that cannot be written, or Parquet without pyarrow.
    UsageError
        If the table is no catalogue.
    """
    kind = format_of(path)
    if "format_version" not in table.meta:
        raise UsageError("expected a table of build_catalogue, got one without its meta; build the catalogue first")
    with replacing(path, CatalogueError, overwrite=overwrite) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 'dex' is no VOUnit, and UCDs or TCOMMn unknown to astropy: nothing a user can act on
        _WRITERS[kind](table, temporary)


# -- FITS ---------------------------------------------------------------------------------------------------------


def _write_fits(table: Table, path: Path) -> None:
    from astropy.io import fits

    bare = copy.deepcopy(table)
    bare.meta = {}
    foreign = []
    for name in bare.colnames:
        if bare[name].dtype.kind == "U":
            bare[name] = np.array([ascii_text(text) for text in table[name]] or [""], dtype=np.str_)[: len(table)]
        if bare[name].unit is not None and not _is_fits_unit(bare[name].unit):
            foreign.append(name)
            bare[name].unit = None
    hdu = fits.table_to_hdu(bare, character_as_bytes=True, name="VOTES" if "networks" in table.meta else "CATALOGUE")
    _describe_fits_columns(hdu, table)
    _add_fits_provenance(hdu, table)
    for line in _yaml_lines(table, foreign):
        hdu.header.add_comment(line)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=True)


def _is_fits_unit(unit: Any) -> bool:
    try:
        unit.to_string(format="fits")
    except ValueError:
        return False
    return True


def _describe_fits_columns(hdu: BinTableHDU, table: Table) -> None:
    """TCOMMn and TUCDn, the keywords that TOPCAT reads descriptions and UCDs from."""
    for n, name in enumerate(table.colnames, start=1):
        hdu.header[f"TCOMM{n}"] = ascii_text(table[name].description or "")
        hdu.header[f"TUCD{n}"] = table[name].meta.get("ucd", "")


def _add_fits_provenance(hdu: BinTableHDU, table: Table) -> None:
    provenance = table.meta["provenance"]
    header = hdu.header
    header["CREATOR"] = (f"maury {provenance.get('versions', {}).get('maury', '')}".strip(), "program that wrote this table")
    if "date" in provenance:
        header["DATE"] = (ascii_text(str(provenance["date"])), "UTC of this catalogue")
    header["MODELID"] = (ascii_text(table.meta["model_id"]), "id of the model")
    header[FITS_META_KEYWORD] = canonical_json(dict(table.meta), "a catalogue's meta")
    if "command" in provenance:
        header.add_history(ascii_text(f"made by: {provenance['command']}"))
    for line in _legend(table):
        header.add_comment(ascii_text(line))


def _legend(table: Table) -> list[str]:
    """What the bits of a catalogue's flags mean, or whose the votes are, for people who read headers."""
    if "networks" not in table.meta:
        bits = table.meta["flag_bits"].items()
        return ["Bits of the flag columns:", *(f"{entry['bit']:6d} {name}: {entry['meaning']}" for name, entry in bits)]
    return [
        f"vote_{label} {number}: {name}"
        for label, names in table.meta["networks"].items()
        for number, name in enumerate(names, start=1)
    ]


def _yaml_lines(table: Table, foreign: list[str]) -> list[str]:
    """The comment cards in which astropy keeps what FITS keywords cannot hold: descriptions, UCDs and units such as dex.

    A column listed under ``__serialized_columns__`` is rebuilt by ``Table.read`` from its data with the unit given there,
    without the warning that a TUNITn outside the FITS standard would raise.
    """
    lines = ["--BEGIN-ASTROPY-SERIALIZED-COLUMNS--", "datatype:"]
    for name in table.colnames:
        entry = {
            "name": name,
            "datatype": "float64",
            "description": table[name].description or "",
            "meta": dict(table[name].meta),
        }
        lines.append(f"- {json.dumps(entry)}")  # JSON is YAML
    # astropy asks for "meta" whether or not a column is listed in it
    lines += ["meta:", "  __serialized_columns__:"] if foreign else ["meta: {}"]
    for name in foreign:
        unit = json.dumps(str(table[name].unit))
        lines.append(f"    {json.dumps(name)}:")
        lines.append(f"      {{__class__: astropy.table.column.MaskedColumn, unit: {unit},")
        lines.append(f"        data: !astropy.table.SerializedColumn {{name: {json.dumps(name)}}}}}")
    lines.append("--END-ASTROPY-SERIALIZED-COLUMNS--")
    cards = []
    for line in lines:  # longer lines go on in the next card after a backslash in column 71
        parts = [line[i : i + 70] for i in range(0, len(line), 70)]
        cards += [part + "\\" for part in parts[:-1]] + [parts[-1]]
    return cards


# -- VOTable ------------------------------------------------------------------------------------------------------


def _write_votable(table: Table, path: Path) -> None:
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    bare = copy.deepcopy(table)
    bare.meta = {}
    for name in bare.colnames:
        if str(bare[name].unit) == "Angstrom":
            bare[name].unit = "0.1 nm"  # VOUnits deprecates Angstrom; this is its own suggestion and the same length
    votable = from_table(bare, table_id="catalogue")
    resource = votable.resources[0]
    what = "Votes of networks" if "networks" in table.meta else "Stellar labels"
    legend = "; ".join(line.strip() for line in _legend(table)).replace(":; ", ": ")
    resource.tables[0].description = f"{what} by maury. {legend}"
    for name, value in (
        (VOTABLE_META_NAME, canonical_json(dict(table.meta), "a catalogue's meta")),
        ("model_id", table.meta["model_id"]),
        ("command", str(table.meta["provenance"].get("command", ""))),
    ):
        resource.infos.append(Info(name=name, value=value))
    votable.to_xml(str(path), tabledata_format="binary2")


# -- Parquet, ECSV, CSV -------------------------------------------------------------------------------------------


def _write_parquet(table: Table, path: Path) -> None:
    pa, parquet = import_pyarrow()
    from astropy.table.meta import get_yaml_from_table

    fields, arrays = [], []
    for name in table.colnames:
        column = table[name]
        array = _arrow_array(pa, np.ascontiguousarray(column))
        unit = "" if column.unit is None else str(column.unit)
        about = {"unit": unit, "description": column.description or "", "ucd": column.meta.get("ucd", "")}
        fields.append(pa.field(name, array.type, metadata=about))
        arrays.append(array)
    meta = {PARQUET_META_KEY: canonical_json(dict(table.meta), "a catalogue's meta").encode()}
    meta[ASTROPY_PARQUET_KEY] = "\n".join(get_yaml_from_table(table)).encode()
    for name in table.colnames:
        if table[name].dtype.kind == "U":
            meta[f"table::len::{name}".encode()] = str(table[name].dtype.itemsize // 4).encode()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=meta)), path)


def _arrow_array(pa: Any, data: NDArray[Any]) -> Any:
    """Text, numbers, or vectors of one length."""
    if data.dtype.kind == "U":
        return pa.array(data.tolist(), pa.string())
    return pa.array(data) if data.ndim == 1 else pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), data.shape[1])


def _write_ecsv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.ecsv")


def _write_csv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.csv")


_WRITERS: dict[str, Callable[[Table, Path], None]] = {
    "fits": _write_fits,
    "votable": _write_votable,
    "parquet": _write_parquet,
    "ecsv": _write_ecsv,
    "csv": _write_csv,
}
