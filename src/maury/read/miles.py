"""MILES stellar library: one 1-D image per star (Sanchez-Blazquez et al. 2006; Falcon-Barroso et al. 2011).

Recognised by TPLLIB = 'MILES'. Linear axis in Å, **air**, corrected to rest, FWHM 2.5 Å (header card FWHM). The files
hold no errors; the library's typical S/N exceeds 100 per pixel, so the error is 1 % of a smooth flux level and
``error_source`` says so. The files carry neither name nor labels of the star: those are in the library's tables.
"""

from __future__ import annotations

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, assumed_errors, build, linear_axis
from maury.read._source import Source
from maury.spectra import Spectra

SNR = 100.0
FWHM = 2.5


def matches(source: Source) -> bool:
    """Whether the file is a MILES star."""
    return bool(source.hdus) and source.hdus[0].header.text("TPLLIB").upper() == "MILES"


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a MILES star; see the module's docstring. ``options.snr`` replaces the S/N of 100."""
    hdu = source.hdus[0]
    header = hdu.header
    if len(hdu.shape) != 1:
        raise ReadError(f"expected a MILES spectrum as a 1-D image, got shape {hdu.shape}; check the file")
    flux = hdu.image()
    snr = SNR if options.snr is None else options.snr
    fwhm = header.number("FWHM")
    spectra = build(
        source,
        linear_axis(flux.size, header.number("CRVAL1"), header.number("CDELT1"), header.number("CRPIX1")),
        flux,
        error=assumed_errors(flux, snr),
        medium="air",
        frame="rest",
        instrument="MILES",
        fwhm=fwhm if fwhm > 0 else FWHM,
        error_source=f"assumed S/N {snr:g}",
        meta={"star_id": source.stem, "ra": np.nan, "dec": np.nan, "mjd": np.nan, "velocity_frame": "rest"},
    )
    return [spectra]
