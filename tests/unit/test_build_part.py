"""Training data that a grid recipe builds on the way: what becomes one star, what is refused, what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_sample import LIBRARY_TOML, build, recipe, write_library

from maury.errors import MauryError
from maury.prepare import vacuum_to_air
from maury.recipes import parse_recipe
from maury.recipes.build_part import for_window
from maury.recipes.dataset import load_training_set
from maury.recipes.grid_schema import load_build_recipe
from maury.recipes.run import run_recipe
from maury.train.splits import k_folds

COPIES, NODES = 3, 24  # three draws of each spectrum of build_sample's library

GRID = f"""
name = "small-rvs"
seed = 7

[grid]
wavelength = [8800.0, 8836.0]

[grid.library]
{LIBRARY_TOML}

[sample]
kind = "nodes"
copies = {COPIES}

[sample.ranges]
vsini = [0, 10]

[instrument]
resolving_power = 20000

[[prepare]]
step = "resample"
start = 8801
stop = 8835
spacing = 0.5
"""
NOISE = "\n[augment]\nsnr = [200, 200]\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and two grid recipes: spectra as they are, and with noise."""
    folder = write_library(tmp_path_factory.mktemp("grid"))
    (folder / "plain.toml").write_text(GRID, encoding="utf-8")
    (folder / "noisy.toml").write_text(GRID + NOISE, encoding="utf-8")
    return folder


def content(grid: Path | str, **changes: Any) -> dict[str, Any]:
    units = {"teff": "K", "logg": "dex", "m_h": "dex"}
    return {
        "name": "mine",
        "data": {"build": str(grid)} | changes.pop("data", {}),
        "label": [{"name": name, "column": name, "unit": unit} for name, unit in units.items()],
        "prepare": [{"step": "crop", "start": 8802, "stop": 8834}],
        "validation": {"folds": 0},
        "errors": {"model": "formal"},
        **changes,
    }


def loaded(root: Path, name: str = "plain", **changes: Any) -> Any:
    return load_training_set(parse_recipe(content(root / f"{name}.toml", **changes), "test"), root)


class TestWhatItHolds:
    def test_it_is_the_training_set_that_the_build_makes(self, root: Path, tmp_path: Path) -> None:
        sample = {"kind": "nodes", "copies": COPIES, "ranges": {"vsini": [0, 10]}}
        steps = [{"step": "resample", "start": 8801, "stop": 8835, "spacing": 0.5}, {"step": "crop", "start": 8802, "stop": 8834}]
        expected = build(root, tmp_path / "t.npz", recipe(augment={}, sample=sample, prepare=steps))
        found = loaded(root)
        np.testing.assert_array_equal(found.spectra.wavelength, expected["wavelength"])
        np.testing.assert_array_equal(found.spectra.flux, expected["flux"])
        np.testing.assert_array_equal(found.values, expected["labels"][:, :3])
        # spectra without errors get those of a nominal S/N of 1000
        assert found.spectra.meta["snr"][0] == pytest.approx(1000.0)
        assert found.spectra.medium == "vacuum"

    def test_errors_of_the_build_are_used(self, root: Path) -> None:
        """Noise of S/N 200: the median of flux √ivar to a few per cent, whatever the flux."""
        spectra = loaded(root, "noisy").spectra
        assert np.median(spectra.flux * np.sqrt(spectra.ivar)) == pytest.approx(200.0, rel=0.05)

    def test_assumed_snr_stands_for_errors(self, root: Path) -> None:
        spectra = loaded(root, data={"assumed_snr": 50}).spectra
        assert np.median(spectra.flux * np.sqrt(spectra.ivar)) == pytest.approx(50.0, rel=0.05)

    def test_only_takes_some_label_sets_spread_over_all(self, root: Path) -> None:
        found = loaded(root, data={"only": 12})
        assert len(found) == 12
        assert np.ptp(found.values[:, 0]) == 300.0  # Teff 3400 to 3700 K are the library's first and last

    def test_parts_that_are_built_are_not_validated_unless_said(self, root: Path) -> None:
        assert not loaded(root, data={"only": 6}).validated.any()
        assert loaded(root, data={"only": 6, "validated": True}).validated.all()


