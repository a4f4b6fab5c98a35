"""The models that ship: by name in every command, their cards, what a wrong name gets; and labels that may be left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner, Result

import maury
from maury.catalogue import read_catalogue
from maury.cli import app
from maury.demo import gaia_csv
from maury.errors import MauryError, ModelFileError
from maury.models import SHIPPED, is_shipped, model_path
from maury.read import read_file

SUN = ("--teff", "5777", "--logg", "4.44", "--mh", "0")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def works(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*words: str) -> str:
    """The sentence with which a command refuses."""
    result = run(*words)
    assert isinstance(result.exception, MauryError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture(scope="module")
def sun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The issue's command as typed; its spectrum."""
    folder = tmp_path_factory.mktemp("sun")
    command = [sys.executable, "-W", "error", "-m", "maury", "generate", "gaia-rvs", *SUN]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "v_micro was not given: 1 km/s" in done.stdout
    assert "vsini was not given: 0 km/s (no rotation)" in done.stdout
    (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder / "spectra.fits"


@pytest.fixture(scope="module")
def star(sun: Path) -> Path:
    """The same as Gaia would have it, with noise at S/N 300."""
    (spectra,) = read_file(sun)
    text = gaia_csv(1, spectra.wavelength, spectra.flux[0], 300.0, np.random.default_rng(5))
    path = sun.with_name("star.csv")
    path.write_text(text, encoding="ascii")
    return path


class TestNames:
    def test_every_model_has_its_file_and_card(self) -> None:
        assert "gaia-rvs" in SHIPPED
        for model in SHIPPED.values():
            assert model.file.stat().st_size <= 10_000_000  # the limit
            assert f"maury train {model.name}" in model.card.read_text(encoding="utf-8")

    def test_a_bare_name_is_the_shipped_model_whatever_lies_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gaia-rvs").mkdir()
        assert maury.load_model("gaia-rvs").model_id == maury.load_model(SHIPPED["gaia-rvs"].file).model_id
        assert is_shipped("gaia-rvs")
        assert not is_shipped("./gaia-rvs")
        assert model_path("./gaia-rvs") == Path("gaia-rvs")
        assert model_path("gaia-rvs.safetensors") == Path("gaia-rvs.safetensors")

    @pytest.mark.parametrize("name", ["gaia-rv", "gaia_rvs", "gaia-rvs.safetensors", "nowhere/gaia-rvs"])
    def test_a_wrong_name_lists_those_there_are(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelFileError, match=r"a model that ships \(gaia-rvs\), got no file at .*; check the path$"):
            maury.load_model(name)


class TestCommands:
    def test_models_lists_and_prints_cards(self) -> None:
        printed = works("models")
        for word in ("gaia-rvs", "vsini", "km/s", "Å", "MB", "m_h"):
            assert word in printed
        assert works("models", "gaia-rvs") == SHIPPED["gaia-rvs"].card.read_text(encoding="utf-8")
        assert "a model that ships (gaia-rvs), got gaia; see" in refusal("models", "gaia")

    def test_info_knows_it(self) -> None:
        assert "gaia-rvs: model of kind" in works("info", "gaia-rvs")
        assert "or gaia-rvs), got gaia; for spectra" in refusal("info", "gaia")

    def test_infer_gives_the_labels_back_and_plots_the_fit(self, star: Path, tmp_path: Path) -> None:
        """Within four of the quoted errors, at S/N 300; v sin i is at its lower end, where there is an upper limit at best."""
        out = tmp_path / "stars.fits"
        works("infer", "gaia-rvs", str(star), "-o", str(out), "--plots", str(tmp_path / "plots"))
        found = read_catalogue(out)[0]
        for label, value in (("teff", 5777.0), ("logg", 4.44), ("m_h", 0.0), ("v_micro", 1.0), ("delta_rv", 0.0)):
            assert abs(found[label] - value) < 4 * found[f"e_{label}"], label
        assert found["e_teff"] < 100.0  # or else four errors would say nothing; 82 K are the model error of the recipe
        assert found["vsini"] < 6.0
        assert {path.name for path in (tmp_path / "plots").iterdir()} == {"kiel.png", "fit.png"}

    def test_rv_takes_it_as_a_template(self, star: Path, tmp_path: Path) -> None:
        """A spectrum at rest has no velocity: within four errors, those of a spectrum of S/N 300 being below 1 km/s."""
        out = tmp_path / "v.csv"
        works("rv", str(star), "--template", "gaia-rvs", "-o", str(out), "--continuum", "none")
        row = Table.read(out)[0]
        assert row["e_rv"] < 1.0
        assert abs(row["rv"]) < 4 * row["e_rv"]

    def test_assess_takes_it(self, star: Path) -> None:
        assert "teff" in works("assess", "gaia-rvs", str(star), "--resolving-power", "8000")


class TestLabelsLeftOut:
    def test_the_sun_lies_well_inside(self, sun: Path) -> None:
        assert "flagged" not in (sun.parent / "printed.txt").read_text(encoding="utf-8")

    def test_they_have_their_defaults_and_the_file_says_so(self, sun: Path) -> None:
        (spectra,) = read_file(sun)
        assert spectra.meta["header_v_micro"][0] == 1.0
        assert spectra.meta["header_vsini"][0] == pytest.approx(0.0, abs=1e-6)
        assert spectra.meta["header_teff"][0] == 5777.0

    def test_given_ones_are_taken(self, tmp_path: Path) -> None:
        printed = works("generate", "gaia-rvs", *SUN, "--vsini", "0", "--v_micro", "2", "-o", str(tmp_path / "s.fits"))
        assert "was not given" not in printed
        (spectra,) = read_file(tmp_path / "s.fits")
        assert spectra.meta["header_v_micro"][0] == 2.0

    def test_a_table_may_leave_them_out_too(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("teff,logg,m_h,vsini\n5000,3,0,5\n6000,4,-0.5,20\n", encoding="utf-8")
        printed = works("generate", "gaia-rvs", "--table", str(tmp_path / "t.csv"), "-o", str(tmp_path / "s.fits"))
        assert "v_micro was not given" in printed
        assert "vsini was not given" not in printed
        (spectra,) = read_file(tmp_path / "s.fits")
        np.testing.assert_array_equal(spectra.meta["header_vsini"], [5.0, 20.0])

    def test_labels_without_a_default_are_asked_for(self) -> None:
        assert "got none for m_h" in refusal("generate", "gaia-rvs", *SUN[:4])

    def test_a_velocity_is_no_label_of_a_spectrum_at_rest(self) -> None:
        assert "got '--delta_rv'" in refusal("generate", "gaia-rvs", *SUN, "--delta_rv", "3")


def test_maury_alone_names_it_first() -> None:
    lines = works().splitlines()
    first = next(line for line in lines if line.startswith("  maury"))
    assert "maury infer gaia-rvs" in first
