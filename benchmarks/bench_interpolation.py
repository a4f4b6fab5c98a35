"""Grid interpolation against scipy: ``python -m benchmarks.bench_interpolation``.

10,000 random label sets of 4096 pixels in a lattice of the size of the papers' (23 Teff, 4 log g, 4 [M/H]); one thread,
interleaved rounds in one process, medians; agreement is measured in the same run. A ratio is scipy's time over ours; both set up
the interpolator anew in every round, and both make a new array for the result.
"""

from __future__ import annotations

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows
from maury.grids import ArrayRows, Grid, GridInterpolator
from maury.labels import KNOWN_LABELS

N, PIXELS = 10_000, 4096
AXES = {
    "papers' lattice": (np.arange(2300.0, 4501.0, 100.0), np.arange(4.0, 5.6, 0.5), np.arange(-1.0, 0.6, 0.5)),
    # two label sets per cell: the sums are then one sparse product
    "large lattice": (np.arange(2300.0, 7001.0, 100.0), np.arange(0.0, 6.1, 0.5), np.arange(-4.0, 1.1, 0.5)),
}


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread of ratios, agreement (largest difference, flux 0.2-1), ours_ms, peer_ms (in all)."""
    return [
        _row("papers' lattice", np.float64),
        _row("papers' lattice", np.float32),
        _row("large lattice", np.float64, pixels=1024),  # scipy needs the lattice in double precision
    ]


def _row(name: str, dtype: type, pixels: int = PIXELS) -> Row:
    from scipy.interpolate import RegularGridInterpolator

    axes, rng = AXES[name], np.random.default_rng(1)
    nodes = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    flux = rng.uniform(0.2, 1.0, (len(nodes), pixels)).astype(dtype)
    values = np.column_stack([rng.uniform(axis[0], axis[-1], N) for axis in axes])
    labels = tuple(KNOWN_LABELS[label] for label in ("teff", "logg", "m_h"))
    grid = Grid(name, labels, nodes, np.arange(5000.0, 5000.0 + pixels), "vacuum", ArrayRows(flux))
    lattice = flux.reshape(*map(len, axes), pixels)

    def ours() -> np.ndarray:
        return GridInterpolator(grid).spectra(values, dtype=dtype).flux

    def theirs() -> np.ndarray:
        return np.asarray(RegularGridInterpolator(axes, lattice)(values))

    difference = np.abs(ours() - theirs()).max()
    job = f"grid {N} x {pixels}, {name}, {np.dtype(dtype).name}"
    return compared(job, "scipy RegularGridInterp.", ours, theirs, f"{difference:.1e}")


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
