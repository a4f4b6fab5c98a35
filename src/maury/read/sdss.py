"""SDSS, SEGUE, BOSS and eBOSS ``spec-PLATE-MJD-FIBER.fits`` (and ``spec-*lite*``).

Extension COADD: one row per pixel, columns flux, loglam (log10 Å, vacuum, heliocentric), ivar, and_mask, or_mask, wdisp
(sigma of the line spread in pixels); extension 2 (SPECOBJ or SPALL): one row of the pipeline's results.
https://data.sdss.org/datamodel/files/BOSS_SPECTRO_REDUX/RUN2D/spectra/PLATE4/spec.html
The and-mask is taken. Labels of the ELODIE template (ELODIE_TEFF, ...) are given only for the original SDSS reductions:
the BOSS reductions at hand repeat one default template for stars of any type. specutils' loader gives flux, ivar and
mask but neither redshift nor labels, and costs 3.5 s to import.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, build, translate_mask, velocity_of_redshift
from maury.read._fits import Hdu
from maury.read._masks import SPPIXMASK
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = 2000.0
"""Nominal (1500 in the blue to 2500 in the red); the column ``wdisp`` of the file has it per pixel."""
FIRST_BOSS_PLATE = 3510  # https://www.sdss4.org/dr17/spectro/: plates from 3510 on were observed with BOSS


def matches(source: Source) -> bool:
    """Whether the file is an SDSS or BOSS spec file."""
    return _coadd(source) is not None


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a spec file; see the module's docstring."""
    coadd = _coadd(source)
    if coadd is None:
        raise ReadError("expected an SDSS spec file with columns flux, loglam and ivar, got none; check the file or its format")
    loglam = np.asarray(coadd.column("loglam"), np.float64)
    if not (np.isfinite(loglam).all() and (np.abs(loglam) < 9).all()):
        raise ReadError("expected log10 wavelengths in column loglam, got others: the file is damaged; fetch it again")
    mask = translate_mask(coadd.column("and_mask"), SPPIXMASK) if coadd.has("and_mask") else None
    results = _results(source)
    spectra = build(
        source,
        10.0**loglam,
        coadd.column("flux"),
        ivar=coadd.column("ivar"),
        medium="vacuum",
        frame="observed",
        instrument=_instrument(source, results),
        mask=mask,
        rv=velocity_of_redshift(_number(results, "Z")),
        resolving_power=RESOLVING_POWER,
        meta=_meta(source, results),
    )
    return [spectra]


def _coadd(source: Source) -> Hdu | None:
    return next((hdu for hdu in source.tables() if hdu.has("flux", "loglam", "ivar")), None)


def _results(source: Source) -> Hdu | None:
    return next((hdu for hdu in source.tables() if hdu.shape[0] == 1 and hdu.has("Z", "CLASS")), None)


def _value(table: Hdu | None, name: str) -> Any:
    if table is None or not table.has(name):
        return None
    value = table.column(name)
    return value[0] if value.ndim == 1 else None


def _number(table: Hdu | None, *names: str) -> float:
    for name in names:
        value = _value(table, name)
        if value is not None and np.asarray(value).dtype.kind in "iuf" and np.isfinite(value):
            return float(str(value))  # float32 4.535, not 4.534999847
    return math.nan


def _instrument(source: Source, results: Hdu | None) -> str:
    name = str(_value(results, "INSTRUMENT") or "").strip()
    if name:
        return name
    plate = _number(results, "PLATE")
    plate = source.hdus[0].header.number("PLATEID") if math.isnan(plate) else plate
    return "SDSS" if plate < FIRST_BOSS_PLATE else "BOSS"


def _meta(source: Source, results: Hdu | None) -> dict[str, Any]:
    legacy = _instrument(source, results) == "SDSS"
    label = {n: _number(results, f"ELODIE_{n}") if legacy else math.nan for n in ("TEFF", "LOGG", "FEH")}
    known = label["TEFF"] > 0  # 0 stands for "no template fitted"
    return {
        "star_id": source.stem,
        "ra": _number(results, "PLUG_RA", "RA"),
        "dec": _number(results, "PLUG_DEC", "DEC"),
        "mjd": _number(results, "MJD"),
        "velocity_frame": "barycentric",
        "spectral_class": str(_value(results, "SUBCLASS") or _value(results, "CLASS") or "").strip(),
        "header_teff": label["TEFF"] if known else math.nan,
        "header_logg": label["LOGG"] if known else math.nan,
        "header_fe_h": label["FEH"] if known else math.nan,
    }
