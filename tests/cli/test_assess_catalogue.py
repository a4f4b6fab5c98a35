"""``maury assess --catalogue A --with B`` on small made tables: the match, units, errors, ranges, and what users get wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from catalogue_sample import sample_estimates

from maury.assess.crossmatch import CrossMatch
from maury.catalogue import build_catalogue, write_catalogue
from maury.cli.assess import assess
from maury.errors import CatalogueError, MauryError, RecipeError, UsageError

OURS = [f"star {i}" for i in range(8)]
TEFF = 3000.0 + 100.0 * np.arange(8)
DIFFERENCE = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 200.0])
"""By hand: median 45, mean 60, scatter 1.4826 * 20 = 29.65, as |d - 45| = 35, 25, 15, 5, 5, 15, 25, 155 with the median 20."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``ours.csv`` (8 stars) and ``theirs.csv``, in another order, whose names have blanks and quotes."""
    Table({"karmn": OURS, "Teff": TEFF + DIFFERENCE, "e_Teff": np.full(8, 30.0), "g": 4.5 + 0.01 * np.arange(8)}).write(
        tmp_path / "ours.csv"
    )
    rows = "\n".join(f'{8 - i},"{name} ",{TEFF[i]},40,4.5' for i, name in reversed(list(enumerate(OURS))))
    (tmp_path / "theirs.csv").write_text(f"recno,Karmn,Teff1,e_Teff1,logg\n{rows}\n", encoding="utf-8")
    return tmp_path


def compare(folder: Path, first: str = "ours.csv", second: str = "theirs.csv", **options: Any) -> None:
    chosen: dict[str, Any] = {"on": "karmn,Karmn", "label_column": ["teff=Teff,Teff1"]} | options
    assess(catalogue=folder / first, reference=folder / second, **chosen)


def rows_of(printed: str) -> dict[tuple[str, str], list[str]]:
    """(label, stars) -> n, failed, bias, mean, scatter, +-, RMSE, MAE and pulls, as printed."""
    lines = printed.rsplit("------\n", maxsplit=1)[-1].splitlines()
    out = {}
    for line in lines:
        label, _, rest = line.split(maxsplit=2)
        stars, *cells = [part.strip() for part in rest.split("  ") if part.strip()]
        out[label, stars] = cells
    return out


def change(path: Path, **columns: Any) -> None:
    """Columns of a CSV table replaced."""
    table = Table.read(path, format="ascii.csv")
    for name, values in columns.items():
        table[name] = values
    table.write(path, overwrite=True)


def test_the_match_of_names() -> None:
    found = CrossMatch.of(["a", "b", "b", "c", "", "d", "e"], ["d", "a", "c", "c", "x", "", "", "b"])
    assert found.first.tolist() == [0, 5]
    assert found.second.tolist() == [1, 0]
    assert found.alone == (("e",), ("x",))
    assert found.doubled == (("b",), ("c",))
    assert found.nameless == (1, 2)
    assert len(CrossMatch.of([], ["a"])) == 0


def test_numbers_are_those_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(folder)
    printed = capsys.readouterr().out
    assert "ours.csv: 8 rows, stars in karmn; theirs.csv: 8 rows, stars in Karmn; 8 stars in both" in printed
    assert "not compared" not in printed
    assert "ours.csv - theirs.csv (bias = median" in printed
    rows = rows_of(printed)
    n, failed, bias, mean, scatter, _, rmse, mae, *pulls = rows["teff", "all"]
    assert (n, failed, bias, mean, scatter, mae) == ("8", "0", "45.0", "60.0", "29.7", "60.0")
    assert float(rmse) == pytest.approx(np.sqrt(np.mean(DIFFERENCE**2)), abs=0.05)
    assert [float(x) for x in pulls] == pytest.approx(  # errors of a difference: 30 and 40 make 50
        [1.2, 29.65 / 50, np.std(DIFFERENCE / 50, ddof=1)], abs=0.0051
    )
    assert [key for key in rows if key[1] != "all"] == [("teff", "teff < 3395"), ("teff", "teff >= 3395")]  # at the median
    assert rows["teff", "teff < 3395"][:3] == ["4", "0", "25.0"]


