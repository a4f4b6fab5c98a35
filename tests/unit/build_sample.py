"""A small library and a recipe for ``maury grid build``, for tests."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from maury.grids import AnalyticSpectra
from maury.recipes.grid_build import build_training_set
from maury.recipes.grid_schema import BuildRecipe, parse_build_recipe

TEFF, LOGG, M_H = np.arange(3400.0, 3800.0, 100.0), np.array([4.5, 5.0]), np.array([-0.5, 0.0, 0.5])
STAR = AnalyticSpectra(("teff", "logg", "m_h"), resolving_power=60_000, n_lines=2000)
WAVELENGTH = np.arange(8795.0, 8841.0, 0.05)
LIBRARY = {
    "file": "library.npz",
    "wavelength": "wavelength",
    "wavelength_unit": "Angstrom",
    "medium": "vacuum",
    "flux": "flux",
    "labels": "labels",
    "label_names": ["teff", "logg", "m_h"],
    "resolving_power": 60_000,
}
LIBRARY_TOML = "\n".join(f"{key} = {json.dumps(value)}" for key, value in LIBRARY.items())  # JSON of these values is TOML
RECIPE: dict[str, Any] = {
    "name": "small",
    "seed": 7,
    "grid": {"library": LIBRARY, "wavelength": [8800.0, 8836.0]},
    "sample": {"kind": "nodes", "copies": 2, "ranges": {"vsini": [0, 40]}},
    "instrument": {"resolving_power": 20_000},
    "prepare": [{"step": "resample", "start": 8801, "stop": 8835, "spacing": 0.1}, {"step": "gisic"}],
    "augment": {"velocity_jitter": 1.0, "wiggles": 0.01, "snr": [50, 100], "dropped": 0.02},
}


def write_library(folder: Path) -> Path:
    """``library.npz`` in the folder; returns the folder."""
    labels = np.array([[a, b, c] for a in TEFF for b in LOGG for c in M_H])
    np.savez(folder / "library.npz", wavelength=WAVELENGTH, flux=1e7 * STAR.flux(WAVELENGTH, labels), labels=labels)
    return folder


def recipe(**changes: Any) -> BuildRecipe:
    return parse_build_recipe(RECIPE | changes, "test")


def build(root: Path, output: Path, ready: BuildRecipe | None = None, **options: Any) -> dict[str, np.ndarray]:
    """Every array of a training set that is built now, as an archive."""
    build_training_set(ready or recipe(), root, output, **options)
    with np.load(output, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def contents(path: Path) -> dict[str, bytes]:
    """Every byte of a training set, by file."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


DRIVER = """
import json, signal, sys
from pathlib import Path

import maury.cli
from maury.recipes.grid_build import build_training_set
from maury.recipes.grid_schema import parse_build_recipe


def build():
    ready = parse_build_recipe(json.loads(sys.argv[1]), "test")
    build_training_set(ready, Path(sys.argv[2]), Path(sys.argv[3]), processes=2, rows_per_chunk=1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, do not hear it
    maury.cli.app = build
    maury.cli.main()
"""


def driver(folder: Path, root: Path, output: Path) -> list[str]:
    """A build of one spectrum per chunk in two processes, with the command line's way of ending."""
    script = folder / "driver.py"
    script.write_text(DRIVER, encoding="utf-8")
    return [sys.executable, str(script), json.dumps(RECIPE), str(root), str(output)]


def until(true: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(group: int) -> bool:
    """Whether any process of a session is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
