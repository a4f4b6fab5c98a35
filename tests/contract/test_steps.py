"""What every step of a preparation must do, whatever it does. A new step joins by one line in ``EXAMPLES``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from maury.flags import PixelFlag
from maury.prepare import STEPS, Preparation, Resample
from maury.protocols import Step
from maury.spectra import Spectra, empty_meta

_LINE_AT = np.arange(4900.0, 5700.0, 2.0).tolist()
_LINE = (1 - 0.4 * np.exp(-0.5 * ((np.array(_LINE_AT) - 5180) / 3) ** 2)).round(6).tolist()
"""A template of the spectra below: their only line."""

EXAMPLES: dict[str, dict[str, Any]] = {
    "to_vacuum": {},
    "to_air": {},
    "mask": {"grow": 1, "presets": ["sky_lines", "telluric_oxygen"], "rest_ranges": [[5100.0, 5110.0]]},
    "mask-everything": {"ranges": [[1000.0, 20000.0]]},
    "reject_spikes": {"window": 31},
    "measure_rv": {"wavelength": _LINE_AT, "flux": [_LINE], "medium": "vacuum", "continuum": "gaussian"},
    "measure_rv-two": {"wavelength": _LINE_AT, "flux": [_LINE, _LINE[::-1]], "medium": "air", "low": -300.0, "keep_known": True},
    "degrade-fwhm": {"fwhm": 8.0},
    "degrade-table": {"table": [[5000.0, 3.2], [5600.0, 9.0]], "variance": "marginal"},
    "degrade-narrow": {"fwhm": 3.1, "native_fwhm": 3.0},
    "degrade-voigt": {"fwhm": 8.0, "profile": "voigt"},
    "degrade-voigt-narrow": {"fwhm": 0.8, "native_fwhm": 0.3, "profile": "voigt", "eta": 1.5, "variance": "marginal"},
    "rotate": {"vsini": 300.0},
    "rotate-narrow": {"vsini": 20.0, "limb_darkening": 0.2, "variance": "marginal"},
    "rotate-not": {"vsini": 0.0},
    "macroturbulence": {"v_macro": 90.0, "variance": "marginal"},
    "resample": {"start": 5050.0, "stop": 5550.0, "spacing": 1.5},
    "resample-fine": {"start": 5050.0, "stop": 5650.0, "spacing": 0.3, "variance": "marginal"},
    "resample-coarse": {"start": 5050.0, "stop": 5550.0, "spacing": 25.0},
    "resample-log": {"start": 4900.0, "stop": 5550.0, "log_spacing": 1e-4},
    "resample-as-is": {"wavelengths": [5100.0, 5101.0, 5103.0, 5110.0, 5300.0, 5301.0], "frame": "as_is"},
    "resample-windows": {"windows": [[5050.0, 5150.0, 1.5], [5200.0, 5240.0, 0.8], [5300.0, 5550.0, 2.0]]},
    "resample-linear": {"start": 5050.0, "stop": 5550.0, "spacing": 0.7, "method": "linear"},
    "running_median": {"window": 41},
    "gaussian": {},
    "gaussian-code": {"variant": "code", "weights": "uniform", "length": 20.0},
    "polynomial": {"degree": 3},
    "polynomial-windows": {"degree": 2, "each_window": True, "weights": "uniform"},
    "gisic": {},
    "gisic-package": {"smoothing": 5.0, "flux_min": 85.0, "scatter": "absolute", "scaled": False, "sigma": 8.0},
    "reject_slope": {"minimum": -40.0, "start": 5050.0, "stop": 5550.0},
    "scale": {"ranges": [[5100.0, 5200.0], [5300.0, 5400.0]]},
    "crop": {"start": 5100.0, "stop": 5500.0},
    "noise_floor": {},
    "correlated_noise": {"pixels": 3.8},
    "measure_snr": {"bands": True},
    "fill_masked": {},
}


def _step(example: str) -> Step:
    return Preparation.from_config([{"step": example.split("-", maxsplit=1)[0], **EXAMPLES[example]}]).steps[0]


def _spectra(n: int = 7, medium: str = "air") -> Spectra:
    """Noisy spectra with lines, masked pixels, mask bits, a gap in the grid, and different velocities and resolutions."""
    rng = np.random.default_rng(5)  # fixed: the same spectra every time
    wavelength = np.arange(5000.0, 5600.0, 1.0)
    wavelength = wavelength[(wavelength < 5245) | (wavelength > 5260)]
    depth = rng.uniform(0.2, 0.6, (n, 1))
    flux = 1 - depth * np.exp(-0.5 * ((wavelength - 5180) / 3) ** 2) + 1e-4 * (wavelength - 5300)
    flux = (flux + 0.02 * rng.normal(size=flux.shape)) * rng.uniform(10, 1000, (n, 1))
    ivar = rng.uniform(0.5, 2, flux.shape) / (0.02 * np.median(flux, axis=1, keepdims=True)) ** 2
    ivar[rng.random(flux.shape) < 0.05] = 0.0
    ivar[0, 200:240] = 0.0
    mask = np.where(rng.random(flux.shape) < 0.02, np.uint32(PixelFlag.BRIGHT_SKY), np.uint32(0))
    meta = empty_meta(n)
    meta["rv"] = rng.normal(0, 80, n)
    meta["fwhm"] = np.resize([3.0, 2.9], n)
    return Spectra.from_arrays(
        wavelength, flux, ivar=ivar, medium=medium, frame="observed", ids=[f"s{i}" for i in range(n)], meta=meta, mask=mask
    )


def _copies(spectra: Spectra) -> list[np.ndarray]:
    return [np.array(a) for a in (spectra.wavelength, spectra.flux, spectra.ivar, spectra.mask, *spectra.meta.itercols())]


def _assert_same(a: Spectra, b: Spectra, tolerance: float = 1e-12) -> None:
    np.testing.assert_array_equal(a.wavelength, b.wavelength)
    np.testing.assert_allclose(a.flux, b.flux, rtol=tolerance, atol=tolerance * np.abs(a.flux).max(initial=0))
    np.testing.assert_allclose(a.ivar, b.ivar, rtol=tolerance, atol=tolerance * a.ivar.max(initial=0))
    assert list(a.ids) == list(b.ids)
    assert a.meta.colnames == b.meta.colnames
    for name in a.meta.colnames:
        if a.meta[name].dtype.kind == "f":
            scale = tolerance * max(1.0, float(np.abs(np.nan_to_num(a.meta[name])).max(initial=0)))
            np.testing.assert_allclose(a.meta[name], b.meta[name], rtol=tolerance, atol=scale, err_msg=name)
        else:
            assert list(a.meta[name]) == list(b.meta[name])
    if a.mask is not None and b.mask is not None:
        np.testing.assert_array_equal(a.mask, b.mask)
    else:
        assert not np.any(a.mask if a.mask is not None else b.mask if b.mask is not None else 0)


every_step = pytest.mark.parametrize("example", EXAMPLES)


def test_every_registered_step_has_an_example() -> None:
    assert {e.split("-", maxsplit=1)[0] for e in EXAMPLES} == set(STEPS)


@every_step
def test_the_input_is_unchanged(example: str) -> None:
    spectra = _spectra()
    before = _copies(spectra)
    out = _step(example)(spectra)
    assert isinstance(out, Spectra)
    for old, new in zip(before, _copies(spectra), strict=True):
        np.testing.assert_array_equal(old, new)


@every_step
def test_configuration_there_and_back(example: str) -> None:
    step = _step(example)
    assert isinstance(step, Step)
    config = step.to_config()
    again = Preparation.from_config(json.loads(json.dumps([config]))).steps[0]
    assert again == step
    assert again.to_config() == config
    assert Preparation((again,)).fingerprint == Preparation((step,)).fingerprint


@every_step
def test_one_spectrum_alone_is_the_same_as_in_a_batch(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    together = step(spectra)
    for i in range(len(spectra)):
        _assert_same(step(spectra[[i]]), together[[i]])


@every_step
def test_the_order_is_irrelevant(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    order = np.array([3, 0, 6, 2, 5, 1, 4])
    _assert_same(step(spectra[order]), step(spectra)[order])


@every_step
def test_masked_pixels_have_no_influence(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    rng = np.random.default_rng(6)
    garbage = np.where(spectra.ivar > 0, spectra.flux, rng.choice([1e6, -1e6, 1e12], spectra.flux.shape))
    clean, dirty = step(spectra), step(spectra.with_pixels(flux=garbage))
    np.testing.assert_array_equal(clean.ivar, dirty.ivar)
    np.testing.assert_array_equal(np.where(clean.ivar > 0, clean.flux, 0), np.where(dirty.ivar > 0, dirty.flux, 0))
    for name in clean.meta.colnames:
        np.testing.assert_array_equal(np.array(clean.meta[name]), np.array(dirty.meta[name]), err_msg=name)


@every_step
def test_a_fully_masked_spectrum_and_a_dark_one_pass_without_nan(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    ivar, flux = spectra.ivar.copy(), spectra.flux.copy()
    ivar[1] = 0.0
    flux[2] = 0.0
    flux[3] = -flux[3]
    out = step(spectra.with_pixels(ivar=ivar, flux=flux))  # Spectra itself refuses NaN, infinity and negative ivar
    assert len(out) == len(spectra)
    if example != "fill_masked":
        assert not out.ivar[1].any()
    _assert_same(out[[0, 4, 5, 6]], step(spectra)[[0, 4, 5, 6]])


@every_step
def test_a_batch_of_no_spectra(example: str) -> None:
    assert len(_step(example)(_spectra()[:0])) == 0


@every_step
def test_extreme_values_stay_finite(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    flux, ivar = spectra.flux.copy(), spectra.ivar.copy()
    flux[0], ivar[0] = flux[0] * 1e-17, ivar[0] * 1e34  # erg/s/cm²/Å, as flux-calibrated archives give it
    ivar[1, 100:110] = 1e-300
    out = step(spectra.with_pixels(flux=flux, ivar=ivar))
    assert np.isfinite(out.flux).all()
    assert np.isfinite(out.ivar).all()


@every_step
def test_single_precision_input_is_summed_in_double(example: str) -> None:
    spectra, step = _spectra(), _step(example)
    single = spectra.with_pixels(flux=spectra.flux.astype(np.float32), ivar=spectra.ivar.astype(np.float32))
    double = single.with_pixels(flux=single.flux.astype(np.float64), ivar=single.ivar.astype(np.float64))
    _assert_same(step(single), step(double), 1e-6)


def test_defaults_are_real() -> None:
    for name, cls in STEPS.items():
        if name not in ("degrade", "measure_rv"):  # there is no sensible default target or template, and they say so
            assert cls().to_config()["step"] == name
    assert Resample().grid().size == 3000
