"""APOGEE: apVisit (asVisit), apStar (asStar) and aspcapStar files.

https://www.sdss4.org/dr17/irspec/spectra/: vacuum wavelengths in Å. apVisit holds one visit, three chips of falling
wavelength that do not overlap (joined here), in the observatory's frame; the barycentric correction of the header (BC) is
applied here, so that wavelengths and ``rv`` (VHELIO) are barycentric. apStar holds the combined spectrum (first row,
taken here; the visits follow it) and aspcapStar the pseudo-continuum normalised one, both at rest on one log10 axis.
Extensions 1, 2, 3 of apVisit and apStar are flux, error, mask; of aspcapStar flux, error, best model. specutils reads
apVisit and apStar, but without mask, frame, velocity and labels, and costs 3.5 s to import.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.flags import PixelFlag
from maury.read._common import Options, build, log10_axis, to_barycentre, translate_mask
from maury.read._fits import Hdu, Header
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = 22_500.0
PIXMASK: dict[int, PixelFlag] = {
    0: PixelFlag.BAD_PIXEL,  # BADPIX
    1: PixelFlag.COSMIC_RAY,  # CRPIX
    2: PixelFlag.SATURATED,  # SATPIX
    3: PixelFlag.BAD_PIXEL,  # UNFIXABLE
    4: PixelFlag.BAD_DARK,
    5: PixelFlag.BAD_FLAT,
    6: PixelFlag.BAD_ERROR,
    7: PixelFlag.NO_SKY,
    8: PixelFlag.GHOST,  # LITTROW_GHOST
    **dict.fromkeys((9, 10, 11), PixelFlag.PERSISTENCE),  # high, medium, low
    12: PixelFlag.SKY_LINE,
    13: PixelFlag.TELLURIC,
    14: PixelFlag.PARTIAL_REJECT,  # NOT_ENOUGH_PSF: less than half of the profile in good pixels
}
"""https://www.sdss4.org/dr17/irspec/apogee-bitmasks/#APOGEE_PIXMASK."""
_MISSING = -9000.0  # missing labels and velocities are -9999 (or 999999 for velocities)


def matches(source: Source) -> bool:
    """Whether the file is one of APOGEE's three kinds."""
    return _kind(source) != ""


def _kind(source: Source) -> str:
    if len(source.hdus) < 4 or source.hdus[1].kind != "image":
        return ""
    header = source.hdus[0].header
    images = [hdu.shape for hdu in source.hdus[1:4] if hdu.kind == "image"]
    wavelength = source.hdus[4].header.text("BUNIT").upper() if len(source.hdus) > 4 else ""
    if len(images) == 3 and images[0][:1] == (3,) and wavelength.startswith("WAVELENGTH"):
        return "apVisit"
    if "LOG" not in (source.hdus[1].header.text("CTYPE1") or header.text("CTYPE1")).upper() or len(images) < 3:
        return ""
    if not any(key in header for key in ("LOCID", "OBJID", "NVISITS", "TELESCOP")):
        return ""
    return "apStar" if "MASK" in source.hdus[3].header.text("BUNIT").upper() else "aspcapStar"


def read(source: Source, options: Options) -> list[Spectra]:
    """Read an APOGEE file; see the module's docstring."""
    kind = _kind(source)
    if not kind:
        raise ReadError("expected an apVisit, apStar or aspcapStar file, got none of these; check the file or its format")
    return [_read_visit(source)] if kind == "apVisit" else [_read_star(source, kind)]


