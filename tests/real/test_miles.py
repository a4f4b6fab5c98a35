"""The main job on real spectra: train on MILES as typed, infer LAMOST, and believe the catalogue."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from maury.catalogue import read_catalogue
from maury.constants import ROBUST_SIGMA_PER_MAD
from maury.flags import ResultFlag
from maury.store import load_model, read_model_file


def maury(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maury", *words], cwd=cwd, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder with the trained model and the catalogue of LAMOST DR1, made by the two commands of the README."""
    folder = tmp_path_factory.mktemp("miles")
    trained = maury("train", "miles", "--data", str(data), "-o", "miles.safetensors", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    (folder / "train.txt").write_text(trained.stdout, encoding="utf-8")
    files = sorted(str(path) for path in (data / "lamost_dr1/spectra").glob("*.fits"))
    inferred = maury("infer", "miles.safetensors", *files, "-o", "lamost.fits", cwd=folder)
    assert inferred.returncode == 0, inferred.stderr
    return folder


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Table:
    return read_catalogue(folder / "lamost.fits")


def scatter(values: np.ndarray) -> float:
    return float(ROBUST_SIGMA_PER_MAD * np.median(np.abs(values - np.median(values))))


def test_training_prints_all_three_labels_in_the_range_asked_for(folder: Path) -> None:
    printed = (folder / "train.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in printed.splitlines() if "teff 4000-7000" in line]
    assert [row[0] for row in rows] == ["teff", "logg", "fe_h"]


def test_cross_validation_is_as_good_as_the_docs_say(folder: Path) -> None:
    # docs/results.md; the limits are those figures plus twice their bootstrap error, so a lost feature shows and noise does not
    scores = load_model(folder / "miles.safetensors").provenance["scores"]
    found = {row["label"]: row for row in scores if row["selection"] == "teff 4000-7000"}
    assert found["teff"]["scatter"] < 95
    assert found["logg"]["scatter"] < 0.24
    assert found["fe_h"]["scatter"] < 0.14
    assert abs(found["teff"]["bias"]) < 15
    assert found["teff"]["n"] == 580


def test_catalogue_has_the_columns_of_the_design(catalogue: Table) -> None:
    wanted = ["file", "id", "teff", "e_teff", "logg", "e_logg", "fe_h", "e_fe_h", "rho_teff_logg", "chi2", "n_pixels"]
    wanted += ["snr", "status", "flag", "flag_teff", "flag_logg", "flag_fe_h", "model_id"]
    assert set(wanted) <= set(catalogue.colnames)
    assert str(catalogue["teff"].unit) == "K"
    assert str(catalogue["logg"].unit) == "dex"
    assert all(catalogue[name].description for name in wanted)
    assert len(catalogue) == 139


def test_plain_astropy_opens_it_with_units(folder: Path) -> None:
    table = Table.read(folder / "lamost.fits")
    assert str(table["e_teff"].unit) == "K"
    assert table["teff"].description


def test_lamost_against_lasp(catalogue: Table, data: Path) -> None:
    # LASP labels are another scale; the limits keep the figures of docs/results.md from slipping (first tries in the issue:
    # scatter 168 K / 0.19 / 0.15, bias -155 K / -0.15 / -0.14)
    lasp = {str(row["file"]): row for row in Table.read(data / "lamost_dr1/labels.csv") if not np.ma.is_masked(row["teff"])}
    rows = [(row, lasp[row["file"]]) for row in catalogue if row["file"] in lasp and lasp[row["file"]]["snri"] > 20]
    rows = [(row, truth) for row, truth in rows if 4000 < truth["teff"] < 7000]
    assert len(rows) > 50
    teff = np.array([row["teff"] - truth["teff"] for row, truth in rows])
    fe_h = np.array([row["fe_h"] - truth["feh"] for row, truth in rows])
    assert scatter(teff) < 120
    assert abs(np.median(teff)) < 110
    assert scatter(fe_h) < 0.12


def test_stars_beyond_the_training_range_are_flagged(catalogue: Table) -> None:
    low, high = 3300.0, 9500.0
    outside = np.isfinite(catalogue["teff"]) & ((catalogue["teff"] < low) | (catalogue["teff"] > high))
    assert (np.asarray(catalogue["flag"])[outside] & int(ResultFlag.OUT_OF_RANGE) > 0).all()


def test_the_model_says_where_it_came_from(folder: Path, catalogue: Table) -> None:
    _, header = read_model_file(folder / "miles.safetensors")
    assert header["provenance"]["recipe"]["name"] == "miles"
    assert header["provenance"]["command"].startswith("__main__.py train miles")
    assert set(catalogue["model_id"]) == {header["model_id"]}
