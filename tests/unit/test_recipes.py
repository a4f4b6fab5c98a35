"""Recipes: what users get wrong gets one sentence each; what ships can be read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_makers import lamost_image

from maury.errors import MauryError, RecipeError
from maury.recipes import builtin_recipes, load_recipe, parse_recipe
from maury.recipes.dataset import load_training_set


def good() -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"spectra": "*.fits", "table": "labels.csv", "join": "file"},
        "label": [{"name": "teff", "column": "teff", "unit": "K"}],
        "prepare": [{"step": "resample", "start": 5050, "stop": 5200, "spacing": 1}],
    }


def with_(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = good()
    change(content)
    return content


FAULTS: list[tuple[dict[str, Any], str]] = [
    (with_(lambda c: c.update(typo=1)), r"expected a known key in \[recipe\], got 'typo'; known are name"),
    (
        with_(lambda c: c["data"].update(spectrum="x")),
        r"expected a known key in \[data\], got 'spectrum'; known are spectra, table",
    ),
    (with_(lambda c: c["label"][0].pop("unit")), "expected a value for label.0.unit, got none; add it; units are never guessed"),
    (with_(lambda c: c["label"][0].update(unit="parsnip")), "a unit astropy knows for label 'teff', got 'parsnip'"),
    (with_(lambda c: c["label"][0].update(unit="dex")), "expected label 'teff' in K, got 'dex'"),
    (with_(lambda c: c["prepare"].append({"step": "polish"})), "polish"),
    (with_(lambda c: c["prepare"][0].update(width=3)), "width"),
    (with_(lambda c: c.update(train={"order": 9})), "expected a valid value for train.order, got 9"),
    (with_(lambda c: c.update(validation={"folds": 1})), "one fold is no cross-validation"),
    (with_(lambda c: c.update(errors={"model": "hopeful"})), "expected a valid value for errors.model, got 'hopeful'"),
    (with_(lambda c: c.pop("label")), "expected a value for label, got none"),
    (
        with_(lambda c: c.update(fit={"continuum": {"degre": 2}})),
        r"known key in \[fit.continuum\], got 'degre'; known are degree",
    ),
]


@pytest.mark.parametrize(("content", "text"), FAULTS, ids=[text[:40] for _, text in FAULTS])
def test_each_fault_has_one_sentence(content: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text) as error:
        parse_recipe(content, "mine.toml")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mine.toml: ")


def test_the_good_one_is_good() -> None:
    assert parse_recipe(good(), "mine.toml").labels[0].unit == "K"


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_builtin_recipes_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.preparation.steps


def test_the_recipes_of_the_issue_ship() -> None:
    assert {"miles", "lamost", "galgano2020"} <= set(builtin_recipes())


@pytest.mark.parametrize(("text", "match"), [("name = ", "in TOML"), (None, "expected a TOML file or one of demo, galgano2020")])
def test_no_recipe(tmp_path: Path, text: str | None, match: str) -> None:
    path = tmp_path / "r.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=match):
        load_recipe(path)


class TestData:
    def make(self, folder: Path, table: str) -> None:
        for i in range(3):
            lamost_image(folder / f"s{i}.fits")
        (folder / "labels.csv").write_text(table, encoding="utf-8")

    @pytest.mark.parametrize(
        ("table", "change", "text"),
        [
            ("file,teff\nx.fits,5000\n", None, "column 'file' of labels.csv to name the files .* got no match among 3 files"),
            ("file,temp\ns0.fits,5000\n", None, "expected column 'teff' in .*labels.csv, got columns file, temp"),
            ("file,teff\ns0.fits,5000\ns0.fits,5100\n", None, "one row per file in labels.csv, got 's0.fits' twice"),
            ("file,teff\ns0.fits,-9999\ns1.fits,\n", None, "none of 2 .*no teff in the table"),
            ("file,teff\ns0.fits,5000\n", {"limits": {"teff": [1, 2]}}, "teff = 5000 outside 1 to 2"),
            ("file,teff\ns0.fits,5000\n", {"min_snr": 1e6}, "snr = 20.0 below 1e\\+06"),
            ("file,teff\ns0.fits,5000\n", {"spectra": "*.dat"}, r"matching \*.dat in .*, got no file"),
            ("file,teff\ns0.fits,5000\n", {"table": "none.csv"}, "the label table .*none.csv, got no such file"),
            ("file,teff\ns0.fits,5000\n", {"rv_column": "rv"}, "expected column 'rv'"),
        ],
    )
    def test_data_that_do_not_fit(self, tmp_path: Path, table: str, change: dict[str, Any] | None, text: str) -> None:
        self.make(tmp_path, table)
        recipe = parse_recipe(with_(lambda c: c["data"].update(change or {})), "mine.toml")
        with pytest.raises(RecipeError, match=text) as error:
            load_training_set(recipe, tmp_path)
        assert "\n" not in str(error.value)

    def test_what_is_left_out_is_kept_with_its_reason(self, tmp_path: Path) -> None:
        self.make(tmp_path, "file,teff\ns0.fits,5000\ns1.fits,-9999\n")
        (tmp_path / "s3.fits").write_bytes(b"SIMPLE")
        (tmp_path / "labels.csv").write_text("file,teff\ns0.fits,5000\ns1.fits,-9999\ns3.fits,5100\n", encoding="utf-8")
        found = load_training_set(parse_recipe(good(), "mine.toml"), tmp_path)
        assert len(found) == 1
        reasons = dict(found.left_out)
        assert reasons["s1.fits"] == "no teff in the table"
        assert reasons["s2.fits"] == "not in labels.csv"
        assert "expected" in reasons["s3.fits"]

    def test_velocities_of_the_table_replace_the_headers(self, tmp_path: Path) -> None:
        self.make(tmp_path, "file,teff,v\ns0.fits,5000,250\ns1.fits,5000,0\n")
        recipe = parse_recipe(with_(lambda c: c["data"].update(rv_column="v")), "mine.toml")
        moved, still = load_training_set(recipe, tmp_path).spectra.flux
        assert abs(int(moved.argmin()) - int(still.argmin())) >= 3  # 250 km/s are 4.3 Å at 5118 Å


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "nonsense"], "expected a TOML file or one of"),
        (["train", "miles", "--data", "/nowhere"], "got no file; check --data"),
        (["train", "miles", "-o", "/nowhere/m.safetensors"], "existing folder"),
        (["infer", "none.safetensors", "a.fits"], "no file at none.safetensors"),
        (["infer", "none.safetensors", "a.fits", "-o", "stars.xyz"], ".fits"),
        (["info", "none.safetensors"], "no file at none.safetensors"),
        (["info", "spectrum.dat"], "expected a model or a catalogue"),
        (["recipes", "nothing"], "expected one of"),
    ],
)
def test_commands_say_one_sentence_and_exit_with_2(words: list[str], text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maury", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_maury_alone_says_what_to_do_first() -> None:
    done = subprocess.run([sys.executable, "-m", "maury"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "maury demo" in done.stdout


def test_every_user_error_is_a_maury_error() -> None:
    assert issubclass(RecipeError, MauryError)
