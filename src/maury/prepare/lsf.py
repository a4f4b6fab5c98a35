"""Line-spread functions as users give them: a resolving power, a width in Å, or a table along wavelength."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maury.errors import UsageError
from maury.prepare.grid import FloatArray

Table = tuple[tuple[float, float], ...]
"""((wavelength Å, FWHM Å), ...) with increasing wavelengths."""


class Lsf(NamedTuple):
    """A Gaussian line-spread function; exactly one of the three is given (hashable, so that rows can be grouped by it)."""

    resolving_power: float | None = None
    fwhm: float | None = None
    table: Table | None = None

    def fwhm_at(self, wavelength: FloatArray) -> FloatArray:
        """FWHM in Å at wavelengths in Å; tables are interpolated linearly and held constant beyond their ends."""
        if self.resolving_power is not None:
            return wavelength / self.resolving_power
        if self.fwhm is not None:
            return np.full(wavelength.shape, self.fwhm)
        position, width = np.array(self.table, dtype=np.float64).T
        widths: FloatArray = np.interp(wavelength, position, width)
        return widths


def lsf_from(what: str, resolving_power: float | None, fwhm: float | None, table: Any) -> Lsf | None:
    """An Lsf from three options of which at most one may be set; None where none is.

    Raises
    ------
    UsageError
        If several are set, or a value cannot be a width.
    """
    given = [v is not None for v in (resolving_power, fwhm, table)]
    if not any(given):
        return None
    if sum(given) > 1:
        raise UsageError(f"expected one of resolving power, FWHM and table for the {what} resolution, got several; keep one")
    for value in (resolving_power, fwhm):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise UsageError(f"expected a positive {what} resolution, got {value}; correct it")
    if table is None:
        return Lsf(resolving_power, fwhm)
    rows = np.array(table, dtype=np.float64)
    if (
        rows.ndim != 2
        or rows.shape[1] != 2
        or not np.isfinite(rows).all()
        or (rows <= 0).any()
        or (np.diff(rows[:, 0]) <= 0).any()
    ):
        raise UsageError(
            f"expected the {what} table as rows of (wavelength, FWHM) in Å with increasing wavelengths, got others; correct it"
        )
    return Lsf(table=tuple((float(w), float(f)) for w, f in rows))


def lsf_from_mapping(what: str, options: Mapping[str, Any]) -> Lsf:
    """An Lsf from one entry of ``native = {instrument = {...}}``.

    Raises
    ------
    UsageError
        If a key is unknown or none is given.
    """
    allowed = ("resolving_power", "fwhm", "table")
    unknown = [k for k in options if k not in allowed]
    if unknown or not options:
        got = ", ".join(unknown) if unknown else "none"
        raise UsageError(f"expected one of the keys {', '.join(allowed)} for the {what} resolution, got {got}; correct it")
    lsf = lsf_from(what, options.get("resolving_power"), options.get("fwhm"), options.get("table"))
    assert lsf is not None
    return lsf
