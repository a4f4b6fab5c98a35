"""Grids and interpolation on the SYNSPEC libraries: a lattice, and spectra computed between its nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maury.grids import Grid, GridDescription, GridInterpolator, open_described
from maury.grids.interpolate import Method

LIBRARY = {
    "wavelength": "wavelength_air_angstrom",
    "wavelength_unit": "Angstrom",
    "medium": "air",
    "flux": "flux_u16",
    "flux_scale": "flux_scale",
    "labels": "labels",
    "label_names": "label_names",
}


def part(data: Path, kind: str) -> Grid:
    """The lattice, or the Sobol points, of the library in the papers' main window."""
    description = LIBRARY | {"file": str(data / "synspec_8800" / "spectra.npz"), "where": {"kind": kind}}
    return open_described(GridDescription.from_dict(description))


def test_the_window_is_a_lattice_without_holes(data: Path) -> None:
    """Its README: Teff 3500-5000 step 100, log g 4, 4.5, 5, [M/H] -1, -0.5, 0, 0.5; v_micro 1 km/s."""
    lattice = part(data, "lattice").lattice
    assert lattice.shape == (16, 3, 4, 1)
    assert len(lattice.holes) == 0
    assert lattice.axes[0].tolist() == list(range(3500, 5001, 100))
    assert [axis.tolist() for axis in lattice.axes[1:]] == [[4.0, 4.5, 5.0], [-1.0, -0.5, 0.0, 0.5], [1.0]]


@pytest.mark.parametrize(
    ("method", "median", "worst_percent"),
    [("linear", 1.84e-4, 4.43e-3), ("cubic", 6.3e-5, 3.38e-3)],
)
def test_errors_between_the_nodes(data: Path, method: Method, median: float, worst_percent: float) -> None:
    """Median and 99th percentile of |interpolated - computed| over 548 Sobol points: what was measured, within a tenth."""
    truth = part(data, "sobol")
    found = GridInterpolator(part(data, "lattice"), method).spectra(truth.values)
    assert found.usable.all()
    error = np.abs(found.flux - truth.flux())
    assert np.median(error) == pytest.approx(median, rel=0.1)
    assert np.percentile(error, 99) == pytest.approx(worst_percent, rel=0.1)


def test_the_rvs_library_is_scattered_points(data: Path) -> None:
    description = LIBRARY | {"file": str(data / "synspec_rvs" / "spectra.npz")}
    grid = open_described(GridDescription.from_dict(description))
    assert (grid.n_spectra, grid.n_pixels, grid.is_lattice) == (1659, 10_000, False)
