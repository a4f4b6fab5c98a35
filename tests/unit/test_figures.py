"""Figures: they draw what they are given, leave matplotlib alone, and are saved whole and repeatably."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from matplotlib.figure import Figure

from maury.assess.calibration import galgano2020_error_model
from maury.emulate import train_cannon
from maury.errors import UsageError
from maury.fit import ChiSquareFitter, EmulatorInferrer
from maury.fit.continuum import ContinuumModes
from maury.fit.velocity import VelocityLabel
from maury.grids import AnalyticSpectra
from maury.labels import LabelSet, make_label
from maury.report import (
    cross_validation_figure,
    fit_example,
    fit_figure,
    kiel_diagram,
    pull_histogram,
    save_figure,
    snr_error_figure,
    true_vs_recovered,
)
from maury.report.generated_figure import generated_figure
from maury.report.style import axis_name, decimals, signed
from maury.spectra import Spectra

LABELS = LabelSet((make_label("teff", "K"), make_label("logg", "dex")), (5000.0, 4.0), (500.0, 0.5), (4000.0, 1.0), (7000.0, 5.0))


def stars(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    true = np.column_stack([rng.uniform(4000, 7000, n), rng.uniform(1, 5, n)])
    errors = np.full((n, 2), [80.0, 0.2])
    estimated = true + rng.normal(size=(n, 2)) * errors
    estimated[0] = np.nan
    return true, estimated, errors


def catalogue() -> Table:
    _, estimated, errors = stars()
    table = Table({"teff": estimated[:, 0], "logg": estimated[:, 1], "e_teff": errors[:, 0], "e_logg": errors[:, 1]})
    table["fe_h"] = MaskedColumn(np.linspace(-1, 0.5, 60), mask=np.arange(60) == 3)
    table["flag"] = (np.arange(60) % 6 == 0).astype(np.int32)
    table["teff"].unit = "K"
    return table


def spectrum() -> tuple[np.ndarray, ...]:
    wavelength = np.linspace(5000.0, 5100.0, 200)
    model = 1.0 - 0.5 * np.exp(-(((wavelength - 5050.0) / 3.0) ** 2))
    ivar = np.full(200, 400.0)
    ivar[50:60] = 0.0
    return wavelength, model + 0.01, ivar, model


def all_figures() -> dict[str, Figure]:
    true, estimated, errors = stars()
    return {
        "kiel": kiel_diagram(catalogue(), title="stars"),
        "true": true_vs_recovered(LABELS, true, estimated, errors, np.arange(60) % 7 == 0, title="stars"),
        "pulls": pull_histogram(LABELS, true, estimated, errors),
        "fit": fit_example(*spectrum(), medium="vacuum", text="5777 K"),
        "snr": snr_error_figure(galgano2020_error_model(), others={"as published": galgano2020_error_model("as_published")}),
        "bins": snr_error_figure(galgano2020_error_model(), bins=(np.array([60.0, 100.0]), np.ones((2, 4)))),
        "cv": cross_validation_figure(LABELS, true, estimated, errors),
    }


def test_all_are_drawn_and_saved_without_touching_matplotlib(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    for name, figure in all_figures().items():
        assert isinstance(figure, Figure)
        save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    assert len(list(tmp_path.iterdir())) == 7


def test_no_pyplot_is_imported() -> None:
    code = "import sys, maury.report.figures as f; from maury.report.style import new_figure; new_figure(1, 1)"
    code += "; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_same_figure_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save_figure(fit_example(*spectrum()), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_places_and_formats_that_cannot_be_saved(tmp_path: Path) -> None:
    figure = fit_example(*spectrum())
    with pytest.raises(UsageError, match=r"expected a figure name ending in \.png, \.pdf, \.svg, got .*jpg; add one"):
        save_figure(figure, tmp_path / "x.jpg")
    with pytest.raises(UsageError, match="make the folder first"):
        save_figure(figure, tmp_path / "none" / "x.png")


def test_kiel_diagram_runs_the_way_astronomers_read_it() -> None:
    axes = kiel_diagram(catalogue()).axes[0]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["flagged (9)", "not flagged (50)"]  # star 0 is flagged and has no labels
    hollow, filled = axes.collections[:2]
    assert len(hollow.get_offsets()) == 9
    assert len(hollow.get_facecolors()) == 0
    assert len(filled.get_offsets()) == 50


def test_kiel_diagram_needs_only_teff_and_logg() -> None:
    table = catalogue()["teff", "logg"]
    assert len(kiel_diagram(table).axes) == 1
    with pytest.raises(UsageError, match="expected the columns teff and logg for a Kiel diagram, got none of logg"):
        kiel_diagram(table["teff",])


def test_numbers_in_the_figure_are_those_of_the_unflagged_stars() -> None:
    true, estimated, _ = stars()
    flags = np.zeros(60, int)
    flags[:10] = 4
    estimated[:10] += 1000.0
    figure = true_vs_recovered(LABELS, true, estimated, None, flags)
    residual = (estimated - true)[10:, 0]
    text = figure.axes[0].texts[0].get_text()
    assert "n = 50" in text
    assert f"bias {signed(float(np.median(residual)), 0)} K" in text
    assert "9 flagged: hollow" in text


def test_masked_pixels_are_shaded_and_not_drawn() -> None:
    figure = fit_example(*spectrum())
    upper = figure.axes[0]
    step = upper.lines[0].get_ydata()
    assert np.isnan(step[50:60]).all()
    assert np.isfinite(step[:50]).all()
    assert len(upper.patches) == 1
    with pytest.raises(UsageError, match="of one length"):
        fit_example([1.0, 2.0], [1.0], [1.0], [1.0])


def test_flags_of_single_labels_and_labels_in_two_rows() -> None:
    """Six labels: two rows of three, each label's flagged stars left out of its own numbers alone."""
    labels = LabelSet.from_training([make_label(f"x{k}", "dex") for k in range(6)], np.arange(12.0).reshape(2, 6))
    true = np.tile(np.linspace(0.0, 1.0, 20)[:, None], (1, 6))
    flags = np.zeros((20, 6), int)
    flags[:5, 4] = 1
    figure = true_vs_recovered(labels, true, true + 0.01, None, flags)
    assert len(figure.axes) == 12
    numbers = [axes.texts[0].get_text().splitlines()[0] for axes in figure.axes if axes.texts]
    assert numbers == ["n = 20"] * 4 + ["n = 15", "n = 20"]
    five = labels.only(labels.names[:5])
    assert len(pull_histogram(five, true[:, :5], true[:, :5] + 0.01, np.full((20, 5), 0.1)).axes) == 5
    assert len(true_vs_recovered(five, true[:, :5], true[:, :5]).axes) == 10


