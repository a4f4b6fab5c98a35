"""LabelEstimates -> catalogue table: columns, their order, units, UCDs, sentences, missing values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.table import MaskedColumn
from catalogue_sample import sample_estimates

from maury.catalogue import build_catalogue, run_provenance
from maury.catalogue.columns import all_meanings, vote_meaning
from maury.catalogue.estimates import estimates_from_catalogue
from maury.errors import UsageError
from maury.flags import ResultFlag
from maury.labels import KNOWN_LABELS

OWN = [
    "file",
    "id",
    "teff",
    "e_teff",
    "logg",
    "e_logg",
    "radius",
    "e_radius",
    "rho_teff_logg",
    "rho_teff_radius",
    "rho_logg_radius",
    "chi2",
    "n_pixels",
    "snr",
    "rv",
    "status",
    "flag",
    "flag_names",
    "flag_teff",
    "flag_logg",
    "flag_radius",
    "reason",
    "model_id",
]


def test_columns_and_their_order() -> None:
    table = build_catalogue(sample_estimates(), model_id="abc")
    raw = ["raw_teff", "e_raw_teff", "raw_logg", "e_raw_logg", "raw_radius", "e_raw_radius"]
    assert table.colnames == [*OWN, *raw, "instrument", "fwhm", "input_teff", "star_id", "visits"]


def test_values() -> None:
    table = build_catalogue(sample_estimates(), model_id="abc")
    first, second, third, fourth = table
    assert (first["teff"], first["e_teff"], first["rho_teff_logg"], first["rho_teff_radius"]) == (5777.25, 50.0, 0.5, -0.25)
    assert (first["raw_teff"], first["e_raw_teff"]) == (5778.25, 25.0)
    assert first["flag"] == 0
    assert first["flag_names"] == ""
    assert second["flag_names"] == "POOR_CHI2|AT_BOUND"
    assert second["flag_teff"] == ResultFlag.AT_BOUND
    assert second["flag_logg"] == 0
    assert [row["status"] for row in table] == ["converged", "max_iterations", "failed", "not_fitted"]
    for row in (third, fourth):
        assert all(np.isnan(row[name]) for name in ("teff", "e_teff", "rho_teff_logg", "chi2"))
    assert fourth["reason"] == "expected flux, got NaN only; check the file"
    assert fourth["file"] == "dir/d.fits"
    assert fourth["rv"] == 0.0
    assert table["flag"].dtype.kind == table["n_pixels"].dtype.kind == "i"


def test_lower_and_upper_errors_stand_behind_the_error() -> None:
    estimates = sample_estimates()
    intervals = estimates.errors[:, :, None] * np.array([0.5, 2.0])
    intervals[3] = 1.0  # an error of a missing value is missing too
    table = build_catalogue(estimates.with_(interval_errors=intervals), model_id="abc")
    assert table.colnames[2:10] == [
        *("teff", "e_teff", "e_teff_lo", "e_teff_up"),
        *("logg", "e_logg", "e_logg_lo", "e_logg_up"),
    ]
    assert (table["e_teff_lo"][0], table["e_teff_up"][0]) == (25.0, 100.0)
    assert np.isnan(table["e_teff_up"][2:]).all()
    assert (str(table["e_teff_lo"].unit), str(table["e_logg_up"].unit)) == ("K", "dex")
    assert table["e_radius_lo"].meta["ucd"] == "stat.error;phys.size.radius;stat.min"
    assert table["e_radius_up"].description == "upper error of radius, positive"
    assert not [name for name in table.colnames if name.startswith("e_raw") and name.endswith(("_lo", "_up"))]


def test_they_come_back_as_estimates() -> None:
    estimates = sample_estimates()
    intervals = estimates.errors[:, :, None] * np.array([0.5, 2.0])
    table = build_catalogue(estimates.with_(interval_errors=intervals), model_id="abc")
    np.testing.assert_array_equal(estimates_from_catalogue(table).interval_errors, intervals)
    table.remove_column("e_teff_lo")
    found = estimates_from_catalogue(table)
    np.testing.assert_array_equal(found.both_errors[:, 0], np.repeat(estimates.errors[:, :1], 2, axis=1))
    np.testing.assert_array_equal(found.both_errors[:, 1:], intervals[:, 1:])
    assert estimates_from_catalogue(build_catalogue(estimates, model_id="abc")).interval_errors is None


def test_every_column_has_a_sentence_and_numbers_a_unit_and_ucd() -> None:
    table = build_catalogue(sample_estimates(), model_id="abc")
    for name in OWN:
        assert table[name].description
        assert check_ucd(table[name].meta["ucd"], check_controlled_vocabulary=True)
    assert (str(table["teff"].unit), str(table["e_logg"].unit), str(table["radius"].unit)) == ("K", "dex", "solRad")
    assert (str(table["rv"].unit), str(table["input_teff"].unit)) == ("km / s", "K")


def test_all_sentences_are_short_ascii_and_all_ucds_are_of_the_ivoa_list() -> None:
    labels = tuple(KNOWN_LABELS.values())
    for meaning in (*all_meanings(labels), *map(vote_meaning, labels)):
        assert meaning.description.isascii()
        assert len(meaning.description) <= 68, meaning
        assert not meaning.ucd or check_ucd(meaning.ucd, check_controlled_vocabulary=True), meaning


def test_without_calibration_there_are_no_raw_columns() -> None:
    table = build_catalogue(sample_estimates().with_(raw_values=None, raw_covariance=None), model_id="abc")
    assert not [name for name in table.colnames if "raw" in name]


def test_calibration_of_errors_alone_does_not_repeat_the_values() -> None:
    table = build_catalogue(sample_estimates().with_(raw_values=None), model_id="abc")
    assert [name for name in table.colnames if "raw" in name] == ["e_raw_teff", "e_raw_logg", "e_raw_radius"]
    assert table["e_raw_teff"][0] == 25.0


def test_a_value_without_estimate_has_no_error() -> None:
    estimates = sample_estimates()
    values = estimates.values.copy()
    values[0, 1] = np.nan
    table = build_catalogue(estimates.with_(values=values), model_id="abc")
    assert np.isnan(table["e_logg"][0])
    assert table["e_teff"][0] == 50.0


def test_extra_columns() -> None:
    estimates = sample_estimates()
    assert build_catalogue(estimates, model_id="a", extra_columns=False).colnames[-1] == "e_raw_radius"
    assert build_catalogue(estimates, model_id="a", extra_columns=["visits"]).colnames[-1] == "visits"
    with pytest.raises(UsageError, match=r"expected extra columns among file, .*, got colour; correct the name"):
        build_catalogue(estimates, model_id="a", extra_columns=["colour"])


def test_integers_with_gaps() -> None:
    estimates = sample_estimates()
    assert list(build_catalogue(estimates, model_id="a")["star_id"]) == ["1152921504606846977", "5", "", "7"]
    estimates.meta["visits"] = MaskedColumn([1, 2, 3, 4], mask=[False, True, False, False])
    np.testing.assert_array_equal(build_catalogue(estimates, model_id="a")["visits"], [1.0, np.nan, 3.0, 4.0])


def test_the_estimates_are_left_alone_and_the_table_owns_its_numbers() -> None:
    estimates = sample_estimates()
    table = build_catalogue(estimates, model_id="a")
    table["teff"][0] = -1.0
    table["visits"][0] = -1
    assert estimates.values[0, 0] == 5777.25
    assert estimates.meta["visits"][0] == 1


def test_no_stars() -> None:
    table = build_catalogue(sample_estimates()[:0], model_id="a")
    assert len(table) == 0
    assert table.colnames[: len(OWN)] == OWN


def test_meta() -> None:
    provenance = run_provenance(["maury", "infer", "my model", "*.fits"], recipe_fingerprint="1f", nothing=None)
    table = build_catalogue(sample_estimates(), model_id="abc", provenance=provenance)
    assert table.meta["provenance"] == provenance
    assert provenance["command"] == "maury infer 'my model' '*.fits'"
    assert provenance["recipe_fingerprint"] == "1f"
    assert "nothing" not in provenance
    assert {"maury", "python", "numpy", "astropy"} <= set(provenance["versions"])
    assert table.meta["flag_bits"]["FAILED"]["bit"] == 2
    json.dumps(table.meta)
    with pytest.raises(UsageError, match="expected plain, finite JSON values in a catalogue's provenance"):
        build_catalogue(sample_estimates(), model_id="abc", provenance={"x": float("nan")})