class TestOneWindow:
    """``build_window``: other pixels than the grid recipe's own, and neither crop nor GISIC of it."""

    GISIC = GRID + '[[prepare]]\nstep = "gisic"\n\n[[prepare]]\nstep = "crop"\nstart = 8810\nstop = 8820\n'

    def test_it_is_the_build_of_that_range(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "gisic.toml").write_text(self.GISIC, encoding="utf-8")
        changed = {"data": {"build": str(tmp_path / "gisic.toml"), "build_window": [8805, 8830, 0.25]}}
        found = load_training_set(parse_recipe(content("") | changed, "test"), root)
        sample = {"kind": "nodes", "copies": COPIES, "ranges": {"vsini": [0, 10]}}
        steps = [{"step": "resample", "start": 8805, "stop": 8830, "spacing": 0.25}]
        expected = build(root, tmp_path / "t.npz", recipe(augment={}, sample=sample, prepare=steps))
        # built from fewer model pixels, whose convolutions round differently
        np.testing.assert_allclose(found.spectra.wavelength, expected["wavelength"])
        np.testing.assert_allclose(found.spectra.flux, expected["flux"], rtol=1e-5)
        np.testing.assert_array_equal(found.values, expected["labels"][:, :3])

    def test_margins_are_the_recipes_own_in_the_grids_medium(self) -> None:
        """gaia-rvs: a library in air, pixels in vacuum; 8457 Å in air are 8459.32 in vacuum, 0.68 below its first pixel."""
        made = for_window(load_build_recipe("gaia-rvs"), (8500.0, 8600.0, 0.2), "air")
        assert made.prepare == ({"step": "to_vacuum"}, {"step": "resample", "start": 8500.0, "stop": 8600.0, "spacing": 0.2})
        ends = vacuum_to_air(np.array([8500.0 - 0.68, 8599.8 + 0.90]))
        np.testing.assert_allclose(made.grid.wavelength, ends, atol=0.01)

    def test_margins_hold_a_pixel_at_least(self) -> None:
        made = for_window(load_build_recipe("passegger2020"), (8485.0, 8530.0, 0.5), "vacuum")
        np.testing.assert_allclose(made.grid.wavelength, [8484.5, 8530.0])

    def test_a_recipe_without_resample_is_refused(self) -> None:
        with pytest.raises(MauryError, match=r"expected a step resample in the grid recipe small, .* got none; add one"):
            for_window(recipe(prepare=[{"step": "gisic"}], augment={}), (8805.0, 8830.0, 0.25), "vacuum")

    def test_an_impossible_window_is_refused(self) -> None:
        with pytest.raises(MauryError, match=r"expected 0 < start < stop in Å, got start 8830.0 and stop 8805.0"):
            for_window(recipe(), (8830.0, 8805.0, 0.25), "vacuum")

    def test_a_window_that_the_library_does_not_hold_is_refused(self, root: Path) -> None:
        with pytest.raises(MauryError, match=r"expected a grid that covers 8837\.38 to 8852\.87 Å"):
            loaded(root, data={"build_window": [8840, 8850, 0.25]})


