"""Catalogues in every format: nothing lost on the way, no warnings in astropy, one sentence for what cannot be."""

from __future__ import annotations

import builtins
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from catalogue_sample import LABELS, sample_estimates

from maury.catalogue import build_catalogue, describe_catalogue, read_catalogue, run_provenance, write_catalogue
from maury.catalogue.votes_file import build_votes, check_votes_name
from maury.errors import CatalogueError, UsageError

WITH_UNITS = ["x.fits", "x.FITS", "x.fits.gz", "x.vot", "x.xml", "x.votable", "x.parquet", "x.ecsv"]


@pytest.fixture
def table() -> Table:
    command = ["maury", "infer", "it's & a 'long' model.safetensors", *(f"spectra/spec-{i:05d}.fits" for i in range(40)), "Å.csv"]
    return build_catalogue(sample_estimates(), model_id="0123456789ab", provenance=run_provenance(command, training="MILES"))


def assert_same(got: Table, expected: Table, *, text: bool = True) -> None:
    assert got.colnames == expected.colnames
    for name in expected.colnames:
        a, b = got[name], expected[name]
        if b.dtype.kind == "U":
            if text:
                assert list(a) == list(b), name
        else:
            assert a.dtype.kind == b.dtype.kind, name
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)


@pytest.mark.parametrize("name", WITH_UNITS)
def test_round_trip(tmp_path: Path, table: Table, name: str) -> None:
    write_catalogue(table, tmp_path / name)
    got = read_catalogue(tmp_path / name)
    assert_same(got, table, text="fits" not in name.lower())
    for column in table.colnames:
        assert got[column].unit == table[column].unit, column
        assert got[column].description == table[column].description, column
        assert got[column].meta == table[column].meta, column
    assert got.meta == table.meta
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", [*WITH_UNITS, "x.csv"])
def test_lower_and_upper_errors(tmp_path: Path, name: str) -> None:
    estimates = sample_estimates()
    uneven = estimates.with_(interval_errors=estimates.errors[:, :, None] * np.array([0.5, 2.0]))
    table = build_catalogue(uneven, model_id="a")
    write_catalogue(table, tmp_path / name)
    got = read_catalogue(tmp_path / name)
    assert_same(got, table, text=False)
    for column in ("e_teff_lo", "e_teff_up", "e_logg_lo", "e_radius_up"):
        assert (got[column].unit, got[column].description) == (table[column].unit, table[column].description)
        assert got[column].meta == table[column].meta
    columns = [column["name"] for column in describe_catalogue(tmp_path / name)["columns"]]
    assert columns[2:6] == ["teff", "e_teff", "e_teff_lo", "e_teff_up"]


def test_fits_text_is_ascii_and_otherwise_whole(tmp_path: Path, table: Table) -> None:
    write_catalogue(table, tmp_path / "x.fits")
    got = read_catalogue(tmp_path / "x.fits")
    assert list(got["file"]) == ["a.fits", "b.fits.gz", "Angstrom \\xfcnder.csv", "dir/d.fits"]
    for name in ("id", "status", "flag_names", "reason", "model_id", "star_id"):
        assert list(got[name]) == list(table[name])


def test_csv_keeps_numbers_and_text_and_units_of_the_houses_own_names(tmp_path: Path, table: Table) -> None:
    write_catalogue(table, tmp_path / "x.csv")
    got = read_catalogue(tmp_path / "x.csv")
    assert_same(got, table, text=False)
    assert list(got["reason"]) == list(table["reason"])
    assert str(got["teff"].unit) == "K"
    assert str(got["e_logg"].unit) == "dex"
    assert got.meta["model_id"] == "0123456789ab"
    assert got.meta["provenance"] == {}


def test_the_table_itself_is_not_changed_by_writing(tmp_path: Path, table: Table) -> None:
    before = table.copy()
    for name in (*WITH_UNITS, "x.csv"):
        write_catalogue(table, tmp_path / name)
        assert_same(table, before)
        assert str(table["logg"].unit) == "dex"
        assert table.meta == before.meta


