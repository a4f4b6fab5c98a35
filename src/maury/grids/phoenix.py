"""PHOENIX-ACES HiRes spectra: how files and folders of the archive are called, and reading them.

The library of Husser et al. 2013 (10.1051/0004-6361/201219058) has one FITS file per node, with the flux alone, and one file with
the wavelengths of all: Å in vacuum, and erg/s/cm^2/cm (per cm of wavelength, at the star's surface). Names hold the labels::

    HiResFITS/WAVE_PHOENIX-ACES-AGSS-COND-2011.fits
    HiResFITS/PHOENIX-ACES-AGSS-COND-2011/Z-0.0/lte04000-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits
    HiResFITS/PHOENIX-ACES-AGSS-COND-2011/Z+0.5.Alpha=+0.20/lte04000-4.50+0.5.Alpha=+0.20.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits

The hyphen before log g is no sign, solar metallicity is written -0.0, and solar [alpha/M] is left out.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.grids.grid import Grid, IntArray
from maury.labels import KNOWN_LABELS
from maury.read._common import check_wavelength
from maury.read._fits import Hdu
from maury.read._source import open_source

LIBRARY = "PHOENIX-ACES-AGSS-COND-2011"
WAVE_PATH = f"HiResFITS/WAVE_{LIBRARY}.fits"
"""The wavelengths, below the archive's address."""
PHOENIX_LABELS = ("teff", "logg", "m_h", "alpha_m")
FLUX_UNIT = "erg/s/cm^2/cm"

_ENDING = f".{LIBRARY}-HiRes.fits"
_NAME = re.compile(r"lte(\d{5})([+-]\d\.\d\d)([+-]\d\.\d)(?:\.Alpha=([+-]\d\.\d\d))?" + re.escape(_ENDING))
_KEYWORDS = ("PHXTEFF", "PHXLOGG", "PHXM_H", "PHXALPHA")
_ANGSTROM = ("angstrom", "angstroms", "a", "aa")
_FITS_BLOCK = 2880  # bytes: the least that a header takes
_WAVE_UP = 4  # folders above a spectrum in which its WAVE file is looked for: the archive has it two up
# Husser et al. 2013, section 2: R = 500,000 from 3000 to 25,000 Å; elsewhere the sampling is another
_OPTICAL, _OPTICAL_R = (3000.0, 25_000.0), 500_000.0


def phoenix_name(teff: float, logg: float, m_h: float, alpha_m: float = 0.0) -> str:
    """Name of the file of a node; labels in K and dex.

    Examples
    --------
    >>> phoenix_name(2300, 4.5, 0.0, 0.2)
    'lte02300-4.50-0.0.Alpha=+0.20.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits'
    """
    return f"lte{round(teff):05d}{_signed(-logg, 2)}{_signed(m_h, 1)}{_alpha(alpha_m)}{_ENDING}"


def phoenix_folder(m_h: float, alpha_m: float = 0.0) -> str:
    """Name of the folder that holds the nodes of one composition.

    Examples
    --------
    >>> phoenix_folder(0.0), phoenix_folder(0.5, 0.2)
    ('Z-0.0', 'Z+0.5.Alpha=+0.20')
    """
    return f"Z{_signed(m_h, 1)}{_alpha(alpha_m)}"


def parse_phoenix_name(name: str) -> tuple[float, float, float, float]:
    """Teff (K), log g, [M/H] and [alpha/M] (dex) of a file by its name.

    Raises
    ------
    ReadError
        If it is no name of such a file.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ReadError(f"expected a name like {phoenix_name(4000, 4.5, 0.0)}, got {name!r}; PHOENIX-ACES HiRes files only")
    teff, minus_logg, m_h, alpha_m = found.groups(default="0")
    return float(teff), 0.0 - float(minus_logg), 0.0 + float(m_h), 0.0 + float(alpha_m)  # 0.0 + -0.0 is 0.0


def _signed(value: float, digits: int) -> str:
    """With a sign; zero as the archive writes it, negative."""
    return f"{value:+.{digits}f}" if round(value, digits) else f"-{0:.{digits}f}"


def _alpha(alpha_m: float) -> str:
    return f".Alpha={alpha_m:+.2f}" if round(alpha_m, 2) else ""


@dataclass(frozen=True, order=True)
class PhoenixNode:
    """Labels of one spectrum of the library, K and dex."""

    teff: float
    logg: float
    m_h: float
    alpha_m: float = 0.0

    @property
    def path(self) -> str:
        """Its file, below the archive's address."""
        name = phoenix_name(*astuple(self))
        return f"HiResFITS/{LIBRARY}/{phoenix_folder(self.m_h, self.alpha_m)}/{name}"


