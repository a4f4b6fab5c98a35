"""``maury demo``: the whole road with the shipped model, the planted faults, the same bytes each time; and its survey."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

import maury
from maury.catalogue import read_catalogue
from maury.demo import (
    BINARY_FILE,
    BROKEN_FILE,
    DETECTOR_PIXEL,
    LABELS,
    gaia_csv,
    gaia_noise,
    make_survey,
    survey_labels,
)
from maury.errors import UsageError
from maury.fit.inferrer import fitted
from maury.flags import FitStatus, ResultFlag
from maury.read import read_file, read_files


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As typed, with everything that the command leaves behind."""
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


@pytest.fixture(scope="module")
def model() -> maury.Model:
    return maury.load_model("gaia-rvs")


@pytest.fixture(scope="module")
def spectra(demo: Path) -> list[maury.Spectra]:
    return read_files(sorted((demo / "spectra").glob("demo-0*.csv"))[:12]).spectra


def truth_of(demo: Path) -> dict[str, Table.Row]:
    return {str(row["file"]): row for row in Table.read(demo / "truth.csv")}


def test_what_is_left_behind(demo: Path) -> None:
    names = {path.name for path in demo.iterdir()}
    assert {"catalogue.fits", "kiel.png", "recovered.png", "pulls.png", "fit.png", "truth.csv", "spectra"} <= names
    printed = (demo / "printed.txt").read_text(encoding="utf-8")
    assert all(word in printed for word in (*LABELS, "bias", "scatter", "made by gaia-rvs itself"))


def test_labels_are_recovered_within_their_errors(demo: Path) -> None:
    """Standard deviation of pulls near 1, as in the recovery tests; fewer than 150 unflagged stars of 300 would be no survey."""
    catalogue, truth = read_catalogue(demo / "catalogue.fits"), truth_of(demo)
    rows = catalogue[catalogue["flag"] == 0]
    assert len(rows) > 150
    for label in LABELS:
        free = rows[rows[f"flag_{label}"] == 0]
        pulls = np.array([(row[label] - truth[str(row["file"])][label]) / row[f"e_{label}"] for row in free])
        assert 0.7 < pulls.std() < 1.3, label


def test_planted_faults_are_flagged_and_keep_their_rows(demo: Path) -> None:
    catalogue = read_catalogue(demo / "catalogue.fits")
    assert len(catalogue) == 302
    unreadable = catalogue[catalogue["flag"] == int(ResultFlag.UNREADABLE)]
    assert unreadable["file"].tolist() == [BROKEN_FILE]
    assert "truncated" in unreadable["reason"][0]
    binary = catalogue[catalogue["file"] == BINARY_FILE]
    doubts = ResultFlag.POOR_CHI2 | ResultFlag.AT_BOUND | ResultFlag.OUTSIDE_TRAINING
    assert int(binary["flag"][0]) & int(doubts)
    assert np.isfinite(binary["teff"][0])


