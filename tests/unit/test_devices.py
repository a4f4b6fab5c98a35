"""Where a fit computes: numpy, torch, several cores; the same numbers, and nothing of it in a model file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maury.errors import UsageError
from maury.fit.fitter import ChiSquareFitter
from maury.fit.velocity import VelocityLabel
from maury.threads import cores, in_threads

sys.path.insert(0, str(Path(__file__).parents[1] / "recovery"))
from network import MAX_KM_S, moving_stars, network

FITTERS = {
    "labels": ChiSquareFitter(),
    "velocity": ChiSquareFitter(velocity=VelocityLabel(MAX_KM_S)),
}


@pytest.mark.parametrize("kind", FITTERS)
@pytest.mark.parametrize("rank", [0, 2])
def test_torch_gives_what_numpy_gives(kind: str, rank: int) -> None:
    pytest.importorskip("torch")
    model = network(n_pixels=200, rank=rank)
    spectra, _ = moving_stars(model, 30, factor=0.0)
    fitter = FITTERS[kind]
    numpy, torch = fitter.fit(spectra, model), replace(fitter, device="torch-cpu").fit(spectra, model)
    np.testing.assert_allclose((torch.values - numpy.values) / numpy.errors, 0, atol=0.03)
    np.testing.assert_allclose(torch.chi2, numpy.chi2, atol=2e-3)
    np.testing.assert_allclose(torch.errors, numpy.errors, rtol=1e-3)


@pytest.mark.parametrize("kind", FITTERS)
def test_several_workers_give_what_one_gives(kind: str) -> None:
    model = network(n_pixels=200)
    spectra, _ = moving_stars(model, 61, factor=0.0)
    one, three = (replace(FITTERS[kind], workers=n).fit(spectra, model) for n in (1, 3))
    np.testing.assert_array_equal(one.ids, three.ids)
    np.testing.assert_allclose((one.values - three.values) / one.errors, 0, atol=0.03)


def test_neither_is_saved() -> None:
    config = replace(FITTERS["velocity"], device="torch-cpu", workers=4).to_config()
    assert "device" not in config
    assert "workers" not in config
    assert ChiSquareFitter.from_config(config) == FITTERS["velocity"]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a device among cpu, cuda, got 'gpu'; correct it"):
        ChiSquareFitter(device="gpu")
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(UsageError, match="expected a CUDA GPU that torch can use, got none; use the device 'cpu'"):
        ChiSquareFitter(device="cuda")


def test_the_cpu_needs_no_torch() -> None:
    code = "import sys, maury.fit; maury.fit.ChiSquareFitter(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_keep_the_order() -> None:
    assert cores() >= 1
    for workers in (1, 4):
        assert list(in_threads(lambda x: x * x, range(7), workers)) == [x * x for x in range(7)]
