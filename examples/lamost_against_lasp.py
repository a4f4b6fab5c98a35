"""Compare a catalogue of `maury infer` on LAMOST DR1 with the labels of LAMOST's own pipeline (LASP).

python examples/lamost_against_lasp.py lamost.fits data/lamost_dr1/labels.csv
"""

from __future__ import annotations

import sys

import numpy as np
from astropy.table import Table
from scipy.stats import spearmanr

from maury import read_catalogue
from maury.assess.metrics import format_table, label_metrics
from maury.labels import LabelSet, make_label

NAMES = {"teff": ("teff", "K"), "logg": ("logg", "dex"), "fe_h": ("feh", "dex"), "m_h": ("feh", "dex")}  # ours: theirs, unit


def main(catalogue_path: str, labels_path: str) -> None:
    """Print bias, scatter and pulls for S/N i > 20: all labelled stars, those of 4000 to 7000 K; and what the gap tells."""
    lasp = {str(row["file"]): row for row in Table.read(labels_path) if not np.ma.is_masked(row["teff"]) and row["snri"] > 20}
    catalogue = read_catalogue(catalogue_path)
    names = {ours: theirs for ours, theirs in NAMES.items() if ours in catalogue.colnames}
    rows = [(row, lasp[str(row["file"])]) for row in catalogue if str(row["file"]) in lasp]
    truth = np.array([[theirs[column] for column, _ in names.values()] for _, theirs in rows], dtype=float)
    found = np.array([[ours[name] for name in names] for ours, _ in rows], dtype=float)
    errors = np.array([[ours[f"e_{name}"] for name in names] for ours, _ in rows], dtype=float)
    labels = LabelSet.from_training([make_label(name, unit) for name, (_, unit) in names.items()], truth)
    print(format_table(label_metrics(truth, found, errors, labels=labels, by="teff", ranges=[(4000, 7000)])))
    if "gap" in catalogue.colnames:
        gap = np.array([ours["gap"] for ours, _ in rows], dtype=float)
        print(f"\ngap: median {np.nanmedian(gap):.2f}, {np.mean(gap > 1):.0%} above 1; rank correlation with |error| (p-value):")
        for name, error in zip(names, np.abs(found - truth).T, strict=True):
            rank = spearmanr(gap, error, nan_policy="omit")
            print(f"{name:5} {rank.statistic:+.2f} ({rank.pvalue:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:3])