def test_the_same_call_gives_the_same_survey_and_labels(tmp_path: Path, model: maury.Model) -> None:
    """Figures of the same numbers have the same bytes (tests/unit/test_figures.py); this is where the numbers come from."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        make_survey(folder, model, n_stars=3)
    one, two = (sorted(path for path in folder.rglob("*.csv")) for folder in folders)
    assert len(one) == 6  # three stars, binary, truncated file, truth
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    spectra = [read_files(paths[:3]).spectra for paths in (one, two)]
    np.testing.assert_array_equal(*(model.infer(batches).values for batches in spectra))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, model: maury.Model) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"expected a folder that can be made, got .*; choose another"):
        make_survey(tmp_path / "file", model, n_stars=1)


class TestSurvey:
    def test_labels_lie_in_the_models_ranges(self, model: maury.Model) -> None:
        assert model.labels.in_range(survey_labels(model, 2000, np.random.default_rng(1))).all()

    def test_noise_is_correlated_as_linear_interpolation_makes_it(self) -> None:
        """White noise interpolated linearly at random phases: the cubic B-spline over its value at 0, in detector pixels.

        Unit variance and three lags to 0.02, four standard errors of a mean over 100 spectra of 2401 pixels.
        """
        wavelength, random = 8460.0 + 0.1 * np.arange(2401), np.random.default_rng(2)
        noise = np.array([gaia_noise(wavelength, 6, random) for _ in range(100)])
        assert noise.var() == pytest.approx(1.0, abs=0.02)
        for lag in (1, 2, 3):
            t = 0.1 * lag / DETECTOR_PIXEL
            spline = 2 / 3 - t**2 + t**3 / 2 if t < 1 else (2 - t) ** 3 / 6
            assert (noise[:, lag:] * noise[:, :-lag]).mean() == pytest.approx(spline / (2 / 3), abs=0.02)

    def test_the_file_is_gaias(self, tmp_path: Path) -> None:
        """Header and numbers as in the archive's CSV: nm in hundredths, float32, no value where there are no data."""
        wavelength = 8460.0 + 0.1 * np.arange(2401)
        text = gaia_csv(7, wavelength, np.ones(2401), 50.0, np.random.default_rng(3))
        lines = text.splitlines()
        assert lines[0] == (
            "source_id,solution_id,ra,dec,wavelength,flux,flux_error,combined_transits,combined_ccds,deblended_ccds"
        )
        assert [line.split(",")[4] for line in lines[1:4]] == ["846.0", "846.01", "846.02"]
        (tmp_path / "x.csv").write_text(text, encoding="ascii")
        (spectra,) = read_file(tmp_path / "x.csv")
        assert (spectra.meta["format"][0], spectra.medium, spectra.frame) == ("gaia-rvs", "vacuum", "rest")
        np.testing.assert_allclose(spectra.wavelength, wavelength, rtol=1e-12)
        used = spectra.ivar[0] > 0
        assert 2396 <= used.sum() <= 2401
        np.testing.assert_allclose(spectra.ivar[0, used], 2500.0, rtol=1e-6)


class TestModel:
    """The shipped model through the library, on the demonstration's spectra."""

    def test_saved_and_loaded_is_equal(self, model: maury.Model, spectra: list[maury.Spectra], tmp_path: Path) -> None:
        model_id = maury.save_model(model, tmp_path / "m.safetensors")
        again = maury.load_model(tmp_path / "m.safetensors")
        assert again.model_id == model_id == model.model_id
        np.testing.assert_array_equal(again.infer(spectra).values, model.infer(spectra).values)

    def test_order_is_kept_and_company_does_not_matter(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        """To a hundredth of an error: the fit is iterative, and stops at a relative change of chi-square."""
        together = model.infer(spectra)
        turned = model.infer(spectra[::-1])[np.arange(len(spectra))[::-1]]
        alone = model.infer(spectra[3])
        assert (np.abs(turned.values - together.values) < 0.01 * together.errors).all()
        assert (np.abs(alone.values[0] - together.values[3]) < 0.01 * together.errors[3]).all()
        assert alone.ids[0] == together.ids[3]

    def test_a_spectrum_without_overlap_keeps_its_row(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        infrared = maury.Spectra.from_arrays(
            np.linspace(15000, 16000, 500), np.ones((1, 500)), error=np.full((1, 500), 0.1), medium="vacuum", frame="rest"
        )
        estimates = model.infer([spectra[0], infrared, spectra[1]])
        assert estimates.status[1] in (FitStatus.NOT_FITTED, FitStatus.FAILED)
        assert np.isnan(estimates.values[1]).all()
        assert estimates.reason[1]
        two = model.infer(spectra[:2])
        assert (np.abs(estimates.values[[0, 2]] - two.values) < 0.01 * two.errors).all()

    def test_spectra_of_another_preparation_are_refused(self, model: maury.Model, spectra: list[maury.Spectra]) -> None:
        prepared = model.preparation(spectra).with_pixels(preparation="0123456789abcdef")
        with pytest.raises(UsageError, match="expected spectra prepared by this model"):
            model.infer_prepared(prepared)

    def test_the_callers_arrays_stay(self, model: maury.Model) -> None:
        wavelength = fitted(model.inferrer).emulator.wavelength
        flux = 1.0 + 0.01 * np.random.default_rng(0).normal(size=(1, len(wavelength)))
        error = np.full(flux.shape, 0.01)
        kept = flux.copy(), error.copy()
        model.infer(maury.Spectra.from_arrays(wavelength, flux, error=error, medium="vacuum", frame="rest"))
        np.testing.assert_array_equal(flux, kept[0])
        np.testing.assert_array_equal(error, kept[1])

    def test_nothing_given_is_said(self, model: maury.Model) -> None:
        with pytest.raises(UsageError, match="at least one spectrum"):
            model.infer([])