# -- reading one file -------------------------------------------------------------------------------------------------------


def read_wavelength(path: Path) -> NDArray[np.float64]:
    """(n_pixels,) wavelengths of a WAVE file, Å in vacuum.

    Raises
    ------
    ReadError
        If it is truncated, no FITS image, of another unit than Å, or not increasing.
    """
    hdu = _primary(path)
    unit = hdu.header.text("BUNIT", "UNIT", "CUNIT1").strip()
    if unit and unit.lower() not in _ANGSTROM:
        raise ReadError(f"{path.name}: expected wavelengths in Angstrom, got {unit!r} in its header; fetch PHOENIX's WAVE file")
    try:
        wavelength, order = check_wavelength(hdu.image())
    except ReadError as failure:
        raise ReadError(f"{path.name}: {failure}") from None
    if order != slice(None):
        raise ReadError(f"{path.name}: expected increasing wavelengths, got decreasing ones; fetch PHOENIX's own WAVE file")
    return wavelength


def read_flux(path: Path, n_pixels: int) -> NDArray[np.float32]:
    """(n_pixels,) flux of one spectrum, erg/s/cm^2/cm.

    Parameters
    ----------
    n_pixels : length of the WAVE file.

    Raises
    ------
    ReadError
        If it is truncated, no FITS image, of another unit, of another length than the wavelengths, not finite, or its header
        contradicts its name.
    """
    hdu = _primary(path)
    unit = hdu.header.text("BUNIT").strip()
    if unit and unit.lower().replace(" ", "").replace("**", "^") != FLUX_UNIT:
        raise ReadError(f"{path.name}: expected flux in {FLUX_UNIT}, got {unit!r} in its header; it is no file of this library")
    _check_header(path, hdu)
    try:
        flux = np.asarray(hdu.image(), dtype=np.float32)
    except ReadError as failure:
        raise ReadError(f"{path.name}: {failure}") from None
    if flux.shape != (n_pixels,):
        raise ReadError(
            f"{path.name}: expected {n_pixels} pixels, as many as the WAVE file has, got shape {flux.shape}; fetch spectra and "
            "WAVE file from one release"
        )
    bad = int(np.count_nonzero(~np.isfinite(flux)))
    if bad:
        raise ReadError(
            f"{path.name}: expected finite flux, got {bad} pixels of NaN or infinity; fetch it again, or delete it for a hole"
        )
    return flux


def _primary(path: Path) -> Hdu:
    try:
        source = open_source(path)
    except ReadError as failure:
        raise ReadError(f"{path.name}: {failure}") from None
    if not source.hdus:
        raise ReadError(f"{path.name}: expected a FITS file, got a text file; fetch it again")
    return source.hdus[0]


def _check_header(path: Path, hdu: Hdu) -> None:
    """Labels in header and name are the same, where both are there."""
    named = _NAME.fullmatch(path.name)
    if named is None:
        return
    for keyword, label, value in zip(_KEYWORDS, PHOENIX_LABELS, parse_phoenix_name(path.name), strict=True):
        stated = hdu.header.number(keyword)
        if np.isfinite(stated) and abs(stated - value) > 0.01:
            raise ReadError(f"{path.name}: expected {keyword} = {value:g} as in its name, got {stated:g} ({label}); rename it")