def test_a_flagged_failure_does_not_set_the_limits() -> None:
    true = np.linspace(4000.0, 6000.0, 20)[:, None]
    labels = LabelSet.from_training([make_label("teff", "K")], true)
    estimated, flags = true + 10.0, np.zeros(20, int)
    estimated[3], flags[3] = 90000.0, 4
    assert true_vs_recovered(labels, true, estimated, None, flags).axes[0].get_ylim()[1] < 7000.0


def test_a_fit_shows_its_velocity_and_shades_what_it_did_not_use() -> None:
    """The model at the labels found, moved by the velocity found; pixels within reach of the ends are not used by such a fit."""
    wavelength = np.arange(5000.0, 5100.0, 0.5)
    values = np.random.default_rng(1).uniform([4500.0, 2.0], [6000.0, 4.5], (60, 2))
    analytic = AnalyticSpectra(("teff", "logg"))
    training = analytic.spectra(wavelength, values, snr=500.0, seed=1)
    emulator = train_cannon(training, (make_label("teff", "K"), make_label("logg", "dex")), values)
    inferrer = EmulatorInferrer(emulator, ChiSquareFitter(velocity=VelocityLabel(60.0), continuum=ContinuumModes(2, 0.01)))
    flux = analytic.flux(wavelength, values[:1], [30.0]) / analytic.continuum(wavelength, values[:1])
    noisy = flux + 0.005 * np.random.default_rng(2).normal(size=flux.shape)
    star = Spectra.from_arrays(wavelength, noisy, error=np.full(flux.shape, 0.005), medium="vacuum", frame="rest")
    estimate = inferrer.infer(star)
    figure = fit_figure(star, inferrer, estimate)
    upper, lower = figure.axes
    text = upper.texts[0].get_text()
    assert abs(estimate.values[0, 2] - 30.0) < 4 * estimate.errors[0, 2]
    assert r"$\Delta v_\mathrm{r}$ = " in text
    assert f"χ² = {estimate.chi2[0]:.0f} for {estimate.n_pixels[0]} pixels" in text
    drawn = np.isfinite(upper.lines[0].get_ydata())
    assert drawn.sum() == estimate.n_pixels[0] < len(wavelength)
    assert not drawn[:2].any()  # 60 km/s are 1 Å
    residual = lower.lines[1].get_ydata()[drawn]
    assert float((residual**2).sum()) == pytest.approx(float(estimate.chi2[0]), rel=0.3)  # its modes are drawn, not marginalised


