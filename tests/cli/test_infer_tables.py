"""``maury infer --photometry`` and ``--velocities``: tables joined to the spectra by file name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner, Result

from maury.catalogue import read_catalogue
from maury.cli import app
from maury.emulate import train_cannon
from maury.errors import MauryError
from maury.fit import ChiSquareFitter, EmulatorInferrer, PhotometricStarts
from maury.grids import AnalyticSpectra
from maury.labels import make_label
from maury.model import Model
from maury.prepare import Preparation, Resample
from maury.store import load_model, save_model

NAMES = ("teff", "logg")
STARS = np.array([[5000.0, 2.5], [5800.0, 4.4], [6200.0, 4.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, with and without isochrones, and three spectra of the observed frame in CSV."""
    folder = tmp_path_factory.mktemp("infer")
    labels = (make_label("teff", "K", "inverse"), make_label("logg", "dex"))
    values = np.random.default_rng(3).uniform([4500, 1.0], [6500, 4.8], (200, 2))
    analytic = AnalyticSpectra(NAMES)
    preparation = Preparation((Resample(start=5020, stop=5380, spacing=2.0, missing_velocity="zero"),))
    spectra = analytic.spectra(np.arange(5000.0, 5400.0, 2.0), values, snr=100.0, seed=1)
    emulator = train_cannon(preparation(spectra), labels, values)
    points = PhotometricStarts(*(np.array(c) for c in ([1.2, 0.8, 0.6], [1.0, 4.7, 3.5], STARS[:, 0], STARS[:, 1])))
    for name, starts in (("with", points), ("without", None)):
        model = Model(preparation, EmulatorInferrer(emulator, ChiSquareFitter(photometry=starts)))
        save_model(model, folder / f"{name}.safetensors")
    wavelength = np.arange(4980.0, 5420.0, 1.0)
    flux = analytic.flux(wavelength, STARS, velocity=[0.0, 60.0, 0.0]) / analytic.continuum(wavelength, STARS)
    for i, row in enumerate(flux):
        table = Table({"wavelength_vac [Angstrom]": wavelength, "flux": row, "error": np.full(len(row), 0.01)})
        table.write(folder / f"star{i}.csv")
    (folder / "broken.csv").write_text("wavelength_vac [Angstrom],flux\n", encoding="utf-8")
    return folder


def infer(folder: Path, model: str, *words: str) -> Result:
    files = [str(folder / name) for name in ("star0.csv", "broken.csv", "star1.csv", "star2.csv")]
    return CliRunner().invoke(app, ["infer", str(folder / f"{model}.safetensors"), *files, *words])


def test_photometry_reaches_the_fit_and_the_catalogue(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "colours.csv").write_text("file,bp_rp,m_g\nstar0.csv,1.2,1.0\nspectra/star2.csv,0.6,3.5\n", encoding="utf-8")
    words = ("--photometry", str(tmp_path / "colours.csv"), "-o", str(tmp_path / "stars.fits"))
    assert infer(folder, "with", *words).exit_code == 0
    catalogue = read_catalogue(tmp_path / "stars.fits")
    np.testing.assert_array_equal(catalogue["bp_rp"], [1.2, np.nan, np.nan, 0.6])
    assert str(catalogue["m_g"].unit) == "mag"
    assert "corrected for extinction" in catalogue["m_g"].description
    assert np.isfinite(catalogue["teff"][[0, 2, 3]]).all()  # star1 has no photometry: the search's starts serve


def test_the_isochrones_travel_in_the_model_file(folder: Path) -> None:
    photometry = load_model(folder / "with.safetensors").inferrer.fitter.photometry
    assert photometry is not None
    np.testing.assert_array_equal(photometry.guess([0.8], [4.7]), [[5800.0], [4.4]])


def test_velocities_replace_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    table = Table({"file": ["star1.csv"], "rv": [60000.0]})
    table["rv"].unit = "m/s"
    table.write(tmp_path / "velocities.ecsv")
    for name, words in (("bare", ()), ("given", ("--velocities", str(tmp_path / "velocities.ecsv")))):
        infer(folder, "without", *words, "-o", str(tmp_path / f"{name}.csv"))
    bare, given = (read_catalogue(tmp_path / f"{name}.csv") for name in ("bare", "given"))
    assert given["rv"][2] == 60.0
    assert given["chi2"][2] < 0.2 * bare["chi2"][2]
    assert given["chi2"][0] == bare["chi2"][0]


@pytest.mark.parametrize(
    ("model", "option", "rows", "sentence"),
    [
        ("without", "--photometry", "file,bp_rp,m_g\nstar0.csv,1.2,1.0\n", "expected a model with isochrones for --photometry"),
        ("with", "--photometry", "file,bp_rp\nstar0.csv,1.2\n", "expected columns file and bp_rp (mag), m_g (mag)"),
        ("with", "--photometry", "file,bp_rp,m_g\nstar0.csv,red,1.0\n", "expected numbers in mag in column bp_rp"),
        ("with", "--velocities", "name,rv\nstar0.csv,1.2\n", "expected columns file and rv (km/s)"),
        ("with", "--velocities", "file,rv\nstar0.csv,1.2\na/star0.csv,1.2\n", "one row per file in"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, tmp_path: Path, model: str, option: str, rows: str, sentence: str) -> None:
    (tmp_path / "table.csv").write_text(rows, encoding="utf-8")
    result = infer(folder, model, option, str(tmp_path / "table.csv"), "-o", str(tmp_path / "stars.csv"))
    assert isinstance(result.exception, MauryError)
    assert sentence in str(result.exception)
    assert not (tmp_path / "stars.csv").exists()
