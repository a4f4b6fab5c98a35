"""``maury generate``: labels on the command line or in a table -> spectra in a file that ``maury read`` reads back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner, Result

from maury.assess.region import TrainingRegion
from maury.catalogue import spectra_file
from maury.cli import app
from maury.emulate import train_cannon
from maury.errors import MauryError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import make_label
from maury.model import Model
from maury.prepare import Preparation, Scale
from maury.prepare.air import ToVacuum
from maury.protocols import ModelCovariance
from maury.read import read_file
from maury.spectra import Spectra
from maury.store import load_model, save_model

LABELS = (make_label("teff", "K", "inverse"), make_label("logg", "dex"), make_label("fe_h", "dex"), make_label("radius", "Rsun"))
NAMES = tuple(label.name for label in LABELS)
SUN = ["--teff", "5777", "--logg", "4.44", "--fe_h", "-0.1", "--radius", "0.5"]
UNKNOWN = slice(20, 25)  # pixels the model knows nothing of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.safetensors``, which works in vacuum, and ``unsaid.safetensors``, whose preparation converts no wavelengths."""
    folder = tmp_path_factory.mktemp("generate")
    values = np.random.default_rng(3).uniform([4500, 1.0, -1.0, 0.2], [6500, 4.8, 0.4, 0.8], (300, 4))
    spectra = AnalyticSpectra(NAMES).spectra(np.arange(5000.0, 5400.0, 2.0), values, snr=100.0, seed=1)
    emulator = train_cannon(spectra, LABELS, values)
    diagonal = np.full(200, 1e-4)
    diagonal[UNKNOWN] = np.inf
    inferrer = EmulatorInferrer(emulator.with_covariance(ModelCovariance(diagonal, np.full((200, 1), 0.01))), ChiSquareFitter())
    region = TrainingRegion.from_training(emulator.labels, values)
    save_model(Model(Preparation((ToVacuum(), Scale())), inferrer, region), folder / "m.safetensors")
    save_model(Model(Preparation((Scale(),)), inferrer, region), folder / "unsaid.safetensors")
    return folder


def run(folder: Path, *words: str, model: str = "m.safetensors") -> Result:
    return CliRunner().invoke(app, ["generate", str(folder / model), *words])