def test_ranges_meet_at_the_edges_and_are_of_the_first_catalogue(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(folder, label_column=["teff=Teff,Teff1", "logg=g,logg"], edge=[3500.0, 3220.0])
    rows = rows_of(capsys.readouterr().out)
    counts = {key: cells[0] for key, cells in rows.items() if key[0] == "teff"}
    # 3010, 3120 | 3230, 3340, 3450 | 3560, 3670, 3900; by the second catalogue 3500 itself would be another star's
    assert counts == {
        ("teff", "all"): "8",
        ("teff", "teff < 3220"): "2",
        ("teff", "3220 <= teff < 3500"): "3",
        ("teff", "teff >= 3500"): "3",
    }
    assert float(rows["logg", "all"][2]) == pytest.approx(0.035)  # by hand: median of 0, 0.01, ... 0.07
    assert rows["logg", "all"][-1] == "-"  # no errors, no pulls


def test_what_has_no_part_in_it_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "ours.csv", karmn=["star 0", "star 0", "only here", "star 3", "star 4", "star 5", "star 6", "star 7"])
    names = MaskedColumn([f"star {i}" for i in (7, 6, 5, 5, 4, 3, 0, 9)], mask=[False] * 7 + [True])
    change(folder / "theirs.csv", Karmn=names, Teff1=MaskedColumn(TEFF[::-1], mask=[True] + [False] * 7))
    change(folder / "ours.csv", Teff=[3010, 3120, 3230, 3340, 3450, 3560, "-9999", "inf"])
    compare(folder, without=["star 4"])
    printed = capsys.readouterr().out
    assert "3 stars in both" in printed
    ours, theirs = (line for line in printed.splitlines() if line.startswith("not compared"))
    assert ours == (
        "not compared, ours.csv: 1 in it alone (only here); 1 named more than once here, nor their partners (star 0); "
        "1 row left out by --without"
    )
    assert theirs == (
        "not compared, theirs.csv: 1 named more than once here, nor their partners (star 5); 1 row without a name; "
        "1 row left out by --without"
    )
    (columns,) = [line.split() for line in printed.splitlines() if line.startswith("teff") and "Teff1" in line]
    assert columns == ["teff", "K", "Teff", "e_Teff", "2", "Teff1", "e_Teff1", "1"]  # -9999 and inf are no numbers
    assert rows_of(printed)["teff", "all"][:2] == ["1", "1"]  # star 6: theirs alone has a number


def test_errors_by_name_and_errors_of_two_sides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lower 20 and upper 40 make 30; without a column in both there are no pulls."""
    compare(folder)
    expected = rows_of(capsys.readouterr().out)["teff", "all"][-3:]
    change(folder / "ours.csv", e_Teff=np.full(8, 20.0), E_Teff=np.full(8, 40.0))
    compare(folder)
    printed = capsys.readouterr().out
    assert "e_Teff/E_Teff" in printed
    assert rows_of(printed)["teff", "all"][-3:] == expected
    change(folder / "ours.csv", sigma=np.full(8, 0.0))
    compare(folder, error_column=["teff=sigma,e_Teff1"])
    assert rows_of(capsys.readouterr().out)["teff", "all"][-3] == "1.50"  # 60/40
    change(folder / "ours.csv", e_Teff=["?"] * 8)
    with pytest.raises(CatalogueError, match=r"expected numbers in column 'e_Teff' of ours.csv, got '\?'; .*--error-column"):
        compare(folder)


def test_units_of_the_tables_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kilokelvin in one, log(cm/s2) as VizieR writes it in the other; neither is mapped."""
    ours = Table({"id": OURS, "teff": (TEFF + DIFFERENCE) / 1000.0, "logg": np.full(8, 4.5), "rv": np.arange(8.0)})
    ours["teff"].unit, ours["logg"].unit = "1e3 K", "dex"
    theirs = Table({"id": OURS, "teff": TEFF, "logg": np.full(8, 4.4), "rv": np.arange(8.0)})
    theirs["teff"].unit, theirs["logg"].unit = "K", "dex(cm / s2)"
    for name, table in (("ours.ecsv", ours), ("theirs.ecsv", theirs)):
        table.write(folder / name)
    compare(folder, "ours.ecsv", "theirs.ecsv", on=None, label_column=None)
    rows = rows_of(capsys.readouterr().out)
    assert {label for label, _ in rows} == {"teff", "logg"}  # a velocity was given, not found
    assert rows["teff", "all"][2] == "45.0"
    assert float(rows["logg", "all"][2]) == pytest.approx(0.1)
    theirs["logg"].unit = "m / s2"
    theirs.write(folder / "theirs.ecsv", overwrite=True)
    with pytest.raises(
        CatalogueError, match=r"column 'logg' of theirs.ecsv in a unit that can become dex for logg, got 'm / s2'"
    ):
        compare(folder, "ours.ecsv", "theirs.ecsv", on=None, label_column=None)


