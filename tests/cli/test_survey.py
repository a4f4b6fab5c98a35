"""From a labelled survey to a model and labels of other stars, planted faults included; errors that depend on S/N."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lamost_survey import BROKEN_FILE, LABELS, OUTLIER_FILE, make_survey, survey_recipe
from typer.testing import CliRunner

from maury.assess.calibration import SnrErrorModel
from maury.catalogue import read_catalogue
from maury.cli import app
from maury.flags import ResultFlag
from maury.recipes import TrainingRun, parse_recipe, run_recipe
from maury.store import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    make_survey(folder / "data")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> TrainingRun:
    errors = {"model": "snr", "snr_column": "snr", "stars_per_bin": 40}
    return run_recipe(parse_recipe(survey_recipe(errors=errors), "test"), folder / "data")


def test_errors_as_a_polynomial_of_snr(run: TrainingRun) -> None:
    model = run.model.error_model
    assert isinstance(model, SnrErrorModel)
    assert run.held_out is not None
    assert run.held_out.raw_covariance is not None
    low, high = model.sigma([20.0, 100.0])
    assert (low >= high).all()  # no label gets worse with more signal
    assert 0.6 < next(row for row in run.scores if row.label == "teff").pull_scatter < 1.5


def test_the_other_half_is_recovered_and_faults_are_flagged(folder: Path) -> None:
    """Pulls near 1 for stars that the model has not seen; the colder star and the truncated file keep their rows."""
    from astropy.table import Table

    recipe = survey_recipe()
    save_model(run_recipe(parse_recipe(recipe, "test"), folder / "data").model, folder / "m.safetensors")
    truth = {str(row["file"]): row for row in Table.read(folder / "data/truth.csv")}
    files = [str(folder / "data/spectra" / name) for name in truth]
    done = CliRunner().invoke(app, ["infer", str(folder / "m.safetensors"), *files, "-o", str(folder / "stars.fits")])
    assert done.exit_code == 0, done.output
    catalogue = read_catalogue(folder / "stars.fits")
    flags = {str(row["file"]): ResultFlag(int(row["flag"])) for row in catalogue}
    assert flags[BROKEN_FILE] == ResultFlag.UNREADABLE
    assert "truncated" in catalogue["reason"][catalogue["file"] == BROKEN_FILE][0]
    assert flags[OUTLIER_FILE] & ResultFlag.OUT_OF_RANGE
    rows = [row for row in catalogue if row["flag"] == 0]
    assert len(rows) > 150
    for label in LABELS:
        pulls = np.array([(row[label] - truth[str(row["file"])][label]) / row[f"e_{label}"] for row in rows])
        assert 0.7 < pulls.std() < 1.3