# -- a folder of files as a grid ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PhoenixFiles:
    """Flux rows read from their files when they are wanted (see :class:`~maury.grids.grid.FluxRows`).

    Parameters
    ----------
    files : (n,) files of the spectra.
    n_pixels : of each.
    """

    files: tuple[Path, ...]
    n_pixels: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.files), self.n_pixels

    dtype = np.dtype(np.float32)

    def read(self, rows: IntArray, pixels: slice) -> NDArray[Any]:
        out = np.empty((len(rows), len(range(*pixels.indices(self.n_pixels)))), dtype=np.float32)
        for place, row in enumerate(rows):
            out[place] = read_flux(self.files[row], self.n_pixels)[pixels]
        return out

    @cached_property
    def n_bytes(self) -> int:
        """Of all files together."""
        return sum(file.stat().st_size for file in self.files)


def open_phoenix(folder: str | Path, wave_file: str | Path | None = None) -> Grid:
    """A folder of PHOENIX-ACES HiRes files as a grid; spectra are read when they are wanted.

    Parameters
    ----------
    folder : is searched with its sub-folders.
    wave_file : the WAVE file; by default it is looked for in the folder and those above it, as in the archive.

    Raises
    ------
    ReadError
        If there are no such files, no WAVE file, a node twice, or a file that is too short; if the first is not as
        :func:`read_flux` wants it.
    """
    place = Path(folder)
    files = sorted(place.rglob(f"lte*{_ENDING}"))
    if not files:
        raise ReadError(
            f"{place}: expected PHOENIX files like {phoenix_name(4000, 4.5, 0.0)} there or below, got none; check the path"
        )
    values = np.array([parse_phoenix_name(file.name) for file in files])
    order = np.lexsort(values.T[::-1])
    ordered = tuple(files[i] for i in order)
    for one, next_one in itertools.pairwise(ordered):
        if one.name == next_one.name:
            raise ReadError(f"{place}: expected each node once, got {one} and {next_one}; remove one of the two")
    wavelength = read_wavelength(_wave_file(place, ordered[0]) if wave_file is None else Path(wave_file))
    for file in (ordered[0], *(file for file in ordered if file.stat().st_size < _FITS_BLOCK + 4 * wavelength.size)):
        read_flux(file, wavelength.size)  # raises where unit or length of all, or one download, went wrong
    return phoenix_grid(values[order], wavelength, PhoenixFiles(ordered, wavelength.size), str(place))


def phoenix_grid(values: NDArray[np.float64], wavelength: NDArray[np.float64], flux: Any, name: str, **provenance: Any) -> Grid:
    """Spectra of this library, wherever they are, as a grid.

    Parameters
    ----------
    values : (n, 4) Teff, log g, [M/H], [alpha/M].
    wavelength : (n_pixels,) Å in vacuum, all or a part of the library's.
    flux : (n, n_pixels) :class:`~maury.grids.grid.FluxRows` in erg/s/cm^2/cm.
    name : of the grid.
    """
    optical = _OPTICAL[0] <= wavelength[0] and wavelength[-1] <= _OPTICAL[1]
    return Grid(
        name=name,
        labels=tuple(KNOWN_LABELS[label] for label in PHOENIX_LABELS),
        values=np.asarray(values, dtype=np.float64),
        wavelength=wavelength,
        medium="vacuum",
        rows=flux,
        flux_unit=FLUX_UNIT,
        resolving_power=_OPTICAL_R if optical else None,
        provenance={"library": f"{LIBRARY} HiRes", "paper": "10.1051/0004-6361/201219058", **provenance},
    )


def _wave_file(folder: Path, first: Path) -> Path:
    name = Path(WAVE_PATH).name
    found = sorted(folder.rglob(name))
    above = [parent / name for parent in first.resolve().parents[:_WAVE_UP] if (parent / name).is_file()]
    for file in (*found, *above):
        return file
    raise ReadError(f"{folder}: expected {name} beside the spectra or in a folder above, got none; fetch it from the archive")