def test_a_unit_is_never_guessed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ours.csv", "theirs.csv"):
        change(folder / name, teff=np.full(8, 3000.0) + np.arange(8), star_id=OURS)
    with pytest.raises(
        CatalogueError, match=r"expected a unit of column 'teff' in ours.csv, got none; .*--label-column teff=teff"
    ):
        compare(folder, on=None, label_column=None)
    compare(folder, on=None, label_column=["teff=teff"])
    assert "stars in star_id" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["fits", "vot", "ecsv", "csv"])
def test_our_own_catalogues_need_no_mapping(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    estimates = sample_estimates()
    catalogue = build_catalogue(estimates, model_id="0" * 12, provenance={})
    write_catalogue(catalogue, tmp_path / f"a.{ending}")
    catalogue["teff"] = catalogue["teff"] - [7.0, 9.0, 0.0, 0.0]
    write_catalogue(catalogue, tmp_path / "b.ecsv")
    assess(catalogue=tmp_path / f"a.{ending}", reference=tmp_path / "b.ecsv", on="id")
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert [label for label, stars in rows if stars == "all"] == ["teff", "logg", "radius"]
    assert rows["teff", "all"][:4] == ["2", "0", "8.00", "8.00"]
    (columns,) = [line.split() for line in printed.splitlines() if line.startswith("teff") and "e_teff" in line]
    assert columns == ["teff", "K", "teff", "e_teff", "2", "teff", "e_teff", "2"]  # two stars of the four failed


def test_a_figure_is_drawn(folder: Path) -> None:
    compare(folder, label_column=["teff=Teff,Teff1", "logg=g,logg"], plots=folder / "plots" / "new")
    assert (folder / "plots/new/comparison.png").stat().st_size > 10_000


def test_teff_runs_leftward_and_axes_have_units() -> None:
    from maury.labels import LabelSet, make_label
    from maury.report.crossmatch_figure import crossmatch_figure

    labels = LabelSet((make_label("teff", "K"), make_label("logg", "dex")), (0.0,) * 2, (1.0,) * 2, (0.0,) * 2, (1.0,) * 2)
    # the frame reaches 5 scatters of 30 K beyond the median of 45 K, one star differs by 200 K
    first = np.column_stack([TEFF + DIFFERENCE, np.full(8, np.nan)])  # of log g nothing is known: an empty panel
    teff, logg = crossmatch_figure(labels, first, np.column_stack([TEFF, TEFF]), None, ("a", "b")).axes
    assert teff.get_xlim()[0] > teff.get_xlim()[1]
    assert teff.get_xlabel().endswith("[K], a")
    assert teff.get_ylabel().endswith("[K]")
    assert "1 beyond the frame" in teff.texts[0].get_text()
    assert logg.texts[0].get_text() == "n = 0"


# -- what users get wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"first": "none.csv"}, CatalogueError, "expected a catalogue, got no file at .*none.csv; check the path"),
        ({"second": ""}, CatalogueError, "expected a catalogue, got a folder at .*; check the path"),
        ({"second": "broken.fits"}, RecipeError, "expected a table that can be read in .*broken.fits"),
        ({"on": "Karmn"}, CatalogueError, "expected column 'Karmn' in ours.csv, got karmn, Teff, e_Teff, g; correct --on"),
        ({"on": None}, UsageError, "expected --on to name the columns with the stars, got none"),
        ({"on": "g,logg"}, CatalogueError, "expected names of stars in column 'g' of ours.csv, got numbers with decimals"),
        ({"on": "karmn,recno"}, CatalogueError, "expected stars that both catalogues name, .*'star 0' and '1'"),
        ({"label_column": ["teff=Teff"]}, CatalogueError, "expected column 'Teff' in theirs.csv, .*correct --label-column"),
        ({"label_column": ["t=Teff,Teff1"]}, UsageError, "expected LABEL=COLUMN with a label among teff"),
        ({"label_column": ["teff=karmn,Teff1"]}, CatalogueError, "expected numbers in column 'karmn' of ours.csv, got 'star 0'"),
        ({"label_column": None}, UsageError, "expected labels that ours.csv and theirs.csv both have, got none of the same name"),
        ({"error_column": ["teff=x,e_Teff1"]}, CatalogueError, "expected column 'x' in ours.csv, .*correct --error-column"),
        ({"error_column": ["logg=x"]}, UsageError, "expected LABEL=COLUMN with a label among teff, got 'logg=x'"),
        ({"without": ["star 99"]}, UsageError, "expected --without to name a star of either catalogue, got 'star 99'"),
        ({"edge": [np.nan]}, UsageError, "expected finite values of --edge, got nan"),
        ({"model": "gaia-rvs"}, UsageError, "expected --catalogue alone, got MODEL too"),
        ({"gap": True, "fwhm": [3.0]}, UsageError, "expected --catalogue alone, got --fwhm, --gap too"),
    ],
)
def test_wrong_inputs(folder: Path, options: dict[str, Any], error: type[MauryError], words: str) -> None:
    (folder / "broken.fits").write_bytes(b"no table")
    with pytest.raises(error, match=words):
        compare(folder, **options)


