"""The experiment of Gebran (2024) in its small version, as a user runs it, on the library computed for this project."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maury
from maury.recipes import load_recipe
from maury.recipes.gebran2024 import COLUMNS, PAPER_TABLE5
from maury.store import describe_model

pytest.importorskip("torch")

LABELS = ("teff", "logg", "m_h", "v_micro", "vsini", "resolving_power")
SPANS = {"teff": 11_400.0, "logg": 3.0, "m_h": 2.0, "v_micro": 4.0, "vsini": 300.0, "resolving_power": 9500.0}
"""Widths of the ranges: the library's README and Table 1 of the paper."""


@dataclass(frozen=True)
class Run:
    printed: str
    model: Path
    plots: Path

    @property
    def measured(self) -> dict[str, Any]:
        """What the model file holds of the experiment."""
        return dict(describe_model(self.model)["provenance"]["experiment"])

    def rows(self, checker: str) -> dict[str, list[str]]:
        """Label -> cells of the printed table of one checker."""
        (block,) = [part for part in self.printed.split("\n\n") if part.startswith(f"RMSE of labels by the {checker} checker")]
        lines = [line.split() for line in block.splitlines()[2:]]
        return {line[0]: [cell for cell in line[1:] if cell not in ("K", "dex", "km/s")] for line in lines}


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Once: half a minute of one core."""
    folder = tmp_path_factory.mktemp("gebran")
    words = ["gebran2024", "--data", str(data), "--quick", "-o", "g.safetensors", "--plots", "plots"]
    command = [sys.executable, "-W", "error", "-m", "maury", "train", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False, env=_wide())
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"g.safetensors", "plots"}  # no state, no training set
    return Run(done.stdout, folder / "g.safetensors", folder / "plots")


def _wide() -> dict[str, str]:
    """A terminal in which no table is folded."""
    return {**os.environ, "COLUMNS": "320", "OMP_NUM_THREADS": "1"}


def test_table_5_stands_beside_the_papers(run: Run) -> None:
    for checker in ("published", "own"):
        heads = next(
            lines[1]
            for part in run.printed.split("\n\n")
            if (lines := part.splitlines())[0].startswith(
                f"RMSE of labels by the {checker} checker (paper: Gebran 2024, Table 5)"
            )
        )
        for column in COLUMNS:
            assert f"{column} (n = " in heads
        for column in COLUMNS[:4]:
            assert f"paper {column}" in heads
        rows = run.rows(checker)
        assert tuple(rows) == LABELS
        for label, numbers in PAPER_TABLE5.items():
            assert [float(cell) for cell in rows[label][-4:]] == list(numbers)
        assert rows["resolving_power"][-4:] == ["-"] * 4  # inferred, but not tabulated in the paper


def test_the_papers_numbers_are_those_of_its_table() -> None:
    """METHODS 3, Table 5: train, validation, test, generated."""
    assert PAPER_TABLE5["teff"] == (70, 110, 120, 119)
    assert PAPER_TABLE5["logg"] == (0.02, 0.03, 0.03, 0.05)
    assert PAPER_TABLE5["vsini"] == (5, 6, 6.5, 7)
    assert PAPER_TABLE5["m_h"] == (0.04, 0.08, 0.15, 0.15)
    assert PAPER_TABLE5["v_micro"] == (0.15, 0.17, 0.17, 0.2)


def test_the_model_file_holds_the_experiment(run: Run) -> None:
    """The numbers that were printed, to their digits."""
    tables = run.measured["checkers"]
    assert [table["checker"] for table in tables] == ["published", "own"]
    for table in tables:
        assert table["columns"] == list(COLUMNS)
        assert tuple(table["labels"]) == LABELS
        rmse = np.array(table["rmse"])
        assert rmse.shape == (6, 5)
        printed = run.rows(table["checker"])
        assert [float(cell) for cell in printed["logg"][:5]] == [round(x, 3) for x in rmse[1]]
        assert [float(cell) for cell in printed["teff"][:5]] == [round(x) for x in rmse[0]]


def test_whole_base_spectra_are_kept_for_the_test(run: Run) -> None:
    """A tenth of the draws in quick form; test and generated columns are of the same number."""
    n = run.measured["checkers"][0]["n"]
    assert n[2] == n[3] == n[4]
    assert 120 <= n[2] <= 220
    assert 0.15 < n[1] / (n[0] + n[1]) < 0.25  # the published fifth
    assert f"{n[2]} draws, all of their base spectra, for the test" in run.printed


def test_checkers_have_learned_labels_they_have_not_seen(run: Run) -> None:
    """The scatter of a uniform distribution is 0.29 of its width: whoever guesses the mean has that RMSE."""
    for table in run.measured["checkers"]:
        test = dict(zip(LABELS, np.array(table["rmse"])[:, 2], strict=True))
        for label in ("teff", "vsini", "m_h"):
            assert test[label] < 0.7 * 0.289 * SPANS[label], (table["checker"], label)


def test_three_scores_with_the_depths_of_the_calcium_triplet(run: Run) -> None:
    scores = {score["name"]: score for score in run.measured["scores"]}
    assert tuple(scores) == ("autoencoder", "generator", "small generator")
    for name, score in scores.items():
        assert [line["line"] for line in score["metrics"]["lines"]] == ["Ca II 8498", "Ca II 8542", "Ca II 8662"]
        assert all(0 < line["rmse"] < 0.2 for line in score["metrics"]["lines"])
        assert score["metrics"]["explained_variance"] > 0.0, name  # what the mean spectrum alone has
        assert 0 < score["flux_error"]["median"] < score["flux_error"]["percentile_99"] < 0.2
        assert f"{score['n_parameters']:,}" in run.printed
    table = run.printed.split("depths of the calcium triplet")[1].splitlines()
    assert all(line in table[1] for line in ("Ca II 8498 (", "Ca II 8542 (", "Ca II 8662 ("))
    assert [row.split()[0] for row in table[2:5]] == ["autoencoder", "generator", "small"]
    # who knows the spectrum does at least as well as who knows its labels alone (half more, for networks of few epochs)
    assert scores["autoencoder"]["metrics"]["mse"] < 1.5 * scores["generator"]["metrics"]["mse"]


def test_the_model_is_a_generator_of_six_labels(run: Run) -> None:
    model = maury.load_model(run.model)
    assert model.labels.names == LABELS
    values = np.array([[5777.0, 4.44, 0.0, 1.0, 2.0, 11_500.0]])
    flux = model.inferrer.emulator.predict_flux(values)
    assert flux.shape == (1, 4000)
    core = int(np.abs(model.inferrer.emulator.wavelength - 8542.09).argmin())  # Ca II, air
    assert flux[0, core] < 0.75 * np.median(flux)
    assert run.plots.joinpath("generated.png").stat().st_size > 20_000


def n_parameters(*sizes: int) -> int:
    """Weights and biases of a perceptron."""
    return sum((before + 1) * after for before, after in pairwise(sizes))


def test_the_small_generator_has_less_than_a_tenth_of_the_parameters() -> None:
    """At full size, from the recipe alone. Published: 11,078,258 of the label network (METHODS 3) and the decoder's; the small
    one counts its basis of principal components and the mean spectrum too.
    """
    recipe = load_recipe("gebran2024")
    assert recipe.experiment is not None
    published, small = recipe.train.generator.to_config(), recipe.experiment.small.to_config()
    decoder = (published.autoencoder.latent, *published.autoencoder.hidden[::-1], 4000)
    label_network = n_parameters(6, *published.label_network.hidden, published.autoencoder.latent)
    assert label_network == 11_078_258
    theirs = label_network + n_parameters(*decoder)
    ours = small.members * n_parameters(6, *small.hidden, small.components) + (small.components + 1) * 4000
    assert ours < 0.1 * theirs
