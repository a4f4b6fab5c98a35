"""``maury assess --gap`` and the column ``gap`` of ``maury infer`` on a small made-up survey, some stars of which are strange."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from lamost_survey import make_survey, survey_recipe, write_lamost_files

from maury.catalogue import read_catalogue
from maury.grids import AnalyticSpectra
from maury.recipes import parse_recipe, run_recipe
from maury.store import save_model

LABELS = ("teff", "logg", "fe_h")
N_STARS = 30
N_STRANGE = 5  # M dwarfs: molecular bands that no training star has


def maury(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "maury", *words], cwd=cwd, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.safetensors``, one of too few stars, ``spectra/`` with five strange ones first, and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("gap")
    make_survey(folder / "survey", n_stars=240)
    recipe = survey_recipe(validation={"folds": 0}, errors={"model": "formal"})
    save_model(run_recipe(parse_recipe(recipe, "test"), folder / "survey").model, folder / "model.safetensors")
    table = Table.read(folder / "survey/labels.csv")
    table[:60].write(folder / "survey/few.csv")
    few = survey_recipe(validation={"folds": 0}, errors={"model": "formal"}, data={**recipe["data"], "table": "few.csv"})
    save_model(run_recipe(parse_recipe(few, "test"), folder / "survey").model, folder / "few.safetensors")
    rng = np.random.default_rng(20)
    values = np.column_stack([rng.uniform(4500, 6300, N_STARS), rng.uniform(2.0, 4.6, N_STARS), rng.uniform(-0.8, 0.2, N_STARS)])
    values[:N_STRANGE, 0] = rng.uniform(3100, 3400, N_STRANGE)
    names = [f"star-{i:02d}.fits" for i in range(N_STARS)]
    (folder / "spectra").mkdir()
    snr, velocity = rng.uniform(40.0, 90.0, N_STARS), np.full(N_STARS, 10.0)
    write_lamost_files(folder / "spectra", names, AnalyticSpectra(LABELS), values, snr=snr, velocity=velocity, random=rng)
    Table({"file": names, **dict(zip(LABELS, values.T, strict=True))}).write(folder / "labels.csv")
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "spectra").glob("*.fits")))


def test_the_gap_of_a_set(folder: Path, files: list[str]) -> None:
    """Principal components stand for UMAP here, whose compilation takes half a minute."""
    hide = "import sys; sys.modules['umap'] = None; sys.argv[0] = 'maury'; from maury.cli import main; main()"
    words = ["assess", "model.safetensors", *files, "--gap", "--labels", "labels.csv", "--plots", "plots"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", hide, *words], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("4000.00-8598.00 Å"))
    assert row[2] == str(N_STARS)
    assert float(row[4]) == pytest.approx(100 * N_STRANGE / N_STARS, abs=4)  # one more or less
    assert 0.5 < float(row[-3]) <= 1.0
    last = done.stdout[done.stdout.index("rank correlation") :]
    correlations = {line.split()[0]: float(line.split()[2]) for line in last.splitlines() if line.startswith(LABELS)}
    assert correlations["teff"] > 0.2  # the strange ones are far off
    assert "expected umap-learn for a UMAP projection, got none installed; drew principal components" in done.stdout
    for name in ("gap.png", "gap_error.png"):
        assert (folder / "plots" / name).stat().st_size > 10_000
    stars = Table.read(folder / "plots/gap.csv")
    assert (stars["gap_4000_8598"][:N_STRANGE] > 1.0).all()
    assert np.isfinite(stars["looks_observed_4000_8598"]).all()


def test_every_catalogue_says_it(folder: Path, files: list[str]) -> None:
    assert maury("infer", "model.safetensors", *files, "-o", "stars.fits", cwd=folder).returncode == 0
    stars = read_catalogue(folder / "stars.fits")
    flagged = np.array(["SYNTHETIC_GAP" in str(names) for names in stars["flag_names"]])
    np.testing.assert_array_equal(flagged, stars["gap"] > 1.0)
    assert flagged[:N_STRANGE].all()
    assert flagged.sum() <= N_STRANGE + 1


def test_a_model_without(folder: Path, files: list[str]) -> None:
    done = maury("assess", "few.safetensors", files[0], "--gap", cwd=folder)
    assert done.returncode == 2
    assert "expected a model that knows its training spectra, got one without" in done.stderr
    assert "Traceback" not in done.stderr
