"""``maury rv``: velocities of files against template files and models, a row for every file, and into ``maury infer``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner, Result

from maury.assess.region import TrainingRegion
from maury.catalogue import read_catalogue
from maury.cli import app
from maury.emulate import train_cannon
from maury.errors import MauryError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.grids import AnalyticSpectra
from maury.labels import make_label
from maury.model import Model
from maury.prepare import MeasureRv, Preparation, Resample, ToVacuum
from maury.store import save_model

NAMES = ("teff", "logg")
RV = np.array([-120.0, 35.0, 210.0])
STARS = np.array([[5000.0, 2.5], [5800.0, 4.4], [6200.0, 4.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a template file, three spectra in CSV, and a broken one."""
    folder = tmp_path_factory.mktemp("rv")
    labels = (make_label("teff", "K", "inverse"), make_label("logg", "dex"))
    values = np.random.default_rng(3).uniform([4500, 1.0], [6500, 4.8], (200, 2))
    star = AnalyticSpectra(NAMES)
    preparation = Preparation((ToVacuum(), Resample(start=4800, stop=5600, spacing=1.5)))
    spectra = star.spectra(np.arange(4700.0, 5700.0, 1.0), values, snr=200.0, seed=1)
    emulator = train_cannon(preparation(spectra), labels, values)
    inferrer = EmulatorInferrer(emulator, ChiSquareFitter())
    save_model(Model(preparation, inferrer, TrainingRegion.from_training(emulator.labels, values)), folder / "m.safetensors")
    save_model(Model(preparation, inferrer), folder / "bare.safetensors")
    measuring = Preparation(
        (MeasureRv.of(star.spectra(np.arange(4700.0, 5700.0), STARS[1:2], snr=1e5, seed=2)), *preparation.steps)
    )
    save_model(Model(measuring, inferrer), folder / "measuring.safetensors")
    wavelength = np.arange(4780.0, 5620.0, 1.0)
    noise = 0.02 * np.random.default_rng(4).standard_normal((3, wavelength.size))
    flux = star.flux(wavelength, STARS, velocity=RV) / star.continuum(wavelength, STARS) + noise
    for i, row in enumerate(flux):
        _csv(folder / f"star{i}.csv", wavelength, row)
    wide = np.arange(4700.0, 5700.0, 0.5)
    _csv(folder / "template.csv", wide, star.normalised(wide, STARS[1:2])[0])
    (folder / "broken.csv").write_text("wavelength_vac [Angstrom],flux\n", encoding="utf-8")
    return folder


def _csv(path: Path, wavelength: np.ndarray, flux: np.ndarray) -> None:
    Table({"wavelength_vac [Angstrom]": wavelength, "flux": flux, "error": np.full(flux.size, 0.02)}).write(path)


def rv(folder: Path, *words: str, files: tuple[str, ...] = ("star0.csv", "broken.csv", "star1.csv", "star2.csv")) -> Result:
    return CliRunner().invoke(app, ["rv", *(str(folder / name) for name in files), *words])