def test_an_upper_limit_is_written_as_one() -> None:
    """Value and error of the limit together: 0 ± 2.4 km/s is less than 2.4; a value at another bound says so."""
    from maury.emulate.cannon import CannonEmulator
    from maury.emulate.polynomial import PolynomialTerms
    from maury.estimates import LabelEstimates
    from maury.flags import ResultFlag
    from maury.protocols import ModelCovariance

    wavelength = np.arange(5000.0, 5100.0, 0.5)
    names = (make_label("teff", "K"), make_label("vsini", "km/s"))
    labels = LabelSet.from_training(names, np.array([[4000.0, 0.0], [6000.0, 100.0]]))
    polynomial = PolynomialTerms.of_order(2, 1)
    emulator = CannonEmulator(
        labels, wavelength, np.eye(3, len(wavelength)) + 1.0, ModelCovariance(1e-6 + 0 * wavelength), polynomial
    )
    star = Spectra.from_arrays(wavelength, np.ones((1, 200)), error=np.full((1, 200), 0.01), medium="vacuum", frame="rest")
    bits = np.array([[int(ResultFlag.AT_BOUND), int(ResultFlag.UPPER_LIMIT)]])
    estimate = LabelEstimates.missing(labels, ["s"], [""], star.meta, 0).with_(
        values=np.array([[6000.0, 0.0]]),
        covariance=np.diag([50.0**2, 2.4**2])[None],
        chi2=np.array([180.0]),
        n_pixels=np.array([200]),
        label_flags=bits,
    )
    lines = fit_figure(star, EmulatorInferrer(emulator, ChiSquareFitter()), estimate).axes[0].texts[0].get_text().splitlines()
    assert lines[0].endswith("= 6000 ± 50 K, at a bound")
    assert lines[1].endswith("< 2.4 km s$^{-1}$") or lines[1].endswith("< 2.4 km/s")
    assert "±" not in lines[1]


def test_generated_spectra_stand_over_the_computed_ones_with_their_errors_in_per_cent() -> None:
    wavelength = np.linspace(8400.0, 8800.0, 50)
    true = np.stack([1.0 - 0.5 * np.exp(-0.5 * ((wavelength - centre) / 20) ** 2) for centre in (8500.0, 8650.0)])
    made = {"generator": true + 0.01, "small generator": true - np.array([[0.002], [0.03]])}
    figure = generated_figure(wavelength, true, made, ["a dwarf", "a giant"], medium="air")
    assert len(figure.axes) == 4
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == ["a dwarf", "a giant"]
    for row, error in ((0, (1.0, -0.2)), (1, (1.0, -3.0))):
        drawn = [line.get_ydata() for line in figure.axes[2 * row + 1].lines[:2]]
        np.testing.assert_allclose(np.mean(drawn, axis=1), error, atol=1e-9)
        low, high = figure.axes[2 * row + 1].get_ylim()
        assert low < min(error)
        assert high > max(error)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["computed", "generator", "small generator"]
    assert "air" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_few_stars(tmp_path: Path, n: int) -> None:
    true, estimated, errors = (array[1 : 1 + n] for array in stars())
    for figure in (
        kiel_diagram(catalogue()[:n]),
        true_vs_recovered(LABELS, true, estimated, errors),
        pull_histogram(LABELS, true, estimated, errors),
    ):
        save_figure(figure, tmp_path / "x.png")
    if n >= 2:
        save_figure(cross_validation_figure(LABELS, true, estimated, errors), tmp_path / "x.png")
    else:
        with pytest.raises(UsageError, match="expected at least two stars with different teff, got"):
            cross_validation_figure(LABELS, true, estimated, errors)


def test_a_spectrum_without_usable_pixels(tmp_path: Path) -> None:
    wavelength, flux, ivar, model = spectrum()
    save_figure(fit_example(wavelength, flux, ivar * 0.0, model), tmp_path / "x.png")


def test_words_on_axes() -> None:
    assert axis_name("teff", "K") == r"$T_\mathrm{eff}$  [K]"
    assert axis_name("radius", "solRad") == r"$R$  [$R_\odot$]"
    assert axis_name("chi2", "") == "chi2"
    assert (signed(-0.001, 2), signed(-1.26, 1), signed(3.0, 0)) == ("0.00", "−1.3", "+3")
    assert [decimals(x) for x in (83.0, 0.22, 0.015, 0.0, float("nan"))] == [0, 2, 3, 2, 2]
