"""A small library and a recipe with a sweep, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maury.grids import AnalyticSpectra
from maury.recipes import Recipe, parse_recipe

N_STARS, N_DRAWS = 60, 2
LIBRARY: dict[str, Any] = {
    "file": "library.npz",
    "wavelength": "wavelength",
    "wavelength_unit": "Angstrom",
    "medium": "vacuum",
    "flux": "flux",
    "labels": "labels",
    "label_names": "label_names",
    "resolving_power": 5000,
}
SWEEP: dict[str, Any] = {
    "architectures": ["small", "starnet"],
    "labels": [["teff"], ["logg"], ["teff", "logg"]],
    "screening": 0.25,
    "report": 0.25,
    "thresholds": {"teff": 2000, "logg": 2},
    "window": [
        {"start": 5010, "stop": 5090, "spacing": 1, "chunks": [64, 32]},
        {"start": 5120, "stop": 5200, "spacing": 1, "chunks": [64]},
    ],
    "joined": [["5010-5090", "5120-5200"]],
}
RECIPE: dict[str, Any] = {
    "name": "small",
    "data": {"assumed_snr": 100, "star_column": "base", "library": LIBRARY},
    "label": [{"name": "teff", "column": "teff", "unit": "K"}, {"name": "logg", "column": "logg", "unit": "dex"}],
    "prepare": [{"step": "resample"}, {"step": "gisic", "sigma": 3}],
    "train": {
        "method": "cnn",
        "cnn": {"preset": "passegger2020", "validation_fraction": 0.2, "max_epochs": 2, "batch_size": 16, "min_pixels": 10},
    },
    "sweep": SWEEP,
}


def write_library(folder: Path, seed: int = 3) -> Path:
    """``library.npz``: draws of stars at random labels, without noise; returns the folder."""
    rng = np.random.default_rng(seed)
    base = np.repeat(np.arange(N_STARS), N_DRAWS)
    labels = np.array([4500.0, 1.5]) + rng.random((len(base), 2)) * [2000.0, 3.0]
    wavelength = np.arange(5000.0, 5240.0)
    flux = AnalyticSpectra(("teff", "logg")).flux(wavelength, labels)
    names = np.array(["teff", "logg"])
    np.savez(folder / "library.npz", wavelength=wavelength, flux=flux, labels=labels, label_names=names, base=base)
    return folder


def sweep_recipe(sweep: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """The recipe with some keys of its sweep, and others, changed."""
    return parse_recipe(RECIPE | {"sweep": SWEEP | (sweep or {})} | changes, "small.toml")


def write_recipe(file: Path, **sweep: Any) -> Path:
    """The same recipe as TOML."""
    tables = [f'name = "{RECIPE["name"]}"\n', _table("data", {k: v for k, v in RECIPE["data"].items() if k != "library"})]
    tables += [_table("data.library", LIBRARY)]
    tables += [_table("label", label, "[[{}]]") for label in RECIPE["label"]]
    tables += [_table("prepare", step, "[[{}]]") for step in RECIPE["prepare"]]
    tables += [_table("train", {"method": "cnn"}), _table("train.cnn", RECIPE["train"]["cnn"])]
    settings = SWEEP | sweep
    tables += [_table("sweep", {key: value for key, value in settings.items() if key not in ("window", "thresholds")})]
    tables += [_table("sweep.thresholds", settings["thresholds"])]
    tables += [_table("sweep.window", window, "[[{}]]") for window in settings["window"]]
    file.write_text("\n".join(tables), encoding="utf-8")
    return file


def _table(name: str, values: dict[str, Any], form: str = "[{}]") -> str:
    """JSON of these values is TOML."""
    return "\n".join([form.format(name), *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])
