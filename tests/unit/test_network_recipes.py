"""Recipes of the generator, principal components with networks, and latent numbers: tables, small versions, tiny trainings."""

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
from maury.networks.topology import PRESETS as TOPOLOGIES
from maury.recipes import load_recipe, parse_recipe
from maury.recipes.network_schema import LatentRecipe, PcaMlpRecipe
from maury.recipes.schema import quick_version
from maury.regress.latent_config import FROZEN, LatentConfig, SearchConfig
from maury.regress.latent_config import PRESETS as LATENT
from maury.regress.pca_mlp_config import PRESETS as PCA_MLP
from maury.regress.pca_mlp_config import PcaMlpConfig
from maury.train.config import LoopConfig
from maury.train.transfer_config import TransferConfig

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


SEEN = {"spectra": "seen-*.csv"}
LABELLED = {"name": "stars", "spectra": "*.fits", "table": "labels.csv"}
SYNTHETIC = {"name": "theory", "library": LIBRARY, "assumed_snr": 100}


def latent(data: dict[str, Any] | None = None, **table: Any) -> Any:
    """A recipe of latent numbers with these settings; by default there are observed spectra."""
    data = {"library": LIBRARY, "assumed_snr": 100, "observed": [SEEN]} if data is None else data
    return parsed("latent", data=data, train={"latent": table})


