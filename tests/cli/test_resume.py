"""``maury train`` killed with SIGKILL goes on where it was and ends with the same file as an undisturbed run."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maury.grids import AnalyticSpectra
from maury.store import read_model_file

RECIPE = """
name = "tiny"

[data]
assumed_snr = 100
validated = true

[data.library]
file = "library.npz"
wavelength = "wavelength"
wavelength_unit = "Angstrom"
medium = "vacuum"
flux = "flux"
labels = "labels"
label_names = ["teff", "logg"]
resolving_power = 1800

[[label]]
name = "teff"
column = "teff"
unit = "K"

[[label]]
name = "logg"
column = "logg"
unit = "dex"

[[prepare]]
step = "resample"
start = 5010
stop = 5190
spacing = 2

[train]
method = "payne"
robust_stars = 4

[train.payne]
hidden = [8]
components = 5
members = 2
optimiser = "radam"
batch_size = 16
max_epochs = 40
check_every = 4

[train.covariance]
rank = 2
inflation = 1.0

[validation]
folds = 2
"""

DRIVER = """
import itertools, os, signal, sys

import maury.train.checkpoint as checkpoint
import maury.train.loop as loop

at, moment = int(sys.argv.pop(1)), sys.argv.pop(1)
number, checks = itertools.count(1), itertools.count()
save, check_epochs = checkpoint.Checkpoint.save, loop._check_epochs


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def save_and_die(self, arrays, state):
    mine = next(number) == at
    if mine and moment == "before":
        die()
    if mine and moment == "inside":  # the file is written, but not in its place
        os.replace = die
    save(self, arrays, state)
    if mine and moment == "after":
        die()


def counted(*args):
    next(checks)
    check_epochs(*args)


checkpoint.Checkpoint.save = save_and_die
checkpoint.Checkpoint.due = lambda self: True
loop._check_epochs = counted
from maury.cli import main

try:
    main()
finally:
    print("checks", next(checks), file=sys.stderr)
"""

CHECKS = 10 * 3 * 2  # of 40 epochs: for two folds and the whole, each once for the star weights and once with them


def train(folder: Path, output: Path, kill: tuple[int, str] | None = None, recipe: str = "tiny.toml") -> int:
    """Run ``maury train``; returns the number of validations that were computed."""
    at, moment = kill or (0, "never")
    words = ["train", str(folder / recipe), "--data", str(folder), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, str(folder / "driver.py"), str(at), moment, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if kill is not None:
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not output.exists()
        return 0
    assert done.returncode == 0, done.stderr
    found = re.search(r"checks (\d+)", done.stderr)
    assert found is not None
    return int(found[1])


def state_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.training")


def write_library(path: Path, scale: float = 1.0) -> None:
    values = np.array([4500.0, 1.5]) + np.random.default_rng(3).random((64, 2)) * np.array([2000.0, 3.0])
    wavelength = 5000.0 + 2.0 * np.arange(101)
    spectra = AnalyticSpectra(("teff", "logg")).spectra(wavelength, values, snr=100, seed=4)
    np.savez(path, wavelength=wavelength, flux=scale * spectra.flux, labels=values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_library(folder / "library.npz")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "driver.py").write_text(DRIVER, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    output = folder / "undisturbed.safetensors"
    assert train(folder, output) == CHECKS
    assert not state_of(output).exists()
    return output


@pytest.fixture(scope="module")
def killed_state(folder: Path) -> Path:
    """What a kill after 25 checkpoints leaves."""
    output = folder / "killed.safetensors"
    train(folder, output, (25, "after"))
    return state_of(output)


def assert_same_model(one: Path, other: Path) -> None:
    (arrays, header), (wanted, wanted_header) = read_model_file(one), read_model_file(other)
    assert set(arrays) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    assert header["model_id"] == wanted_header["model_id"]


def test_killed_again_and_again(folder: Path, undisturbed: Path) -> None:
    """Before, inside and after writing a checkpoint; in the first training and in later ones."""
    output = folder / "model.safetensors"
    for kill in ((3, "before"), (14, "inside"), (20, "after")):
        train(folder, output, kill)
        assert state_of(output).is_dir()
    assert train(folder, output) <= CHECKS - 30  # that much had been done
    assert_same_model(output, undisturbed)
    assert not state_of(output).exists()
    left = {path.name for path in folder.iterdir() if "model" in path.name}
    assert left == {"model.safetensors"}


def test_damaged_checkpoints_are_none(folder: Path, undisturbed: Path, killed_state: Path) -> None:
    output = folder / "damaged.safetensors"
    shutil.copytree(killed_state, state_of(output))
    files = sorted(state_of(output).iterdir())
    assert files
    for number, file in enumerate(files):
        raw = bytearray(file.read_bytes())
        raw[-9] ^= 1  # one bit of a weight
        file.write_bytes(bytes(raw[: len(raw) // 2]) if number % 2 else bytes(raw))
    assert train(folder, output) == CHECKS
    assert_same_model(output, undisturbed)
    assert not state_of(output).exists()


def test_checkpoints_of_other_settings_or_data_are_not_used(folder: Path, undisturbed: Path, killed_state: Path) -> None:
    """The state of the recipe lies in the folder of two other trainings, and the other way round."""
    output = folder / "other.safetensors"
    (folder / "changed.toml").write_text(RECIPE.replace("hidden = [8]", "hidden = [8]\nlearning_rate = 0.01"), encoding="utf-8")
    shutil.copytree(killed_state, state_of(output))
    assert train(folder, output, recipe="changed.toml") == CHECKS
    assert not state_of(output).exists()
    assert read_model_file(output)[1]["model_id"] != read_model_file(undisturbed)[1]["model_id"]
    write_library(folder / "brighter.npz", 1.01)
    (folder / "brighter.toml").write_text(RECIPE.replace("library.npz", "brighter.npz"), encoding="utf-8")
    output = folder / "again.safetensors"
    train(folder, output, (25, "after"), recipe="brighter.toml")
    assert train(folder, output) == CHECKS
    assert_same_model(output, undisturbed)
