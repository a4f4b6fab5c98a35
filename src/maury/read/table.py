"""Tables with named columns and units: FITS binary tables, VOTable, ECSV, CSV and other text with a header line.

The columns are known by name: wavelength (wave, lambda, loglam, ...; ``wave_air`` and ``wave_vac`` say the medium), flux (flux,
spec, ...), and error, variance or inverse variance. The wavelength needs a unit (TUNITn, VOTable and ECSV unit, or
``wavelength[nm]``). Air or vacuum: the column's name, UCD (``obs.atmos`` means air in ESO's products) or description,
metadata (MEDIUM, AIRORVAC, VACUUM), else ``medium``. Frame: SPECSYS or FRAME, else observed. Metadata RV, TEFF, LOGG, FE_H,
RESOLVING_POWER or FWHM are taken as such. ESO archive products (phase 3, https://www.eso.org/sci/observing/phase3/p3sdpstd.pdf)
are one row of vectors; where all their errors are NaN (HARPS) the header's SNR is taken and ``error_source`` says so.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.flags import PixelFlag
from maury.read._common import EmptySpectrumError, Options, assumed_errors, build
from maury.read._hints import angstrom_per_unit, medium_from_header, medium_from_text, settle_frame, settle_medium
from maury.read._source import Source
from maury.read._tables import Column, NamedColumns, load_columns
from maury.read.mastar import rows_of_equal_grid
from maury.spectra import Medium, Spectra

_ROLES: dict[str, tuple[str, ...]] = {
    "wavelength": ("wavelength", "wave", "wavelengths", "lambda", "lam", "wl", "wvl", "spectral_axis", "awav"),
    "loglam": ("loglam", "log_lambda", "logwave", "log_wave", "log_wavelength"),
    "flux": ("flux", "spec", "spectrum", "flux_density", "fluxdensity", "intensity", "normalized_flux", "norm_flux", "flux_norm"),
    "error": (
        "error",
        "err",
        "sigma",
        "sig",
        "flux_error",
        "flux_err",
        "e_flux",
        "fluxerr",
        "uncertainty",
        "noise",
        "std",
        "stdev",
    ),
    "ivar": ("ivar", "invvar", "inverse_variance", "flux_ivar", "weight_ivar"),
    "variance": ("variance", "var", "flux_variance", "flux_var"),
    "mask": ("mask", "flag", "flags", "dq", "qual", "quality", "and_mask", "andmask"),
}
_MEDIUM_SUFFIX = re.compile(r"_?(air|vac|vacuum)$")
_UNIT_SUFFIX = re.compile(r"_(angstroms?|aa|nm|um|microns?)$")


def matches(source: Source) -> bool:
    """Whether the file is a table at all; :func:`read` says what is missing for a spectrum."""
    return source.kind != "fits" or bool(source.tables())


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a table; see the module's docstring."""
    tables = load_columns(source)
    for table in tables:
        roles = _roles(table)
        if ("wavelength" in roles or "loglam" in roles) and "flux" in roles:
            return _read_table(source, table, roles, options)
    names = [column.name for table in tables for column in table.columns]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise ReadError(
        f"expected a column of wavelengths and one of flux, got {shown or 'no columns'}: a table of something else (labels?); "
        "name spectrum files"
    )


def _roles(table: NamedColumns) -> dict[str, Column]:
    roles: dict[str, Column] = {}
    for column in table.columns:
        plain = _UNIT_SUFFIX.sub("", column.name.strip().lower().replace(" ", "_").replace("-", "_"))
        for role, names in _ROLES.items():
            bare = _MEDIUM_SUFFIX.sub("", plain) if role in ("wavelength", "loglam") else plain
            if bare in names and role not in roles:
                roles[role] = column
    return roles


def _read_table(source: Source, table: NamedColumns, roles: dict[str, Column], options: Options) -> list[Spectra]:
    flux = _spectrum_rows(roles["flux"])
    wavelength, medium = _wavelength(table, roles, flux.shape, options)
    ivar, error_source = _ivar(table, roles, flux, options)
    mask = np.zeros(flux.shape, np.uint32)
    if "mask" in roles and (bits := np.asarray(roles["mask"].values)).dtype.kind in "iub" and bits.size == flux.size:
        mask = np.where(bits.reshape(flux.shape) != 0, np.uint32(PixelFlag.SURVEY_OTHER), np.uint32(0)).astype(np.uint32)
    frame, velocity_frame = settle_frame(table.lookup, options)
    found = []
    for rows in rows_of_equal_grid(wavelength):
        spectra = build(
            source,
            wavelength[rows[0]],
            flux[rows],
            ivar=ivar[rows],
            medium=medium,
            frame=frame,
            instrument=table.lookup("INSTRUME") or table.lookup("INSTRUMENT") or "unknown",
            mask=mask[rows],
            rv=table.number("RV"),
            resolving_power=table.number("RESOLVING_POWER", "SPEC_RES"),
            fwhm=math.nan if table.number("RESOLVING_POWER", "SPEC_RES") > 0 else table.number("FWHM"),
            error_source=error_source,
            suffixes=[f"#{row}" for row in rows] if len(flux) > 1 else [""],
            meta=_meta(source, table, velocity_frame),
        )
        found.append(spectra)
    return found


