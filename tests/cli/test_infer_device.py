"""``maury infer --device``: a GPU that is not there is one sentence, not a traceback; the CPU needs none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from maury.catalogue import read_catalogue
from maury.cli import app
from maury.errors import MauryError, UsageError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.fit.velocity import VelocityLabel
from maury.model import Model
from maury.prepare import Preparation, Resample
from maury.protocols import ModelCovariance
from maury.read import read_file
from maury.store import load_model, save_model

sys.path.insert(0, str(Path(__file__).parents[1] / "recovery"))
from network import MAX_KM_S, moving_stars, network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a velocity and one spectrum of its network, with a velocity of its own."""
    folder = tmp_path_factory.mktemp("device")
    emulator = network(n_pixels=300)
    spectra, _ = moving_stars(emulator, 1)
    ends, n = (float(spectra.wavelength[0]), float(spectra.wavelength[-1])), 300
    preparation = Preparation((Resample(start=ends[0] + 1, stop=ends[1] - 1, spacing=1.0, missing_velocity="zero"),))
    table = Table({"wavelength_vac [Angstrom]": spectra.wavelength, "flux": spectra.flux[0], "error": np.full(n, 0.01)})
    table.write(folder / "star.csv")
    grid = preparation(read_file(folder / "star.csv")).wavelength
    moved = VelocityLabel(MAX_KM_S).extend(emulator).spline(emulator.coefficients)(grid).T
    on_grid = replace(
        emulator, wavelength=grid, mean=moved[0], basis=moved[1:], model_covariance=ModelCovariance(np.full(len(grid), 1e-5))
    )
    fitter = ChiSquareFitter(velocity=VelocityLabel(MAX_KM_S))
    save_model(Model(preparation, EmulatorInferrer(on_grid, fitter)), folder / "model.safetensors")
    return folder


def test_the_cpu_is_the_default(folder: Path, tmp_path: Path) -> None:
    words = ["infer", str(folder / "model.safetensors"), str(folder / "star.csv"), "-o", str(tmp_path / "a.fits")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, [*words[:-1], str(tmp_path / "b.fits"), "--device", "cpu"]).exit_code == 0
    first, second = read_catalogue(tmp_path / "a.fits"), read_catalogue(tmp_path / "b.fits")
    assert np.isfinite(first["delta_rv"]).all()
    np.testing.assert_array_equal(first["teff"], second["teff"])


def test_a_gpu_that_is_not_there_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    words = ["infer", str(folder / "model.safetensors"), str(folder / "star.csv"), "-o", str(tmp_path / "a.fits")]
    result = CliRunner().invoke(app, [*words, "--device", "cuda"])
    assert isinstance(result.exception, MauryError)  # which the command line turns into its sentence and exit code 2
    assert "expected a CUDA GPU that torch can use, got none; use the device 'cpu'" in str(result.exception)
    assert not (tmp_path / "a.fits").exists()


def test_a_device_is_not_saved(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder / "model.safetensors")
    elsewhere = model.running_on(device="torch-cpu", workers=3)
    assert elsewhere.model_id == model.model_id
    save_model(elsewhere, tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").inferrer.fitter.device == "cpu"
    with pytest.raises(UsageError, match="expected a device among cpu, cuda"):
        model.running_on(device="tpu")