class TestLatent:
    @pytest.mark.parametrize("preset", sorted(LATENT))
    def test_a_preset_is_itself(self, preset: str) -> None:
        assert latent(preset=preset).train.latent.to_config() == LATENT[preset]

    def test_what_is_given_is_changed_in_its_table_alone(self) -> None:
        table = {
            "preset": "masbuitrago2024",
            "hidden": [30, 20],
            "activation": "silu",
            "contraction": 0,
            "noise": [20, 200],
            "max_epochs": 7,
            "search": {"widths": [16], "keep": 1, "penalties": [0]},
            "transfer": {"method": "mmd", "weight": 2, "frozen": ["weights.0"], "max_epochs": 8},
            "head": {"topology": "latent", "joint": True, "max_epochs": 9},
        }
        preset = LATENT["masbuitrago2024"]
        expected = replace(
            preset,
            hidden=(30, 20),
            activation="silu",
            contraction=0.0,
            noise=(20.0, 200.0),
            loop=replace(preset.loop, max_epochs=7),
            search=replace(preset.search or SearchConfig(), widths=(16,), keep=1, penalties=(0.0,)),
            transfer=replace(
                preset.transfer, method="mmd", weight=2.0, frozen=("weights.0",), loop=replace(preset.transfer.loop, max_epochs=8)
            ),
            head=replace(preset.head, topology=TOPOLOGIES["latent"], joint=True, loop=replace(preset.head.loop, max_epochs=9)),
        )
        assert latent(**table).train.latent.to_config() == expected

    def test_search_and_noise_can_be_left_out_and_a_search_be_asked_for(self) -> None:
        assert LATENT["masbuitrago2024"].search is not None
        assert LatentRecipe(preset="masbuitrago2024", search="none").to_config().search is None
        assert latent(search={"folds": 3}).train.latent.to_config().search == SearchConfig(folds=3)
        assert latent(noise="none").train.latent.to_config().noise is None
        assert latent(preset="masbuitrago2024", noise="observed").train.latent.to_config().noise == "observed"

    def test_the_seed_is_that_of_all_stages_that_have_none_of_their_own(self) -> None:
        config = latent(seed=5, head={"seed": 6}).train.latent.to_config()
        assert (config.loop.seed, config.transfer.loop.seed, config.head.loop.seed) == (5, 5, 6)

    def test_every_setting_is_a_key(self) -> None:
        own = {field.name for field in (*fields(LatentConfig), *fields(LoopConfig))} - {"loop"}
        assert set(LatentRecipe.model_fields) - {"preset"} == own
        nested = {name: set(LatentRecipe.model_fields[name].annotation.model_fields) for name in ("transfer", "head")}
        assert nested["transfer"] == {field.name for field in (*fields(TransferConfig), *fields(LoopConfig))} - {"loop"}
        of_loop = {field.name for field in fields(LoopConfig)}
        assert nested["head"] == {"topology", "joint", "members", "validation_fraction"} | of_loop

    def test_layers_rest_in_the_presets_own_method_alone(self) -> None:
        assert LatentRecipe(transfer={"method": "coral"}).to_config().transfer.frozen == ()
        assert LatentRecipe(transfer={"method": "coral", "frozen": ["biases.1"]}).to_config().transfer.frozen == ("biases.1",)
        assert LatentRecipe(transfer={"weight": 2.0}).to_config().transfer.frozen == ("weights.0", "biases.0")

    def test_the_released_transfer_rests_the_first_four_layers(self) -> None:
        assert LATENT["masbuitrago2024"].transfer.frozen == FROZEN == ("weights.[0-3]", "biases.[0-3]")

    def test_the_recipe_that_ships(self) -> None:
        full, small = load_recipe("lamost-red-transfer"), quick_version(load_recipe("lamost-red-transfer"))
        assert full.train.latent.to_config() == LATENT["maury"]
        assert [some.name for some in full.data.observed] == ["repeats", "dr1"]
        config = small.train.latent.to_config()
        assert (small.data.only, config.autoencoders, config.loop.max_epochs) == (1000, 2, 10)
        assert (config.transfer.method, config.transfer.loop.max_epochs, config.transfer.population) == ("reconstruction", 10, 1)

    def test_what_can_be_trained(self) -> None:
        """Nothing observed where nothing asks for it; labelled stars alone are enough for the transfer of that name."""
        assert latent({"library": LIBRARY, "assumed_snr": 100}, noise="none", transfer={"method": "none", "population": 0})
        assert latent({"parts": [SYNTHETIC, LABELLED]}, transfer={"method": "labels"})
        assert latent({"parts": [SYNTHETIC, LABELLED], "observed": [SEEN]}, transfer={"method": "labels"})

    @pytest.mark.parametrize(
        ("data", "table", "sentence"),
        [
            (
                {"library": LIBRARY, "assumed_snr": 100},
                {},
                r"expected \[\[data.observed\]\] for the transfer 'reconstruction' with noise 'residuals', got none; name the",
            ),
            (
                {"library": LIBRARY, "assumed_snr": 100},
                {"noise": "none", "transfer": {"method": "none"}},  # the preset's population
                r"expected \[\[data.observed\]\] for the transfer 'none' with noise None, got none",
            ),
            (
                {**LABELLED, "observed": [SEEN]},
                {"transfer": {"method": "labels"}},
                "expected a part that is a library or a build for train.method = 'latent', got none; add one",
            ),
            (
                {"parts": [SYNTHETIC, LABELLED], "observed": [SEEN]},
                {},
                "expected synthetic parts alone for the transfer 'reconstruction', got 'stars' with labels; remove it, or set",
            ),
            (
                {"parts": [SYNTHETIC], "observed": [SEEN]},
                {"transfer": {"method": "labels"}},
                "expected a part with spectra and table for the transfer 'labels', got none; add the labelled stars",
            ),
            (
                {"parts": [SYNTHETIC], "observed": [{**SEEN, "name": "theory"}]},
                {},
                "expected a name of its own for every part of the data, got theory, theory; rename one",
            ),
            (
                {"library": LIBRARY, "assumed_snr": 100, "observed": [SEEN, SEEN]},
                {},
                "expected a name of its own for every part of the data, got data, observed, observed; rename one",
            ),
            (
                {"library": LIBRARY, "assumed_snr": 100, "observed": [{**SEEN, "table": "x"}]},
                {},
                r"expected a known key in \[data.observed\], got 'table'; known are name, spectra",
            ),
            ({"library": LIBRARY, "assumed_snr": 100, "observed": [{"name": "a"}]}, {}, "data.observed.0.spectra"),
            (None, {"transfer": {"methods": "mmd"}}, r"known key in \[train.latent.transfer\], got 'methods'; known are"),
            (None, {"head": {"snr": 3}}, r"known key in \[train.latent.head\], got 'snr'"),
            (None, {"search": {"width": 3}}, r"known key in \[train.latent.search\], got 'width'"),
            (
                None,
                {"latents": "pretrained", "transfer": {"method": "coral"}},
                "expected latents = 'reencoded' for the transfer 'coral', got 'pretrained'",
            ),
            (None, {"head": {"topology": "large"}}, r"expected a topology among .*, got 'large'; correct the name"),
            (None, {"transfer": {"held_back": 0.9}}, "expected a held_back above 0 and up to 0.5, got 0.9"),
        ],
    )
    def test_what_is_wrong_is_said(self, data: dict[str, Any] | None, table: dict[str, Any], sentence: str) -> None:
        with pytest.raises(MauryError, match=sentence) as error:
            latent(data, **table)
        assert "\n" not in str(error.value)

    def test_other_methods_have_no_use_for_observed_spectra(self) -> None:
        data = {"library": LIBRARY, "assumed_snr": 100, "observed": [SEEN]}
        for method in ("cnn", "cannon"):
            with pytest.raises(
                RecipeError, match=rf"expected no \[\[data.observed\]\] for train.method = '{method}', which learns from labels"
            ):
                parsed(method, data=data)
        with pytest.raises(RecipeError, match=r"expected no \[train.latent\] for train.method = 'cnn', got some"):
            parsed("cnn", train={"latent": {"latent": 3}})


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
    "latent": (
        'method = "latent"\n[train.latent]\nautoencoders = 2\nhidden = [24]\nlatent = 8\nmax_epochs = 20\nbatch_size = 25\n'
        "[train.latent.transfer]\nmax_epochs = 40\nbatch_size = 25\npopulation = 1\n"
        '[[data.observed]]\nspectra = "seen-*.csv"\nmedium = "vacuum"\n'
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
    seen = np.random.default_rng(2).uniform([3400.0, 4.5, -0.5], [3700.0, 5.0, 0.5], (30, 3))
    for number, flux in enumerate(STAR.flux(WAVELENGTH, seen)):
        noisy = flux * (1.0 + 0.01 * np.random.default_rng(number).standard_normal(flux.size))
        rows = "\n".join(f"{x:.3f},{y:.8f},{0.01 * y:.8f}" for x, y in zip(WAVELENGTH, noisy, strict=True))
        (folder / f"seen-{number}.csv").write_text(f"wavelength [Angstrom],flux,error\n{rows}\n", encoding="utf-8")
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
    assert (folder / f"{method}-training/history_transfer_1.png").exists() == (method == "latent")
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
    # a finished generator is a network from labels to flux like The Payne's
    kind = {"pca_mlp": "pca_mlp", "generator": "payne", "latent": "ensemble"}[method]
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
    if method != "generator":
        return
    assert maury.load_model(out).inferrer.emulator.model_covariance.diagonal.min() >= 0.002**2
