"""What a grid holds, in words: for ``maury grid info``."""

from __future__ import annotations

import numpy as np

from maury.files import size_text
from maury.grids.grid import FloatArray, Grid, words


def describe_grid(grid: Grid, most_holes: int = 20) -> str:
    """Labels and holes, wavelengths, resolution and size of a grid, as a text of several lines.

    Parameters
    ----------
    most_holes : how many holes are named.
    """
    rows = [("grid", f"{grid.name}{_origin(grid)}"), ("spectra", _nodes(grid))]
    rows += [(f"  {label.name}", _axis(grid, k, label.unit)) for k, label in enumerate(grid.labels)]
    rows += [
        ("wavelength", _wavelength(grid)),
        ("resolution", _resolution(grid)),
        ("flux", "over continuum" if grid.is_normalised else grid.flux_unit),
        ("size", f"{size_text(grid.rows.n_bytes)}; {size_text(grid.n_spectra * grid.n_pixels * 4)} of flux in single precision"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join([*(f"{name:{width}}{text}" for name, text in rows), *_holes(grid, most_holes)])


def _origin(grid: Grid) -> str:
    library = grid.provenance.get("library")
    return f" ({library})" if library else ""


def _nodes(grid: Grid) -> str:
    if not grid.is_lattice:
        return f"{grid.n_spectra} at scattered points: no lattice, not interpolated"
    lattice = grid.lattice
    n_holes = len(lattice.holes)
    shape = " x ".join(str(n) for n in lattice.shape)
    holes = f", {n_holes} {'hole' if n_holes == 1 else 'holes'}" if n_holes else ", no holes"
    return f"{grid.n_spectra} at the {lattice.rows.size} nodes of a lattice ({shape}){holes}"


def _axis(grid: Grid, k: int, unit: str) -> str:
    """``23 values, 2300 to 4500 K, step 100`` for a lattice; the range of scattered points."""
    column = grid.values[:, k]
    if not grid.is_lattice:
        return f"{column.min():g} to {column.max():g} {unit}"
    axis = grid.lattice.axes[k]
    if len(axis) == 1:
        return f"{axis[0]:g} {unit}"
    return f"{len(axis)} values, {axis[0]:g} to {axis[-1]:g} {unit}, step {_span(np.diff(axis))}"


def _wavelength(grid: Grid) -> str:
    low, high = grid.wavelength[[0, -1]]
    step = _span(np.diff(grid.wavelength))
    return f"{low:.2f} to {high:.2f} Å ({grid.medium}), {grid.n_pixels} pixels, step {step} Å"


def _resolution(grid: Grid) -> str:
    if grid.resolving_power is not None:
        return f"R = {grid.resolving_power:g}"
    return "not stated" if grid.fwhm is None else f"FWHM = {grid.fwhm:g} Å"


def _span(steps: FloatArray) -> str:
    low, high = float(steps.min()), float(steps.max())
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"


def _holes(grid: Grid, most: int) -> list[str]:
    """The holes by label, and what a download says of files it could not get."""
    if not grid.is_lattice or not len(grid.lattice.holes):
        return []
    n, reasons = len(grid.lattice.holes), dict(grid.provenance.get("holes", {}))
    lines = ["holes"] + [f"  {words(grid.names, hole)}" for hole in grid.lattice.holes[:most]]
    if n > most:
        lines.append(f"  and {n - most} more; --holes {n} lists them all")
    told = [f"  {file}: {reason}" for file, reason in list(reasons.items())[:most] if reason != "not in the archive"]
    return lines + (["of these, what a new download may bring:", *told] if told else [])
