"""The formats known, in the order in which they are tried: surveys with a signature of their own first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maury.errors import ReadError, UsageError
from maury.read import apogee, carmenes, desi, gaia, generated, harps, hpf, image1d, lamost, mastar, miles, sdss, table
from maury.read._common import Options
from maury.read._source import Source
from maury.spectra import Spectra


@dataclass(frozen=True)
class Format:
    """One file format: its name, what it covers, how it is recognised and read."""

    name: str
    description: str
    matches: Callable[[Source], bool]
    read: Callable[[Source, Options], list[Spectra]]


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("lamost", "LAMOST low resolution: images of DR1-DR8, tables from DR9", lamost.matches, lamost.read),
        Format("sdss", "SDSS, BOSS, eBOSS spec files", sdss.matches, sdss.read),
        Format("apogee", "APOGEE apVisit, apStar, aspcapStar", apogee.matches, apogee.read),
        Format("desi", "DESI coadd and spectra files", desi.matches, desi.read),
        Format("harps", "HARPS DRS s1d and e2ds", harps.matches, harps.read),
        Format("hpf", "HPF spectra of both pipelines", hpf.matches, hpf.read),
        Format("carmenes", "CARMENES CARACAL orders and merged tables", carmenes.matches, carmenes.read),
        Format("mastar", "MaStar goodspec tables", mastar.matches, mastar.read),
        Format("miles", "MILES stellar library", miles.matches, miles.read),
        Format("maury", "spectra of `maury generate`", generated.matches, generated.read),
        Format("gaia-rvs", "Gaia RVS mean spectra from DataLink", gaia.matches, gaia.read),
        Format("table", "tables with named columns and units: FITS, VOTable, ECSV, CSV", table.matches, table.read),
        Format("image1d", "1-D FITS images with a wavelength axis in the header", image1d.matches, image1d.read),
    )
}


def format_named(name: str | None) -> Format | None:
    """The format of this name; None for None.

    Raises
    ------
    UsageError
        If there is no such format.
    """
    if name is not None and name not in FORMATS:
        raise UsageError(f"expected a format among {', '.join(FORMATS)}, got {name!r}; correct the name or let it be recognised")
    return None if name is None else FORMATS[name]


def recognise(source: Source) -> Format:
    """The first format that knows the file by its content.

    Raises
    ------
    ReadError
        If none does.
    """
    for entry in FORMATS.values():
        if entry.matches(source):
            return entry
    raise ReadError("expected a FITS file with an image or a binary table, got headers only; this file holds no spectrum")
