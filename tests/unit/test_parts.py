"""Training sets of several parts: joins, selection, preparation, stacking, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from mastar_files import write_allstar, write_goodspec, write_library
from parts_sample import (
    DEC,
    GRID,
    LABELS,
    OBSERVED,
    RA,
    STAR_OF_VISIT,
    SYNTHETIC,
    WAVELENGTH,
    load,
    make_files,
    recipe_of,
)

from maury.errors import RecipeError
from maury.recipes import parse_recipe
from maury.recipes.dataset import load_training_set, part_weights
from maury.recipes.stacking import stack_visits
from maury.spectra import Spectra, empty_meta


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_files(tmp_path)


class TestTwoParts:
    def test_observed_and_synthetic_become_one_set(self, folder: Path) -> None:
        found = load(folder, OBSERVED, SYNTHETIC)
        assert found.part == ("observed",) * 4 + ("synthetic",) * 5
        assert found.validated.tolist() == [True] * 4 + [False] * 5
        np.testing.assert_allclose(found.values[:, 0], [5000, 5500, 5500, 6000, 7000, 8000, 9000, 10000, 11000])
        np.testing.assert_allclose(found.spectra.flux.mean(axis=1), [100, 101, 99, 100, *[0.5] * 5], rtol=1e-6)
        assert found.weights is None
        assert found.left_out == ()

    def test_all_carry_the_fingerprint_of_the_recipe(self, folder: Path) -> None:
        own = {**SYNTHETIC, "prepare": [{"step": "noise_floor"}, GRID]}
        found = load(folder, OBSERVED, own)
        recipe = parse_recipe(recipe_of(OBSERVED, own), "mine.toml")
        assert found.spectra.preparation == recipe.preparation.fingerprint

    def test_a_part_is_prepared_by_its_own_steps_alone(self, folder: Path) -> None:
        found = load(folder, {**OBSERVED, "prepare": [GRID, {"step": "scale"}]}, SYNTHETIC)
        np.testing.assert_allclose(found.spectra.flux[:4].mean(axis=1), 1.0)
        np.testing.assert_allclose(found.spectra.flux[4:].mean(axis=1), 0.5, rtol=1e-6)

    def test_the_errors_of_a_library_are_those_assumed(self, folder: Path) -> None:
        found = load(folder, SYNTHETIC, prepare=[{"step": "crop", "start": 5050, "stop": 5200}])
        np.testing.assert_allclose(found.spectra.ivar, (50 / 0.5) ** 2, rtol=1e-6)

    def test_validated_can_be_said(self, folder: Path) -> None:
        found = load(folder, {**OBSERVED, "validated": False}, {**SYNTHETIC, "validated": True})
        assert found.validated.tolist() == [False] * 4 + [True] * 5

    def test_limits_and_columns_are_those_of_the_part(self, folder: Path) -> None:
        hot = {**SYNTHETIC, "limits": {"teff": [8000, 10000]}}
        cool = {**OBSERVED, "limits": {"TEFF": [0, 5600], "VMICRO": [1.2, 3]}}
        found = load(folder, cool, hot)
        assert found.values[:, 0].tolist() == [5000, 8000, 9000, 10000]
        reasons = dict(found.left_out)
        assert reasons["goodspec#1"] == "VMICRO = 1 outside 1.2 to 3"
        assert reasons["theory#0"] == "teff = 7000 outside 8000 to 10000"

    def test_one_part_is_the_data_section_itself(self, folder: Path) -> None:
        alone = {key: value for key, value in OBSERVED.items() if key != "name"}
        one = load_training_set(parse_recipe(recipe_of() | {"data": alone}, "mine.toml"), folder)
        other = load(folder, OBSERVED)
        np.testing.assert_array_equal(one.spectra.flux, other.spectra.flux)
        np.testing.assert_array_equal(one.values, other.values)
        assert one.part == ("data",) * 4


class TestUnits:
    def test_a_logarithmic_column_becomes_a_velocity(self, folder: Path) -> None:
        labels = np.log10(LABELS[:, [4]])
        write_library(folder / "theory.npz", WAVELENGTH, np.full((3, WAVELENGTH.size), 0.5), labels, ["log_v"])
        velocity = {"name": "v_micro", "column": "VMICRO", "unit": "km/s", "coordinate": "log10", "error": 0.1}
        found = load(
            folder,
            {**OBSERVED, "columns": {}, "error_columns": {"v_micro": "LOGG_ERR"}, "units": {"v_micro": "m/s"}},
            {**SYNTHETIC, "columns": {"v_micro": "log_v"}, "units": {"v_micro": "dex(km/s)"}},
            label=[velocity],
        )
        np.testing.assert_allclose(found.values[4:, 0], LABELS[:, 4], rtol=1e-12)
        np.testing.assert_allclose(found.values[:4, 0], 1e-3 * LABELS[STAR_OF_VISIT, 4], rtol=1e-6)
        assert found.errors is not None
        np.testing.assert_allclose(found.errors[:, 0], [1e-5] * 4 + [0.1] * 3, rtol=1e-4)


class TestWeights:
    def test_equal_shares(self) -> None:
        weights = part_weights(["equal", "equal"], [10, 30])
        assert weights is not None
        assert weights[:10].sum() == pytest.approx(weights[10:].sum())
        assert weights.mean() == pytest.approx(1.0)
        assert np.ptp(weights[:10]) == 0

    def test_shares_as_numbers(self) -> None:
        weights = part_weights([3.0, 1.0], [5, 5])
        assert weights is not None
        np.testing.assert_allclose(weights, [1.5] * 5 + [0.5] * 5)

    def test_no_shares(self) -> None:
        assert part_weights([None, None], [1, 2]) is None

    def test_shares_are_of_stars_that_are_left(self, folder: Path) -> None:
        hot = {**SYNTHETIC, "limits": {"teff": [10000, 20000]}, "weight": "equal"}
        found = load(folder, {**OBSERVED, "weight": "equal"}, hot)
        np.testing.assert_allclose(found.weights, [0.75] * 4 + [1.5] * 2)


class TestStacking:
    def test_closed_form(self, folder: Path) -> None:
        found = load(folder, {**OBSERVED, "stack_visits": True}, prepare=[{"step": "crop", "start": 5050, "stop": 5200}])
        assert len(found) == 3
        # star 2: levels 101 +- 1 and 99 +- 0.5: weights 1 and 4
        np.testing.assert_allclose(found.spectra.flux[1], (101 + 4 * 99) / 5, rtol=1e-6)
        np.testing.assert_allclose(found.spectra.ivar[1], 5.0, rtol=1e-6)
        assert found.spectra.meta["snr"][1] == pytest.approx(99.4 * np.sqrt(5), rel=1e-6)
        assert found.spectra.meta["snr"][0] == pytest.approx(50.0)
        assert found.spectra.meta["n_visits"].tolist() == [1, 2, 1]
        assert found.values[:, 0].tolist() == [5000, 5500, 6000]
        assert found.stars is None

    def test_velocities_go_before_the_mean(self, folder: Path) -> None:
        line = 1 - 0.5 * np.exp(-0.5 * ((WAVELENGTH - 5125) / 2) ** 2)
        shift = 300 / 299_792.458
        flux = np.stack([line, np.interp(WAVELENGTH / (1 + shift), WAVELENGTH, line)])
        write_goodspec(
            folder / "goodspec.fits", ["3-1", "3-1"], RA[[0, 0]], DEC[[0, 0]], [0.0, 300.0], flux, 0 * flux + 1e4, WAVELENGTH
        )
        found = load(folder, {**OBSERVED, "stack_visits": True})
        assert found.spectra.flux.min() < 0.54  # two shallow lines side by side would reach 0.75

    def test_masked_pixels_and_flags(self) -> None:
        flux = np.array([[1.0, 2.0, 3.0], [5.0, 2.0, 3.0], [7.0, 7.0, 7.0]])
        ivar = np.array([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0], [1.0, 1.0, 1.0]])
        mask = np.array([[0, 1, 1], [2, 0, 4], [0, 0, 8]], np.uint32)
        spectra = Spectra(np.array([1.0, 2.0, 3.0]), flux, ivar, np.array(["a", "b", "c"]), "vacuum", "rest", empty_meta(3), mask)
        stacked = stack_visits(spectra, ["z", "z", "a"])  # order of first visits, not of names
        assert stacked.ids.tolist() == ["a", "c"]
        np.testing.assert_allclose(stacked.flux, [[4.0, 2.0, 0.0], [7, 7, 7]])
        np.testing.assert_allclose(stacked.ivar, [[4.0, 4.0, 0.0], [1, 1, 1]])
        assert stacked.mask is not None
        assert stacked.mask.tolist() == [[2, 0, 5], [0, 0, 8]]
        assert flux[0, 0] == 1.0

    def test_error_of_the_mean(self) -> None:
        rng = np.random.default_rng(1)
        sigma = np.array([1.0, 2.0, 0.5])
        noise = sigma[:, None] * rng.standard_normal((3, 20_000))
        ivar = np.tile(1 / sigma[:, None] ** 2, (1, 20_000))
        spectra = Spectra.from_arrays(np.arange(1.0, 20_001), 10 + noise, ivar=ivar, medium="vacuum", frame="rest")
        stacked = stack_visits(spectra, ["s"] * 3)
        pulls = (stacked.flux[0] - 10) * np.sqrt(stacked.ivar[0])
        assert pulls.std() == pytest.approx(1.0, abs=0.02)  # 4 sigma of a standard deviation from 20,000 pixels


class TestStars:
    def test_visits_of_one_row_are_one_star(self, folder: Path) -> None:
        found = load(folder, OBSERVED)
        assert found.stars is not None
        assert found.stars[1] == found.stars[2]
        assert len(set(found.stars)) == 3

    def test_a_star_of_two_parts_keeps_one_name(self, folder: Path) -> None:
        named = {**OBSERVED, "star_column": "APOGEE_ID"}
        found = load(folder, named, {**named, "name": "again"})
        assert found.stars is not None
        assert found.stars[:4] == found.stars[4:]
        assert set(found.stars) == {"2M000000", "2M000001", "2M000002"}

    def test_stars_without_a_name_are_not_one_star(self, folder: Path) -> None:
        rows = "3-1,5000,4,Vega\n3-2,5100,4,\n3-3,6100,4,\n,1,1,\n,2,2,\n"
        (folder / "labels.csv").write_text(f"id,teff,logg,name\n{rows}", encoding="utf-8")
        part = {"name": "a", "spectra": "goodspec.fits", "table": "labels.csv", "join": "id", "join_meta": "star_id"}
        found = load(folder, {**part, "star_column": "name"})
        assert found.stars == ("Vega", "a:1", "a:1", "a:2")

    def test_rows_of_two_parts_without_names_are_different_stars(self, folder: Path) -> None:
        found = load(folder, OBSERVED, {**OBSERVED, "name": "again"})
        assert found.stars is not None
        assert not set(found.stars[:4]) & set(found.stars[4:])


class TestJoins:
    def test_by_a_meta_column_inside_a_file(self, folder: Path) -> None:
        (folder / "labels.csv").write_text("id,t,g\n3-2,5100,4\n3-3,6100,4\n", encoding="utf-8")
        part = {"name": "a", "spectra": "goodspec.fits", "table": "labels.csv", "join": "id", "join_meta": "star_id"}
        found = load(folder, {**part, "columns": {"teff": "t", "logg": "g"}})
        assert found.values[:, 0].tolist() == [5100, 5100, 6100]
        assert dict(found.left_out) == {"goodspec#0": "not in labels.csv"}

    def test_the_nearest_row_wins(self, folder: Path) -> None:
        labels = np.vstack([LABELS, LABELS[0] + [111, 0, 0, 0, 0]])
        write_allstar(folder / "allStar.fits", [*RA, RA[0] + 0.8 / 3600], [*DEC, DEC[0]], labels)
        assert load(folder, OBSERVED).values[0, 0] == 5000  # at 0.1 arcsec; the other is at 0.7

    def test_a_row_that_cannot_be_used_does_not_hide_one_that_can(self, folder: Path) -> None:
        labels = np.vstack([LABELS, LABELS[0] + [111, 0, 0, 0, 0]])
        write_allstar(folder / "allStar.fits", [*RA, RA[0] + 0.8 / 3600], [*DEC, DEC[0]], labels, aspcapflag=[1 << 23, 0, 0, 0])
        found = load(folder, {**OBSERVED, "limits": {"ASPCAPFLAG": [0, 2**23 - 1]}})
        assert found.values[0, 0] == 5111

    def test_two_rows_at_one_place_are_ambiguous_until_limits_decide(self, folder: Path) -> None:
        labels = np.vstack([LABELS, LABELS[0] + [111, 0, 0, 0, 0]])
        write_allstar(folder / "allStar.fits", [*RA, RA[0]], [*DEC, DEC[0]], labels, extratarg=[0, 0, 0, 16])
        assert "several rows of allStar.fits as near" in dict(load(folder, OBSERVED).left_out)["goodspec#0"]
        decided = load(folder, {**OBSERVED, "limits": {"EXTRATARG": [0, 15]}})
        assert decided.values[0, 0] == 5000

    def test_beyond_the_radius_is_no_star(self, folder: Path) -> None:
        write_allstar(folder / "allStar.fits", [RA[0], RA[1] + 2 / 3600, RA[2]], DEC, LABELS)
        found = load(folder, OBSERVED)
        assert found.values[:, 0].tolist() == [5000, 6000]
        assert dict(found.left_out)["goodspec#1"] == "no row of allStar.fits within 1 arcsec"

    def test_several_spectra_in_a_file_need_join_meta(self, folder: Path) -> None:
        (folder / "labels.csv").write_text("file,teff,logg\ngoodspec.fits,5000,4\n", encoding="utf-8")
        with pytest.raises(RecipeError, match="holds 4 spectra; a training file holds one, unless join_meta names them"):
            load(folder, {"name": "a", "spectra": "goodspec.fits", "table": "labels.csv"})


class TestLibraryFiles:
    def test_fits_with_images_and_a_table(self, folder: Path) -> None:
        table = fits.BinTableHDU.from_columns(
            [fits.Column("TEFF", "D", array=[7000.0, 8000.0]), fits.Column("LOGG", "D", array=[4.0, 4.1])], name="LABELS"
        )
        images = [fits.ImageHDU(WAVELENGTH / 10, name="WAVE"), fits.ImageHDU(np.full((2, WAVELENGTH.size), 0.7), name="FLUX")]
        fits.HDUList([fits.PrimaryHDU(), *images, table]).writeto(folder / "theory.fits")
        library = {
            "file": "theory.fits",
            "wavelength": "WAVE",
            "wavelength_unit": "nm",
            "medium": "vacuum",
            "flux": "FLUX",
            "labels": "LABELS",
            "fwhm": 0.01,
        }
        part = {**SYNTHETIC, "library": library, "columns": {"teff": "TEFF", "logg": "LOGG"}}
        found = load(folder, part)
        assert found.values.tolist() == [[7000.0, 4.0], [8000.0, 4.1]]
        np.testing.assert_allclose(found.spectra.flux, 0.7, rtol=1e-6)
        assert found.spectra.meta["fwhm"].tolist() == [0.01, 0.01]

    def test_labels_as_arrays_of_their_own(self, folder: Path) -> None:
        np.savez(
            folder / "theory.npz", w=WAVELENGTH, f=np.full((2, WAVELENGTH.size), 0.7), teff=[7000.0, np.nan], logg=[4.0, 4.0]
        )
        library = {"file": "theory.npz", "wavelength": "w", "wavelength_unit": "Angstrom", "medium": "vacuum", "flux": "f"}
        found = load(folder, {**SYNTHETIC, "library": {**library, "resolving_power": 1e5}})
        assert found.values.tolist() == [[7000.0, 4.0]]
        assert dict(found.left_out) == {"theory#1": "no teff in the table"}
