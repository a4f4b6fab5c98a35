"""LAMOST-like stars per second from prepared files to a catalogue, and what reading adds: ``python -m benchmarks.bench_stars``.

Files in LAMOST's form are simulated (``tests/unit/lamost_survey.py``), a small Payne is trained on some of them, and the others
are read, prepared, fitted and written, as ``maury infer`` does, on all cores. The peer is a number: 400 stars a second on an A100
(PyLASP).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maury.assess.quality import QualityCuts
from maury.assess.region import TrainingRegion
from maury.catalogue import build_catalogue, write_catalogue
from maury.emulate.payne_config import PRESETS
from maury.emulate.payne_training import train_payne
from maury.fit.fitter import ChiSquareFitter
from maury.fit.inferrer import EmulatorInferrer
from maury.labels import KNOWN_LABELS
from maury.model import Model
from maury.read import read_files
from maury.recipes import parse_recipe
from maury.spectra import Spectra
from maury.threads import cores

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit"))
from lamost_survey import LABELS, make_survey, survey_recipe

N_FILES = 400
REPEATED = 16  # each of the files that are inferred stands for this many stars
ROUNDS = 5
PYLASP = 400.0
Row = dict[str, Any]


def run() -> list[Row]:
    """One row: stars per second from spectra in memory to a catalogue file, with the share of reading in its sentence."""
    with tempfile.TemporaryDirectory() as folder:
        return [_stars_per_second(Path(folder))]


def _stars_per_second(folder: Path) -> Row:
    truth = make_survey(folder, n_stars=N_FILES)
    model = _model(folder).running_on(workers=cores())
    paths = [folder / "spectra" / str(name) for name in truth["file"][: N_FILES // 2]]
    reading = [_timed(lambda: read_files(paths))[0] / len(paths) for _ in range(ROUNDS)]
    spectra = list(read_files(paths).spectra) * REPEATED
    n = sum(map(len, spectra))
    stages: dict[str, list[float]] = {"prepare": [], "fit": [], "catalogue": []}
    for _ in range(ROUNDS):
        taken, prepared = _timed(lambda: model.preparation.prepare_each(spectra, workers=cores()).spectra)
        stages["prepare"].append(taken / n)
        taken, estimates = _timed(lambda prepared=prepared: model.infer_prepared(prepared))
        stages["fit"].append(taken / n)
        taken, _ = _timed(lambda estimates=estimates: _write(model, estimates, folder / "stars.fits"))
        stages["catalogue"].append(taken / n)
    median = {name: 1e3 * statistics.median(times) for name, times in stages.items()}
    total = [sum(times) for times in zip(*stages.values(), strict=True)]
    rate = [1.0 / t for t in total]
    read_ms = 1e3 * statistics.median(reading)
    parts = ", ".join(f"{name} {ms:.3f}" for name, ms in median.items())
    scatter = float(np.median(np.abs(estimates.values[: N_FILES // 2, 0] - truth["teff"][: N_FILES // 2])))
    return {
        "name": f"{n} LAMOST-like stars to a catalogue, {cores()} cores",
        "peer": "PyLASP, A100 (published)",
        "ratio": statistics.median(rate) / PYLASP,
        "spread": (min(rate) / PYLASP, max(rate) / PYLASP),
        "agreement": f"{statistics.median(rate):.0f} stars/s; ms a star: {parts}; reading {read_ms:.2f} in one process, "
        f"{100 * read_ms / (read_ms + 1e3 * statistics.median(total)):.0f} % of all; median |Teff - truth| {scatter:.0f} K",
        "ours_ms": 1e3 * statistics.median(total),
        "peer_ms": 1e3 / PYLASP,
    }


def _model(folder: Path) -> Model:
    """A small Payne on the survey's training half, with its preparation."""
    from astropy.table import Table

    table = Table.read(folder / "labels.csv")
    spectra = read_files([folder / "spectra" / str(name) for name in table["file"]]).spectra
    preparation = parse_recipe(survey_recipe(), "benchmark").preparation
    prepared: Spectra = preparation(spectra)
    values = np.column_stack([np.asarray(table[name], dtype=float) for name in LABELS])
    labels = tuple(KNOWN_LABELS[name] for name in LABELS)
    config = PRESETS["maury"]
    config = replace(config, loop=replace(config.loop, max_epochs=200))
    emulator = train_payne(prepared, labels, values, config).emulator
    region = TrainingRegion.from_training(emulator.labels, values)
    return Model(preparation, EmulatorInferrer(emulator, ChiSquareFitter()), region, QualityCuts(max_reduced_chi2=5.0))


def _write(model: Model, estimates: Any, path: Path) -> None:
    write_catalogue(build_catalogue(estimates, model_id=model.model_id), path)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> None:
    """Print the row."""
    for row in run():
        print(f"{row['name']}: x{row['ratio']:.1f} of {row['peer']}; {row['agreement']}\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
