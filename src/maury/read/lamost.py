"""LAMOST low resolution (LRS): image style of DR1-DR8 (also .gz), binary-table style from DR9 on.

Image style (https://www.lamost.org/public/dr/algorithms/ff): rows of the primary image are flux, inverse variance,
sub-continuum spectrum (DR1) or wavelength (DR8), and-mask, or-mask; so the wavelength is always built from COEFF0 and
COEFF1 (log10 Å, vacuum). Table style: extension COADD, one row with vectors FLUX, IVAR, WAVELENGTH (Å, vacuum), ANDMASK,
ORMASK. Wavelengths are heliocentric (HELIO); the and-mask is taken (bad in all exposures), not the or-mask.

The released masks hold 0 and 1 almost everywhere (checked on 294 spectra of DR1 and DR8: 2966 pixels of 1, two of 4, all
with ivar = 0), so bit 0 means "bad pixel" here; higher bits follow SDSS, from which LAMOST's pipeline descends.
specutils has no loader for LAMOST.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maury.errors import ReadError
from maury.flags import PixelFlag
from maury.read._common import Options, build, log10_axis, translate_mask, velocity_of_redshift
from maury.read._fits import Hdu
from maury.read._masks import SPPIXMASK
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = 1800.0
"""Nominal at 5500 Å with the 2/3 slit; https://www.lamost.org/dr8/v1.0/doc/lr-data-production-description."""
MASK = {**SPPIXMASK, 0: PixelFlag.BAD_PIXEL}
_N_ROWS = 5
_AND_MASK = 3
_MEDIUM_RESOLUTION = ("COADD_B", "COADD_R", "B-", "R-")  # the extensions of MRS files


def matches(source: Source) -> bool:
    """Whether the file is a LAMOST low-resolution spectrum."""
    if not source.hdus or "LAMOST" not in source.hdus[0].header.text("TELESCOP", "ORIGIN", "AUTHOR").upper():
        return False
    return "COEFF0" in source.hdus[0].header or _coadd(source) is not None


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a LAMOST file; see the module's docstring."""
    if any(hdu.name.upper().startswith(_MEDIUM_RESOLUTION) for hdu in source.hdus):
        raise ReadError(
            "expected a LAMOST low-resolution spectrum, got a medium-resolution one (MRS); maury does not read these yet"
        )
    coadd = _coadd(source)
    return [_read_image(source) if coadd is None else _read_table(source, coadd)]


def _coadd(source: Source) -> Hdu | None:
    return next((hdu for hdu in source.tables() if hdu.has("FLUX", "IVAR", "WAVELENGTH")), None)


def _read_image(source: Source) -> Spectra:
    header = source.hdus[0].header
    shape = source.hdus[0].shape
    if len(shape) != 2 or shape[0] != _N_ROWS:
        raise ReadError(
            f"expected a LAMOST image of 5 rows (flux, ivar, -, and-mask, or-mask), got shape {shape}; check the file"
        )
    rows = source.hdus[0].image()
    wavelength = log10_axis(shape[1], header.number("COEFF0"), header.number("COEFF1"))
    return _spectra(source, wavelength, rows[0], rows[1], rows[_AND_MASK])


def _read_table(source: Source, coadd: Hdu) -> Spectra:
    wavelength, flux, ivar = (np.ravel(coadd.column(name)) for name in ("WAVELENGTH", "FLUX", "IVAR"))
    bits = np.ravel(coadd.column("ANDMASK")) if coadd.has("ANDMASK") else np.zeros(wavelength.size, np.int64)
    return _spectra(source, wavelength, flux, ivar, bits)


def _spectra(source: Source, wavelength: Any, flux: Any, ivar: Any, bits: Any) -> Spectra:
    header = source.hdus[0].header
    if header.get("VACUUM") is False:
        raise ReadError("expected LAMOST wavelengths in vacuum, the header says VACUUM = F; this product is not known to maury")
    z = header.number("Z")
    return build(
        source,
        wavelength,
        flux,
        ivar=ivar,
        medium="vacuum",
        frame="observed",
        instrument="LAMOST LRS",
        mask=translate_mask(bits, MASK),
        rv=velocity_of_redshift(z),
        resolving_power=RESOLVING_POWER,
        meta={
            "star_id": header.text("DESIG", "OBJNAME"),
            "ra": header.number("RA"),
            "dec": header.number("DEC"),
            "mjd": header.number("MJD", "LMJD"),
            "velocity_frame": "topocentric" if header.get("HELIO") is False else "barycentric",
            "spectral_class": header.text("SUBCLASS", "CLASS"),
            **{f"snr_{band.lower()}": header.number(f"SNR{band}", f"SN_{band}") for band in "UGRIZ"},
        },
    )