def _read_visit(source: Source) -> Spectra:
    flux, error, bits, wavelength = (source.hdus[i].image() for i in (1, 2, 3, 4))
    header = source.hdus[0].header
    if not flux.shape == error.shape == bits.shape == wavelength.shape:
        raise ReadError(f"expected four apVisit images of one shape, got {flux.shape}, {wavelength.shape}; fetch the file again")
    if wavelength.dtype.kind != "f" or not np.isfinite(wavelength).all():
        raise ReadError("expected finite wavelengths in extension 4, got NaN or integers: the file is damaged; fetch it again")
    # bluest chip first, pixels of every chip rising: then build refuses what is not monotonic, overlapping chips among it
    pixels = np.arange(wavelength.size).reshape(wavelength.shape)
    pixels = np.where((wavelength[:, :1] > wavelength[:, -1:]), pixels[:, ::-1], pixels)
    order = pixels[np.argsort(wavelength.min(axis=1))].ravel()
    wave, velocity_frame = to_barycentre(wavelength.ravel()[order], header.number("BC"))
    return build(
        source,
        wave,
        flux.ravel()[order],
        error=error.ravel()[order],
        medium="vacuum",
        frame="observed",
        instrument="APOGEE",
        mask=translate_mask(bits.ravel()[order], PIXMASK),
        rv=_velocity(header, "VHELIO") if velocity_frame == "barycentric" else _velocity(header, "VRAD"),
        resolving_power=RESOLVING_POWER,
        meta=_meta(header, velocity_frame, math.nan, math.nan, math.nan),
    )


def _read_star(source: Source, kind: str) -> Spectra:
    primary, first = source.hdus[0].header, source.hdus[1].header
    flux, error = (_first_row(source.hdus[i]) for i in (1, 2))
    bits = _first_row(source.hdus[3]) if kind == "apStar" else None
    axis = first if "CRVAL1" in first else primary
    rv = _velocity(primary, "VHELIO")
    return build(
        source,
        log10_axis(flux.size, axis.number("CRVAL1"), axis.number("CDELT1", "CD1_1"), _reference(axis)),
        flux,
        error=error,
        medium="vacuum",
        frame="rest",
        instrument="APOGEE",
        mask=None if bits is None else translate_mask(bits, PIXMASK),
        rv=rv,
        resolving_power=RESOLVING_POWER,
        meta=_meta(primary, "rest", *_labels(source)),
    )


def _reference(header: Header) -> float:
    pixel = header.number("CRPIX1")
    return 1.0 if math.isnan(pixel) else pixel


def _first_row(hdu: Hdu) -> NDArray[Any]:
    image = hdu.image()
    return image if image.ndim == 1 else image.reshape(-1, image.shape[-1])[0]


def _velocity(header: Header, key: str) -> float:
    value = header.number(key)
    return value if abs(value) < abs(_MISSING) else math.nan


def _labels(source: Source) -> tuple[float, float, float]:
    """Teff, log g, [M/H] of ASPCAP: calibrated PARAM (or named columns), else raw FPARAM; NaN where there are none."""
    for table in source.tables():
        for names in (("TEFF", "LOGG", "M_H"), ("PARAM",), ("FPARAM",)):
            if table.shape[0] == 1 and table.has(*names):
                values = np.concatenate([np.ravel(table.column(name)) for name in names])
                # https://www.sdss4.org/dr17/irspec/parameters/: PARAM is Teff, log g, log vmicro, [M/H], ...
                chosen = values if len(names) == 3 else values[[0, 1, 3]] if values.size > 3 else np.full(3, np.nan)
                if chosen.dtype.kind == "f" and chosen.size == 3 and np.isfinite(chosen).all() and (chosen > _MISSING).all():
                    return float(chosen[0]), float(chosen[1]), float(chosen[2])
    return math.nan, math.nan, math.nan


def _meta(header: Header, velocity_frame: str, teff: float, logg: float, m_h: float) -> dict[str, Any]:
    return {
        "star_id": header.text("OBJID"),
        "ra": header.number("RA"),
        "dec": header.number("DEC"),
        "mjd": header.number("MJD5"),
        "velocity_frame": velocity_frame,
        "header_teff": teff,
        "header_logg": logg,
        "header_m_h": m_h,
    }