def refusal(folder: Path, *words: str, model: str = "m.safetensors") -> str:
    """The sentence with which the command refuses."""
    result = run(folder, *words, model=model)
    assert isinstance(result.exception, MauryError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def only(path: Path) -> Spectra:
    (spectra,) = read_file(path)
    return spectra


class TestFits:
    def test_what_is_written_is_read_back(self, folder: Path, tmp_path: Path) -> None:
        assert run(folder, *SUN, "-o", str(tmp_path / "sun.fits")).exit_code == 0
        spectra, model = only(tmp_path / "sun.fits"), load_model(folder / "m.safetensors")
        emulator = model.inferrer.emulator
        expected = emulator.predict_flux(np.array([[5777.0, 4.44, -0.1, 0.5]])).astype(np.float32)
        expected[:, UNKNOWN] = 0.0
        np.testing.assert_array_equal(spectra.flux, expected)
        np.testing.assert_array_equal(spectra.wavelength, emulator.wavelength)
        np.testing.assert_allclose(spectra.ivar[0, :20], 1.0 / (1e-4 + 0.01**2))  # diagonal and correlated part
        assert (spectra.ivar[0, UNKNOWN] == 0).all()
        assert (spectra.medium, spectra.frame) == ("vacuum", "rest")
        assert spectra.preparation == model.preparation.fingerprint
        assert [spectra.meta[f"header_{name}"][0] for name in NAMES] == [5777.0, 4.44, -0.1, 0.5]
        assert spectra.meta["generated_flag"][0] == 0

    def test_the_header_says_what_it_is(self, folder: Path, tmp_path: Path) -> None:
        run(folder, *SUN, "-o", str(tmp_path / "sun.fits"))
        with fits.open(tmp_path / "sun.fits") as hdus:
            hdus.verify("exception")
            header, stars = hdus[0].header, hdus["SPECTRA"]
            assert header["MODELID"] == load_model(folder / "m.safetensors").model_id
            assert "form of the model's preparation (to_vacuum, scale)" in " ".join(header["COMMENT"]).replace("  ", " ")
            assert json.loads(header["PROVENAN"])["model_file"] == "m.safetensors"
            assert [step["step"] for step in json.loads(header["STEPS"])] == ["to_vacuum", "scale"]
            assert stars.columns["teff"].unit == "K"
            assert stars.columns["radius"].unit == "solRad"
            assert "(dex)" in stars.header["TCOMM3"]  # FITS knows no dex
            assert hdus["PIXELS"].columns["wavelength"].unit == "Angstrom"
            assert np.isnan(stars.data["flux"][0, UNKNOWN]).all()

    def test_the_model_gives_the_labels_back(self, folder: Path, tmp_path: Path) -> None:
        """Through the files: generated spectra carry the preparation's fingerprint and are not prepared twice."""
        table = Table(dict(zip(NAMES, np.array([[5000, 2.0, -0.5, 0.3], [6000, 4.0, 0.2, 0.6]]).T, strict=True)))
        table.write(tmp_path / "labels.csv")
        run(folder, "--table", str(tmp_path / "labels.csv"), "-o", str(tmp_path / "two.fits"))
        estimates = load_model(folder / "m.safetensors").infer(only(tmp_path / "two.fits"))
        for k, name in enumerate(NAMES):
            np.testing.assert_allclose(estimates.values[:, k], table[name], rtol=2e-3)
        assert (estimates.chi2 < 1e-3).all()

    def test_batches_leave_no_trace(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(4).uniform([4600, 1.5, -0.8, 0.3], [6400, 4.5, 0.3, 0.7], (50, 4))
        Table(values, names=NAMES).write(tmp_path / "labels.csv")
        words = ("--table", str(tmp_path / "labels.csv"), "-o")
        run(folder, *words, str(tmp_path / "one.fits"))
        monkeypatch.setattr(spectra_file, "_BATCH_VALUES", 200 * 7)  # seven stars at a time, and one left over
        run(folder, *words, str(tmp_path / "many.fits"))
        one, many = only(tmp_path / "one.fits"), only(tmp_path / "many.fits")
        assert len(many) == 50
        np.testing.assert_allclose(many.flux, one.flux, rtol=0, atol=1e-6)
        np.testing.assert_allclose(many.meta["header_teff"], values[:, 0])


class TestTable:
    def test_units_names_and_an_option_for_all_rows(self, folder: Path, tmp_path: Path) -> None:
        table = Table({"id": ["cool", "hot"], "Teff": [5.0, 6.0], "log_g": [2.0, 4.0], "FeH": [0.0, -0.5], "other": ["a", "b"]})
        table["Teff"].unit = "kK"
        table.write(tmp_path / "labels.ecsv")
        words = ("--table", str(tmp_path / "labels.ecsv"), "--radius", "0.4", "-o", str(tmp_path / "s.fits"))
        assert run(folder, *words).exit_code == 0
        spectra = only(tmp_path / "s.fits")
        assert spectra.meta["star_id"].tolist() == ["cool", "hot"]
        assert spectra.meta["header_teff"].tolist() == [5000.0, 6000.0]
        assert spectra.meta["header_radius"].tolist() == [0.4, 0.4]

    @pytest.mark.parametrize(
        ("rows", "words", "sentence"),
        [
            ("teff,logg,fe_h\n5000,2,0\n", (), "as columns of .*labels.csv or options.* got none for radius"),
            ("teff,logg,fe_h,radius\n5000,2,0,0.4\n", ("--teff", "5000"), "each label once, got teff as an option and in"),
            ("teff,logg,fe_h,radius,FeH\n5000,2,0,0.4,0\n", (), "one column for fe_h"),
            ("id,teff,logg,fe_h,radius\nx,5000,2,0,0.4\ny,5000,,0,0.4\n", (), "finite labels, got nan for logg of star y"),
            ("teff,logg,fe_h,radius\nwarm,2,0,0.4\n", (), "numbers in column teff"),
            ("teff,logg,fe_h,radius\n", (), "a row for each star"),
            ("id,teff,logg,fe_h,radius\nx,9000,2,0,0.4\ny,5000,9,0,0.4\n", (), r"teff of star x between .* \(1 more stars"),
        ],
    )
    def test_what_is_wrong_is_said(self, folder: Path, tmp_path: Path, rows: str, words: tuple[str, ...], sentence: str) -> None:
        (tmp_path / "labels.csv").write_text(rows, encoding="utf-8")
        text = refusal(folder, "--table", str(tmp_path / "labels.csv"), *words, "-o", str(tmp_path / "s.fits"))
        assert re.search(sentence, text), text
        assert not (tmp_path / "s.fits").exists()


class TestOptions:
    def test_names_without_regard_to_case_and_signs(self, folder: Path, tmp_path: Path) -> None:
        words = ("--Teff=5777", "--log-g", "4.44", "--feh=-1e-1", "--radius", "0.5", "-o", str(tmp_path / "s.fits"))
        assert run(folder, *words).exit_code == 0
        assert only(tmp_path / "s.fits").meta["header_fe_h"][0] == -0.1

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (SUN[:4], "got none for fe_h, radius"),
            ([], "expected all labels of this model as options"),
            ([*SUN, "--vsini", "3"], "got '--vsini'; write --NAME VALUE"),
            ([*SUN, "spectra.fits"], "got 'spectra.fits'; write --NAME VALUE"),
            ([*SUN, "--teff", "5000"], "each label once, got --teff twice"),
            ([*SUN[:-1], "half"], r"a number (Rsun) after --radius, got 'half'"),
            (SUN[:-1], r"a number (Rsun) after --radius, got ''"),
            ([*SUN[:-1], "nan"], "finite labels, got nan for radius"),
            ([*SUN, "-o", "s.vot"], "ending in .fits"),
        ],
    )
    def test_what_is_wrong_is_said(self, folder: Path, words: list[str], sentence: str) -> None:
        assert sentence in refusal(folder, *words)

    def test_the_labels_there_are_come_with_units_and_ranges(self, folder: Path) -> None:
        labels = load_model(folder / "m.safetensors").labels
        assert f"teff {labels.lower[0]:.5g} to {labels.upper[0]:.5g} K" in refusal(folder, "--Z", "0.02")

    def test_the_model_comes_first(self) -> None:
        result = CliRunner().invoke(app, ["generate", "--teff", "5777", "m.safetensors"])
        assert "expected the model file first" in str(result.exception)

    def test_air_or_vacuum_is_never_guessed(self, folder: Path, tmp_path: Path) -> None:
        assert "in air or in vacuum" in refusal(folder, *SUN, model="unsaid.safetensors")
        assert run(folder, *SUN, "--medium", "air", "-o", str(tmp_path / "s.fits"), model="unsaid.safetensors").exit_code == 0
        assert only(tmp_path / "s.fits").medium == "air"


