"""A made-up survey and two recipes that are compared on it: one trains on its stars, the other on computed spectra."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from lamost_survey import LABELS, make_survey, survey_recipe

from maury.grids import AnalyticSpectra
from maury.recipes import Recipe, parse_recipe

N_LABELLED, N_FOLDS = 40, 4
TEST: dict[str, Any] = {
    "spectra": "spectra/*.fits",
    "table": "labels.csv",
    "format": "lamost",
    "folds": N_FOLDS,
    "limits": {"teff": [4300, 7000]},
    "repeats": {"spectra": "spectra/*.fits", "table": "groups.csv", "format": "lamost"},
}
GRID: list[dict[str, Any]] = [
    {"step": "mask", "presets": []},
    {"step": "resample", "start": 5000, "stop": 5400, "spacing": 2},
    {"step": "gaussian", "length": 50, "variant": "paper"},
]
LIBRARY: dict[str, Any] = {
    "file": "library.npz",
    "wavelength": "wavelength",
    "wavelength_unit": "Angstrom",
    "medium": "vacuum",
    "flux": "flux",
    "labels": "labels",
    "label_names": "label_names",
    "resolving_power": 1e6,
}
COPY = "spec-55862-DEMO_sp02-001.fits"
"""Another visit of the first star, under a name of its own; it is in the table of training labels alone."""


def make_data(folder: Path) -> Path:
    """``labels.csv`` of 40 stars, ``training.csv`` with another visit of the first, ``groups.csv``, and ``library.npz``."""
    make_survey(folder, n_stars=2 * N_LABELLED)
    table = Table.read(folder / "labels.csv", format="ascii.csv")
    first = str(table["file"][0])
    shutil.copy(folder / "spectra" / first, folder / "spectra" / COPY)
    table.add_row([COPY, *(table[name][0] for name in LABELS)])
    table.write(folder / "training.csv", format="ascii.csv")
    truth = Table.read(folder / "truth.csv", format="ascii.csv")  # pairs of stars as alike as "visits" need not be
    groups = {"file": [str(file) for file in truth["file"][:24]], "group": [f"star {i // 2}" for i in range(24)]}
    Table(groups).write(folder / "groups.csv", format="ascii.csv")
    random = np.random.default_rng(5)
    labels = np.column_stack([random.uniform(4000, 7200, 150), random.uniform(1, 5, 150), random.uniform(-1.5, 0.5, 150)])
    wavelength = np.arange(4950.0, 5450.0)
    flux = AnalyticSpectra(LABELS).flux(wavelength, labels)
    names = np.array(["teff", "logg", "m_h"])
    np.savez(folder / "library.npz", wavelength=wavelength, flux=flux, labels=labels, label_names=names)
    return folder


def own_content(**changes: Any) -> dict[str, Any]:
    """The Cannon on the survey's own stars, among them those that judge it."""
    data = {"spectra": "spectra/*.fits", "table": "training.csv", "format": "lamost"}
    base = survey_recipe(name="own", data=data, prepare=GRID, train={"order": 1}, test=TEST)
    return {**base, "validation": {"folds": 3}, **copy.deepcopy(changes)}


def computed_content(**changes: Any) -> dict[str, Any]:
    """The Cannon on a library of computed spectra; its metallicity is [M/H]."""
    labels = [
        {"name": "teff", "column": "teff", "unit": "K", "coordinate": "inverse"},
        {"name": "logg", "column": "logg", "unit": "dex"},
        {"name": "m_h", "column": "m_h", "unit": "dex"},
    ]
    data = {"library": LIBRARY, "assumed_snr": 100, "validated": True}
    test = {**TEST, "columns": {"m_h": "fe_h"}}
    base = survey_recipe(name="computed", data=data, label=labels, prepare=GRID, train={"order": 1}, test=test)
    return {**base, "validation": {"folds": 3}, **copy.deepcopy(changes)}


def recipe_of(content: dict[str, Any]) -> Recipe:
    return parse_recipe(copy.deepcopy(content), f"{content['name']}.toml")


def write_recipe(folder: Path, content: dict[str, Any]) -> Path:
    """The recipe as TOML, of which JSON of its values is nearly a part."""
    path = folder / f"{content['name']}.toml"
    path.write_text("\n".join(f"{key} = {_inline(value)}" for key, value in content.items()), encoding="utf-8")
    return path


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inline(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)