def _spectrum_rows(column: Column) -> NDArray[Any]:
    """(n_spectra, n_pixels): a scalar column is one spectrum, a vector column one per row."""
    values = np.asarray(column.values)
    if values.dtype.kind not in "iuf" or values.ndim > 2:
        raise ReadError(f"expected numbers in column {column.name!r}, got text or another kind; repair the table")
    return values.reshape(1, -1) if values.ndim == 1 else values


def _wavelength(
    table: NamedColumns, roles: dict[str, Column], shape: tuple[int, ...], options: Options
) -> tuple[NDArray[np.float64], Medium]:
    column = roles.get("wavelength") or roles["loglam"]
    values = _spectrum_rows(column).astype(np.float64)
    plain = column.name.strip().lower()
    suffix = _UNIT_SUFFIX.search(plain)
    unit = column.unit or (suffix[1] if suffix else "")
    if "wavelength" not in roles:
        found = re.search(r"log\w*\(?\s*\[?\s*([A-Za-z]+)\]?\s*\)?", unit)  # units such as log(Angstrom)
        unit = found[1] if found and "log" in unit.lower() else unit
        if not (np.abs(values[np.isfinite(values)]) < 9).all():
            raise ReadError(f"expected log10 wavelengths in column {column.name!r}, got numbers beyond 9; repair the table")
        values = 10.0**values
    medium = medium_from_text(plain.replace("_", " "), column.note) or ("air" if "obs.atmos" in column.note else None)
    settled = settle_medium(medium or medium_from_header(table.lookup), options)
    values = values * angstrom_per_unit(unit)
    if values.shape != shape and values.shape != (1, shape[1]):
        raise ReadError(f"expected as many wavelengths as fluxes, got {values.shape} for {shape}; repair the table")
    return np.broadcast_to(values, shape), settled


def _ivar(table: NamedColumns, roles: dict[str, Column], flux: NDArray[Any], options: Options) -> tuple[NDArray[np.float64], str]:
    power = {"ivar": 1.0, "error": -2.0, "variance": -1.0}
    role = next((role for role in power if role in roles), None)
    snr, source = options.snr, "assumed"
    if role is not None:
        values = _spectrum_rows(roles[role]).astype(np.float64)
        if values.shape != flux.shape:
            raise ReadError(f"expected one error per flux, got {values.shape} for {flux.shape}; repair the table")
        usable = np.isfinite(values) & (values > 0)
        if usable.any():
            with np.errstate(all="ignore"):
                return np.where(usable, np.where(usable, values, 1.0) ** power[role], 0.0), "file"
        if snr is None and np.isnan(values).all():  # ESO's HARPS products: ERR is NaN, the header has SNR
            snr, source = table.number("SNR"), "header"
        if snr is None or not snr > 0:
            raise EmptySpectrumError(
                f"expected positive errors in column {roles[role].name!r}, got none; this file holds no spectrum"
            )
    if snr is None:
        raise ReadError(
            "expected a column of errors (error, ivar or variance), got none; add one, or give the signal-to-noise per pixel "
            "with snr=... (--snr)"
        )
    with np.errstate(all="ignore"):
        errors = np.array([assumed_errors(row, snr) for row in flux.astype(np.float64)])
        return 1.0 / errors**2, f"{source} S/N {snr:g}"


def _meta(source: Source, table: NamedColumns, velocity_frame: str) -> dict[str, Any]:
    return {
        "star_id": table.lookup("STAR_ID") or table.lookup("OBJECT") or source.stem,
        "ra": table.number("RA"),
        "dec": table.number("DEC"),
        "mjd": table.number("MJD", "MJD-OBS"),
        "velocity_frame": velocity_frame,
        "header_teff": table.number("TEFF"),
        "header_logg": table.number("LOGG"),
        "header_fe_h": table.number("FE_H", "FEH"),
    }