class TestRange:
    def test_outside_the_training_range_is_refused(self, folder: Path, tmp_path: Path) -> None:
        text = refusal(folder, "--teff", "8000", *SUN[2:], "-o", str(tmp_path / "s.fits"))
        assert "expected teff between" in text
        assert "the training range, got 8000" in text
        assert not (tmp_path / "s.fits").exists()

    def test_the_ends_as_they_are_printed_belong_to_it(self, folder: Path, tmp_path: Path) -> None:
        """`maury info` and sentences round; half a hundred-thousandth of the range is no extrapolation, a thousandth is."""
        labels = load_model(folder / "m.safetensors").labels
        low, width = labels.lower[0], labels.upper[0] - labels.lower[0]
        words = ("--teff", repr(low - 5e-6 * width), *SUN[2:], "-o", str(tmp_path / "s.fits"))
        assert run(folder, *words).exit_code == 0
        assert only(tmp_path / "s.fits").meta["header_teff"][0] == low
        assert "expected teff between" in refusal(folder, "--teff", repr(low - 1e-3 * width), *SUN[2:])

    def test_unless_it_is_asked_for_and_then_it_is_flagged(self, folder: Path, tmp_path: Path) -> None:
        result = run(folder, "--teff", "8000", *SUN[2:], "--extrapolate", "-o", str(tmp_path / "s.fits"))
        assert "1 OUT_OF_RANGE" in result.output
        bits = ResultFlag(int(only(tmp_path / "s.fits").meta["generated_flag"][0]))
        assert bits == ResultFlag.OUT_OF_RANGE | ResultFlag.OUTSIDE_TRAINING | ResultFlag.THIN_TRAINING


class TestCsv:
    def test_one_star(self, folder: Path, tmp_path: Path) -> None:
        for name in ("sun.csv", "sun.fits"):
            assert run(folder, *SUN, "-o", str(tmp_path / name)).exit_code == 0
        text, table = only(tmp_path / "sun.csv"), only(tmp_path / "sun.fits")
        np.testing.assert_array_equal(text.wavelength, table.wavelength)
        np.testing.assert_array_equal(text.flux.astype(np.float32), table.flux)
        np.testing.assert_allclose(text.ivar, table.ivar, rtol=1e-5)
        assert (text.medium, text.frame) == ("vacuum", "rest")
        assert text.meta["header_teff"][0] == 5777.0

    def test_not_several(self, folder: Path, tmp_path: Path) -> None:
        Table(np.tile([5000.0, 2.0, 0.0, 0.4], (2, 1)), names=NAMES).write(tmp_path / "labels.csv")
        words = ("--table", str(tmp_path / "labels.csv"), "-o", str(tmp_path / "s.csv"))
        assert "a single star for a .csv file, got 2" in refusal(folder, *words)


def test_as_typed(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "maury", "generate", str(folder / "m.safetensors"), *SUN, "-o", "sun.fits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 spectrum of 200 pixels, 5000.0-5398.0 Å vacuum, rest frame, written to sun.fits" in done.stdout
    wrong = subprocess.run([*command, "--mass", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("maury: expected labels of this model")
