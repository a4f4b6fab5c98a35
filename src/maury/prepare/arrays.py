"""What the functions for plain arrays ask of their arguments: real numbers, in the unit said, shapes that fit together."""

from __future__ import annotations

from typing import Any

import numpy as np

from maury.errors import UsageError
from maury.prepare.grid import FloatArray


def real_numbers(what: str, values: Any, unit: str | None = None) -> FloatArray:
    """Values as float64; an astropy Quantity is converted to ``unit`` (without one, its unit is dropped).

    Raises
    ------
    UsageError
        If they are no real numbers (text, complex, ragged), some are masked, or the unit is of another kind.
    """
    try:
        plain = values
        if hasattr(values, "to_value"):
            plain = values.to_value(unit) if unit else values.value
        array = np.asanyarray(plain)
    except (ValueError, TypeError) as error:  # astropy's unit errors are kinds of these
        raise UsageError(f"expected {_numbers(what, unit)}, got others ({error}); correct them") from error
    if array.dtype.kind not in "iuf":
        raise UsageError(f"expected {_numbers(what, unit)}, got {array.dtype.name} values; convert them")
    if np.ma.is_masked(array):
        raise UsageError(
            f"expected {what} without masked values, got {int(np.ma.getmaskarray(array).sum())} masked; fill them, or use the "
            "step of the same purpose on Spectra, which carry masks"
        )
    return np.asarray(array, dtype=np.float64)


def real_number(what: str, value: Any, unit: str | None = None) -> float:
    """One value as :func:`real_numbers` takes it.

    Raises
    ------
    UsageError
        If it is not one real number.
    """
    number = real_numbers(what, value, unit)
    if number.ndim:
        raise UsageError(f"expected {what} as one number, got shape {number.shape}; give one")
    return float(number)


def _numbers(what: str, unit: str | None) -> str:
    return f"{what} as real numbers" + (f" in {unit}" if unit else "")


def real_fluxes(wavelength: Any, flux: Any) -> tuple[FloatArray, FloatArray]:
    """Wavelengths (n_pixels,) in Å and fluxes (n, n_pixels) or (n_pixels,), as float64.

    Raises
    ------
    UsageError
        If wavelengths do not increase from a positive value, shapes do not fit, or a flux is not finite.
    """
    grid, rows = real_numbers("wavelength", wavelength, "Angstrom"), real_numbers("flux", flux)
    if grid.ndim != 1 or grid.size < 2 or not np.isfinite(grid).all() or grid[0] <= 0 or not (np.diff(grid) > 0).all():
        raise UsageError("expected increasing positive wavelengths in Å, at least two, got others; sort them, drop repeats")
    if rows.ndim not in (1, 2) or rows.shape[-1] != grid.size:
        raise UsageError(f"expected flux of shape (n, {grid.size}) or ({grid.size},), got {rows.shape}; one value per wavelength")
    if not np.isfinite(rows).all():
        raise UsageError("expected finite flux, got NaN or infinity; leave such pixels out or fill them first")
    return grid, rows