@pytest.mark.parametrize("name", ["x.fits", "x.vot", "x.ecsv"])
@pytest.mark.parametrize("kind", [Table, QTable])
def test_astropy_alone_reads_units_and_sentences_without_a_warning(tmp_path: Path, table: Table, name: str, kind: Any) -> None:
    write_catalogue(table, tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = kind.read(tmp_path / name)
    for column in ("teff", "logg", "e_logg", "radius", "rv"):
        assert str(got[column].unit) == str(table[column].unit), column  # astropy's VOTable dex is no u.dex
        assert name == "x.vot" or got[column].unit == table[column].unit
    for column in table.colnames:
        assert got[column].info.description == table[column].description
        if name != "x.vot" or kind is Table:  # astropy drops a VOTable's UCDs on the way to quantities
            assert got[column].info.meta["ucd"] == table[column].meta["ucd"] if table[column].meta else True
    assert got.colnames == table.colnames


def test_fits_header_for_topcat_and_for_people(tmp_path: Path, table: Table) -> None:
    write_catalogue(table, tmp_path / "x.fits")
    with fits.open(tmp_path / "x.fits", checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
    n = table.colnames.index("e_radius") + 1
    assert header["EXTNAME"] == "CATALOGUE"
    assert (header[f"TTYPE{n}"], header[f"TUNIT{n}"]) == ("e_radius", "solRad")
    assert header[f"TUCD{n}"] == "stat.error;phys.size.radius"
    assert header[f"TCOMM{n}"] == "standard error of radius"
    assert header["MODELID"] == "0123456789ab"
    assert header["CREATOR"].startswith("maury ")
    assert "made by: maury infer" in str(header["HISTORY"])
    assert "     2 FAILED: the fit failed; labels are NaN" in [str(line) for line in header["COMMENT"]]
    assert json.loads(header["MAURYCAT"]) == table.meta
    assert not [card for card in header if card.startswith("TUNIT") and header[card] == "dex"]  # not in the FITS standard


def test_many_rows_and_none(tmp_path: Path) -> None:
    for n in (0, 1000):
        estimates = sample_estimates()[np.arange(n) % 4]
        table = build_catalogue(estimates, model_id="a")
        for name in (*WITH_UNITS, "x.csv"):
            write_catalogue(table, tmp_path / name)
            got = read_catalogue(tmp_path / name)
            assert len(got) == n, name
            assert got.colnames == table.colnames


# -- votes of networks --------------------------------------------------------------------------------------------


@pytest.fixture
def votes(table: Table) -> Table:
    """Three networks vote on teff, two on logg, one on radius; the third star never reached them."""
    values = [np.array([[5000.0, 5100.5, np.nan]] * 3), np.array([[4.25, 4.5]] * 3), np.ones((3, 1))]
    networks = [("a", "b#0", "b#1"), ("c", "b#0"), ("d",)]
    return build_votes(table, LABELS, values, networks, np.array([0, 1, 3]))


@pytest.mark.parametrize("name", ["x.fits", "x.fits.gz", "x.vot", "x.ecsv"])
def test_astropy_reads_votes_without_a_warning(tmp_path: Path, votes: Table, name: str) -> None:
    write_catalogue(votes, tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = Table.read(tmp_path / name)
    assert got.colnames == ["file", "id", "vote_teff", "vote_logg", "vote_radius"]
    for column, unit in (("vote_teff", "K"), ("vote_logg", "dex"), ("vote_radius", "solRad")):
        found = np.ma.filled(np.ma.MaskedArray(got[column]), np.nan).reshape(4, -1)
        np.testing.assert_array_equal(found, np.asarray(votes[column]))
        assert str(got[column].unit) == unit
        assert got[column].description == votes[column].description
        assert found.dtype.kind == "f"
    assert np.isnan(np.asarray(votes["vote_logg"])[2]).all()


def test_the_networks_names_are_in_the_file(tmp_path: Path, votes: Table) -> None:
    networks = {"teff": ["a", "b#0", "b#1"], "logg": ["c", "b#0"], "radius": ["d"]}
    for name in ("x.fits", "x.vot", "x.ecsv"):
        write_catalogue(votes, tmp_path / name)
    with fits.open(tmp_path / "x.fits", checksum=True) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
    assert header["EXTNAME"] == "VOTES"
    assert "vote_logg 2: b#0" in [str(line) for line in header["COMMENT"]]
    assert json.loads(header["MAURYCAT"])["networks"] == networks
    assert dict(Table.read(tmp_path / "x.ecsv").meta["networks"]) == networks
    assert "vote_teff 3: b#1" in (tmp_path / "x.vot").read_bytes().decode("utf-8", "replace")


def test_votes_in_parquet(tmp_path: Path, votes: Table) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_catalogue(votes, tmp_path / "x.parquet")
    content = parquet.read_table(tmp_path / "x.parquet")
    assert content["vote_logg"].to_pylist()[:2] == [[4.25, 4.5], [4.25, 4.5]]
    assert content.schema.field("vote_logg").metadata[b"unit"] == b"dex"
    assert json.loads(content.schema.metadata[b"maury_catalogue"])["networks"]["radius"] == ["d"]


def test_votes_that_cannot_be(tmp_path: Path, table: Table, votes: Table) -> None:
    with pytest.raises(CatalogueError, match=r"expected a name for votes ending in .*, got x.csv; CSV has no vectors"):
        check_votes_name("x.csv")
    with pytest.raises(UsageError, match=r"expected votes of shapes \[\(1, 2\)\] on 3 labels, got \[\(1, 3\)\]; give those"):
        build_votes(table, LABELS, [np.zeros((1, 3))], [("a", "b")], np.array([0]))
    write_catalogue(votes, tmp_path / "x.fits")
    with pytest.raises(CatalogueError, match="expected a catalogue of maury, got another table"):
        read_catalogue(tmp_path / "x.fits")


# -- what cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.txt", "x", "x.fits.bz2", "fits"])
def test_unknown_extension(tmp_path: Path, table: Table, name: str) -> None:
    with pytest.raises(CatalogueError, match=r"expected a catalogue name ending in .fits, .fit, .*, got .*; add one"):
        write_catalogue(table, tmp_path / name)
    with pytest.raises(CatalogueError, match="expected a catalogue name ending in"):
        read_catalogue(tmp_path / name)


def test_places_that_cannot_be_written(tmp_path: Path, table: Table) -> None:
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(CatalogueError, match="got the folder"):
        write_catalogue(table, tmp_path / "folder.fits")
    with pytest.raises(CatalogueError, match="make the folder first"):
        write_catalogue(table, tmp_path / "none" / "x.fits")
    (tmp_path / "old.fits").write_text("old")
    with pytest.raises(CatalogueError, match="which exists; choose another name or allow overwriting"):
        write_catalogue(table, tmp_path / "old.fits", overwrite=False)
    assert (tmp_path / "old.fits").read_text() == "old"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.ecsv"
    target.write_text("old")

    def full_disk(self: Table, path: Path, **_: Any) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Table, "write", full_disk)
    with pytest.raises(CatalogueError, match="got No space left on device; check space and permissions"):
        write_catalogue(table, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.ecsv"]


def test_parquet_without_pyarrow(tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_pyarrow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(CatalogueError, match=r"run `pip install maury\[parquet\]`"):
        write_catalogue(table, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


def test_a_table_that_was_not_built_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="build the catalogue first"):
        write_catalogue(Table({"a": [1]}), tmp_path / "x.fits")


@pytest.mark.parametrize("name", ["x.fits", "x.vot", "x.ecsv", "x.csv", "x.parquet"])
def test_foreign_tables(tmp_path: Path, name: str) -> None:
    if name == "x.parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").table({"a": [1.0]}), tmp_path / name)
    else:
        formats = {"fits": "fits", "vot": "votable", "ecsv": "ascii.ecsv", "csv": "ascii.csv"}
        Table({"a": [1.0]}).write(tmp_path / name, format=formats[name[2:]])
    with pytest.raises(CatalogueError, match=r"expected a catalogue of maury, got another table: .*; give a file that"):
        read_catalogue(tmp_path / name)


@pytest.mark.parametrize("name", ["x.fits", "x.vot", "x.ecsv", "x.csv", "x.parquet"])
def test_missing_damaged_and_newer(tmp_path: Path, table: Table, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(CatalogueError, match="got no file at"):
        read_catalogue(path)
    write_catalogue(table, path)
    raw = path.read_bytes()
    for damaged in (b"", b"\0" * 100, raw[: len(raw) // 2], b"PAR1" + raw[4:40]):
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if name == "x.csv" and damaged == raw[: len(raw) // 2]:
                continue  # half a CSV may be a shorter CSV; nothing in the format can tell
            with pytest.raises(CatalogueError):
                read_catalogue(path)
    if name != "x.csv":
        table.meta["format_version"] = 99
        write_catalogue(table, path)
        with pytest.raises(CatalogueError, match=r"expected a catalogue of format 1 or older, got 99: .*; update maury"):
            read_catalogue(path)


def test_description(tmp_path: Path, table: Table) -> None:
    write_catalogue(table, tmp_path / "x.fits")
    about = describe_catalogue(tmp_path / "x.fits")
    json.dumps(about)
    assert about["n_stars"] == 4
    assert about["n_unflagged"] == 1
    assert about["model_id"] == "0123456789ab"
    assert about["status"] == {"converged": 1, "max_iterations": 1, "failed": 1, "not_fitted": 1}
    assert about["flags"]["AT_BOUND"]["n_stars"] == 1
    assert about["flags"]["LOW_SNR"]["n_stars"] == 0
    assert about["provenance"]["training"] == "MILES"
    teff = next(column for column in about["columns"] if column["name"] == "teff")
    assert (teff["unit"], teff["n_missing"], teff["range"]) == ("K", 2, [4000.0, 4888.625, 5777.25])
