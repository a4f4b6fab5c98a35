"""The masbuitrago2024 recipe as typed: PHOENIX's and CARMENES' files to labels by autoencoders that know both, small."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from archive_server import ArchiveServer, serving
from astropy.table import Table
from carmenes_files import write_carmenes_vis, write_dwarf_archive
from phoenix_files import phoenix_wavelength
from typer.testing import CliRunner

from maury.catalogue import read_catalogue
from maury.cli import app
from maury.flags import ResultFlag
from maury.grids.download_plan import plan_phoenix
from maury.recipes import TrainingRun, load_recipe, run_recipe
from maury.recipes.observed import load_observed
from maury.regress.ensemble import EnsembleInferrer
from maury.regress.latent_config import PRESETS, hidden_layers
from maury.store import load_model

if TYPE_CHECKING:
    from maury.regress.latent_training import LatentTraining

torch = pytest.importorskip("torch")

LABELS = ("teff", "logg", "m_h", "vsini")
# (Teff K, log g, [M/H]), velocity km/s, v sin i km/s: of the main sequence that the lattice keeps, between PHOENIX's nodes
STARS = (
    ((3400.0, 4.9, -0.3), -110.5, 3.0),
    ((3150.0, 5.0, -0.3), 20.0, 10.0),
    ((3750.0, 4.7, 0.0), 78.3, 6.0),
    ((3550.0, 4.8, -0.1), -30.2, 5.0),
    ((3250.0, 4.9, 0.1), 4.9, 2.0),
    ((3650.0, 4.8, -0.3), -59.7, 15.0),
)
NAMES = tuple(f"car-{number}-sci-vis_A.fits" for number in range(len(STARS)))
SNR = 500.0
# Of the stars' own scatter: what a model that knows nothing would be off by. The few epochs of [quick] leave 0.45, 0.55 and 0.24
# of it for Teff, log g and [M/H]; of v sin i 0.74, which is not asked for
SHARE = 0.75
MODEL = "masbuitrago.safetensors"


def maury(words: str, folder: Path, archive: str = "") -> str:
    """What a command prints; warnings are errors."""
    command = [sys.executable, "-W", "error", "-m", "maury", *words.split()]
    environment = os.environ | {"MAURY_PHOENIX_ARCHIVE": archive, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the grid as downloaded (M0 to M6 alone), the stars' files and their velocities."""
    folder = tmp_path_factory.mktemp("work")
    axes = {"teff": (3000.0, 4000.0), "logg": (4.5, 5.5), "m_h": (-1.0, 1.0)}
    archive = tmp_path_factory.mktemp("archive")
    write_dwarf_archive(archive, plan_phoenix(**axes, wavelength=(8790.0, 8846.0)).nodes, phoenix_wavelength(8788, 8848))
    with serving(ArchiveServer(archive)) as server:
        ranges = "--teff 3000 4000 --logg 4.5 5.5 --mh -1 1 --wavelength 8790 8846"
        assert "165 spectra in phoenix.zarr" in maury(f"grid download phoenix {ranges} -o phoenix.zarr", folder, server.address)
    (folder / "carmenes").mkdir()
    for number, (name, (labels, rv, vsini)) in enumerate(zip(NAMES, STARS, strict=True)):
        file = folder / "carmenes" / name
        write_carmenes_vis(file, labels, rv, SNR, number, vsini=vsini, berv=-7.0 * number, computed=(8795.0, 8840.0))
    rows = "".join(f"{name},{rv}\n" for name, (_, rv, _) in zip(NAMES, STARS, strict=True))
    (folder / "carmenes_rv.csv").write_text("file,rv\n" + rows)  # as `maury rv` writes them: tests/cli/test_passegger.py
    return folder


@pytest.fixture(scope="module")
def training(folder: Path) -> LatentTraining:
    """All that the training gives, of which the command writes the model."""
    runs: list[TrainingRun] = []

    def remembered(*args: Any, **options: Any) -> TrainingRun:
        runs.append(run_recipe(*args, **options))
        return runs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maury.recipes.run_recipe", remembered)
        words = ["train", "masbuitrago2024", "--quick", "--data", str(folder), "-o", str(folder / MODEL)]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert re.search(r"model [0-9a-f]{12} written to", done.stdout)
    assert re.search(r"autoencoders searched.*; the first 1 are kept:\n *first layer +penalty +error", done.stdout)
    (run,) = runs
    assert run.training_set.observed is not None
    assert len(run.training_set.observed) == len(STARS)
    assert [score.label for score in run.scores] == list(LABELS)
    assert run.transfer is not None
    return run.transfer


