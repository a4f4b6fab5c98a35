"""``maury demo``: the whole road, the planted faults, the same bytes each time; and the model it leaves, through the library."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

import maury
from maury.assess.calibration import SnrErrorModel
from maury.catalogue import read_catalogue
from maury.errors import ModelFileError, UsageError
from maury.flags import FitStatus, ResultFlag
from maury.recipes import load_recipe, parse_recipe, run_recipe
from maury.store import read_model_file, write_model_file


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "maury", "demo", "-o", "one"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "one/printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder / "one"


def files_of(demo: Path) -> list[Path]:
    return sorted((demo / "spectra").glob("*.fits"))


def test_what_is_left_behind(demo: Path) -> None:
    names = {path.name for path in demo.iterdir()}
    assert {"catalogue.fits", "model.safetensors", "kiel.png", "recovered.png", "pulls.png", "fit.png", "truth.csv"} <= names
    printed = (demo / "printed.txt").read_text(encoding="utf-8")
    assert all(word in printed for word in ("teff", "logg", "fe_h", "bias", "scatter"))


def test_labels_are_recovered_within_their_errors(demo: Path) -> None:
    catalogue = read_catalogue(demo / "catalogue.fits")
    truth = {str(row["file"]): row for row in Table.read(demo / "truth.csv")}
    rows = [row for row in catalogue if row["flag"] == 0]
    assert len(rows) > 150
    for label in ("teff", "logg", "fe_h"):
        pulls = np.array([(row[label] - truth[str(row["file"])][label]) / row[f"e_{label}"] for row in rows])
        assert 0.7 < pulls.std() < 1.3


def test_planted_faults_are_flagged_and_keep_their_rows(demo: Path) -> None:
    catalogue = read_catalogue(demo / "catalogue.fits")
    unreadable = catalogue[catalogue["flag"] == int(ResultFlag.UNREADABLE)]
    assert len(unreadable) == 1
    assert "truncated" in unreadable["reason"][0]
    assert (catalogue["flag"] & int(ResultFlag.OUT_OF_RANGE) > 0).sum() >= 1


def test_the_same_command_gives_the_same_model(demo: Path, tmp_path: Path) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "maury", "demo", "-o", "two"], cwd=tmp_path, capture_output=True, timeout=200, check=False
    )
    assert again.returncode == 0
    first, second = (read_model_file(folder / "model.safetensors")[1]["model_id"] for folder in (demo, tmp_path / "two"))
    assert first == second
    digest = [hashlib.sha256((folder / "kiel.png").read_bytes()).hexdigest() for folder in (demo, tmp_path / "two")]
    assert digest[0] == digest[1]


@pytest.fixture(scope="module")
def model(demo: Path) -> maury.Model:
    return maury.load_model(demo / "model.safetensors")


@pytest.fixture(scope="module")
def spectra(demo: Path) -> list[maury.Spectra]:
    return maury.read_files(files_of(demo)[:12]).spectra


def test_errors_as_a_polynomial_of_snr(demo: Path) -> None:
    recipe = load_recipe("demo").model_dump(mode="json")
    recipe["errors"] = {"model": "snr", "snr_column": "snr", "stars_per_bin": 40}
    run = run_recipe(parse_recipe(recipe, "test"), demo)
    model = run.model.error_model
    assert isinstance(model, SnrErrorModel)
    assert run.held_out is not None
    assert run.held_out.raw_covariance is not None
    low, high = model.sigma([20.0, 100.0])
    assert (low >= high).all()  # no label gets worse with more signal
    assert 0.6 < next(row for row in run.scores if row.label == "teff").pull_scatter < 1.5


class TestModel:
    def test_saved_and_loaded_is_equal(self, model: maury.Model, spectra: list[maury.Spectra], tmp_path: Path) -> None:
        model_id = maury.save_model(model, tmp_path / "m.safetensors")
        again = maury.load_model(tmp_path / "m.safetensors")
        assert again.model_id == model_id == model.model_id
        np.testing.assert_array_equal(again.infer(spectra).values, model.infer(spectra).values)

    def test_order_is_kept_and_company_does_not_matter(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        together = model.infer(spectra)
        turned = model.infer(spectra[::-1])[np.arange(len(spectra))[::-1]]
        alone = model.infer(spectra[3])
        np.testing.assert_allclose(turned.values, together.values, rtol=1e-9)
        np.testing.assert_allclose(alone.values[0], together.values[3], rtol=1e-9)
        assert alone.ids[0] == together.ids[3]

    def test_a_spectrum_without_overlap_keeps_its_row(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        infrared = maury.Spectra.from_arrays(
            np.linspace(15000, 16000, 500), np.ones((1, 500)), error=np.full((1, 500), 0.1), medium="vacuum", frame="rest"
        )
        estimates = model.infer([spectra[0], infrared, spectra[1]])
        assert estimates.status[1] in (FitStatus.NOT_FITTED, FitStatus.FAILED)
        assert np.isnan(estimates.values[1]).all()
        assert estimates.reason[1]
        np.testing.assert_allclose(estimates.values[[0, 2]], model.infer(spectra[:2]).values, rtol=1e-9)

    def test_spectra_of_another_preparation_are_refused(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        prepared = model.preparation(spectra).with_pixels(preparation="0123456789abcdef")
        with pytest.raises(UsageError, match="expected spectra prepared by this model"):
            model.infer_prepared(prepared)

    def test_the_callers_arrays_stay(self, model: maury.Model) -> None:
        flux = 1.0 + 0.01 * np.random.default_rng(0).normal(size=(1, 3000))
        error = np.full(flux.shape, 0.01)
        kept = flux.copy(), error.copy()
        spectra = maury.Spectra.from_arrays(np.linspace(3900, 8900, 3000), flux, error=error, medium="vacuum", frame="rest")
        model.infer(spectra)
        np.testing.assert_array_equal(flux, kept[0])
        np.testing.assert_array_equal(error, kept[1])

    def test_a_foreign_header_is_refused_in_one_sentence(self, tmp_path: Path) -> None:
        write_model_file(tmp_path / "x.safetensors", {"a": np.zeros(3)}, {"kind": "cannon"})
        with pytest.raises(ModelFileError, match="fits this version of maury"):
            maury.load_model(tmp_path / "x.safetensors")

    def test_nothing_given_is_said(self, model: maury.Model) -> None:
        with pytest.raises(UsageError, match="at least one spectrum"):
            model.infer([])
