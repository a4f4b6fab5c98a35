"""MaStar (MaNGA stellar library) ``mastar-goodspec-*.fits``: one table row per visit spectrum.

https://www.sdss.org/dr17/mastar/mastar-spectra/: columns MANGAID, WAVE (Å, **vacuum**), FLUX, IVAR and from DR17 on MASK;
HELIOV is the heliocentric velocity, taken as ``rv`` of heliocentric wavelengths. The bits of MASK have no names here: any is
SURVEY_OTHER. Rows that share a wavelength vector (all of a release do) become one Spectra.
specutils' loader makes one object per row (59,266 of them) and drops mask and velocity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, build, translate_mask
from maury.read._fits import Hdu
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = 1800.0
_MISSING = -900.0  # -999 stands for "unknown"


def matches(source: Source) -> bool:
    """Whether the file is a MaStar table of spectra."""
    return _table(source) is not None


def _table(source: Source) -> Hdu | None:
    return next((hdu for hdu in source.tables() if hdu.has("MANGAID", "WAVE", "FLUX", "IVAR")), None)


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a MaStar file; see the module's docstring."""
    table = _table(source)
    if table is None:
        raise ReadError("expected MaStar columns MANGAID, WAVE, FLUX and IVAR, got none; check the file or its format")
    n = table.shape[0]
    wavelengths, flux, ivar = (table.column(name).reshape(n, -1) for name in ("WAVE", "FLUX", "IVAR"))
    mask = translate_mask(table.column("MASK").reshape(n, -1), {}) if table.has("MASK") else np.zeros(flux.shape, np.uint32)
    if n == 0 or not wavelengths.shape == flux.shape == ivar.shape == mask.shape:
        raise ReadError(
            f"expected rows with WAVE, FLUX and IVAR of one length, got {wavelengths.shape}, {flux.shape}; fetch the file again"
        )
    meta = _meta(table, n)
    found = []
    for rows in rows_of_equal_grid(wavelengths):
        found.append(
            build(
                source,
                wavelengths[rows[0]],
                flux[rows],
                ivar=ivar[rows],
                medium="vacuum",
                frame="observed",
                instrument="MaStar",
                mask=mask[rows],
                rv=meta["rv"][rows],
                resolving_power=RESOLVING_POWER,
                suffixes=[f"#{row}" for row in rows] if n > 1 else [""],
                meta={name: values[rows] for name, values in meta.items() if name != "rv"} | {"velocity_frame": "barycentric"},
            )
        )
    return found


def rows_of_equal_grid(wavelengths: Any) -> list[Any]:
    """Indices of rows that share a wavelength vector, in the order of their first row."""
    groups: dict[bytes, list[int]] = {}
    for row, values in enumerate(np.ascontiguousarray(wavelengths)):
        groups.setdefault(values.tobytes(), []).append(row)
    return [np.array(rows) for rows in groups.values()]


def _meta(table: Hdu, n: int) -> dict[str, Any]:
    def number(*names: str) -> Any:
        name = next((name for name in names if table.has(name)), None)
        values = np.full(n, math.nan) if name is None else np.asarray(table.column(name))
        if values.shape != (n,) or values.dtype.kind not in "iuf":
            return np.full(n, math.nan)
        values = values.astype(np.float64)
        return np.where(np.isfinite(values) & (values > _MISSING), values, math.nan)

    return {
        "star_id": table.column("MANGAID"),
        "ra": number("OBJRA", "RA"),
        "dec": number("OBJDEC", "DEC"),
        "mjd": number("MJD"),
        "rv": number("HELIOV"),
        "header_teff": number("INPUT_TEFF"),
        "header_logg": number("INPUT_LOGG"),
        "header_fe_h": number("INPUT_FE_H"),
    }
