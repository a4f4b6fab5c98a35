"""Which extension means which format, and where each format keeps the catalogue's meta. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from maury.errors import CatalogueError

FORMAT_OF_SUFFIX = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".parquet": "parquet",
    ".ecsv": "ecsv",
    ".csv": "csv",
}

FITS_META_KEYWORD = "MAURYCAT"
VOTABLE_META_NAME = "maury_catalogue"
PARQUET_META_KEY = b"maury_catalogue"
ASTROPY_PARQUET_KEY = b"table_meta_yaml"  # what astropy's own Parquet reader takes units and descriptions from


def format_of(path: str | os.PathLike[str]) -> str:
    """ "fits", "votable", "parquet", "ecsv" or "csv".

    Raises
    ------
    CatalogueError
        If the extension is none of those known.
    """
    for suffix, kind in FORMAT_OF_SUFFIX.items():
        if Path(path).name.lower().endswith(suffix):
            return kind
    raise CatalogueError(
        f"expected a catalogue name ending in {', '.join(FORMAT_OF_SUFFIX)}, got {path}; add one of these endings"
    )


def has_catalogue_suffix(path: str | os.PathLike[str]) -> bool:
    """Whether the extension is one of those that catalogues have."""
    return Path(path).name.lower().endswith(tuple(FORMAT_OF_SUFFIX))


def import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, or the sentence that says how to get them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise CatalogueError(
            "expected pyarrow for a Parquet file, got none; run `pip install maury[parquet]` or write .fits"
        ) from None
    return pyarrow, pyarrow.parquet
