"""``maury grid build``: resolving powers as a label, grids that are continued, and which spectrum each draw is from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import LIBRARY, RECIPE, WAVELENGTH, build, contents, recipe, write_library
from test_grid_build import TRAIN

from maury.prepare import Preparation, Resample, convolve_instrument, rotate_flux
from maury.read.library import read_library
from maury.recipes import parse_recipe
from maury.recipes.dataset import load_training_set
from maury.recipes.grid_build import build_training_set
from maury.recipes.grid_schema import load_build_recipe

GRID = RECIPE["grid"] | {"wavelength": [8802.0, 8834.0]}  # the library, 8795 to 8841 Å, holds the margins for R = 5000
PLAIN = [{"step": "resample", "start": 8802.5, "stop": 8833.5, "spacing": 0.1}]  # and nothing else
OWN = {"kind": "nodes", "copies": 3, "ranges": {"vsini": [0, 40], "resolving_power": [5000, 14_500]}}


def own(**changes: Any) -> Any:
    """A recipe where every spectrum has its own resolving power."""
    return recipe(**{"grid": GRID, "augment": {}, "instrument": None, "sample": OWN, "prepare": PLAIN} | changes)


def apart(one: Any, other: Any) -> Any:
    """(n, n_pixels) by how much of each spectrum's level the two differ (analytic stars of steep slope have pixels near 0)."""
    return np.abs(one - other) / other.max(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("grid"))


# -- resolving power as a label -----------------------------------------------------------------------------------------------