def test_no_number_in_common(folder: Path) -> None:
    change(folder / "ours.csv", Teff=[np.nan] * 8)
    with pytest.raises(CatalogueError, match=r"expected numbers in ours.csv and theirs.csv for one star, got none"):
        compare(folder)


def test_a_catalogue_alone_and_options_without_one(folder: Path) -> None:
    with pytest.raises(UsageError, match="expected --with TABLE together with --catalogue, got none"):
        assess(catalogue=folder / "ours.csv")
    with pytest.raises(UsageError, match="expected --catalogue together with --with, got none"):
        assess(reference=folder / "ours.csv")
    with pytest.raises(UsageError, match="expected --catalogue together with --edge, got none"):
        assess("gaia-rvs", [folder / "ours.csv"], edge=[3750.0])
    with pytest.raises(UsageError, match="expected MODEL and SPECTRA, or --catalogue with --with, got neither"):
        assess()
    with pytest.raises(UsageError, match="expected MODEL and SPECTRA, or --catalogue with --with"):
        assess("gaia-rvs")


def test_files_of_one_name_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "old").mkdir()
    (folder / "old/ours.csv").write_bytes((folder / "ours.csv").read_bytes())
    compare(folder, second="old/ours.csv", on="karmn", label_column=["teff=Teff"])
    assert f"{folder / 'old/ours.csv'}: 8 rows" in capsys.readouterr().out


def test_the_command_ends_with_one_sentence_and_code_2(folder: Path) -> None:
    words = ["--catalogue", "ours.csv", "--with", "theirs.csv", "--on", "karmn,Karmn"]
    run = [sys.executable, "-W", "error", "-m", "maury", "assess", *words]
    good = subprocess.run([*run, "--label-column", "teff=Teff,Teff1"], cwd=folder, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    bad = subprocess.run([*run, "--label-column", "teff=T"], cwd=folder, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1
    assert bad.stderr.startswith("maury: expected column 'T' in ours.csv")