class TestStars:
    def test_draws_of_one_spectrum_are_one_star(self, root: Path) -> None:
        found = loaded(root)
        assert found.stars is not None
        own = [tuple(row) for row in found.values]  # teff, logg, m_h: of the library's spectrum, whatever v sin i was drawn
        assert len(set(found.stars)) == len(set(own)) == NODES
        assert len(set(zip(found.stars, own, strict=True))) == NODES

    def test_folds_never_split_them(self, root: Path) -> None:
        found = loaded(root)
        for fold in k_folds(len(found), 5, 0, found.stars):
            inside = {found.stars[i] for i in fold}
            outside = {found.stars[i] for i in np.setdiff1d(np.arange(len(found)), fold)}
            assert len(fold) == COPIES * len(inside)
            assert not inside & outside

    def test_a_column_of_ones_own_comes_first(self, root: Path) -> None:
        assert set(loaded(root, data={"star_column": "teff"}).stars) == {"3400.0", "3500.0", "3600.0", "3700.0"}

    def test_one_atmosphere_of_a_lattice_is_one_star_whatever_its_rotation(self, root: Path) -> None:
        """Three v sin i of each of four label sets, moved a little: else what is held out would be in the training, too."""
        axes = "teff = [3400, 3500]\nlogg = [4.5]\nm_h = [-0.25, 0.0]\nvsini = [1, 4, 9]"
        text = GRID[: GRID.index("[sample]")] + f'[sample]\nkind = "lattice"\n[sample.axes]\n{axes}\n'
        text += GRID[GRID.index("[instrument]") :].replace("spacing = 0.5", 'spacing = 0.5\nframe = "rest"')
        (root / "lattice.toml").write_text(text + "\n[augment]\nvelocity_jitter = 0.1\n", encoding="utf-8")
        found = loaded(root, "lattice")
        assert len(found) == 12
        assert len(set(zip(found.stars, map(tuple, found.values), strict=True))) == len(set(found.stars)) == 4

    def test_draws_of_two_parts_share_no_star(self, root: Path) -> None:
        parts = [{"name": name, "build": str(root / "plain.toml")} for name in ("one", "two")]
        changed = content("") | {"data": {"parts": parts}}
        stars = load_training_set(parse_recipe(changed, "test"), root).stars
        assert stars is not None
        assert len(set(stars)) == 2 * NODES


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ({"library": {}}, "data.library.file"),
            ({"spectra": "*.fits"}, r"expected no spectra beside the build of part 'data', got '\*.fits'; make two parts"),
            ({"table": "t.csv"}, "expected no table beside the build"),
            ({"only": 0}, "expected a valid value for data.only, got 0"),
        ],
    )
    def test_before_anything_is_read(self, data: dict[str, Any], sentence: str) -> None:
        with pytest.raises(MauryError, match=sentence):
            parse_recipe(content("gaia-rvs", data=data), "test")

    def test_a_library_and_a_build(self) -> None:
        names = {"file": "l.npz", "wavelength": "w", "wavelength_unit": "Angstrom", "medium": "air", "flux": "f", "fwhm": 0.1}
        with pytest.raises(
            MauryError, match="expected one of library and build for part 'data', got both; make two parts of them"
        ):
            parse_recipe(content("gaia-rvs", data={"library": names}), "test")

    def test_only_without_a_build(self) -> None:
        with pytest.raises(MauryError, match="expected build beside only = 5 in part 'data', got none; name the grid recipe"):
            parse_recipe(content("") | {"data": {"spectra": "*.fits", "table": "t.csv", "only": 5}}, "test")

    def test_assumed_snr_beside_errors_of_the_build(self, root: Path) -> None:
        with pytest.raises(
            MauryError, match=r"expected no assumed_snr for part 'data', whose build .*noisy.toml has errors .*100"
        ):
            loaded(root, "noisy", data={"assumed_snr": 100, "only": 6})

    def test_no_such_grid_recipe(self, root: Path) -> None:
        with pytest.raises(MauryError, match=r"gaia-rvs.*got no-such-grid"):
            load_training_set(parse_recipe(content("no-such-grid"), "test"), root)


class TestWhatIsLeft:
    def test_no_training_set_stays_behind(self, root: Path, tmp_path: Path) -> None:
        """Where a folder for it is given, it is empty afterwards; the data's folder never changes."""
        before = sorted(root.iterdir())
        ready = parse_recipe(content(root / "plain.toml"), "test")
        load_training_set(ready, root, work=tmp_path / "work")
        assert list((tmp_path / "work").iterdir()) == []
        assert sorted(root.iterdir()) == before

    def test_nor_in_the_systems_temporary_folder(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        loaded(root)
        assert list(tmp_path.iterdir()) == []

    def test_a_build_that_was_stopped_goes_on_where_it_was(self, root: Path, tmp_path: Path) -> None:
        """Stopped after its first chunk: what it had is in the folder, and the spectra are the same in the end."""
        ready = parse_recipe(content(root / "plain.toml"), "test")

        def stop(stage: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load_training_set(ready, root, stop, work=tmp_path)
        assert any(tmp_path.iterdir())
        again = load_training_set(ready, root, work=tmp_path)
        np.testing.assert_array_equal(again.spectra.flux, loaded(root).spectra.flux)
        assert list(tmp_path.iterdir()) == []


def test_a_trained_model_names_the_build_and_knows_no_hull(root: Path) -> None:
    """Labels that were designed fill a box; what a hull would say of them is noise."""
    run = run_recipe(parse_recipe(content(root / "plain.toml"), "test"), root)
    assert run.model.provenance["recipe"]["data"]["build"] == str(root / "plain.toml")
    assert run.model.provenance["n_training_spectra"] == COPIES * NODES
    assert run.model.region is not None
    assert run.model.region.facets is None


SCRIPT = """
import sys
from maury.recipes import grid_build, parse_recipe, run_recipe
grid_build._MOST_ROWS = 10  # several chunks: one alone needs no pool
run = run_recipe(parse_recipe({content!r}, "script"), {root!r})
print(len(run.training_set))
"""


def test_it_works_from_a_script_without_a_main_guard(root: Path, tmp_path: Path) -> None:
    """A pool of processes would start the script again in each of them."""
    script = tmp_path / "script.py"
    words = SCRIPT.format(content=content(root / "plain.toml"), root=str(root))
    script.write_text(words, encoding="utf-8")
    command, where = [sys.executable, "-W", "error", str(script)], {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=where)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [str(COPIES * NODES)], "")
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]