def test_every_spectrum_has_its_own_resolving_power(root: Path, tmp_path: Path) -> None:
    """By hand: rotation, then the instrument step at the R of this spectrum."""
    summary = build_training_set(own(), root, tmp_path / "t.npz")
    assert (summary.resolving_power, summary.fwhm) == (None, None)
    with np.load(tmp_path / "t.npz") as archive:
        found = dict(archive)
    assert found["label_names"].tolist() == ["teff", "logg", "m_h", "vsini", "resolving_power"]
    assert found["label_units"].tolist() == ["K", "dex", "dex", "km/s", ""]
    settings = {k: v for k, v in LIBRARY.items() if k != "file"}
    library = read_library(root / "library.npz", snr=1000, **settings)
    steps = Preparation.from_config(PLAIN)
    for row in (0, 31, 71):
        vsini, power = found["labels"][row, 3:]
        assert 5000 < power < 14_500
        spectra = library.spectra[[row // 3]]
        flux = rotate_flux(WAVELENGTH, spectra.flux, vsini)
        flux = convolve_instrument(WAVELENGTH, flux, resolving_power=power, native_resolving_power=60_000)
        expected = steps(spectra.with_pixels(flux=flux, ivar=np.ones(flux.shape))).flux[0]
        assert np.abs(found["flux"][row] - expected).max() < 1e-4 * expected.max()


NODES = {"kind": "nodes", "ranges": {"resolving_power": [5000, 14_500]}}
LATTICE = {
    "kind": "lattice",
    "axes": {"teff": [3400, 3450], "logg": [4.5], "m_h": [0.0], "resolving_power": [5000, 9000, 12_000]},
}


@pytest.mark.parametrize("sample", [NODES, LATTICE])
def test_steps_see_the_resolving_power_of_each_spectrum(root: Path, tmp_path: Path, sample: dict[str, Any]) -> None:
    """``degrade`` to R = 4000 must find what is still missing: then all are as if 4000 had been the instrument's."""
    steps = [*PLAIN, {"step": "crop", "start": 8809, "stop": 8827}]
    found = build(root, tmp_path / "t.npz", own(sample=sample, prepare=[{"step": "degrade", "resolving_power": 4000}, *steps]))
    assert np.ptp(found["labels"][:, -1]) > 5000
    inner = next(name for name in ("ranges", "axes") if name in sample)
    plain = sample | {inner: {name: values for name, values in sample[inner].items() if name != "resolving_power"}}
    once = build(root, tmp_path / "once.npz", own(sample=plain, prepare=steps, instrument={"resolving_power": 4000}))
    expected = np.repeat(once["flux"], len(found["flux"]) // len(once["flux"]), axis=0)
    assert apart(found["flux"], expected).max() < 1e-4


def test_one_resolving_power_for_all_may_be_a_label_too(root: Path, tmp_path: Path) -> None:
    sample = {"kind": "nodes", "copies": 1}
    fixed = GRID | {"fixed": {"resolving_power": 9000.0}}
    found = build(root, tmp_path / "t.npz", own(sample=sample, grid=fixed))
    plain = build(root, tmp_path / "plain.npz", own(sample=sample, instrument={"resolving_power": 9000}))
    assert (found["labels"][:, 3] == 9000).all()
    assert apart(found["flux"], plain["flux"]).max() < 1e-4


# -- grids that end too soon --------------------------------------------------------------------------------------------------


def test_a_continued_grid_changes_nothing_further_inside_than_margins_reach(root: Path, tmp_path: Path) -> None:
    """The grid ends at 8801; 40 km/s and 3 FWHM at R = 5000 (2.3548 σ each) reach 1.2 + 5.3 Å further."""
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    kept = (arrays["wavelength"] > 8800.99) & (arrays["wavelength"] < 8835.01)
    arrays |= {"wavelength": arrays["wavelength"][kept], "flux": arrays["flux"][:, kept]}
    np.savez(tmp_path / "library.npz", **arrays)
    steps = [{"step": "resample", "start": 8801.1, "stop": 8834.85, "spacing": 0.1}]
    # one pixel beyond the narrow grid's ends on either side is still "in" it
    grid = RECIPE["grid"] | {"wavelength": [8800.95, 8835.05], "edges": "continue"}
    narrow = build(tmp_path, tmp_path / "narrow.npz", own(prepare=steps, grid=grid))
    # the wide one ends at 8795 and 8841: with less than R = 5000 needs, so it is continued too, but 6 Å further out
    wide = build(root, tmp_path / "wide.npz", own(prepare=steps, grid=grid))
    assert np.array_equal(narrow["wavelength"], wide["wavelength"])
    inside = (wide["wavelength"] > 8801 + 6.5) & (wide["wavelength"] < 8835 - 6.5)
    difference = apart(narrow["flux"], wide["flux"])
    assert difference[:, inside].max() < 1e-5
    assert difference[:, ~inside].max() > 1e-3  # and this is the price
    assert (narrow["flag"] == 0).all()


def test_continued_pixels_are_the_end_pixels_and_lie_on_the_grids_step(root: Path) -> None:
    from maury.recipes.grid_source import Broadest, needed_part, open_recipe_grid

    ready = own(grid=RECIPE["grid"] | {"wavelength": [8795.0, 8836.0], "edges": "continue"})
    whole = open_recipe_grid(ready, root)
    part = needed_part(whole, ready, Broadest(40.0, 5000.0))
    inside = slice(*np.searchsorted(part.wavelength, [whole.wavelength[0] - 1e-6, whole.wavelength[-1] + 1e-6]))
    assert inside.start * 0.05 == pytest.approx(1.2 + 5.3, abs=0.4)  # v/c and 3/R of 8795 Å, and five pixels
    assert np.allclose(np.diff(part.wavelength), 0.05)
    flux, original = part.flux(), whole.flux()
    assert (flux[:, : inside.start] == original[:, :1]).all()
    assert np.array_equal(flux[:, inside], original)
    assert (flux[:, inside.stop :] == original[:, -1:]).all()
    assert np.array_equal(part.flux([5, 2], slice(3, 200, 7)), flux[[5, 2], 3:200:7])
    required = own(grid=RECIPE["grid"] | {"wavelength": [8805.0, 8826.0]})
    wide_enough = own(grid=required.grid.model_dump(exclude_none=True) | {"edges": "continue"})
    plain, same = (needed_part(whole, one, Broadest(40.0, 5000.0)) for one in (required, wide_enough))
    assert plain.fingerprint == same.fingerprint  # where nothing is missing, nothing is added


# -- which spectrum a draw is from --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".zarr"])
def test_base_is_the_number_of_the_grids_spectrum(root: Path, tmp_path: Path, suffix: str) -> None:
    """Also where some cannot be made, and where only a part is."""
    zarr = pytest.importorskip("zarr") if suffix == ".zarr" else None
    with np.load(root / "library.npz") as archive:
        arrays = dict(archive)
    order = np.random.default_rng(3).permutation(24)  # nodes in no order
    arrays |= {"flux": np.where(np.arange(24)[:, None] == 4, 0.0, arrays["flux"][order]), "labels": arrays["labels"][order]}
    np.savez(tmp_path / "library.npz", **arrays)
    steps = [*PLAIN, {"step": "scale"}]
    build_training_set(own(prepare=steps, only=36), tmp_path, tmp_path / f"t{suffix}", rows_per_chunk=5)
    found: Any = zarr.open_group(tmp_path / "t.zarr", mode="r") if zarr else np.load(tmp_path / "t.npz")
    base, labels = np.asarray(found["base"][...]), np.asarray(found["labels"][...])
    assert base.dtype == np.int64
    assert np.array_equal(labels[:, :3], arrays["labels"][base])
    assert set(base.tolist()) == set(range(24)) - {4}
    assert len(base) == 36 - len(found["left_out_labels"][...]) < 36


def test_other_samplers_have_no_base(root: Path, tmp_path: Path) -> None:
    axes = {"teff": [3400, 3500], "logg": [4.5], "m_h": [0.0]}
    assert "base" not in build(root, tmp_path / "t.npz", recipe(sample={"kind": "lattice", "axes": axes}))


def test_folds_can_keep_the_draws_of_one_spectrum_together(root: Path, tmp_path: Path) -> None:
    found = build(root, tmp_path / "t.npz", own())
    words = TRAIN.replace("assumed_snr = 100", 'assumed_snr = 100\nstar_column = "base"')
    stars = load_training_set(parse_recipe(tomllib.loads(words), "test"), tmp_path).stars
    assert stars is not None
    assert [int(float(star)) for star in stars] == found["base"].tolist() == np.repeat(np.arange(24), 3).tolist()


# -- neither chunks nor processes nor stops matter ----------------------------------------------------------------------------


def test_a_stopped_build_with_all_of_this_ends_with_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = RECIPE["grid"] | {"wavelength": [8795.0, 8836.0], "edges": "continue"}
    ready = own(grid=grid, sample=OWN | {"square_root": ["vsini"]}, augment={"snr": [50, 100]})
    whole, stopped = tmp_path / "whole.npz", tmp_path / "stopped.npz"
    build_training_set(ready, root, whole, rows_per_chunk=20)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_training_set(ready, root, stopped, rows_per_chunk=20, progress=stop)
    assert list(tmp_path.glob("*.building"))
    build_training_set(ready, root, stopped, rows_per_chunk=20)
    assert contents(whole) == contents(stopped)


# -- built-in recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "last", "number", "medium_steps"),
    [("gebran2024", 8400.0, 8799.9, 4000, []), ("gaia-rvs", 8460.0, 8700.0, 2401, ["to_vacuum"])],
)
def test_pixels_of_the_rvs_recipes(name: str, first: float, last: float, number: int, medium_steps: list[str]) -> None:
    """METHODS 3 (8400 to 8800 Å, 8800 excluded, air), and Gaia DR3's rvs_mean_spectrum (2401 pixels of 0.1 Å, vacuum)."""
    ready = load_build_recipe(name)
    *before, resample = ready.preparation.steps
    assert [step.name for step in before] == medium_steps
    assert isinstance(resample, Resample)
    grid = resample.grid()
    assert (grid.size, round(grid[0], 6), round(grid[-1], 6)) == (number, first, last)
    assert ready.has_own_resolutions == (name == "gebran2024")
