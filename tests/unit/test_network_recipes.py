"""Recipes of the generator and of principal components with networks: their tables, the small version, and tiny trainings."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import LIBRARY, LIBRARY_TOML, STAR, WAVELENGTH
from typer.testing import CliRunner

import maury
from maury.cli import app
from maury.emulate.generator_config import PRESETS as GENERATOR
from maury.errors import MauryError, RecipeError
from maury.recipes import load_recipe, parse_recipe
from maury.recipes.network_schema import PcaMlpRecipe
from maury.recipes.schema import quick_version
from maury.regress.pca_mlp_config import PRESETS as PCA_MLP
from maury.regress.pca_mlp_config import PcaMlpConfig
from maury.train.config import LoopConfig

pytest.importorskip("torch")

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex"}


def content(method: str = "generator", **changes: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "data": {"library": LIBRARY, "assumed_snr": 100},
        "label": [{"name": name, "column": name, "unit": unit} for name, unit in UNITS.items()],
        "prepare": [{"step": "crop", "start": 8802, "stop": 8834}],
        "train": {"method": method, **changes.pop("train", {})},
        "validation": {"folds": 0},
        "errors": {"model": "formal"},
        **changes,
    }


def parsed(method: str = "generator", **changes: Any) -> Any:
    return parse_recipe(content(method, **changes), "test")


class TestTables:
    @pytest.mark.parametrize("preset", sorted(GENERATOR))
    def test_a_generators_preset_is_itself(self, preset: str) -> None:
        assert parsed(train={"generator": {"preset": preset}}).train.generator.to_config() == GENERATOR[preset]

    def test_what_is_given_of_a_generator_is_changed_in_every_stage(self) -> None:
        table = {"preset": "gebran2024-tuned", "encoder": [40, 20], "latent": 7, "label_network": [30, 25, 20], "max_epochs": 3}
        found = parsed(train={"generator": {**table, "batch_size": 9, "seed": 5}}).train.generator.to_config()
        assert (found.autoencoder.hidden, found.autoencoder.latent, found.label_network.hidden) == ((40, 20), 7, (30, 25, 20))
        assert found.fine_tune is not None
        loops = (found.autoencoder.loop, found.label_network.loop, found.fine_tune)
        assert {(loop.max_epochs, loop.batch_size) for loop in loops} == {(3, 9)}
        assert found.label_network.loop.optimiser == "adamax"  # of the preset
        assert (found.seed, found.validation_fraction) == (5, 0.2)

    @pytest.mark.parametrize("preset", sorted(PCA_MLP))
    def test_a_checkers_preset_is_itself(self, preset: str) -> None:
        assert parsed("pca_mlp", train={"pca_mlp": {"preset": preset}}).train.pca_mlp.to_config() == PCA_MLP[preset]

    def test_what_is_given_of_a_checker_is_changed(self) -> None:
        table = {"preset": "gebran2024", "hidden": [30], "joint": True, "snr": [20, 200], "max_epochs": 7}
        expected = PCA_MLP["gebran2024"]
        expected = replace(expected, hidden=(30,), joint=True, snr=(20.0, 200.0), loop=replace(expected.loop, max_epochs=7))
        assert parsed("pca_mlp", train={"pca_mlp": table}).train.pca_mlp.to_config() == expected

    def test_noise_can_be_left_out(self) -> None:
        """Where a preset has some, a key that is absent means the preset's: hence a word for none."""
        assert PCA_MLP["maury"].snr is not None
        assert PcaMlpRecipe().to_config().snr == PCA_MLP["maury"].snr
        assert PcaMlpRecipe(snr="none").to_config().snr is None

    def test_every_setting_of_a_checker_is_a_key_or_the_presets_alone(self) -> None:
        names = {field.name for field in (*fields(PcaMlpConfig), *fields(LoopConfig))} - {"loop"}
        assert set(PcaMlpRecipe.model_fields) - {"preset"} <= names
        assert names - set(PcaMlpRecipe.model_fields) == {"validation_fraction", "initial", "min_pixels"}

    @pytest.mark.parametrize(
        ("method", "train", "sentence"),
        [
            ("generator", {"payne": {"hidden": [3]}}, r"expected no \[train.payne\] for train.method = 'generator', got some"),
            ("generator", {"pca_mlp": {"hidden": [3]}}, r"no \[train.pca_mlp\] for train.method = 'generator'"),
            ("pca_mlp", {"generator": {"latent": 3}}, r"no \[train.generator\] for train.method = 'pca_mlp'"),
            ("payne", {"generator": {"latent": 3}}, r"no \[train.generator\] for train.method = 'payne'"),
            ("cannon", {"pca_mlp": {"members": 3}}, r"no \[train.pca_mlp\] for train.method = 'cannon'"),
            ("generator", {"order": 3}, "no train.order for train.method = 'generator'"),
            ("generator", {"covariance": {"rank": 2}}, r"no \[train.covariance\] for train.method = 'generator'"),
            ("pca_mlp", {"robust_stars": 3}, "no train.robust_stars for train.method = 'pca_mlp'"),
            ("pca_mlp", {"regions": {"label": "teff", "centres": [1, 2]}}, r"no \[train.regions\] for train.method = 'pca_mlp'"),
            ("generator", {"generator": {"latents": 3}}, r"known key in \[train.generator\], got 'latents'; known are preset"),
            ("pca_mlp", {"pca_mlp": {"hiden": [3]}}, r"known key in \[train.pca_mlp\], got 'hiden'; known are preset"),
            ("generator", {"generator": {"latent": 0}}, "expected latent >= 1, got 0"),
            ("generator", {"generator": {"preset": "best"}}, "expected a valid value for train.generator.preset, got 'best'"),
            ("pca_mlp", {"pca_mlp": {"components": 0}}, "components"),
            ("autoencoder", {}, "expected a valid value for train.method, got 'autoencoder'"),
        ],
    )
    def test_what_is_wrong_is_said(self, method: str, train: dict[str, Any], sentence: str) -> None:
        with pytest.raises(MauryError, match=sentence):
            parsed(method, train=train)

    def test_an_experiment_needs_a_generator(self) -> None:
        table = {"experiment": {"kind": "gebran2024"}}
        assert parsed(**table).experiment is not None
        with pytest.raises(RecipeError, match=r"expected train.method = 'generator' for \[experiment\], got 'payne'"):
            parsed("payne", **table)
        with pytest.raises(RecipeError, match=r"experiment\.kind, got 'other'"):
            parsed(experiment={"kind": "other"})
        with pytest.raises(RecipeError, match=r"known key in \[experiment.small\], got 'layers'"):
            parsed(experiment={"kind": "gebran2024", "small": {"layers": 3}})


