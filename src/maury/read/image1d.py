"""One-dimensional FITS images with a wavelength axis in the header (WCS), whatever made them.

Axis: CRVAL1, CDELT1 (or CD1_1), CRPIX1; linear, log10 (IRAF's DC-FLAG = 1 or CTYPE1 LOG-LINEAR), or WAVE-LOG / AWAV-LOG of
the FITS standard (4.0, section 8.4.1). Unit: CUNIT1, a unit in CTYPE1, or IRAF's WAT1_001 "units="; none is refused.
Air or vacuum: AIRORVAC, VACUUM, WAVETYPE, CTYPE1 AWAV / WAVE, else ``medium``; nothing is guessed.
Errors: an image extension of the same length named ERR, ERROR, SIGMA, STD, VAR, VARIANCE or IVAR; else ``snr``.
specutils' wcs1d loader needs neither unit nor medium, which is what we must not do.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.read._common import Options, assumed_errors, build, linear_axis, log10_axis
from maury.read._fits import Hdu, Header
from maury.read._hints import ANGSTROM_PER_UNIT, angstrom_per_unit, medium_from_header, settle_frame, settle_medium
from maury.read._source import Source
from maury.spectra import Spectra

_ERRORS = {
    **dict.fromkeys(("ERR", "ERRS", "ERROR", "ERRORS", "SIGMA", "STD", "STDDEV", "UNCERTAINTY", "NOISE"), "error"),
    **dict.fromkeys(("VAR", "VARIANCE"), "variance"),
    **dict.fromkeys(("IVAR", "INVVAR"), "ivar"),
}
_WCS_KEYS = ("CTYPE1", "CUNIT1", "CRVAL1", "CDELT1", "CD1_1", "CRPIX1", "DC-FLAG", "WAT1_001")


def matches(source: Source) -> bool:
    """Whether the file holds an image at all; :func:`read` says what is missing for a spectrum."""
    return any(hdu.kind == "image" and hdu.shape for hdu in source.hdus)


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a 1-D image; see the module's docstring."""
    images = [hdu for hdu in source.hdus if hdu.kind == "image" and hdu.shape]
    if not images:
        raise ReadError("expected a FITS image, got none; check the file or its format")
    hdu = images[0]
    if math.prod(hdu.shape) != hdu.shape[-1]:
        raise ReadError(
            f"expected a 1-D image or a known instrument's file, got an image of shape {hdu.shape}; extract one spectrum first"
        )
    flux = hdu.image().reshape(-1)
    wavelength = _wavelength(hdu.header, flux.size)
    ivar, error_source = _ivar(source, hdu, flux, options)
    medium = settle_medium(medium_from_header(hdu.header.text), options)
    frame, velocity_frame = settle_frame(hdu.header.text, options)
    spectra = build(
        source,
        wavelength,
        flux,
        ivar=ivar,
        medium=medium,
        frame=frame,
        instrument=hdu.header.text("INSTRUME", "TELESCOP").strip() or "unknown",
        error_source=error_source,
        meta={
            "star_id": hdu.header.text("OBJECT").strip() or source.stem,
            "ra": hdu.header.number("RA"),
            "dec": hdu.header.number("DEC"),
            "mjd": hdu.header.number("MJD-OBS", "MJD"),
            "velocity_frame": velocity_frame,
        },
    )
    return [spectra]


def _wavelength(header: Header, n_pixels: int) -> NDArray[np.float64]:
    start, step = header.number("CRVAL1"), header.number("CDELT1", "CD1_1")
    if math.isnan(start) or math.isnan(step) or step == 0:
        present = ", ".join(key for key in _WCS_KEYS if key in header) or "none"
        raise ReadError(
            f"expected a wavelength axis (CRVAL1, CDELT1 or CD1_1) in the header, got {present}; this file has no wavelengths"
        )
    pixel = header.number("CRPIX1")
    reference = 1.0 if math.isnan(pixel) else pixel
    kind = header.text("CTYPE1").strip().upper()
    factor = angstrom_per_unit(_unit(header))
    if header.number("DC-FLAG") == 1 or kind in ("LOG-LINEAR", "LOGLAM", "LOG10"):
        return log10_axis(n_pixels, start, step, reference) * factor
    if kind.endswith("-LOG"):
        exponent = linear_axis(n_pixels, 0.0, step, reference) / start
        if not np.abs(exponent[[0, -1]]).max() < 20:
            raise ReadError(
                f"expected a logarithmic wavelength axis, got CRVAL1 = {start:g} and CDELT1 = {step:g}; repair the header"
            )
        return np.asarray(start * np.exp(exponent) * factor)
    return linear_axis(n_pixels, start, step, reference) * factor


def _unit(header: Header) -> str:
    """CUNIT1; CTYPE1 where it is itself a unit (HARPS writes 'Angstrom' there); IRAF's WAT1_001."""
    for key in ("CUNIT1", "CTYPE1"):
        text = header.text(key).strip()
        if text.lower() in ANGSTROM_PER_UNIT or (key == "CUNIT1" and text):
            return text
    found = re.search(r"units=([A-Za-z]+)", header.text("WAT1_001"))
    return found[1] if found else ""


def _ivar(source: Source, hdu: Hdu, flux: NDArray[np.float64], options: Options) -> tuple[NDArray[np.float64], str]:
    for other in source.hdus:
        kind = _ERRORS.get(other.name.upper())
        if kind is not None and other.kind == "image" and math.prod(other.shape) == flux.size:
            values = other.image().reshape(-1).astype(np.float64)
            power = {"error": -2.0, "variance": -1.0, "ivar": 1.0}[kind]
            with np.errstate(all="ignore"):
                return np.where(values > 0, np.where(values > 0, values, 1.0) ** power, 0.0), "file"
    if options.snr is None:
        raise ReadError(
            "expected errors (an extension ERR, VARIANCE or IVAR), got none; give the S/N per pixel with snr=... (--snr)"
        )
    with np.errstate(all="ignore"):
        return 1.0 / assumed_errors(flux, options.snr) ** 2, f"assumed S/N {options.snr:g}"
