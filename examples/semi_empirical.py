"""Semi-empirical against purely synthetic (Imig+2022, Sect. 5.2), in the window of the Ca II triplet, 8410-8790 Å.

LAMOST DR1 stars with S/N i > 20 are given labels by two models of one kind, and compared with LASP, LAMOST's own pipeline:

* synthetic: trained on SYNSPEC spectra alone, degraded to LAMOST's resolution;
* semi-empirical: trained on these and on LAMOST stars; no star is judged by a model that has seen it.

python examples/semi_empirical.py ../shared/data
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from maury.assess.metrics import format_table, label_metrics
from maury.recipes import Recipe, parse_recipe, train_on
from maury.recipes.dataset import load_training_set

COMMON: list[dict[str, Any]] = [
    {"step": "resample", "start": 8410, "stop": 8790, "spacing": 2},
    {"step": "gaussian", "length": 100, "weights": "uniform"},
    {"step": "noise_floor", "fraction": 0.01},
]
LAMOST: dict[str, Any] = {
    "name": "lamost",
    "weight": "equal",
    "spectra": "lamost_dr1/spectra/*.fits*",
    "table": "lamost_dr1/labels.csv",
    "columns": {"m_h": "feh"},
    "limits": {"teff": [4000, 7000], "snri": [20, 1e4]},
}
SYNSPEC: dict[str, Any] = {
    "name": "synspec",
    "weight": "equal",
    "library": {
        "file": "synspec_rvs/spectra.npz",
        "wavelength": "wavelength_air_angstrom",
        "wavelength_unit": "Angstrom",
        "medium": "air",
        "flux": "flux_u16",
        "flux_scale": "flux_scale",
        "labels": "labels",
        "label_names": "label_names",
        "resolving_power": 1e6,
    },
    "assumed_snr": 100,
    "prepare": [{"step": "to_vacuum"}, {"step": "degrade", "resolving_power": 1800}, *COMMON],
    "limits": {"teff": [3600, 9000]},
}


def recipe(*parts: dict[str, Any], folds: int = 5) -> Recipe:
    """A Payne with Teff, log g and [M/H] from these parts, both of the same weight; settings are untuned."""
    content = {
        "name": "semi-empirical",
        "data": {"parts": list(parts)},
        "label": [
            {"name": "teff", "column": "teff", "unit": "K", "coordinate": "inverse"},
            {"name": "logg", "column": "logg", "unit": "dex"},
            {"name": "m_h", "column": "m_h", "unit": "dex"},
        ],
        "prepare": [{"step": "mask"}, *COMMON],
        "train": {"method": "payne", "payne": {"components": 20}, "covariance": {"rank": 5, "inflation": 10}},
        "fit": {"prior": {"components": 6}},
        "errors": {"model": "formal"},
        "validation": {"folds": folds},
    }
    return parse_recipe(content, "semi_empirical.py")


def main(folder: str) -> None:
    """Print bias and scatter against LASP for both models."""
    both = load_training_set(recipe(LAMOST, SYNSPEC), folder)
    stars = both.spectra[both.validated]
    truth = both.values[both.validated]

    alone = recipe(SYNSPEC, folds=0)
    synthetic = train_on(alone, load_training_set(alone, folder)).model.infer_prepared(stars)
    held_out = train_on(recipe(LAMOST, SYNSPEC), both).held_out
    assert held_out is not None  # recipe() asks for cross-validation
    semi_empirical = held_out[np.isin(held_out.ids, stars.ids)]
    for name, estimates in (("synthetic", synthetic), ("semi-empirical", semi_empirical)):
        print(f"\n{name}: {len(stars)} LAMOST stars against LASP")
        print(format_table(label_metrics(truth, estimates.values, labels=estimates.labels)))


if __name__ == "__main__":
    main(*sys.argv[1:])
