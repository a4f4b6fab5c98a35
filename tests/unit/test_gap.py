"""The synthetic gap: what is flagged and what is not, on spectra whose distance from the training spectra is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maury.assess.domain import SNR_VARIANTS, set_gap
from maury.assess.gap import SyntheticGap, largest, stretches
from maury.emulate import train_cannon
from maury.emulate.covariance import ModelError
from maury.errors import UsageError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.flags import ResultFlag
from maury.grids import AnalyticSpectra
from maury.labels import Label
from maury.model import Model
from maury.prepare import Preparation
from maury.protocols import ModelCovariance
from maury.report.gap_figure import OBSERVED, gap_error_figure, gap_figure, gap_map, has_umap
from maury.spectra import Spectra
from maury.store import load_model, save_model

STAR = AnalyticSpectra(("teff", "logg", "fe_h"))
WAVELENGTH = 5000.0 + np.arange(400)
LOW, HIGH = np.array([4200.0, 1.5, -1.5]), np.array([6800.0, 5.0, 0.4])
SHIFT = 1.0 + 10.0 / 299792.458  # 10 km/s: less than a tenth of a line width
N_NEW = 600
MOST = 0.015 + 3 * np.sqrt(0.015 * 0.985 / N_NEW)  # 1 % beyond the 99th percentile, 1.5 % with the limit's own scatter; 3 sigma


def _values(n: int, seed: int) -> np.ndarray:
    return LOW + np.random.default_rng(seed).random((n, 3)) * (HIGH - LOW)


def _clean(n: int, seed: int, stretch: float = 1.0) -> Spectra:
    values = _values(n, seed)
    spectra = STAR.spectra(WAVELENGTH, values, snr=1000, seed=seed)
    return spectra.with_pixels(flux=STAR.normalised(WAVELENGTH * stretch, values))


def _noisy(spectra: Spectra, snr: float, seed: int) -> Spectra:
    noise = np.random.default_rng(seed).standard_normal(spectra.flux.shape) / snr
    return spectra.with_pixels(flux=spectra.flux + noise, ivar=np.full(noise.shape, snr**2))


TRAINING = {"clean": _clean(1500, 1), "noisy": _noisy(_clean(1500, 1), 100.0, 2)}


@pytest.fixture(scope="module", params=TRAINING)
def gap(request: pytest.FixtureRequest) -> SyntheticGap:
    return _gap(TRAINING[request.param])


def _gap(spectra: Spectra) -> SyntheticGap:
    found = SyntheticGap.from_training(spectra)
    assert found is not None
    return found


def _share(gap: SyntheticGap, spectra: Spectra, covariance: ModelCovariance | None = None) -> float:
    return float((largest(gap.ratios(spectra, covariance)) > 1.0).mean())


@pytest.mark.parametrize("snr", [20.0, 100.0, 1000.0])
def test_new_spectra_of_the_same_kind_have_no_gap(gap: SyntheticGap, snr: float) -> None:
    new = _noisy(_clean(N_NEW, 3), snr, 4)
    assert _share(gap, new) < MOST
    bad = np.random.default_rng(5).random(new.flux.shape) < 0.1
    bad[:, 120:200] = True  # and a block
    assert _share(gap, new.with_pixels(ivar=np.where(bad, 0.0, new.ivar))) < MOST


def test_spectra_of_another_kind_have_one(gap: SyntheticGap) -> None:
    """At S/N 300: 60 km/s is half a line width; a fifth of the lines' depths filled in at random is no star's label."""
    assert _share(gap, _noisy(_clean(100, 3, 1.0 + 60.0 / 299792.458), 300.0, 4)) == 1.0
    lines = _clean(100, 3)
    wrong = 1.0 - (1.0 - lines.flux) * (1.0 + 0.5 * np.sin(WAVELENGTH / 7.0))
    assert _share(gap, _noisy(lines.with_pixels(flux=wrong), 300.0, 4)) == 1.0


def test_noise_hides_a_gap_and_is_never_one() -> None:
    """What is there at S/N 300 cannot be told at S/N 3, where lines are lost in noise."""
    gap = _gap(TRAINING["clean"])
    shifted = _clean(100, 3, 1.0 + 60.0 / 299792.458)
    assert _share(gap, _noisy(shifted, 3.0, 4)) == 0.0
    assert _share(gap, _noisy(shifted.with_pixels(flux=np.ones(shifted.flux.shape)), 300.0, 4)) == 0.0  # no lines: no direction


def test_what_the_model_says_it_lacks_is_no_gap() -> None:
    """Stars drawn with the error that the covariance allows for, as in ``maury demo``; the same stars without it are flagged."""
    error = ModelError(floor=0.01, correlated_pixels=8.0, lines=(5100.0, 5250.0), core_widths=(2.0,), core_amplitude=0.4)
    covariance = error.added_to(ModelCovariance(np.full(len(WAVELENGTH), 1e-6)), WAVELENGTH)
    clean = _clean(N_NEW, 3)
    stars = clean.with_pixels(flux=clean.flux + error.draw(WAVELENGTH, N_NEW, np.random.default_rng(6)))
    gap = _gap(TRAINING["clean"])
    assert _share(gap, _noisy(stars, 200.0, 4), covariance) < MOST
    assert _share(gap, _noisy(stars, 200.0, 4)) > 0.5
    unknown = ModelCovariance(np.where(WAVELENGTH < 5150, np.inf, 1e-6))
    spoilt = np.where(WAVELENGTH < 5150, 3.0, clean.flux)
    np.testing.assert_array_equal(gap.ratios(clean.with_pixels(flux=spoilt), unknown), gap.ratios(clean, unknown))


def test_contract(gap: SyntheticGap) -> None:
    """Masked pixels have no influence, a star alone is the star in a batch, inputs stay as they are, files hold all of it."""
    spectra = _noisy(_clean(80, 7), 100.0, 8)
    bad = np.random.default_rng(9).random(spectra.flux.shape) < 0.1
    bad[3, 40:] = True
    spectra = spectra.with_pixels(ivar=np.where(bad, 0.0, spectra.ivar))
    ratios = gap.ratios(spectra)
    assert np.isnan(ratios[3]).all()  # a tenth of the pixels tells nothing
    assert np.isnan(largest(ratios)[3])
    np.testing.assert_array_equal(gap.ratios(spectra.with_pixels(flux=np.where(bad, 1e6, spectra.flux))), ratios)
    np.testing.assert_allclose(gap.ratios(spectra[::-1])[::-1], ratios, rtol=1e-9)
    np.testing.assert_allclose(gap.ratios(spectra[70:71]), ratios[70:71], rtol=1e-9)
    arrays, config = gap.to_arrays()
    assert sum(array.nbytes for array in arrays.values()) < 4 * (100 * (len(WAVELENGTH) + 1000) + 2 * 1000) + 20_000
    np.testing.assert_array_equal(SyntheticGap.from_arrays(arrays, config).ratios(spectra), ratios)


def test_velocities_and_continua_that_a_fit_takes_out_are_no_gap() -> None:
    position = np.linspace(-1.0, 1.0, len(WAVELENGTH))
    modes = np.polynomial.legendre.legvander(position, 3).T
    gap = SyntheticGap.from_training(TRAINING["clean"], modes=modes)
    assert gap is not None
    away = 1.0 + 60.0 / 299792.458
    moved = _noisy(_clean(100, 3, 1.0 / away), 300.0, 4)
    assert _share(gap, moved) == 1.0
    assert (gap.ratios(moved, velocity=np.full(100, 60.0)) > 1.0).mean() < 0.05
    tilted = _noisy(_clean(100, 3), 300.0, 4)
    tilted = tilted.with_pixels(flux=tilted.flux + 0.1 * position + 0.05 * position**2)
    assert _share(gap, tilted) < 0.05
    assert _share(_gap(TRAINING["clean"]), tilted) == 1.0


def test_windows() -> None:
    spectra = TRAINING["clean"]
    gap = SyntheticGap.from_training(spectra, [(5000.0, 5099.0), (5200.0, 5399.0)])
    assert gap is not None
    new = _noisy(_clean(50, 3), 300.0, 4)
    wrong = np.where(WAVELENGTH < 5100, new.flux[:, ::-1], new.flux)
    share = (gap.ratios(new.with_pixels(flux=wrong)) > 1.0).mean(axis=0)
    assert share[0] == 1.0
    assert share[1] < 0.1
    assert SyntheticGap.from_training(spectra[:99]) is None
    with pytest.raises(UsageError, match="expected spectra on the model's grid of 400 pixels"):
        gap.ratios(new.with_pixels(wavelength=WAVELENGTH + 1.0))
    missing = new.with_pixels(flux=wrong, ivar=np.where(WAVELENGTH < 5100, 0.0, new.ivar))
    np.testing.assert_array_equal(largest(gap.ratios(missing)), gap.ratios(new.with_pixels(flux=wrong))[:, 1])


def test_windows_that_tell_nothing_are_left_out() -> None:
    """Too few pixels, or no lines: found when a training is over, where an error would lose it."""
    spectra = TRAINING["clean"]
    lineless = spectra.with_pixels(flux=np.where(WAVELENGTH < 5100, 1.0, spectra.flux))
    for useless in (5006.0, 5099.0):  # 7 and 100 pixels
        gap = SyntheticGap.from_training(lineless, [(5000.0, useless), (5200.0, 5399.0)])
        assert gap is not None
        assert [(window.low, window.high) for window in gap.windows] == [(5200.0, 5399.0)]
        assert SyntheticGap.from_training(lineless, [(5000.0, useless)]) is None
    assert SyntheticGap.from_training(spectra, []) is None


def test_stretches_are_those_of_the_windows_whatever_their_spacing() -> None:
    pieces = np.r_[WAVELENGTH[:50], WAVELENGTH[90:]]  # a grid with a gap
    seen = np.ones(len(pieces), dtype=bool)
    seen[200:210] = False
    assert stretches(pieces, seen) == [(5000.0, 5049.0), (5090.0, 5239.0), (5250.0, 5399.0)]
    assert stretches(pieces, ~seen) == [(5240.0, 5249.0)]
    assert stretches(pieces, np.zeros(len(pieces), dtype=bool)) == []
    starts, spacings = (5000.0, 5200.0, 5300.0), (0.02, 0.02, 0.06)  # the last as of a detector with wider pixels
    windows = [start + spacing * np.arange(1600) for start, spacing in zip(starts, spacings, strict=True)]
    grid = np.concatenate(windows)
    whole = [(window[0], window[-1]) for window in windows]
    assert stretches(grid, np.ones(len(grid), dtype=bool)) == whole
    assert stretches(grid, grid != windows[2][100]) == [
        *whole[:2],
        (windows[2][0], windows[2][99]),
        (windows[2][101], windows[2][-1]),
    ]


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_model_flags_it_keeps_it_and_may_be_without(tmp_path: Path) -> None:
    labels = (Label("teff", "K", coordinate="inverse"), Label("logg", "dex"), Label("fe_h", "dex"))
    preparation = Preparation.from_config([{"step": "resample", "start": 5000, "stop": 5400, "spacing": 1}])
    inferrer = EmulatorInferrer(train_cannon(TRAINING["noisy"], labels, _values(1500, 1)), ChiSquareFitter())
    bare = Model(preparation, inferrer)
    model = replace(bare, gap=_gap(TRAINING["noisy"]))
    new = _noisy(_clean(20, 3), 300.0, 4)
    flux = np.array(new.flux)
    flux[4] = flux[4, ::-1]
    new = new.with_pixels(flux=flux, preparation=preparation.fingerprint)
    found = model.infer_prepared(new)
    gap = np.asarray(found.meta["gap"])
    np.testing.assert_array_equal(np.flatnonzero(found.flag & int(ResultFlag.SYNTHETIC_GAP)), [4])
    np.testing.assert_array_equal(np.flatnonzero(gap > 1.0), [4])
    assert "gap" not in new.meta.colnames
    assert save_model(model, tmp_path / "model.safetensors") == model.model_id != bare.model_id
    np.testing.assert_array_equal(load_model(tmp_path / "model.safetensors").infer_prepared(new).meta["gap"], gap)
    assert "gap" not in bare.infer_prepared(new).meta.colnames
    with pytest.raises(UsageError, match="expected a model that knows its training spectra, got one without"):
        bare.checked_gap()


# -- sets --------------------------------------------------------------------------------------------------------------


def test_the_classifier_finds_nothing_where_there_is_nothing() -> None:
    """0.5 within four of its errors; shifted spectra of S/N 100 are told apart although no single one of them is flagged."""
    gap = _gap(TRAINING["clean"])
    same, moved = _noisy(_clean(200, 3), 100.0, 4), _noisy(_clean(200, 3, SHIFT), 100.0, 4)
    (nothing,) = set_gap(gap, same, gap.ratios(same))
    (something,) = set_gap(gap, moved, gap.ratios(moved))
    assert abs(nothing.auc - 0.5) < 4 * nothing.auc_error
    assert 0.01 < nothing.auc_error < 0.03  # 1 / sqrt(12 n) = 0.02
    assert something.auc > 0.95
    assert something.beyond < 0.1
    np.testing.assert_allclose(something.synthetic_share.mean(), something.auc)
    assert set_gap(gap, same, gap.ratios(same))[0].auc == nothing.auc  # seeded
    assert np.isnan(set_gap(gap, same[:19], gap.ratios(same[:19]))[0].auc)


def test_noise_closes_a_plain_distance() -> None:
    """Noisy spectra lie far from clean ones, and among ones of that noise or more."""
    gap = _gap(TRAINING["clean"])
    observed = _noisy(_clean(200, 3), 100.0, 4)
    plain = set_gap(gap, observed, gap.ratios(observed))[0].plain
    assert tuple(plain) == SNR_VARIANTS
    assert plain[np.inf] > 0.9
    assert plain[50.0] < 0.02
    assert sorted(plain.values(), reverse=True) == list(plain.values())


# -- figures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umap", [False, pytest.param(True, marks=pytest.mark.slow)])  # numba compiles for half a minute
def test_figures(umap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if umap:
        pytest.importorskip("umap")
    monkeypatch.setattr("maury.report.gap_figure.has_umap", lambda: umap and has_umap())
    groups = {"synthetic": _clean(40, 1).flux, OBSERVED: _clean(25, 2, 1.001).flux}
    points = gap_map(groups)
    assert {name: xy.shape for name, xy in points.items()} == {"synthetic": (40, 2), OBSERVED: (25, 2)}
    ratio = np.geomspace(0.005, 20.0, 25)
    assert len(gap_figure(points, ratio, axes="UMAP").axes) == 2
    labels = (Label("teff", "K"), Label("logg", "dex"))
    residual = np.outer(ratio, [100.0, 0.1])
    assert len(gap_error_figure(labels, ratio, residual, ["a", "b"]).axes) == 2
    with pytest.raises(UsageError, match="expected one to four synthetic groups and 'observed'"):
        gap_figure({"synthetic": points["synthetic"]}, ratio, axes="UMAP")
    with pytest.raises(UsageError, match=r"expected residuals \(25, 2\) and a note for each label, got \(25, 1\) and 2"):
        gap_error_figure(labels, ratio, residual[:, :1], ["a", "b"])
