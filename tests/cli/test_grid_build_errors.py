"""``maury grid build``: every wrong recipe, file and output gets one sentence, before anything is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from build_sample import LIBRARY, RECIPE, contents, recipe, write_library

from maury.errors import MauryError, RecipeError, UsageError
from maury.grids.store import write_grid
from maury.recipes.grid_build import build_training_set, draw_labels
from maury.recipes.grid_source import open_recipe_grid

OWN = {"kind": "nodes", "ranges": {"resolving_power": [5000, 14_500]}}
"""Each spectrum has its own resolving power."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("grid"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": 1}, "expected a known key in \\[recipe\\], got 'samples'"),
        ({"grid": {"wavelength": [1, 2]}}, "expected one of file and library in \\[grid\\], got both or none"),
        ({"grid": RECIPE["grid"] | {"wavelength": [2, 1]}}, "expected grid.wavelength as \\[start, stop\\] in Å"),
        ({"sample": {"kind": "sobol", "number": 3, "range": {}}}, "expected a known key in \\[sample.sobol\\], got 'range'"),
        ({"sample": {"kind": "lattice", "axes": {"teff": [[1, 2, 0.3]]}}}, "with whole steps between"),
        ({"sample": {"kind": "lattice", "axes": {"Teff": [3000]}}}, "expected labels among teff, .*, got 'Teff'"),
        ({"sample": {"kind": "lattice", "axes": {"teff": [[1, 2]]}}}, "as numbers, or as segments \\[first, last, step\\], got"),
        ({"sample": {"number": 3}}, "expected kind in \\[sample\\] as one of 'lattice', 'uniform', 'sobol', 'nodes', got none"),
        ({"sample": {"kind": "grid"}}, "as one of 'lattice', 'uniform', 'sobol', 'nodes', got 'grid'"),
        ({"constraint": {}}, "in \\[constraint\\] as one of 'near_isochrones', 'analytic_dwarf_sequence', got none"),
        ({"augment": 3}, "expected a table of keys for augment, got 3"),
        ({"grid": RECIPE["grid"] | {"fixed": {"vsini": float("nan")}}}, "expected a valid value for grid.fixed.vsini, got nan"),
        ({"grid": RECIPE["grid"] | {"library": LIBRARY | {"ivar": "ivar"}}}, "which have no errors, in .*, got ivar; remove it"),
        ({"instrument": {}}, "expected a resolution in \\[instrument\\], got none"),
        ({"sample": OWN}, "expected no resolution in \\[instrument\\] beside the label resolving_power"),
        ({"sample": OWN, "instrument": {"profile": "voigt"}}, "expected a gaussian profile .* beside the label resolving_power"),
        (
            {"sample": OWN | {"square_root": ["m_h"]}, "instrument": None},
            "expected square_root labels among resolving_power, got",
        ),
        (
            {"sample": {"kind": "nodes", "logarithmic": ["vsini"]}},
            "expected ranges of labels and at least one point, got 0 ranges",
        ),
        ({"grid": RECIPE["grid"] | {"edges": "bend"}}, "grid.edges"),
        ({"prepare": [{"step": "rebin"}]}, "expected a preparation step among"),
        ({"prepare": [{"step": "gisic"}]}, "where augment.velocity_jitter is applied, got none"),
        ({"augment": {"snr": [0, 1]}}, "expected snr as \\(low, high\\) with 0 < low"),
        ({"rotation": {"limb_darkening": 2}}, "expected limb darkening in \\[0, 1\\], got 2"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        recipe(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"grid": RECIPE["grid"] | {"wavelength": [8795.0, 8836.0]}}, "expected a grid that covers 879.* got 8795.00 to"),
        ({"grid": RECIPE["grid"] | {"wavelength": [8810.0, 8830.0]}}, "got pixels without data at 8801.00 to 8834.90 Å"),
        (
            {"grid": RECIPE["grid"] | {"wavelength": [8794.9, 8836.0], "edges": "continue"}},
            "expected a grid that covers 879.* got 8795.00 to",
        ),
        (
            {"sample": OWN | {"ranges": {"resolving_power": [500, 9000]}}, "instrument": None},
            "expected resolving powers of 1000 or more, got",
        ),
        (
            {"sample": OWN | {"ranges": {"resolving_power": [5e4, 7e4]}}, "instrument": None},
            "expected resolving powers of 1000 to 60000, what the spectra have, got 6",
        ),
        (
            {"sample": {"kind": "nodes", "ranges": {"radius": [0, 1]}}},
            "among teff, logg, m_h, vsini and resolving_power, got rad",
        ),
        ({"sample": {"kind": "nodes", "ranges": {"m_h": [0, 1]}}}, "expected each label once .* remove the repeated one"),
        ({"sample": {"kind": "uniform", "number": 3, "ranges": {"teff": [3000, 4000]}}}, "got none for logg, m_h; sample them"),
        ({"sample": {"kind": "lattice", "axes": {"teff": [9e3], "logg": [4.5], "m_h": [0]}}}, "teff outside 3400 to 3700"),
        ({"sample": {"kind": "nodes", "ranges": {"vsini": [-9, 9]}}}, "expected vsini between 0 and 1000 km/s, got -8"),
        ({"constraint": {"kind": "near_isochrones", "files": "/a/*.dat"}}, "expected constraint.files as a glob below --data"),
        ({"constraint": {"kind": "near_isochrones", "files": ""}}, "expected constraint.files as a glob below --data"),
        ({"constraint": {"kind": "near_isochrones", "files": "*.dat"}}, "expected isochrones matching \\*.dat in"),
        ({"grid": RECIPE["grid"] | {"library": LIBRARY | {"file": "no.npz"}}}, "found no such file; check the path"),
    ],
)
def test_recipes_that_do_not_fit_the_grid_are_refused(root: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MauryError, match=sentence):
        build_training_set(recipe(**changes), root, tmp_path / "t.npz")
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("t.fits", "expected an output ending in .zarr or .npz, got t.fits"),
        ("no/t.npz", "expected an existing folder for .*t.npz, got none; make the folder first"),
        ("folder.zarr", "expected a new name, or a zarr store to replace, got the folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_once(root: Path, tmp_path: Path, output: str, sentence: str) -> None:
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(UsageError, match=sentence):
        build_training_set(recipe(), root, tmp_path / output)


@pytest.mark.parametrize("name", ["library.npz", "grid.zarr", "notes.zarr", "notes.npz"])
def test_what_is_no_training_set_is_never_replaced(root: Path, tmp_path: Path, name: str) -> None:
    """Above all the grid itself, hours of download."""
    write_library(tmp_path)
    if name == "grid.zarr":
        pytest.importorskip("zarr")
        write_grid(tmp_path / name, open_recipe_grid(recipe(), tmp_path))
    if name.startswith("notes"):
        (tmp_path / name).write_text("precious", encoding="utf-8")
    before = contents(tmp_path / name)
    with pytest.raises(UsageError, match=f"expected a new name, or a training set to replace, got .*{name}, which is none"):
        build_training_set(recipe(), tmp_path, tmp_path / name)
    assert contents(tmp_path / name) == before


def test_velocities_that_leave_the_range_are_refused_before_the_work(root: Path, tmp_path: Path) -> None:
    """The largest of 48 numbers is 2 to 3 sigma: 100 km/s shift by 3 Å, the margin is 1 Å."""
    with pytest.raises(RecipeError, match=r"expected grid\.wavelength to cover what the steps use"):
        build_training_set(recipe(augment={"velocity_jitter": 100.0}), root, tmp_path / "t.npz")
    assert not list(tmp_path.iterdir())


def test_a_constraint_sees_fixed_labels_too(root: Path) -> None:
    """At [M/H] = 0 a dwarf of 3500 K has log g 4.78 ± 0.08, at 0.5 it has 4.70 ± 0.08 (METHODS 2, by hand)."""
    sampled = {"kind": "lattice", "axes": {"teff": [3500], "logg": [4.64, 4.85]}}
    for m_h, expected in ((0.0, 4.85), (0.5, 4.64)):
        ready = recipe(
            grid=RECIPE["grid"] | {"fixed": {"m_h": m_h}}, sample=sampled, constraint={"kind": "analytic_dwarf_sequence"}
        )
        names, labels = draw_labels(ready, open_recipe_grid(ready, root), root)
        assert names == ("teff", "logg", "m_h")
        assert labels.tolist() == [[3500.0, expected, m_h]]


def test_errors_come_out_of_worker_processes_as_they_are(root: Path, tmp_path: Path) -> None:
    changed = recipe(grid=RECIPE["grid"] | {"wavelength": [8810.0, 8830.0]})
    with pytest.raises(RecipeError, match="got pixels without data"):
        build_training_set(changed, root, tmp_path / "t.npz", processes=2, rows_per_chunk=20)
