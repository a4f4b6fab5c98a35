"""``maury grid build`` as a command: its lists, its words, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from build_sample import LIBRARY_TOML, alive, driver, until, write_library
from typer.testing import CliRunner

from maury.cli.grid_build import build
from maury.errors import RecipeError, UsageError
from maury.recipes.grid_schema import builtin_grid_recipes

SMALL = f"""
name = "small"

[grid]
wavelength = [8800, 8836]

[grid.library]
{LIBRARY_TOML}

[sample]
kind = "nodes"

[instrument]
resolving_power = 20000
"""


LEARNT = """
[[label]]
name = "teff"
column = "teff"
unit = "K"

[[prepare]]
step = "scale"
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_library(tmp_path_factory.mktemp("grid"))
    (folder / "small.toml").write_text(SMALL, encoding="utf-8")
    return folder


def run(*words: str | Path) -> str:
    """Output of the command; what it raises comes through (`maury.cli.main` makes a sentence of it)."""
    app = typer.Typer()
    app.command()(build)
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_without_a_recipe_it_lists_the_builtin_ones() -> None:
    listed = run()
    assert all(name in listed for name in builtin_grid_recipes())


def test_show_prints_a_recipe_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(run("passegger2020", "--show"), encoding="utf-8")
    assert run(tmp_path / "mine.toml", "--show") == builtin_grid_recipes()["passegger2020"].read_text(encoding="utf-8")


def test_it_says_what_it_built_and_how_to_use_it(root: Path, tmp_path: Path) -> None:
    said = run(root / "small.toml", "--data", root, "-o", tmp_path / "t.npz", "-j", "1")
    assert said.startswith("24 spectra x 721 pixels, labels teff, logg, m_h\n")  # 8800 to 8836 Å by 0.05 Å, both ends
    assert '[data.library]\nfile = "t.npz"' in said
    assert 'medium = "vacuum"' in said
    assert "resolving_power = 20000\n" in said
    sharp = SMALL.replace("[instrument]\nresolving_power = 20000", "")
    (tmp_path / "sharp.toml").write_text(sharp, encoding="utf-8")
    said = run(tmp_path / "sharp.toml", "--data", root, "-o", tmp_path / "t.npz", "-j", "1")
    assert "resolving_power = 60000\n" in said  # the library's own
    table = SMALL.replace("resolving_power = 20000", "table = [[8000, 0.5], [9000, 0.6]]")
    (tmp_path / "table.toml").write_text(table, encoding="utf-8")
    said = run(tmp_path / "table.toml", "--data", root, "-o", tmp_path / "t.npz", "-j", "1")
    assert "\nresolving_power" not in said  # no number is made up


def test_a_recipe_of_train_reads_what_it_built_by_the_words_it_printed(root: Path, tmp_path: Path) -> None:
    from maury.recipes import parse_recipe
    from maury.recipes.dataset import load_training_set

    for suffix, extra in ((".npz", ""), (".zarr", "[augment]\nsnr = [50, 100]\n")):
        if suffix == ".zarr":
            pytest.importorskip("zarr")
        (tmp_path / "mine.toml").write_text(SMALL + extra, encoding="utf-8")
        said = run(tmp_path / "mine.toml", "--data", root, "-o", tmp_path / f"t{suffix}", "-j", "1")
        words = 'name = "mine"\n' + said.split("in a recipe of `maury train`:")[1] + LEARNT
        assert ("assumed_snr" in words, "ivar" in words) == ((True, False) if not extra else (False, True))
        assert "validated = true" in words  # else the default cross-validation has no star
        found = load_training_set(parse_recipe(tomllib.loads(words), "printed"), tmp_path)
        assert found.values.shape == (24, 1)
        assert found.spectra.flux.shape == (24, 721)


def test_words_that_cannot_be_and_the_seed(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"one of gaia-rvs, gebran2024, .*, window-8800, got no\.toml; check the name"):
        run("no.toml")
    with pytest.raises(UsageError, match=r"expected an output ending in \.zarr or \.npz, got t\.csv"):
        run(root / "small.toml", "--data", root, "-o", tmp_path / "t.csv")
    run(root / "small.toml", "--data", root, "-o", tmp_path / "t.npz", "-j", "1", "--seed", "5")
    import numpy as np

    with np.load(tmp_path / "t.npz") as archive:
        assert json.loads(str(archive["provenance"]))["seed"] == 5


def test_an_error_is_one_sentence_and_exit_code_2(root: Path) -> None:
    words = [sys.executable, "-m", "maury", "grid", "build", "small.toml", "--data", "nowhere", "-o", "t.npz"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("maury: ")
    assert done.stderr.count("\n") == 1
    assert "nowhere/library.npz: expected a synthetic library, found no such file; check the path" in done.stderr
    assert not list(root.glob("t.npz*"))


COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, do not hear it
from maury.cli import main
main()
"""


def test_ctrl_c_of_the_command_says_where_it_goes_on(root: Path, tmp_path: Path) -> None:
    """The command as installed, through typer: its way of ending is not that of the driver below."""
    recipe = SMALL.replace('kind = "nodes"', 'kind = "nodes"\ncopies = 2000')
    (tmp_path / "large.toml").write_text(recipe, encoding="utf-8")
    output = tmp_path / "t.npz"
    words = [sys.executable, "-c", COMMAND, "grid", "build", "large.toml", "--data", str(root), "-o", str(output), "-j", "2"]
    process = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    chunks = tmp_path / "t.npz.building/chunks"
    until(lambda: any(chunks.glob("[0-9]*.npz")))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith(f"maury: what is finished stays in {output}.building; the same command goes on there\n")
    assert "Traceback" not in errors
    until(lambda: not alive(process.pid))
    assert any(chunks.glob("[0-9]*.npz"))
    assert not output.exists()


def test_ctrl_c_ends_quietly_and_keeps_finished_chunks(root: Path, tmp_path: Path) -> None:
    """The whole process group gets the signal, as from a terminal: one word of the parent, none of the workers, exit 130."""
    output = tmp_path / "t.npz"
    words = driver(tmp_path, root, output)
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    chunks = tmp_path / "t.npz.building/chunks"
    until(lambda: any(chunks.glob("[0-9]*.npz")))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "maury: stopped\n")
    until(lambda: not alive(process.pid))
    assert any(chunks.glob("[0-9]*.npz"))
    assert not any(chunks.glob(".*"))  # no half-written files
    assert not output.exists()


def test_only_takes_label_sets_evenly_from_all(root: Path, tmp_path: Path) -> None:
    run(root / "small.toml", "--data", root, "-o", tmp_path / "all.npz")
    run(root / "small.toml", "--data", root, "-o", tmp_path / "some.npz", "--only", "6")
    with np.load(tmp_path / "all.npz") as whole, np.load(tmp_path / "some.npz") as some:
        np.testing.assert_array_equal(some["labels"], whole["labels"][::4])  # 24 nodes
        np.testing.assert_array_equal(some["flux"], whole["flux"][::4])
