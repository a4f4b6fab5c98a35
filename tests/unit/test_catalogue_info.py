"""``maury info``: what a model or a catalogue is, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from catalogue_sample import LABELS, sample_estimates
from typer.testing import CliRunner

from maury.catalogue import build_catalogue, run_provenance, write_catalogue
from maury.cli.info import info
from maury.errors import CatalogueError, MauryError, ModelFileError, UsageError
from maury.store import describe_model, write_model_file

app = typer.Typer()
app.command()(info)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, MauryError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model [1].safetensors"
    arrays = {"emulator.wavelength": np.linspace(4500.0, 7499.0, 3000), "emulator.coefficients": np.zeros((10, 3000))}
    header = {
        "kind": "cannon",
        "emulator": {"kind": "cannon", "label_set": LABELS.to_config()},
        "preparation": [{"step": "resample", "start": 4500.0}, {"step": "continuum", "width": 50.0}],
        "error_model": None,
        "provenance": run_provenance(["maury", "train", "miles"], n_stars=542, scores={"teff": 83.0}),
    }
    write_model_file(path, arrays, header)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "stars.fits"
    provenance = run_provenance(["maury", "infer", "m.safetensors", "a[1].fits"])
    write_catalogue(build_catalogue(sample_estimates(), model_id="0123456789ab", provenance=provenance), path)
    return path


def test_model(model: Path) -> None:
    text = run(model)
    assert "model of kind cannon" in text
    assert "model [1].safetensors" in text
    assert "3000 pixels, 4500.00 - 7499.00 Å" in text
    assert "surface gravity, log10 of cm/s2" in text
    assert "resample" in text
    assert "width = 50.0" in text
    assert "maury train miles" in text
    assert "n_stars" in text


def test_model_for_machines(model: Path) -> None:
    about = json.loads(run(model, "--json"))
    assert about == {"type": "model", **describe_model(model)}
    assert about["labels"][0] == {
        "name": "teff",
        "unit": "K",
        "description": "effective temperature",
        "coordinate": "linear",
        "range": [4000.0, 7000.0],
    }
    assert about["arrays"]["emulator.coefficients"] == {"dtype": "float64", "shape": [10, 3000]}
    assert len(about["model_id"]) == 12
    assert about["settings"]["preparation"][0]["step"] == "resample"


def test_catalogue(catalogue: Path) -> None:
    text = run(catalogue)
    assert "catalogue of 4 stars, id 0123456789ab" in text
    assert "1 converged, 1 max_iterations, 1 failed, 1 not_fitted; 1 without flag" in text
    assert "standard error of radius" in text
    assert "AT_BOUND" in text
    assert "LOW_SNR" not in text
    assert "'a[1].fits'" in text


def test_catalogue_for_machines(catalogue: Path) -> None:
    about = json.loads(run(catalogue, "--json"))
    assert about["type"] == "catalogue"
    assert about["n_stars"] == 4
    assert about["columns"][2]["ucd"] == "phys.temperature.effective"


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name ending in \.safetensors, \.fits, .*, got x\.txt; for spectra use `maury read`"):
        run("x.txt")
    with pytest.raises(ModelFileError, match="got no file at"):
        run(tmp_path / "x.safetensors")
    with pytest.raises(CatalogueError, match="got no file at"):
        run(tmp_path / "x.fits")
