"""How wrong an interpolated spectrum is: SYNSPEC spectra on a PHOENIX-like lattice against ones computed between its nodes.

python examples/interpolation_errors.py ../shared/data/synspec_8800/spectra.npz

The truth at the Sobol points comes from the same code as the nodes. Its model atmospheres were themselves interpolated linearly
between those of ATLAS9 (250 K, 0.5 dex), so the truth has kinks at 3750, 4000, ... K, which no polynomial follows.
"""

from __future__ import annotations

import sys
from typing import get_args

import numpy as np

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


def part(path: str, kind: str) -> Grid:
    """The lattice or the Sobol points of the file."""
    return open_described(GridDescription.from_dict(LIBRARY | {"file": path, "where": {"kind": kind}}))


def main(path: str) -> None:
    """Print the errors of both methods, in all and by Teff."""
    lattice, truth = part(path, "lattice"), part(path, "sobol")
    print(f"{lattice.n_spectra} nodes, {truth.n_spectra} points between them; |interpolated - computed| of flux over continuum")
    print(f"{'method':8} {'Teff, K':>12} {'points':>6} {'median':>9} {'99 %':>9} {'largest':>9} {'rms':>9}")
    for method in get_args(Method):
        found = GridInterpolator(lattice, method).spectra(truth.values)
        error = np.abs(found.flux - truth.flux())
        for low, high in ((3500, 5000), (3500, 4000), (4000, 4500), (4500, 5000)):
            mine = error[(truth.values[:, 0] >= low) & (truth.values[:, 0] <= high)]
            numbers = (np.median(mine), np.percentile(mine, 99), mine.max(), np.sqrt(np.mean(mine**2)))
            print(f"{method:8} {f'{low}-{high}':>12} {len(mine):6d} " + " ".join(f"{number:9.2e}" for number in numbers))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