def refusal(folder: Path, *words: str) -> str:
    """The sentence with which the command refuses."""
    result = rv(folder, *words)
    assert isinstance(result.exception, MauryError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.parametrize("template", ["template.csv", "m.safetensors"])
def test_velocities_against_a_file_and_a_model(folder: Path, tmp_path: Path, template: str) -> None:
    path = tmp_path / "velocities.csv"
    result = rv(folder, "--template", str(folder / template), "-o", str(path), "--continuum", "none")
    assert result.exit_code == 0, result.output
    assert "4 spectra, 3 with a velocity" in result.output
    table = Table.read(path, format="ascii.csv")
    assert table["file"].tolist() == ["star0.csv", "broken.csv", "star1.csv", "star2.csv"]
    good = np.array([0, 2, 3])
    pulls = (table["rv"][good] - RV) / table["e_rv"][good]
    assert np.abs(pulls).max() < 4
    assert (table["e_rv"][good] < 5).all()
    assert np.isnan(table["rv"][1])
    assert table["flag_names"][1] == "UNREADABLE"
    assert "expected" in table["reason"][1]


def test_fits_carries_units_and_meanings(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "velocities.fits"
    assert rv(folder, "-t", str(folder / "template.csv"), "-o", str(path)).exit_code == 0
    table = Table.read(path)
    assert (str(table["rv"].unit), str(table["e_rv"].unit)) == ("km / s", "km / s")
    assert table["template"].tolist() == ["template", "", "template", "template"]
    with fits.open(path) as hdus:
        assert hdus[1].columns["ccf_peak"].format == "D"


def test_range_window_and_floor(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.ecsv"
    words = ("-t", str(folder / "template.csv"), "--range", "-50", "50", "--floor", "30", "--window", "9000", "-o", str(path))
    assert rv(folder, *words).exit_code == 0
    table = Table.read(path, format="ascii.ecsv")
    assert table["flag_names"].tolist()[:2] == ["AT_BOUND", "UNREADABLE"]
    assert np.isfinite(table["rv"]).tolist() == [False, False, True, False]
    assert table["e_rv"][2] >= 30


def test_the_table_is_what_infer_reads(folder: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "velocities.csv", tmp_path / "stars.fits"
    assert rv(folder, "-t", str(folder / "m.safetensors"), "-o", str(path), "--continuum", "none").exit_code == 0
    files = [str(folder / f"star{i}.csv") for i in range(3)]
    done = CliRunner().invoke(app, ["infer", str(folder / "m.safetensors"), *files, "--velocities", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    catalogue = read_catalogue(out)
    np.testing.assert_allclose(catalogue["rv"], RV, atol=10.0)
    # without the velocities these lines would be off by up to 3.6 Å and the temperatures by hundreds of K
    np.testing.assert_allclose(catalogue["teff"], STARS[:, 0], atol=100.0)


def test_a_model_that_measures_velocities_itself(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "stars.fits"
    files = [str(folder / f"star{i}.csv") for i in range(3)]
    done = CliRunner().invoke(app, ["infer", str(folder / "measuring.safetensors"), *files, "-o", str(out)])
    assert done.exit_code == 0, done.output
    catalogue = read_catalogue(out)
    np.testing.assert_allclose(catalogue["rv"], RV, atol=10.0)
    np.testing.assert_allclose(catalogue["teff"], STARS[:, 0], atol=100.0)


def test_names_of_files_stay_what_infer_compares_with(folder: Path, tmp_path: Path) -> None:
    star = tmp_path / "étoile.csv"
    star.write_bytes((folder / "star2.csv").read_bytes())
    paths = [tmp_path / "v.csv", tmp_path / "v.ecsv"]
    for path in paths:
        assert rv(folder, "-t", str(folder / "template.csv"), "-o", str(path), files=(str(star),)).exit_code == 0
        assert Table.read(path, format=f"ascii{path.suffix}")["file"][0] == "étoile.csv"


def test_only_broken_files_end_with_2(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    result = rv(folder, "-t", str(folder / "template.csv"), "-o", str(path), files=("broken.csv", "nowhere.csv"))
    assert result.exit_code == 2
    assert len(Table.read(path, format="ascii.csv")) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-t", "template.csv", "-o", "v.txt"), "ending in .csv"),
        (("-t", "template.csv", "--range", "100", "-100"), "range low < high"),
        (("-t", "template.csv", "--continuum", "spline"), "running_median, gisic"),
        (("-t", "template.csv", "--range", "nan", "100"), "range low < high"),
        (("-t", "template.csv", "--window", "0"), "positive window"),
        (("-t", "template.csv", "--window", "nan"), "positive window"),
        (("-t", "template.csv", "--floor", "-1"), "floor of errors"),
        (("-t", "template.csv", "--floor", "nan"), "floor of errors"),
        (("-t", "template.csv", "--medium", "water"), "medium"),
        (("-t", "template.csv", "--snr", "-3"), "signal-to-noise"),
        (("-t", "template.csv", "--format", "scroll"), "scroll"),
        (("-t", "nowhere.fits"), "nowhere.fits"),
        (("-t", "broken.csv"), "broken.csv"),
        (("-t", "bare.safetensors"), "at least 100 training stars"),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    first, name, *rest = words
    output = () if "-o" in words else ("-o", str(tmp_path / "v.csv"))
    assert sentence in refusal(folder, first, str(folder / name), *rest, *output)
    assert not list(tmp_path.iterdir())
