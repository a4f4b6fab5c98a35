"""Grid interpolation against scipy: ``python benchmarks/bench_interpolation.py``.

10,000 random label sets of 4096 pixels in a lattice of the size of the papers' (23 Teff, 4 log g, 4 [M/H]); one thread,
interleaved rounds in one process, medians; agreement is measured in the same run. A ratio is scipy's time over ours; both set up
the interpolator anew in every round, and both make a new array for the result.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy is imported
    os.environ.setdefault(_name, "1")

import statistics
import sys
import time
from typing import Any

import numpy as np

from maury.grids import ArrayRows, Grid, GridInterpolator
from maury.labels import KNOWN_LABELS

ROUNDS = 5
N, PIXELS = 10_000, 4096
AXES = {
    "papers' lattice": (np.arange(2300.0, 4501.0, 100.0), np.arange(4.0, 5.6, 0.5), np.arange(-1.0, 0.6, 0.5)),
    # two label sets per cell: the sums are then one sparse product
    "large lattice": (np.arange(2300.0, 7001.0, 100.0), np.arange(0.0, 6.1, 0.5), np.arange(-4.0, 1.1, 0.5)),
}
Row = dict[str, Any]


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
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, taken in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - start))
    ratios = [peer / mine for mine, peer in zip(*times, strict=True)]
    return {
        "name": f"grid {N} x {pixels}, {name}, {np.dtype(dtype).name}",
        "peer": "scipy RegularGridInterp.",
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "agreement": f"{difference:.1e}",
        "ours_ms": statistics.median(times[0]),
        "peer_ms": statistics.median(times[1]),
    }


def main() -> None:
    """Print the table."""
    print(f"{'job':56} {'peer':24} {'ratio':>6} {'ours ms':>9} {'peer ms':>9}  largest difference")
    for r in run():
        print(f"{r['name']:56} {r['peer']:24} {r['ratio']:6.1f} {r['ours_ms']:9.1f} {r['peer_ms']:9.1f}  {r['agreement']}")


if __name__ == "__main__":
    sys.exit(main())