class TestQuick:
    def test_it_is_merged_over_the_rest(self) -> None:
        """Tables are merged, lists and numbers replaced; the small version has no smaller one."""
        train = {"generator": {"encoder": [50, 40], "seed": 4}}
        quick = {"train": {"generator": {"encoder": [9], "max_epochs": 2}}, "data": {"assumed_snr": 30}}
        small = quick_version(parsed(train=train, quick=quick))
        assert small.train.generator.model_dump(exclude_none=True) == {
            "preset": "silu",
            "encoder": (9,),
            "max_epochs": 2,
            "seed": 4,
        }
        assert small.data.assumed_snr == 30
        assert small.data.library == parsed().data.library
        assert small.quick == {}

    def test_that_of_the_published_recipe(self) -> None:
        full, small = load_recipe("gebran2024"), quick_version(load_recipe("gebran2024"))
        assert (full.data.only, small.data.only) == (None, 1659)
        assert small.train.generator.preset == full.train.generator.preset == "gebran2024"  # not changed
        assert (full.train.generator.encoder, small.train.generator.encoder) == (None, (256, 64, 32))
        assert small.experiment is not None
        assert (small.experiment.checker.preset, small.experiment.checker.joint) == ("gebran2024", True)  # likewise
        assert small.experiment.checker.max_epochs == 30
        assert (small.label, small.prepare) == (full.label, full.prepare)

    def test_what_it_makes_must_be_a_recipe(self) -> None:
        for quick, sentence in (
            ({"train": {"generator": {"latents": 3}}}, r"got 'latents'; .*"),
            ({"train": {"method": "payne", "generator": {"latent": 3}}}, r"no \[train.generator\] for train.method = 'payne'"),
            ({"trai": {}}, "got 'trai'"),
        ):
            with pytest.raises(MauryError, match=sentence):
                parsed(quick=quick)

    def test_a_recipe_without_one_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"expected a recipe with a table \[quick\], got 'mine' without; leave --quick out"):
            quick_version(parsed())
        result = CliRunner().invoke(app, ["train", "miles", "--quick", "-o", str(tmp_path / "m.safetensors")])
        assert isinstance(result.exception, RecipeError)
        assert "got 'miles' without; leave --quick out" in str(result.exception)


# -- tiny trainings through the command line ----------------------------------------------------------------------------------

