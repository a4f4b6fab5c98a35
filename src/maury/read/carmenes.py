"""CARMENES: 2-D CARACAL spectra (``*-vis_A.fits``, ``*-nir_A.fits``) and merged tables (``*_tell.fits``). Vacuum, Å.

CARACAL (Caballero et al. 2016; Zechmeister et al. 2018): extensions SPEC, CONT, SIG, WAVE, one row per order; orders overlap,
so one Spectra per order (column ``order``). Merged table: columns WAVE, SPEC, CONT, SIG, MASK_I (1 good, 0 bad).
Wavelengths are in the observatory's frame (checked on Barnard's star: its lines lie at -137 km/s, which with BERV = 26.3 is
its -110.5 km/s); the header's CARACAL BERV is applied here. Neither kind is divided by its continuum.
In the merged table at hand (2018, telluric-corrected) the two columns carry each other's names: SIG is 1 everywhere, and SPEC /
CONT is the S/N that the header states for the orders (236 against 228). So where SIG is constant, CONT is taken as the error if
that S/N agrees with the header's within a factor of two, ``error_source`` says so, and the file is refused otherwise.
Templates of SERVAL (Zechmeister et al. 2018) have the same extensions without CONT, in natural logarithms of barycentric Å (its
keyword SERVAL BERV is applied already), with the header of one of the exposures; seen in its readers only, not in a file.
The pipeline's SERVAL RV is relative to a template and therefore not taken. specutils has no loader for CARMENES.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maury.errors import ReadError
from maury.flags import PixelFlag
from maury.read._common import Options, build, build_orders, to_barycentre
from maury.read._fits import Hdu, Header
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = {"VIS": 94_600.0, "NIR": 80_500.0}
"""Quirrenbach et al. 2018."""
_N_VIS_ORDERS = 61


def matches(source: Source) -> bool:
    """Whether the file is a CARMENES spectrum of either kind."""
    if not source.hdus or source.hdus[0].header.text("INSTRUME").upper() != "CARMENES":
        return False
    return _is_orders(source) or any(hdu.has("WAVE", "SPEC", "SIG") for hdu in source.tables())


def _is_orders(source: Source) -> bool:
    return all(source.named(name) is not None for name in ("SPEC", "SIG", "WAVE"))


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a CARMENES file; see the module's docstring."""
    return _read_orders(source) if _is_orders(source) else [_read_table(source)]


def _read_table(source: Source) -> Spectra:
    table = next((hdu for hdu in source.tables() if hdu.has("WAVE", "SPEC", "SIG")), None)
    if table is None:
        raise ReadError("expected CARMENES columns WAVE, SPEC and SIG or extensions of these names, got none; check the file")
    mask = None
    if table.has("MASK_I"):
        bad = np.ravel(table.column("MASK_I")) != 1
        mask = np.where(bad, np.uint32(PixelFlag.BAD_PIXEL), np.uint32(0))
    wavelength, velocity_frame = _barycentric(source, np.ravel(table.column("WAVE")))
    flux = np.ravel(table.column("SPEC"))
    error, error_source = _table_errors(table, flux, source.hdus[0].header)
    channel = _channel(source.hdus[0].header, 0)
    return _spectra(
        source,
        wavelength,
        flux,
        error,
        mask=mask,
        velocity_frame=velocity_frame,
        channel=channel,
        order=-1,
        error_source=error_source,
    )


def _table_errors(table: Hdu, flux: Any, header: Header) -> tuple[Any, str]:
    """The errors of a merged table; see the module's docstring for the exchanged columns."""
    sig = np.ravel(table.column("SIG"))
    if not (sig == sig[0]).all() or not table.has("CONT"):
        return sig, "file"
    cont = np.ravel(table.column("CONT"))
    stated = np.array([header.number(key) for key in header if key.startswith("CARACAL FOX SNR")])
    with np.errstate(all="ignore"):
        ratio = flux / cont
    known, measured = stated[np.isfinite(stated)], ratio[np.isfinite(ratio) & (cont > 0)]
    if known.size and measured.size and 0.5 < np.median(measured) / np.median(known) < 2.0:
        return cont, "column CONT (SIG is constant; S/N agrees with header)"
    raise ReadError(
        "expected errors in column SIG, got the same number in every row, and CONT does not hold them either; reduce it again"
    )


def _read_orders(source: Source) -> list[Spectra]:
    images = {name: hdu.image() for name in ("SPEC", "SIG", "WAVE") if (hdu := source.named(name)) is not None}
    shapes = {image.shape for image in images.values()}
    if len(shapes) != 1 or images["SPEC"].ndim != 2:
        raise ReadError(f"expected CARMENES images of one shape, got {', '.join(map(str, shapes))}; fetch the file again")
    if source.named("CONT") is None:  # a template of SERVAL
        with np.errstate(over="ignore"):
            wavelength, velocity_frame = np.exp(images["WAVE"].astype(np.float64)), "barycentric"
    else:
        wavelength, velocity_frame = _barycentric(source, images["WAVE"])
    channel = _channel(source.hdus[0].header, len(wavelength))
    return build_orders(
        lambda order: _spectra(
            source,
            wavelength[order],
            images["SPEC"][order],
            images["SIG"][order],
            mask=None,
            velocity_frame=velocity_frame,
            channel=channel,
            order=order,
        ),
        len(wavelength),
    )


def _barycentric(source: Source, wavelength: Any) -> tuple[Any, str]:
    if np.asarray(wavelength).dtype.kind != "f":
        raise ReadError("expected CARMENES wavelengths as floating-point numbers, got others; fetch the file again")
    return to_barycentre(wavelength, source.hdus[0].header.number("CARACAL BERV"))


def _channel(header: Header, n_orders: int) -> str:
    """VIS or NIR: the NIR camera's HgCdTe detectors, else the pipeline's file name in the header, else the number of orders."""
    if "HGCDTE" in header.text("CAMERA").upper() or "-nir" in header.text("FILENAME").lower():
        return "NIR"
    return "VIS" if "-vis" in header.text("FILENAME").lower() or n_orders == _N_VIS_ORDERS else "NIR" if n_orders else ""


def _spectra(
    source: Source,
    wavelength: Any,
    flux: Any,
    error: Any,
    *,
    mask: Any,
    velocity_frame: str,
    channel: str,
    order: int,
    error_source: str = "file",
) -> Spectra:
    header = source.hdus[0].header
    return build(
        source,
        wavelength,
        flux,
        error=error,
        medium="vacuum",
        frame="observed",
        instrument=f"CARMENES {channel}".strip(),
        mask=mask,
        resolving_power=RESOLVING_POWER.get(channel, math.nan),
        error_source=error_source,
        suffixes=[f"#{order}" if order >= 0 else ""],
        meta={
            "star_id": header.text("OBJECT").strip(),
            "ra": header.number("RA"),
            "dec": header.number("DEC"),
            "mjd": header.number("MJD-OBS", "CARACAL MJD-OBS"),
            "velocity_frame": velocity_frame,
            "order": order,
        },
    )
