"""``maury grid build``: what stands in the training set, errors in one sentence, and training from it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import LIBRARY, RECIPE, WAVELENGTH, build, contents, recipe, write_library

from maury.errors import MauryError, RecipeError, UsageError
from maury.grids.store import write_grid
from maury.prepare import Preparation, convolve_instrument, rotate_flux
from maury.read.library import read_library
from maury.recipes import parse_recipe, run_recipe
from maury.recipes.dataset import load_training_set
from maury.recipes.grid_build import build_training_set
from maury.recipes.grid_pipeline import PATCHED, UNUSABLE
from maury.recipes.grid_schema import builtin_grid_recipes, load_build_recipe, parse_build_recipe
from maury.recipes.grid_source import HOLE, OUTSIDE, open_recipe_grid


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("grid"))


# -- what stands in it --------------------------------------------------------------------------------------------------------


def test_spectra_are_those_of_the_parts_by_hand(root: Path, tmp_path: Path) -> None:
    """One spectrum without augmentations, step by step with the functions that the build is made of."""
    found = build(root, tmp_path / "t.npz", recipe(augment={}))
    assert found["flux"].shape == (48, 340)
    assert found["flux"].dtype == np.float32
    assert found["label_names"].tolist() == ["teff", "logg", "m_h", "vsini"]
    assert found["label_units"].tolist() == ["K", "dex", "dex", "km/s"]
    # GISIC gives up what it cannot normalise: no made-up pixel is without a mark, per spectrum and per pixel
    assert np.array_equal(found["flag"] == PATCHED, (found["ivar"] == 0).any(axis=1))
    assert (found["flux"][found["ivar"] == 0] == 1).all()
    row = 31
    teff, logg, m_h, vsini = found["labels"][row]
    assert 0 < vsini < 40
    library = read_library(root / "library.npz", snr=1000, **{k: v for k, v in LIBRARY.items() if k != "file"})
    node = np.flatnonzero((library.labels["teff"] == teff) & (library.labels["logg"] == logg) & (library.labels["m_h"] == m_h))
    spectra = library.spectra[node]
    flux = rotate_flux(WAVELENGTH, spectra.flux, vsini)
    flux = convolve_instrument(WAVELENGTH, flux, resolving_power=20_000, native_resolving_power=60_000)
    expected = Preparation.from_config(RECIPE["prepare"])(spectra.with_pixels(flux=flux, ivar=np.ones(flux.shape)))
    # rotation before the instrument here, after it there; kernels are good to 1e-4
    assert np.abs(found["flux"][row] - expected.flux[0]).max() < 2e-4
    assert np.array_equal(found["wavelength"], expected.wavelength)


def test_spectra_without_noise_and_lost_pixels_need_no_ivar(root: Path, tmp_path: Path) -> None:
    assert "ivar" not in build(root, tmp_path / "t.npz", recipe(augment={}, prepare=RECIPE["prepare"][:1]))


def test_augmented_spectra_scatter_about_the_plain_ones_as_they_say(root: Path, tmp_path: Path) -> None:
    plain = build(root, tmp_path / "plain.npz", recipe(augment={}))
    noisy = build(root, tmp_path / "noisy.npz", recipe(augment={"snr": [50, 100]}))
    pull = (noisy["flux"] - plain["flux"]) * np.sqrt(noisy["ivar"])
    assert pull.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / pull.size))
    assert (noisy["snr"] >= 50).all()
    assert (noisy["snr"] <= 100).all()
    assert np.isnan(noisy["delta_rv"]).all()


def test_velocity_jitter_moves_lines_by_what_it_says(root: Path, tmp_path: Path) -> None:
    """The shift that fits best, to first order: Σ Δf f' / Σ f'² = -Δλ. 0.3 km/s are a tenth of a pixel.

    Without GISIC, whose points may jump when a line moves by a little.
    """
    steps = [RECIPE["prepare"][0], {"step": "scale"}]
    plain = build(root, tmp_path / "plain.npz", recipe(augment={}, prepare=steps))
    moved = build(root, tmp_path / "moved.npz", recipe(augment={"velocity_jitter": 0.3}, prepare=steps))
    slope = np.gradient(plain["flux"].astype(float), plain["wavelength"], axis=1)[:, 10:-10]
    change = (moved["flux"].astype(float) - plain["flux"])[:, 10:-10]
    shift = -(change * slope).sum(axis=1) / (slope**2).sum(axis=1)
    velocity = 299_792.458 * shift / 8818.0
    assert np.std(moved["delta_rv"]) == pytest.approx(0.3, rel=0.5)  # 48 numbers: 10 % each, five of them
    # what is left is of second order: for the largest of 48 normal numbers, 2.5 sigma = 0.75 km/s, a tenth of it is 0.075
    assert np.abs(velocity - moved["delta_rv"]).max() < 0.06


def test_labels_between_nodes_outside_and_at_holes(root: Path, tmp_path: Path) -> None:
    """Half-way between two nodes linear interpolation is their mean; outside and beside a hole is no spectrum, or a flag."""
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    hole = (arrays["labels"] == [3700.0, 5.0, 0.5]).all(axis=1)
    kept = {name: arrays[name][~hole] for name in ("labels", "flux")}
    np.savez(tmp_path / "library.npz", wavelength=arrays["wavelength"], **kept)
    axes = {"teff": [3400, 3450, 3500, 3650, 3900], "logg": [5.0], "m_h": [0.25]}
    plain = {"augment": {}, "instrument": None, "prepare": [], "sample": {"kind": "lattice", "axes": axes}}
    found = build(tmp_path, tmp_path / "t.npz", recipe(**plain))
    assert found["labels"][:, 0].tolist() == [3400.0, 3450.0, 3500.0]
    assert np.allclose(found["flux"][1], 0.5 * (found["flux"][0] + found["flux"][2]), rtol=1e-6)
    assert found["left_out_labels"][:, 0].tolist() == [3650.0, 3900.0]
    assert found["left_out_flag"].tolist() == [HOLE, OUTSIDE]
    assert found["left_out_reason"].tolist() == ["beside a hole of the grid", "teff outside 3400 to 3700"]
    axes = {"teff": [3400, 3900], "logg": [4.5], "m_h": [0.0]}
    nearest = {"grid": RECIPE["grid"] | {"outside": "nearest"}, "sample": {"kind": "lattice", "axes": axes}}
    found = build(tmp_path, tmp_path / "t.npz", recipe(**plain | nearest))
    assert found["flag"].tolist() == [0, OUTSIDE]
    assert found["labels"][:, 0].tolist() == [3400.0, 3900.0]  # what was asked for, not where the spectrum is from


def test_a_label_with_one_value_in_the_grid_needs_none(root: Path, tmp_path: Path) -> None:
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    solar = arrays["labels"][:, 2] == 0.0
    kept = {name: arrays[name][solar] for name in ("labels", "flux")}
    np.savez(tmp_path / "library.npz", wavelength=arrays["wavelength"], **kept)
    ranges = {"teff": [3400, 3700], "logg": [4.5, 5.0]}
    ready = recipe(augment={}, sample={"kind": "sobol", "number": 8, "ranges": ranges})
    found = build(tmp_path, tmp_path / "t.npz", ready)
    assert found["label_names"].tolist() == ["teff", "logg", "m_h"]
    assert (found["labels"][:, 2] == 0.0).all()


def test_scattered_points_are_not_interpolated(root: Path, tmp_path: Path) -> None:
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    arrays["labels"] = arrays["labels"] + np.random.default_rng(1).random(arrays["labels"].shape)
    np.savez(tmp_path / "library.npz", **arrays)
    ranges = {"teff": [3400, 3700], "logg": [4.5, 5.0], "m_h": [0, 1]}
    with pytest.raises(UsageError, match="expected a regular lattice, got 24 points"):
        build(tmp_path, tmp_path / "t.npz", recipe(sample={"kind": "sobol", "number": 8, "ranges": ranges}))


def test_pixels_that_steps_give_up_are_flagged(root: Path, tmp_path: Path) -> None:
    """A mask of 1 Å takes ten pixels from every spectrum."""
    steps = [RECIPE["prepare"][0], {"step": "mask", "ranges": [[8809.95, 8810.95]]}]
    found = build(root, tmp_path / "t.npz", recipe(augment={"snr": [50, 50]}, prepare=steps))
    assert (found["flag"] == PATCHED).all()
    assert ((found["ivar"] == 0).sum(axis=1) == 10).all()


def test_spectra_that_cannot_be_prepared_are_left_out_and_named(root: Path, tmp_path: Path) -> None:
    """A spectrum of zeros has no continuum; of nothing else no training set can be made."""
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    for n_zeros, kept in ((3, 42), (24, 0)):
        arrays["flux"] = np.where(np.arange(24)[:, None] < n_zeros, 0.0, arrays["flux"])
        np.savez(tmp_path / "library.npz", **arrays)
        if kept == 0:
            with pytest.raises(RecipeError, match=r"got none of 48 \(the first: the steps leave no pixel\); move the ranges"):
                build(tmp_path, tmp_path / "t.npz", recipe(augment={}), rows_per_chunk=4)
            continue
        found = build(tmp_path, tmp_path / "t.npz", recipe(augment={}), rows_per_chunk=4)
        (tmp_path / "t.npz").unlink()
        assert found["flux"].shape == (kept, 340)
        assert found["row"].tolist() == list(range(6, 48))
        assert found["left_out_reason"].tolist() == ["the steps leave no pixel"] * 6
        assert (found["left_out_flag"] == UNUSABLE).all()
        assert np.array_equal(found["left_out_labels"][:, :3], np.repeat(arrays["labels"][:3], 2, axis=0))


def test_zarr_and_npz_hold_the_same(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    arrays = build(root, tmp_path / "t.npz")
    build_training_set(recipe(), root, tmp_path / "t.zarr")
    settings: dict[str, Any] = {k: v for k, v in LIBRARY.items() if k != "file"} | {"label_names": "label_names"}
    one, two = (read_library(tmp_path / name, snr=100, **settings) for name in ("t.npz", "t.zarr"))
    assert np.array_equal(one.spectra.flux, two.spectra.flux)
    assert np.array_equal(one.spectra.flux, arrays["flux"])
    assert {"teff", "logg", "m_h", "vsini", "base"} <= set(one.labels.colnames) == set(two.labels.colnames)
    assert all(np.array_equal(one.labels[name], two.labels[name]) for name in one.labels.colnames)
    build_training_set(recipe(), root, tmp_path / "t.zarr")  # over itself
    assert not list(tmp_path.glob("*.building"))


def test_provenance_says_what_it_was_made_of(root: Path, tmp_path: Path) -> None:
    found = build(root, tmp_path / "t.npz")
    provenance = json.loads(str(found["provenance"]))
    assert parse_build_recipe(_without_none(provenance["recipe"]), "provenance") == recipe()
    assert provenance["seed"] == 7
    assert provenance["n_spectra"] == 48
    assert {"maury", "numpy", "scipy"} <= set(provenance["versions"])
    assert len(provenance["grid"]) == 64


def _without_none(value: Any) -> Any:
    return {k: _without_none(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def test_provenance_holds_that_of_the_grid_and_nothing_of_the_machine(root: Path, tmp_path: Path) -> None:
    """The same grid in two places, named by absolute paths as the command line does it: the same bytes."""
    made = []
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        grid = open_recipe_grid(recipe(), root)
        write_grid(place / "grid.npz", replace(grid, provenance={"library": "analytic"}))
        here = recipe(grid={"file": str(place / "grid.npz"), "wavelength": [8800.0, 8836.0]})
        provenance = json.loads(str(build(root, place / "t.npz", here)["provenance"]))
        assert provenance["grid_provenance"]["library"] == "analytic"
        assert provenance["grid_resolution"] == {"resolving_power": 60_000, "fwhm": None}
        made.append(contents(place / "t.npz"))
    assert made[0] == made[1]


# -- built-in recipes ---------------------------------------------------------------------------------------------------------


def test_builtin_recipes_can_be_loaded() -> None:
    """The papers' numbers of their lattices: tests/unit/test_sampling.py."""
    assert {load_build_recipe(name).name for name in builtin_grid_recipes()} == {
        "passegger2020",
        "passegger2020-isochrones",
        "window-8800",
        "lamost-red",
        "rvs-windows",
        "masbuitrago2024",
        "synspec-rvs",
        "gebran2024",
        "gaia-rvs",
    }