TOML = f"""
name = "tiny"

[data]
assumed_snr = 1000

[data.library]
{LIBRARY_TOML}

[[label]]
name = "teff"
column = "teff"
unit = "K"

[[label]]
name = "logg"
column = "logg"
unit = "dex"

[[label]]
name = "m_h"
column = "m_h"
unit = "dex"

[[prepare]]
step = "resample"
start = 8802
stop = 8834
spacing = 0.5
missing_velocity = "zero"

[[prepare]]
step = "scale"

[validation]
folds = 0

[errors]
model = "formal"

[train]
"""
TRAIN = {
    "pca_mlp": (
        'method = "pca_mlp"\n[train.pca_mlp]\ncomponents = 6\nhidden = [24]\nmembers = 1\nmax_epochs = 150\nbatch_size = 50\n'
    ),
    "generator": (
        'method = "generator"\n[train.generator]\nencoder = [48]\nlatent = 6\nlabel_network = [48]\nmax_epochs = 60\n'
        "batch_size = 20\n[train.model_error]\nfloor = 0.002\n"
    ),
}
CENTRE = {"teff": 3550.0, "logg": 4.75, "m_h": 0.0}


def works(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 analytic stars in one file, and one more as a spectrum of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    values = np.random.default_rng(1).uniform([3400.0, 4.5, -0.5], [3700.0, 5.0, 0.5], (200, 3))
    np.savez(folder / "library.npz", wavelength=WAVELENGTH, flux=STAR.flux(WAVELENGTH, values), labels=values)
    flux = STAR.flux(WAVELENGTH, np.array([list(CENTRE.values())]))[0]
    rows = "\n".join(f"{x:.3f},{y:.8f},{0.001 * y:.8f}" for x, y in zip(WAVELENGTH, flux, strict=True))
    (folder / "star.csv").write_text(f"wavelength [Angstrom],flux,error\n{rows}\n", encoding="utf-8")
    for method, words in TRAIN.items():
        (folder / f"{method}.toml").write_text(TOML + words, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=sorted(TRAIN))
def trained(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Path]:
    """Method and model file."""
    method: str = request.param
    out = folder / f"{method}.safetensors"
    printed = works("train", folder / f"{method}.toml", "--data", folder, "-o", out, "--plots", folder / f"{method}-training")
    assert "200 training spectra, 0 left out" in printed
    assert ("flux of 40 spectra held back from training" in printed) == (method == "generator")  # the published fifth
    assert (folder / f"{method}-training/history.png").exists() == (method == "pca_mlp")
    assert not list(folder.glob(".*.training"))
    return method, out


def test_the_model_infers_and_tells_what_it_is(trained: tuple[str, Path], folder: Path) -> None:
    """Labels of the box's middle to a fifth of the box: what guesses alone, the uniform scatter, is 0.29 of it."""
    method, out = trained
    model = maury.load_model(out)
    assert model.labels.names == tuple(UNITS)
    works("infer", out, folder / "star.csv", "--medium", "vacuum", "-o", folder / f"{method}.csv")
    row = maury.catalogue.read_catalogue(folder / f"{method}.csv")[0]
    for name, width in (("teff", 300.0), ("m_h", 1.0)):
        assert abs(row[name] - CENTRE[name]) < 0.2 * width, name
        assert row[f"e_{name}"] > 0
    info = works("info", out)
    kind = "pca_mlp" if method == "pca_mlp" else "payne"  # a finished generator is a network from labels to flux like The Payne's
    for word in (f"model of kind {kind}", "teff", "tiny"):
        assert word in info


def test_plots_and_spectra_of_either(trained: tuple[str, Path], folder: Path) -> None:
    """A generator draws its fit and makes spectra; networks from spectra to labels can do neither, and say so in one sentence."""
    method, out = trained
    plots = folder / f"{method}-plots"
    works("infer", out, folder / "star.csv", "--medium", "vacuum", "-o", folder / "c.csv", "--plots", plots)
    drawn = {path.name for path in plots.iterdir()}
    words = ["generate", out, *(w for name, x in CENTRE.items() for w in (f"--{name.replace('m_h', 'mh')}", x))]
    result = CliRunner().invoke(app, [*(str(word) for word in words), "-o", str(folder / f"{method}.fits")])
    if method == "generator":
        assert drawn == {"kiel.png", "fit.png"}
        assert result.exit_code == 0, f"{result.output}{result.exception}"
    else:
        assert drawn == {"kiel.png"}
        assert isinstance(result.exception, MauryError)
        assert "expected a model with an emulator" in str(result.exception)
        assert "\n" not in str(result.exception)


def test_a_generators_model_error_is_in_its_file(trained: tuple[str, Path]) -> None:
    """The independent part is at least floor² of the recipe."""
    method, out = trained
    if method == "pca_mlp":
        return
    assert maury.load_model(out).inferrer.emulator.model_covariance.diagonal.min() >= 0.002**2
