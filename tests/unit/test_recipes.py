"""Recipes: what users get wrong gets one sentence each; what ships can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_makers import lamost_image

from maury.emulate.payne_config import PRESETS, PayneConfig
from maury.errors import MauryError, RecipeError
from maury.fit.fitter import ChiSquareFitter
from maury.labels import LabelSet
from maury.models import SHIPPED
from maury.recipes import builtin_recipes, load_recipe, parse_recipe
from maury.recipes.dataset import load_training_set
from maury.recipes.train_schema import PayneRecipe
from maury.recipes.training import Trainer
from maury.store import describe_model
from maury.train.config import LoopConfig


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


def payne(**settings: Any) -> dict[str, Any]:
    return with_(lambda c: c.update(train={"method": "payne", "payne": settings}))


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
    (with_(lambda c: c.update(fit={"velocity": {}})), "expected a value for fit.velocity.max_km_s, got none; add it"),
    (
        with_(lambda c: c.update(fit={"velocity": {"max": 5}})),
        r"known key in \[fit.velocity\], got 'max'; known are max_km_s",
    ),
    (with_(lambda c: c.update(fit={"velocity": {"max_km_s": 0}})), "valid value for fit.velocity.max_km_s, got 0"),
    (with_(lambda c: c.update(fit={"velocity": {"max_km_s": 3000}})), "valid value for fit.velocity.max_km_s, got 3000"),
    (with_(lambda c: c.update(fit={"bounds": {"logg": [0, 5]}})), "fit.bounds of labels among teff, got 'logg'"),
    (with_(lambda c: c.update(fit={"bounds": {"teff": [8000, 3000]}})), r"teff as \[lower, upper\], got \[8000, 3000\]"),
    (with_(lambda c: c.update(fit={"bounds": {"teff": [float("nan"), 3000]}})), "valid value for fit.bounds.teff.0, got nan"),
    (with_(lambda c: c.update(fit={"bounds": {"teff": [3000]}})), "expected a value for fit.bounds.teff.1, got none"),
    (
        with_(lambda c: (c.update(fit={"bounds": {"teff": [0, 9000]}}), c["label"][0].update(coordinate="inverse"))),
        "positive fit.bounds of teff, whose coordinate is inverse, got 0; raise it",
    ),
    (with_(lambda c: c.update(fit={"n_starts": 5, "n_candidates": 4})), "fit.n_starts <= fit.n_candidates, got 5 and 4"),
    (with_(lambda c: c.update(fit={"photometry": {}})), "expected a value for fit.photometry.isochrones, got none"),
    (
        with_(lambda c: c.update(fit={"photometry": {"isochrones": "a", "color_scale": 1}})),
        r"known key in \[fit.photometry\], got 'color_scale'; known are isochrones, colour_scale",
    ),
    (
        with_(lambda c: c.update(fit={"photometry": {"isochrones": "a", "magnitude_scale": 0}})),
        "valid value for fit.photometry.magnitude_scale, got 0",
    ),
    (with_(lambda c: c.update(train={"method": "ferre"})), "valid value for train.method, got 'ferre'"),
    (payne(hiden=[3]), r"known key in \[train.payne\], got 'hiden'; known are preset, .*hidden"),
    (payne(preset="ting2018"), "valid value for train.payne.preset, got 'ting2018'"),
    (payne(activation="swish"), "valid value for train.payne.activation, got 'swish'"),
    (payne(hidden=[]), r"at least one hidden layer of at least one neuron, got \[\]"),
    (payne(hidden=[30, 0]), r"at least one hidden layer of at least one neuron, got \[30, 0\]"),
    (payne(hidden=[30.5]), "valid value for train.payne.hidden"),
    (payne(members=0), "members >= 1, got 0"),
    (payne(components=-1), "components >= 0, got -1"),
    (payne(validation_fraction=1.0), "validation_fraction above 0 and up to 0.5, got 1.0"),
    (payne(learning_rate=0), "learning_rate > 0, got 0.0"),
    (payne(max_epochs=0), "max_epochs >= 1, got 0"),
    (payne(patience=-1), "patience >= 0, got -1"),
    (payne(seed=-1), "seed >= 0, got -1"),
    (
        with_(lambda c: c.update(train={"payne": {"members": 3}})),
        r"no \[train.payne\] for train.method = 'cannon', got some; correct the method or remove it",
    ),
    (
        with_(lambda c: c.update(train={"method": "payne", "order": 3})),
        "no train.order for train.method = 'payne', got some; correct the method or remove it",
    ),
    (
        with_(lambda c: c.update(train={"method": "payne", "label_errors": True})),
        "no train.label_errors for train.method = 'payne'",
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


class TestPayne:
    def test_what_is_not_given_is_the_presets(self) -> None:
        assert parse_recipe(payne(), "mine.toml").train.payne.to_config() == PayneConfig()
        published = parse_recipe(payne(preset="ting2019"), "mine.toml").train.payne.to_config()
        assert published == PRESETS["ting2019"]
        changed = parse_recipe(
            payne(preset="ting2019", hidden=[30], max_epochs=7, loss="mse"), "mine.toml"
        ).train.payne.to_config()
        assert changed == replace(published, hidden=(30,), loss="mse", loop=replace(published.loop, max_epochs=7))

    def test_every_setting_of_the_configuration_is_a_key(self) -> None:
        """And the other way round: no key is lost on the way."""
        names = {field.name for field in (*fields(PayneConfig), *fields(LoopConfig))} - {"loop"}
        assert set(PayneRecipe.model_fields) - {"preset"} == names

    def test_reading_it_needs_no_torch(self) -> None:
        code = (
            "import sys; from maury.recipes import builtin_recipes, load_recipe;"
            "[load_recipe(name) for name in builtin_recipes()]; sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_through_the_command_line_it_stays_the_same(self) -> None:
        """`maury train` writes the recipe out and reads it again, with its options in it."""
        recipe = parse_recipe(payne(preset="ting2019", hidden=[30]), "mine.toml")
        assert parse_recipe(recipe.model_dump(mode="json"), "again") == recipe


def test_settings_reach_the_fit() -> None:
    content = with_(
        lambda c: c.update(
            fit={"velocity": {"max_km_s": 40}, "bounds": {"teff": [2500, 9000]}, "margin": 0.2},
        )
    )
    recipe = parse_recipe(content, "mine.toml")
    values = np.linspace(3000.0, 8000.0, 50)[:, None]
    labels = LabelSet.from_training(recipe.labels, values)
    fitter = Trainer(recipe, None).fitter(labels, values)  # type: ignore[arg-type]
    moving = fitter.labels_of(labels)
    assert moving.names == ("teff", "delta_rv")
    lower, upper = fitter.bounds(moving)
    ends = moving.unscale(np.stack([lower, upper]))
    np.testing.assert_allclose(ends, [[2500.0, -40.0], [9000.0, 40.0]])
    again = ChiSquareFitter.from_config(json.loads(json.dumps(fitter.to_config())))
    assert again == fitter


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_builtin_recipes_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.preparation.steps


def test_the_recipes_of_the_issue_ship() -> None:
    assert {"miles", "lamost", "galgano2020", "imig2022", "miles-payne", "lamost-payne"} <= set(builtin_recipes())
    assert {"gaia-rvs", "gebran2024"} <= set(builtin_recipes())


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_model_is_of_the_recipe_of_its_name(name: str) -> None:
    """What ships is what the recipe of today says, but for how it is scored and described: a change of either is found here.

    Keys that there were not when it was made have today's defaults.
    """
    made = parse_recipe(describe_model(name)["provenance"]["recipe"], name).model_dump(mode="json")
    today = load_recipe(name).model_dump(mode="json")
    for words in ("description", "source", "validation"):
        del made[words], today[words]
    assert made == today


@pytest.mark.parametrize(("text", "match"), [("name = ", "in TOML"), (None, "expected a TOML file or one of .*galgano2020")])
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
        (["train", "miles", "--device", "tpu"], "expected the device cpu or cuda (or cuda:1, the second GPU), got 'tpu'"),
        (
            ["train", "miles-payne", "--device", "cuda:x"],
            "expected the device cpu or cuda (or cuda:1, the second GPU), got 'cuda:x'",
        ),
        (
            ["train", "miles-payne", "--device", "cuda:99"],
            "expected a GPU for the device 'cuda:99', got none that PyTorch can use",
        ),
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