def test_the_recipe_with_isochrones_is_the_other_one_and_a_constraint() -> None:
    """A recipe cannot refer to another one: the copy must not drift."""
    whole, constrained = (load_build_recipe(name).model_dump() for name in ("passegger2020", "passegger2020-isochrones"))
    assert {key for key in whole if whole[key] != constrained[key]} == {"name", "description", "constraint"}


# -- training from it ---------------------------------------------------------------------------------------------------------

TRAIN = """
name = "from-grid"

[data]
assumed_snr = 100
validated = true

[data.library]
file = "t.npz"
wavelength = "wavelength"
wavelength_unit = "Angstrom"
medium = "vacuum"
flux = "flux"
labels = "labels"
label_names = "label_names"
resolving_power = 20000

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
step = "crop"
start = 8802
stop = 8834

[validation]
folds = 3
"""


def test_a_cannon_trained_on_it_recovers_held_out_labels(root: Path, tmp_path: Path) -> None:
    """Spectra without noise: a quadratic model knows Teff of the 400 K span far better than the span's own scatter of 112 K."""
    build_training_set(
        recipe(augment={}, sample={"kind": "nodes", "copies": 4, "ranges": {"vsini": [0, 5]}}), root, tmp_path / "t.npz"
    )
    run = run_recipe(parse_recipe(tomllib.loads(TRAIN), "test"), tmp_path)
    assert len(run.training_set) == 96
    scatter = {score.label: score.scatter for score in run.scores}
    assert scatter["teff"] < 20
    assert scatter["m_h"] < 0.1


