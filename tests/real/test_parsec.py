"""PARSEC tables as they were downloaded, and fits that start from photometry on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maury.emulate import CannonConfig, train_cannon
from maury.fit import ChiSquareFitter, PhotometricStarts
from maury.grids import AnalyticSpectra, Isochrones, read_isochrones
from maury.labels import make_label
from maury.spectra import Spectra


@pytest.fixture(scope="module")
def isochrones(data: Path) -> Isochrones:
    files = sorted((data / "isochrones").glob("*/*"))
    if not files:
        pytest.skip(f"no isochrones in {data}")
    return read_isochrones(files)


def test_all_of_them_are_read(isochrones: Isochrones) -> None:
    assert np.isfinite([isochrones.teff, isochrones.logg, isochrones.m_h, isochrones.log_age]).all()
    assert np.unique(isochrones.log_age.round(2)).size > 15
    np.testing.assert_allclose(np.unique(isochrones.m_h.round(2)), [-1.33, -0.76, -0.25, 0.0, 0.02, 0.29])
    assert 0 < isochrones.has_photometry.sum() < len(isochrones)  # the tables in UBVRIJHK have no Gaia magnitudes


def test_a_star_like_the_sun(isochrones: Isochrones) -> None:
    """BP-RP = 0.82, M_G = 4.67 (Casagrande & VandenBerg 2018, MNRAS 479, L102: the Sun in Gaia's bands): 5772 K, 4.44.

    The nearest point of a handful of isochrones is good to some percent and a tenth of a dex, no better.
    """
    teff, logg = PhotometricStarts.from_isochrones(isochrones).guess([0.82], [4.67])
    assert teff[0] == pytest.approx(5772, abs=150)
    assert logg[0] == pytest.approx(4.44, abs=0.15)


def test_photometry_finds_lower_minima_than_one_start_alone(isochrones: Isochrones) -> None:
    """Few noisy pixels and a cubic model: several minima. In addition to the searched start, so never worse than it."""
    rng = np.random.default_rng(7)
    cool = np.flatnonzero(
        isochrones.has_photometry
        & (isochrones.stage >= 1)
        & (isochrones.stage <= 4)
        & (isochrones.log_age > 8.7)
        & (isochrones.teff > 3500)
        & (isochrones.logg < 5)
    )
    names = ("teff", "logg", "fe_h")
    labels = tuple(make_label(n, "K" if n == "teff" else "dex", "inverse" if n == "teff" else "linear") for n in names)

    def stars(n: int, snr: float, seed: int) -> tuple[Spectra, np.ndarray]:
        point = rng.choice(cool, n)
        values = np.column_stack([isochrones.teff[point], isochrones.logg[point], rng.uniform(-1.0, 0.5, n)])
        spectra = AnalyticSpectra(names).spectra(np.arange(5100.0, 5220.0, 2.0), values, snr=snr, seed=seed)
        meta = spectra.meta.copy()
        meta["bp_rp"] = isochrones.bp_rp[point] + rng.normal(0.0, 0.05, n)
        meta["m_g"] = isochrones.m_g[point] + rng.normal(0.0, 0.2, n)
        return spectra.with_pixels(meta=meta), values

    training, values = stars(800, 200.0, 1)
    emulator = train_cannon(training, labels, values, CannonConfig(order=3))
    spectra, _ = stars(300, 10.0, 2)
    alone = ChiSquareFitter(n_starts=1, n_candidates=64)
    without = alone.fit(spectra, emulator).chi2
    together = replace(alone, photometry=PhotometricStarts.from_isochrones(isochrones)).fit(spectra, emulator).chi2
    assert (together <= without + 1e-3).all()
    assert (together < without - 0.1).any()  # how often depends on where the searched start lies: no number is promised
