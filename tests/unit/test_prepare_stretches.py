"""Order statistics of stretches: both ways of finding them against numpy, stretch by stretch, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from maury.prepare import stretches
from maury.prepare.stretches import Stretches, statistics

FIELDS = ("position", "middle", "top", "median", "scatter", "n_pixels")


def one_by_one(
    wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray, where: Stretches, percentiles: tuple[float, float]
) -> list[list[float]]:
    found = []
    for row, low, high in zip(*where, strict=True):
        ok = good[row, low:high]
        values, places = flux[row, low:high][ok], wavelength[low:high][ok]
        if values.size == 0:
            found.append([0.0] * 6)
            continue
        bottom, top = np.percentile(values, percentiles)
        between = values[(values >= bottom) & (values <= top)]
        median = np.median(values)
        middle = np.median(between) if between.size else 0.5 * (bottom + top)
        found.append([np.median(places), middle, top, median, np.median(np.abs(values - median)), values.size])
    return found


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Stretches]:
    """Random spectra, masks and stretches: every third with all values different, some equal, most equal."""
    rng = np.random.default_rng(seed)
    n_spectra, n_pixels, n_stretches = rng.integers([1, 1, 1], [5, 400, 40])
    flux = rng.normal(size=(n_spectra, n_pixels))
    if seed % 3:
        flux = np.round(flux, 2 - seed % 3)
    good = rng.random(flux.shape) >= rng.choice([0.0, 0.1, 0.9])
    low = rng.integers(0, n_pixels, n_stretches)
    high = np.minimum(low + 1 + rng.integers(0, n_pixels, n_stretches), n_pixels)
    wavelength = np.cumsum(rng.uniform(0.1, 1.0, n_pixels))
    return wavelength, flux, good, Stretches(rng.integers(0, n_spectra, n_stretches), low, high)


@pytest.mark.parametrize("short", [0, 10**9], ids=["ranked", "sorted"])
def test_as_numpy_finds_them(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "_SHORT", short)
    for seed in range(60):
        percentiles = ((0.0, 50.0, 70.0, 85.0)[seed % 4], 98.0)
        wavelength, flux, good, where = case(seed)
        expected = one_by_one(wavelength, flux, good, where, percentiles)
        found = statistics(wavelength, flux, good, where, percentiles)
        for name, values in zip(FIELDS, np.transpose(expected), strict=True):
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=f"{name}, seed {seed}")


def test_nothing_asked_nothing_found() -> None:
    none = np.zeros(0, dtype=np.intp)
    found = statistics(np.arange(5.0), np.ones((1, 5)), np.ones((1, 5), bool), Stretches(none, none, none), (70.0, 98.0))
    assert all(values.size == 0 for values in found)
