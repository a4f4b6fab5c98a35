"""Compare velocities of `maury rv` on LAMOST spectra with those of LAMOST's own pipeline (LASP), or with one another.

maury train miles --data data -o miles.safetensors
maury rv data/lamost_dr1/spectra/*.fits --template miles.safetensors -o velocities.csv
python examples/lamost_velocities.py velocities.csv data/lamost_dr1/labels.csv

maury rv data/lamost_repeats/spectra/*.fits.gz --template miles.safetensors -o repeats.csv
python examples/lamost_velocities.py repeats.csv data/lamost_repeats/groups.csv
"""

from __future__ import annotations

import sys
from itertools import combinations, pairwise

import numpy as np
from astropy.table import Table

from maury.constants import ROBUST_SIGMA_PER_MAD

EDGES = (
    0.0,
    15.0,
    25.0,
    40.0,
    60.0,
    np.inf,
)  # of S/N per pixel, the median over the spectrum (LASP gives S/N i as -9999 for some)


def compared(velocities_path: str, labels_path: str) -> Table:
    """One row per spectrum that both have measured: snr, difference, our error, LASP's error, flag."""
    lasp = {str(row["file"]): row for row in Table.read(labels_path) if not np.ma.is_masked(row["rv"])}
    rows = []
    for ours in Table.read(velocities_path, format="ascii.csv"):
        theirs = lasp.get(str(ours["file"]))
        if theirs is not None and np.isfinite(ours["rv"]):
            rows.append((ours["file"], ours["snr"], ours["rv"] - theirs["rv"], ours["e_rv"], theirs["rv_err"], ours["flag"]))
    return Table(rows=rows, names=("file", "snr", "difference", "e_rv", "e_lasp", "flag"))


def against_lasp(table: Table) -> None:
    """Print bias and scatter of maury minus LASP, and pulls with our errors alone and with both."""
    print(f"{'S/N':>10} {'n':>4} {'bias':>7} {'scatter':>8} {'e_rv':>6} {'e_lasp':>7} {'pulls':>6} {'both':>6}   km/s")
    for low, high in [*pairwise(EDGES), (EDGES[0], EDGES[-1])]:
        part = table[(table["snr"] >= low) & (table["snr"] < high)]
        if len(part) > 1:
            d = np.array(part["difference"]) - np.median(part["difference"])
            both = np.hypot(part["e_rv"], part["e_lasp"])
            pulls = f"{_spread(d / part['e_rv']):6.2f} {_spread(d / both):6.2f}"
            print(
                f"{low:4.0f}-{high:<5.0f} {len(part):4d} {np.median(part['difference']):7.2f} {_spread(d):8.2f} "
                f"{np.median(part['e_rv']):6.2f} {np.median(part['e_lasp']):7.2f} {pulls}"
            )
    print("bias: median; scatter and pulls: 1.4826 times the median absolute deviation from it")


def between_visits(velocities_path: str, groups_path: str) -> None:
    """Print how much two visits of one star differ, over the square root of two, and pulls with our errors."""
    group = {str(row["file"]): row["group"] for row in Table.read(groups_path)}
    visits = [row for row in Table.read(velocities_path, format="ascii.csv") if np.isfinite(row["rv"]) and row["file"] in group]
    pairs = [(a, b) for a, b in combinations(visits, 2) if group[a["file"]] == group[b["file"]]]
    difference = np.array([a["rv"] - b["rv"] for a, b in pairs])
    error = np.array([np.hypot(a["e_rv"], b["e_rv"]) for a, b in pairs])
    print(f"{len(pairs)} pairs of visits: scatter {_spread(difference) / np.sqrt(2):.2f} km/s per visit, median e_rv ", end="")
    print(f"{np.median(error) / np.sqrt(2):.2f} km/s, pulls {_spread(difference / error):.2f} (1.4826 times the median modulus)")


def main(velocities_path: str, table_path: str) -> None:
    """Print the comparison that the second table allows."""
    if "group" in Table.read(table_path).colnames:
        between_visits(velocities_path, table_path)
    else:
        against_lasp(compared(velocities_path, table_path))


def _spread(values: np.ndarray) -> float:
    return float(ROBUST_SIGMA_PER_MAD * np.median(np.abs(values)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
