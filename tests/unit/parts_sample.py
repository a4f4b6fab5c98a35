"""Two parts of a training set in files: three stars with four visits, their table, and a synthetic library."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from mastar_files import write_allstar, write_goodspec, write_library

from maury.recipes import parse_recipe
from maury.recipes.dataset import TrainingSet, load_training_set

WAVELENGTH = 5000.0 + 0.5 * np.arange(600)
GRID = {"step": "resample", "start": 5050, "stop": 5200, "spacing": 1}
LABELS = np.array([[5000.0, 4.0, 0.0, 0.1, 1.5], [5500.0, 4.2, -0.5, 0.2, 1.0], [6000.0, 4.4, 0.2, 0.0, 2.0]])
RA, DEC = np.array([10.0, 20.0, 30.0]), np.array([-5.0, 0.0, 60.0])
STAR_OF_VISIT = np.array([0, 1, 1, 2])
VISIT_ERROR = np.array([2.0, 1.0, 0.5, 1.0])
VISIT_LEVEL = np.array([100.0, 101.0, 99.0, 100.0])

OBSERVED: dict[str, Any] = {
    "name": "observed",
    "spectra": "goodspec*.fits",
    "table": "allStar.fits",
    "join": "sky",
    "ra_column": "RA",
    "dec_column": "DEC",
    "columns": {"teff": "TEFF", "logg": "LOGG"},
}
LIBRARY: dict[str, Any] = {
    "file": "theory.npz",
    "wavelength": "wavelength_angstrom",
    "wavelength_unit": "Angstrom",
    "medium": "vacuum",
    "flux": "flux_u16",
    "flux_scale": "flux_scale",
    "labels": "labels",
    "label_names": "label_names",
    "resolving_power": 1e6,
}
SYNTHETIC: dict[str, Any] = {"name": "synthetic", "library": LIBRARY, "assumed_snr": 50}


def recipe_of(*parts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"parts": [copy.deepcopy(part) for part in parts]},
        "label": [
            {"name": "teff", "column": "teff", "unit": "K"},
            {"name": "logg", "column": "logg", "unit": "dex"},
        ],
        "prepare": [GRID],
        **changes,
    }


def load(folder: Path, *parts: dict[str, Any], **changes: Any) -> TrainingSet:
    return load_training_set(parse_recipe(recipe_of(*parts, **changes), "mine.toml"), folder)


def make_files(tmp_path: Path) -> Path:
    """Three stars with four visits, their table, and a library of five spectra at the level 0.5."""
    flux = np.tile(VISIT_LEVEL[:, None], (1, WAVELENGTH.size))
    ivar = np.tile(1 / VISIT_ERROR[:, None] ** 2, (1, WAVELENGTH.size))
    names = np.array(["3-1", "3-2", "3-3"])[STAR_OF_VISIT]
    ra = RA[STAR_OF_VISIT] + 0.1 / 3600  # 0.1 arcsec beside the table's positions
    write_goodspec(tmp_path / "goodspec.fits", names, ra, DEC[STAR_OF_VISIT], np.zeros(4), flux, ivar, WAVELENGTH)
    write_allstar(tmp_path / "allStar.fits", RA, DEC, LABELS)
    labels = [[7000.0 + 1000 * i, 4.0] for i in range(5)]
    write_library(tmp_path / "theory.npz", WAVELENGTH, np.full((5, WAVELENGTH.size), 0.5), labels, ["teff", "logg"])
    return tmp_path
