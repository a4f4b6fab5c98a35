"""The galgano2020 recipe from LAMOST-form files to a catalogue, with the published error table (Galgano+2020)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from maury.assess.mdwarf import mann2015_radius
from maury.catalogue import read_catalogue
from maury.flags import ResultFlag

N_TRAIN, N_TEST = 120, 30
C_KM_S = 299_792.458


def labels_of(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 4) Teff, R, M, L close to one sequence, as M dwarfs are: radius by Mann+2015 with 3 % scatter."""
    teff = rng.uniform(3000, 3950, n)
    radius = mann2015_radius(teff) * rng.normal(1, 0.03, n)
    mass = 1.05 * radius * rng.normal(1, 0.03, n)
    return np.column_stack([teff, radius, mass, radius**2 * (teff / 5772) ** 4 * rng.normal(1, 0.05, n)])


def flux_of(wavelength: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A spectrum whose bands and lines change smoothly with the four labels; not physics."""
    x = (labels - [3500, 0.4, 0.4, 0.03]) / [300, 0.15, 0.15, 0.02]
    flux = 1.0 + 0.3 * (wavelength - 6000) / 3000
    for i, centre in enumerate(np.arange(4520, 7480, 37.0)):
        depth = 0.25 + 0.05 * (x[i % 4] + 0.3 * x[0] * x[(i // 4) % 4] + 0.5 * x[(i + 1) % 4])
        flux = flux * (1 - depth * np.exp(-0.5 * ((wavelength - centre) / (3.0 + i % 5)) ** 2))
    return flux


def write_lamost(path: Path, labels: np.ndarray, snr: float, rng: np.random.Generator) -> None:
    """One spectrum in the image form of LAMOST DR1: flux, ivar, sub-continuum, and-mask, or-mask; COEFF0/1, Z, SNRU..SNRZ."""
    coeff0, n_pixels = 3.5682, 3909
    wavelength = 10 ** (coeff0 + 1e-4 * np.arange(n_pixels))
    z = rng.normal(0, 40) / C_KM_S
    flux = 1000 * flux_of(wavelength / (1 + z), labels)
    sigma = flux / snr
    rows = np.zeros((5, n_pixels), dtype=np.float32)
    rows[0] = flux + rng.normal(0, sigma)
    rows[1] = 1 / sigma**2
    header = fits.Header()
    header["TELESCOP"] = "LAMOST"
    header["COEFF0"], header["COEFF1"] = coeff0, 1e-4
    header["Z"], header["HELIO"], header["OBSID"] = z, True, 1
    for band in "UGRIZ":
        header[f"SNR{band}"] = snr
    fits.PrimaryHDU(rows, header).writeto(path)


def maury(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maury", *words], cwd=cwd, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("galgano")
    (folder / "spectra").mkdir()
    (folder / "survey").mkdir()
    rng = np.random.default_rng(20200101)
    values = labels_of(N_TRAIN + N_TEST, rng)
    names = [f"spec-{i:03d}.fits" for i in range(len(values))]
    for i, name in enumerate(names):
        # summed S/N: 300 to 500 for training; the survey's first star has 119.9, its second 30
        snr = rng.uniform(60, 100) if i < N_TRAIN else {0: 23.98, 1: 6.0}.get(i - N_TRAIN, rng.uniform(15, 80))
        write_lamost(folder / ("spectra" if i < N_TRAIN else "survey") / name, values[i], snr, rng)
    table = Table([names, *values.T], names=["file", "teff", "radius", "mass", "luminosity"])
    table.write(folder / "labels.csv", format="ascii.csv")
    whole = (folder / "survey" / names[-1]).read_bytes()
    (folder / "survey/cut.fits").write_bytes(whole[: len(whole) // 2])
    trained = maury("train", "galgano2020", "--data", ".", "-o", "m.safetensors", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    files = sorted(str(path) for path in (folder / "survey").glob("*.fits"))
    inferred = maury("infer", "m.safetensors", *files, "-o", "stars.fits", cwd=folder)
    assert inferred.returncode == 0, inferred.stderr
    return folder


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Table:
    return read_catalogue(folder / "stars.fits")


def row_of(catalogue: Table, name: str) -> Table.Row:
    return catalogue[[str(f) for f in catalogue["file"]].index(name)]


def test_four_labels_with_units(catalogue: Table) -> None:
    units = {name: str(catalogue[name].unit) for name in ("teff", "radius", "mass", "luminosity")}
    assert units == {"teff": "K", "radius": "solRad", "mass": "solMass", "luminosity": "solLum"}
    assert len(catalogue) == N_TEST + 1


def test_labels_are_recovered(catalogue: Table, folder: Path) -> None:
    truth = {str(row["file"]): row for row in Table.read(folder / "labels.csv")}
    good = [row for row in catalogue if np.isfinite(row["teff"]) and row["snr"] > 10]
    teff = np.array([row["teff"] - truth[str(row["file"])]["teff"] for row in good])
    radius = np.array([row["radius"] - truth[str(row["file"])]["radius"] for row in good])
    assert len(good) >= 25
    # the generator's noise alone: some 15 K and 0.01 Rsun at these S/N
    assert np.abs(np.median(teff)) < 15
    assert np.median(np.abs(teff)) < 40
    assert np.median(np.abs(radius)) < 0.02


def test_errors_are_those_of_table_2(catalogue: Table) -> None:
    row = row_of(catalogue, f"spec-{N_TRAIN:03d}.fits")
    assert row["e_teff"] == pytest.approx(98.98, abs=0.05)  # 2.594e-3 X^2 - 0.942 X + 174.639 at X = 119.9: METHODS 5
    assert row["e_radius"] == pytest.approx(0.0493, abs=2e-4)
    assert 0 < row["e_raw_teff"] < row["e_teff"]


def test_low_signal_is_flagged(catalogue: Table) -> None:
    assert row_of(catalogue, f"spec-{N_TRAIN + 1:03d}.fits")["flag"] & int(ResultFlag.LOW_SNR)
    assert not row_of(catalogue, f"spec-{N_TRAIN:03d}.fits")["flag"] & int(ResultFlag.LOW_SNR)


def test_a_broken_file_keeps_its_row(catalogue: Table) -> None:
    row = row_of(catalogue, "cut.fits")
    assert row["status"] == "not_fitted"
    assert np.isnan(row["teff"])
    assert row["flag"] == int(ResultFlag.UNREADABLE)
    assert "truncated" in row["reason"]


def test_no_training_star_below_the_snr_cut(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "labels.csv", tmp_path)
    shutil.copytree(folder / "survey", tmp_path / "spectra")
    done = maury("train", "galgano2020", "--data", ".", "-o", "m.safetensors", "--folds", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "snr_sum" in done.stderr or "training stars" in done.stderr
    assert "Traceback" not in done.stderr