@pytest.mark.usefixtures("training")
def test_labels_of_carmenes_stars(folder: Path) -> None:
    names = " ".join(f"carmenes/{name}" for name in NAMES)
    maury(f"infer {MODEL} {names} --velocities carmenes_rv.csv -o stars.fits --votes votes.fits", folder)
    stars = read_catalogue(folder / "stars.fits")
    assert [str(name) for name in stars["file"]] == list(NAMES)
    # the gap tells that both domains were prepared alike, and that velocities had their effect
    assert (np.asarray(stars["flag"]) & int(ResultFlag.SYNTHETIC_GAP | ResultFlag.UNREADABLE) == 0).all()
    true = np.array([[*labels, vsini] for labels, _, vsini in STARS])
    found = np.column_stack([np.asarray(stars[label]) for label in LABELS])
    rms = np.sqrt(((found - true) ** 2).mean(axis=0))
    assert (rms < SHARE * true.std(axis=0))[:3].all(), found - true
    votes = Table.read(folder / "votes.fits")
    for label in LABELS:
        low, high = (np.asarray(stars[f"e_{label}_{end}"]) for end in ("lo", "up"))
        assert (low > 0).all()
        assert (high > 0).all()
        assert not np.allclose(low, high)
        assert np.asarray(votes[f"vote_{label}"]).shape == (len(STARS), 5)  # five regressors on one autoencoder


def test_the_model_file_holds_what_the_training_gave(folder: Path, training: LatentTraining) -> None:
    model = load_model(folder / MODEL)
    assert model.preparation == load_recipe("masbuitrago2024").preparation
    assert isinstance(model.inferrer, EnsembleInferrer)
    flux = np.random.default_rng(1).uniform(0.7, 1.1, (5, 3501))
    good = np.ones(flux.shape, dtype=bool)
    for ours, theirs in zip(training.networks, model.inferrer.networks, strict=True):
        np.testing.assert_array_equal(ours.predict(flux, good), theirs.predict(flux, good))


def test_the_autoencoder_is_of_the_released_family(training: LatentTraining) -> None:
    """The best of the search; the first four layers of its encoder stay as they were before the transfer."""
    assert {candidate.width for candidate in training.search} == {128, 192}
    assert training.search[0].error < training.search[1].error
    (network,), (before,) = training.networks, training.before
    np.testing.assert_allclose(network.wavelength, 8800.0 + 0.01 * np.arange(3501), atol=1e-6)
    sizes = [3501, *hidden_layers(training.search[0].width), 32]
    assert [weight.shape for weight, _ in network.encoder.layers] == list(pairwise(sizes))
    same = [
        np.array_equal(weight, old_weight) and np.array_equal(bias, old_bias)
        for (weight, bias), (old_weight, old_bias) in zip(network.encoder.layers, before.layers, strict=True)
    ]
    assert same == [True, True, True, True, False, False]
    counts = {error.spectra: error.n for error in training.errors}
    assert counts["observed"] + counts["observed, held back"] == len(STARS)
    assert counts["observed, held back"] >= 1


def test_stars_without_a_velocity_are_left_out_by_name(folder: Path) -> None:
    recipe = load_recipe("masbuitrago2024")
    (some,) = recipe.data.observed
    (folder / "few_rv.csv").write_text("".join(f"{row}\n" for row in ["file,rv", f"{NAMES[1]},20.0", f"{NAMES[4]},4.9"]))
    data = recipe.data.model_copy(update={"observed": (some.model_copy(update={"velocities": "few_rv.csv"}),)})
    found, left_out = load_observed(recipe.model_copy(update={"data": data}), folder)
    assert found is not None
    assert found.ids.tolist() == [name.removesuffix(".fits") for name in (NAMES[1], NAMES[4])]
    assert [name for name, _ in left_out] == [NAMES[0], *NAMES[2:4], NAMES[5]]
    assert all("velocity" in reason for _, reason in left_out)


def test_without_quick_it_is_the_released_one() -> None:
    """Sizes of METHODS 2: 9.9 and 25.1 million parameters."""
    from maury.networks.autoencoder import Autoencoder

    config = load_recipe("masbuitrago2024").train.latent.to_config()
    assert config == PRESETS["masbuitrago2024"]
    for width, millions in ((1024, 9.9), (2048, 25.1)):
        generator = torch.Generator().manual_seed(1)
        network = Autoencoder(3501, hidden_layers(width), 32, "relu", generator, output="sigmoid")
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
