"""Training sets of several parts: each thing that can be wrong with recipe or data has one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from file_makers import lamost_image
from mastar_files import write_allstar
from parts_sample import DEC, GRID, LABELS, LIBRARY, OBSERVED, RA, SYNTHETIC, WAVELENGTH, load, make_files, recipe_of

from maury.errors import RecipeError
from maury.recipes import parse_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_files(tmp_path)


def changed(part: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**part, **changes}


def library(**changes: Any) -> dict[str, Any]:
    return changed(SYNTHETIC, library={**LIBRARY, **changes})


SCHEMA_FAULTS: list[tuple[list[dict[str, Any]], str]] = [
    ([OBSERVED, OBSERVED], "a name of its own for every part of the data, got observed, observed"),
    ([changed(OBSERVED, weight=1), SYNTHETIC], "weights of the data's parts all as numbers, or all 'equal', or none, got a mix"),
    ([changed(OBSERVED, weight=0)], r"valid value for data.parts.0.weight"),
    ([changed(OBSERVED, spektra="x")], r"known key in \[data.parts\], got 'spektra'; known are spectra, table"),
    ([changed(OBSERVED, join_meta="star_id")], "no join_meta for part 'observed', which is joined on the sky, got 'star_id'"),
    ([library(wave="x")], r"known key in \[data.parts.library\], got 'wave'; known are file, wavelength"),
    ([library(fwhm=1.0)], "one of resolving_power and fwhm .* for the library theory.npz, got both or none"),
    ([{"name": "a", "table": "x.csv"}], "expected spectra for part 'a' of the data, got none"),
    ([changed(SYNTHETIC, spectra="*.fits")], "no spectra beside the library of part 'synthetic', got '\\*.fits'"),
    ([{"name": "a", "library": LIBRARY}], "expected assumed_snr for the library of part 'a', got none"),
    ([changed(OBSERVED, columns={"teeff": "TEFF"})], "labels among teff, logg in columns of part 'observed', got 'teeff'"),
    ([changed(OBSERVED, units={"teff": "km"})], "a unit that can become K for label 'teff', got 'km'"),
    ([changed(OBSERVED, prepare=[{"step": "polish"}])], "a preparation step among .*, got 'polish'"),
]


@pytest.mark.parametrize(("parts", "text"), SCHEMA_FAULTS, ids=[text[:40] for _, text in SCHEMA_FAULTS])
def test_each_fault_of_a_recipe_has_one_sentence(parts: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(RecipeError, match=text) as error:
        parse_recipe(recipe_of(*parts), "mine.toml")
    assert "\n" not in str(error.value)


def test_settings_beside_parts_are_refused() -> None:
    content = recipe_of(OBSERVED)
    content["data"]["min_snr"] = 3
    with pytest.raises(RecipeError, match=r"only \[\[data.parts\]\] in \[data\], got 'min_snr' too"):
        parse_recipe(content, "mine.toml")


def nothing(folder: Path) -> None:
    """Leave the files as they are."""


def no_positions(folder: Path) -> None:
    for file in folder.glob("goodspec*.fits"):
        file.unlink()
    lamost_image(folder / "goodspec1.fits")


def positions_beyond(folder: Path) -> None:
    write_allstar(folder / "allStar.fits", RA, DEC + 1000, LABELS)


def pickled(folder: Path) -> None:
    np.savez(folder / "theory.npz", wavelength_angstrom=np.array([{"a": 1}], dtype=object))


def not_a_library(folder: Path) -> None:
    (folder / "theory.npz").write_bytes(b"PK\x03\x04 but no more")


def library_with_nan(folder: Path) -> None:
    np.savez(folder / "theory.npz", wavelength_angstrom=WAVELENGTH, flux_u16=np.full((2, 600), np.nan), flux_scale=1.0)


DATA_FAULTS: list[tuple[Callable[[Path], None], dict[str, Any], str]] = [
    (nothing, changed(OBSERVED, spectra="*.nope"), r"matching \*.nope in"),
    (nothing, changed(OBSERVED, columns={"teff": "T", "logg": "LOGG"}), "expected column 'T' in .*allStar.fits, got columns"),
    (nothing, changed(OBSERVED, columns={"teff": "PARAM", "logg": "LOGG"}), "one value per row in column 'PARAM'"),
    (nothing, changed(OBSERVED, ra_column="DEC"), "rows of allStar.fits within 1 arcsec of the spectra of goodspec"),
    (positions_beyond, OBSERVED, "positions in degrees in .*allStar.fits, got ra 10, dec 995"),
    (no_positions, changed(OBSERVED, join="APOGEE_ID", join_meta="gaia"), "meta column 'gaia' of the spectra to join by"),
    (nothing, changed(OBSERVED, join="APOGEE_ID", join_meta="star_id"), "to hold the star_id of goodspec.*, got no match"),
    (nothing, changed(OBSERVED, min_snr=1e4), "none of 4 .*snr = 100.0 below 10000"),
    (nothing, changed(OBSERVED, limits={"teff": [1, 2]}), "teff = 6000 outside 1 to 2"),
    (nothing, changed(OBSERVED, prepare=[{**GRID, "start": 9000, "stop": 9100}]), "that can be prepared, got none; the first"),
    (nothing, library(file="none.npz"), "expected a synthetic library, found no such file"),
    (nothing, library(flux="flux"), "expected an array 'flux', got wavelength_angstrom"),
    (nothing, library(wavelength_unit="K"), "expected a length as wavelength_unit, got 'K'"),
    (nothing, library(flux="labels"), r"expected labels as numbers \(n, 600\), got shape \(5, 2\)"),
    (nothing, library(flux_scale="wavelength_angstrom", flux="flux_u16", label_names=("teff",)), r"labels of shape \(5, 1\)"),
    (nothing, library(flux_scale="labels"), r"flux_scale as a number or one per spectrum, got shape \(5, 2\)"),
    (pickled, SYNTHETIC, r"expected a library as .npz \(no pickled objects\)"),
    (not_a_library, SYNTHETIC, "expected a library as .npz"),
    (library_with_nan, SYNTHETIC, "expected finite flux, got NaN or infinity"),
]


@pytest.mark.parametrize(("spoil", "part", "text"), DATA_FAULTS, ids=[text[:40] for *_, text in DATA_FAULTS])
def test_each_fault_of_the_data_has_one_sentence(
    folder: Path, spoil: Callable[[Path], None], part: dict[str, Any], text: str
) -> None:
    spoil(folder)
    with pytest.raises(RecipeError, match=text) as error:
        load(folder, part)
    assert "\n" not in str(error.value)


def test_the_part_at_fault_is_named(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"^part 'synthetic': .*got none of 5 .*teff = 11000 outside 1 to 2"):
        load(folder, OBSERVED, changed(SYNTHETIC, limits={"teff": [1, 2]}))


def test_parts_on_different_grids_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"part 'synthetic' on the grid of the others, .* after its own prepare; let it end"):
        load(folder, OBSERVED, changed(SYNTHETIC, prepare=[{**GRID, "spacing": 2}]))


def test_one_bad_spectrum_of_a_part_is_left_out_with_its_reason(folder: Path) -> None:
    """A visit without a velocity cannot be put to rest; the others can."""
    path = folder / "goodspec.fits"
    with fits.open(path, memmap=False) as hdus:
        hdus[1].data["HELIOV"][2] = -999.0
        hdus.writeto(path, overwrite=True)
    found = load(folder, OBSERVED, SYNTHETIC)
    assert found.part.count("observed") == 3
    assert "goodspec#2" in dict(found.left_out)