def test_training_uses_the_stored_inverse_variances(root: Path, tmp_path: Path) -> None:
    """Lost pixels stay lost, and the noise of each spectrum is its own."""
    found = build(root, tmp_path / "t.npz")
    words = TRAIN.replace("assumed_snr = 100\n", "").replace('flux = "flux"', 'flux = "flux"\nivar = "ivar"')
    spectra = load_training_set(parse_recipe(tomllib.loads(words), "test"), tmp_path).spectra
    first = int(np.searchsorted(found["wavelength"], spectra.wavelength[0]))
    inside = slice(first, first + spectra.n_pixels)
    assert np.array_equal(spectra.ivar, found["ivar"][:, inside])
    assert 0 < (spectra.ivar == 0).mean() < 0.1
    assert np.array_equal(spectra.flux[spectra.ivar > 0], found["flux"][:, inside][spectra.ivar > 0])


@pytest.mark.parametrize(
    ("snr", "ivar", "sentence"),
    [
        ("", "", "expected assumed_snr for the library of part 'data', got none"),
        ("assumed_snr = 100", 'ivar = "ivar"', "expected one of assumed_snr and library.ivar for part 'data', got both"),
        ("", 'ivar = "labels"', "expected labels as numbers of the flux's shape"),
        ("", 'ivar = "no"', "expected an array 'no', got labels, "),
    ],
)
def test_errors_of_a_library_are_said_once(root: Path, tmp_path: Path, snr: str, ivar: str, sentence: str) -> None:
    build_training_set(recipe(), root, tmp_path / "t.npz")
    words = TRAIN.replace("assumed_snr = 100", snr).replace("[data.library]", f"[data.library]\n{ivar}")
    with pytest.raises(MauryError, match=sentence):
        load_training_set(parse_recipe(tomllib.loads(words), "test"), tmp_path)
