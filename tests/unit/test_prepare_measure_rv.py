"""The step `measure_rv`: velocities on the way to the rest frame, templates as numbers or from a recipe's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Column, Table

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import RecipeError, UsageError
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.prepare import MeasureRv, Preparation, Resample, ToAir
from maury.prepare.templates import read_templates
from maury.spectra import Spectra

STAR = AnalyticSpectra(("teff",))
SUN = np.array([[5777.0]])
WIDE = np.arange(4700.0, 5700.0, 1.0)
NARROW = np.arange(4780.0, 5620.0, 1.0)
RV = np.array([-170.0, 0.5, 33.0, 240.0])


def template() -> Spectra:
    return STAR.spectra(WIDE, SUN, snr=1e6, seed=1)


def observed(rv: np.ndarray = RV, snr: float = 200.0, wavelength: np.ndarray = NARROW) -> Spectra:
    clean = STAR.flux(wavelength, np.repeat(SUN, len(rv), axis=0), velocity=rv)
    noise = np.random.default_rng(1).standard_normal(clean.shape)
    return Spectra.from_arrays(wavelength, clean * (1 + noise / snr), error=clean / snr, medium="vacuum", frame="observed")


def write(path: Path, wavelength: np.ndarray = WIDE, flux: np.ndarray | None = None, **options: Any) -> str:
    """A spectrum as CSV or, for what a header says, ECSV."""
    name, flux = options.pop("name", "wavelength_vac"), STAR.normalised(wavelength, SUN)[0] if flux is None else flux
    table = Table({"flux": flux, "error": np.full(flux.size, 0.01)}, meta=options)
    if path.suffix == ".csv":
        table[f"{name} [Angstrom]"] = wavelength
    else:
        table[name] = Column(wavelength, unit="Angstrom")
    table.write(path, overwrite=True)
    return str(path)


def config(file: str, **settings: Any) -> list[dict[str, Any]]:
    return [{"step": "measure_rv", "template": file, **settings}, {"step": "resample", "start": 4900, "stop": 5500}]


def test_spectra_of_unknown_velocity_reach_the_rest_frame() -> None:
    resample = Resample(start=4900, stop=5500)
    batch = observed()
    out = Preparation((MeasureRv.of(template()), resample))(batch)
    assert out.frame == "rest"
    np.testing.assert_allclose(out.meta["rv"], RV, atol=2.0)  # 4 of the errors
    assert (np.array(out.meta["e_rv"]) < 0.5).all()
    assert (np.array(out.meta["rv_flag"]) == 0).all()
    meta = batch.meta.copy()
    meta["rv"] = out.meta["rv"]
    np.testing.assert_array_equal(out.flux, resample(batch.with_pixels(meta=meta)).flux)
    assert np.isnan(batch.meta["rv"]).all()  # the caller's


def test_no_velocity_is_better_than_a_flagged_one() -> None:
    batch = observed()
    flux = batch.flux.copy()
    flux[1] = np.random.default_rng(2).normal(1.0, 0.1, flux.shape[1]) * np.median(flux[1])
    ivar = batch.ivar.copy()
    ivar[1] = 100.0 / np.median(flux[1]) ** 2
    meta = batch.meta.copy()
    meta["rv"] = 12.0  # known before, by whatever means
    out = MeasureRv.of(template(), high=100.0)(batch.with_pixels(flux=flux, ivar=ivar, meta=meta))
    assert np.isnan(out.meta["rv"]).tolist() == np.isnan(out.meta["e_rv"]).tolist() == [False, True, False, True]
    assert out.meta["rv_flag"][1] != 0
    assert out.meta["rv_flag"][3] == int(ResultFlag.AT_BOUND)


def test_known_velocities_may_be_kept() -> None:
    batch = observed()
    meta = batch.meta.copy()
    meta["rv"] = [12.0, np.nan, np.nan, -7.0]
    out = MeasureRv.of(template(), keep_known=True)(batch.with_pixels(meta=meta))
    np.testing.assert_allclose(out.meta["rv"], [12.0, *RV[1:3], -7.0], atol=2.0)
    assert (out.meta["rv"][0], out.meta["rv"][3]) == (12.0, -7.0)
    assert np.isnan(out.meta["e_rv"]).tolist() == [True, False, False, True]


def test_spectra_at_rest_stay_as_they_are() -> None:
    rest = template()
    assert MeasureRv.of(rest)(rest) is rest


def test_threads_share_the_step() -> None:
    grids = [np.arange(4780.0, 5620.0, 1.0 + 0.01 * k) for k in range(24)]  # more than a correlator keeps templates for
    many = [observed(np.array([-90.0, 10.0 * k]), wavelength=grid) for k, grid in enumerate(grids)]
    preparations = [Preparation((MeasureRv.of(template()), Resample(start=4900, stop=5500))) for _ in range(2)]
    alone, shared = preparations[0].prepare_each(many), preparations[1].prepare_each(many, workers=8)
    assert not shared.failures
    assert alone.spectra is not None
    assert shared.spectra is not None
    np.testing.assert_allclose(shared.spectra.meta["rv"], alone.spectra.meta["rv"], atol=1e-8)


class TestFiles:
    def test_a_recipe_names_a_file_and_a_model_needs_none(self, tmp_path: Path) -> None:
        first, second = (Preparation.from_config(config(write(tmp_path / name), high=300)) for name in ("a.csv", "b.csv"))
        assert first == second
        assert first.fingerprint == second.fingerprint
        expected = first(observed())
        for path in tmp_path.iterdir():
            path.unlink()
        saved = json.loads(json.dumps(first.to_config()))
        assert "template" not in saved[0]
        again = Preparation.from_config(saved)
        assert again.fingerprint == first.fingerprint
        np.testing.assert_array_equal(again(observed()).flux, expected.flux)
        np.testing.assert_allclose(expected.meta["rv"], RV, atol=2.0)

    def test_the_numbers_are_good_enough(self, tmp_path: Path) -> None:
        batch = observed(snr=1e5)
        file = write(tmp_path / "t.csv")
        six = Preparation.from_config(config(file))(batch).meta["rv"]
        whole = MeasureRv((*read_templates(file)[0].wavelength,), tuple(map(tuple, read_templates(file)[0].flux)), "vacuum")(
            batch
        )
        np.testing.assert_allclose(six, whole.meta["rv"], atol=1e-3)

    def test_air_and_bad_pixels(self, tmp_path: Path) -> None:
        rest = ToAir()(template())
        flux = STAR.normalised(WIDE, SUN)[0]
        flux[300:310] = np.nan
        file = write(tmp_path / "air.csv", rest.wavelength, flux, name="wavelength_air")
        out = Preparation.from_config(config(file))(observed())
        np.testing.assert_allclose(out.meta["rv"], RV, atol=2.0)
        assert len(Preparation.from_config(config(file)).to_config()[0]["wavelength"]) == WIDE.size - 10

    def test_rest_unless_the_file_says_otherwise(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "plain.ecsv")
        assert read_templates(plain)[0].frame == "rest"
        assert read_templates(write(tmp_path / "star.ecsv", SPECSYS="SOURCE"))[0].frame == "rest"
        factor = 1 + 100.0 / SPEED_OF_LIGHT_KM_S
        moved = write(tmp_path / "moved.ecsv", WIDE * factor, STAR.normalised(WIDE, SUN)[0], SPECSYS="BARYCENT", RV=100.0)
        assert read_templates(moved)[0].frame == "observed"
        here, there = (Preparation.from_config(config(file))(observed()).meta["rv"] for file in (plain, moved))
        np.testing.assert_allclose(there, here, atol=0.01)
        unknown = write(tmp_path / "unknown.ecsv", SPECSYS="BARYCENT")
        with pytest.raises(RecipeError, match="at rest or of known velocity"):
            Preparation.from_config(config(unknown))

    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            ({}, 'expects template = "a file of spectra at rest", got none'),
            ({"template": 5}, "one template file, got template = 5"),
            ({"template": "nowhere.fits"}, "nowhere.fits"),
            ({"template": "t.csv", "flux": [[1.0]]}, r"got numbers \(flux\) beside it"),
            ({"template": "t.csv", "low": 900, "high": 100}, "range low < high"),
            ({"template": "t.csv", "continuum": "spline"}, "continuum"),
            ({"template": "t.csv", "window": -1}, "positive window"),
            ({"template": "t.csv", "floor": -1}, "floor of errors"),
            ({"template": "t.csv", "velocity": 3}, "got velocity"),
            ({"template": "bare.csv"}, "air or in vacuum"),
            ({"template": "bare.csv", "medium": "water"}, "medium"),
            ({"template": "huge.csv"}, "at most 100000 pixels"),
        ],
    )
    def test_refusals(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], words: str) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "t.csv")
        write(tmp_path / "bare.csv", name="wavelength")
        if entry.get("template") == "huge.csv":
            write(tmp_path / "huge.csv", np.arange(3000.0, 8001.0, 0.05), np.ones(100_020))
        with pytest.raises(RecipeError, match=words) as caught:
            Preparation.from_config([{"step": "measure_rv", **entry}])
        assert "\n" not in str(caught.value)

    def test_the_medium_of_files_that_do_not_say(self, tmp_path: Path) -> None:
        file = write(tmp_path / "bare.csv", name="wavelength")
        assert Preparation.from_config(config(file, medium="vacuum"))(observed()).meta["rv"][1] == pytest.approx(0.5, abs=2)


@pytest.mark.parametrize(
    ("wavelength", "flux", "words"),
    [
        ((), (), "at least 4 pixels"),
        ((1.0, 2.0, 3.0, 4.0), ((1.0, 1.0, 1.0),), "one flux per wavelength"),
        ((1.0, 2.0, 4.0, 3.0), ((1.0,) * 4,), "strictly increasing"),
        ((1.0, 2.0, 3.0, 4.0), ((1.0, np.nan, 1.0, 1.0),), "finite fluxes"),
    ],
)
def test_impossible_numbers(wavelength: Any, flux: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MeasureRv(wavelength, flux, "vacuum")


def test_templates_of_several_velocities() -> None:
    batch = observed()
    meta = batch.meta.copy()
    meta["rv"] = RV
    with pytest.raises(UsageError, match="templates of one velocity, got 4"):
        MeasureRv.of(batch.with_pixels(meta=meta))
    with pytest.raises(UsageError, match="templates of one velocity, got 0"):
        MeasureRv.of(template()[:0])
