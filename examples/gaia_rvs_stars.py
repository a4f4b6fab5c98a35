"""What the model gaia-rvs that ships makes of real stars, and where the numbers of its recipe come from.

python examples/gaia_rvs_stars.py --data data -o gaia_rvs_stars

KOI-1 and HD 176650 as the model ships, without the cores of the Ca II triplet, with the cores counted like other pixels, without
the relation for v_micro, and with v_micro held at 1.5 km/s: changes in units of the formal errors, which should cover the first.
Then what [train.model_error] and the step correlated_noise of the recipe were read off: rms and autocorrelation of residuals, and
how much shallower than computed the cores are. Then errors of simulated stars by S/N: what is left at the highest is the model's.
Last an M dwarf, which is outside the model, from echelle orders of HPF. Figures of both Gaia stars go into the folder.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maury import LabelEstimates, Model, Spectra, load_model, read_file, read_files
from maury.fit.inferrer import EmulatorInferrer, fitted
from maury.fit.prior import LabelPrior
from maury.flags import ResultFlag, names_of
from maury.prepare import Degrade, Gisic, Resample
from maury.prepare.grid import with_meta
from maury.prepare.velocity import CrossCorrelation, CrossCorrelator
from maury.protocols import ModelCovariance
from maury.report import fit_figure, save_figure

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TRIPLET = (8500.35, 8544.44, 8664.52)
"""Å in vacuum: Ca II."""
MASKED, CORE, WINGS = 2.5, 1.0, 15.0
"""Å on either side of the lines: what "without cores" leaves out; where their depth is measured; where other lines are not."""
KOI_1 = (5850.0, 4.43, -0.01, 1.1, 2.0)
"""K, dex, dex from the literature; km/s, usual values for such a star."""
TEMPLATE = (3700.0, 4.9, 0.0, 1.0, 2.0)
"""The model's coolest dwarf: template of the M dwarf's velocity."""
SIMULATED = {
    "like the Sun": (5777.0, 4.44, 0.0, 1.02, 3.0),
    "F dwarf": (6200.0, 4.2, 0.0, 1.4, 8.0),
    "K dwarf": (5100.0, 4.55, 0.0, 0.7, 3.0),
    "giant": (4700.0, 2.5, -0.1, 1.0, 3.0),
    "A star, 100 km/s": (9000.0, 4.0, 0.0, 2.0, 100.0),
}
SNR = (20.0, 50.0, 200.0, 1000.0)
LAGS = 15
EDGE = 5.0
"""Å at either end that residuals are not judged in: lines beyond are not known there."""


def near(wavelength: FloatArray, reach: float) -> BoolArray:
    """(n_pixels,) within ``reach`` Å of a line of the triplet."""
    return np.asarray(np.any([np.abs(wavelength - line) < reach for line in TRIPLET], axis=0))


def without_cores(star: Spectra) -> Spectra:
    """The star with the cores masked."""
    return star.with_pixels(ivar=np.where(near(star.wavelength, MASKED), 0.0, star.ivar))


def with_cores_counted(model: Model) -> Model:
    """The model without the shapes by which the cores may be wrong, which are the only factors of its covariance."""
    inferrer = fitted(model.inferrer)
    assert isinstance(inferrer, EmulatorInferrer)  # no regions
    alone = inferrer.emulator.with_covariance(ModelCovariance(inferrer.emulator.model_covariance.diagonal))
    return replace(model, inferrer=replace(inferrer, emulator=alone))


def with_v_micro(model: Model, v_micro: float | None) -> Model:
    """The model with another prior than its relation: v_micro (km/s) held to 0.05, or left free."""
    inferrer = fitted(model.inferrer)
    held = None
    if v_micro is not None:
        held = LabelPrior.from_relation(inferrer.emulator.labels, "v_micro", {"v_micro": v_micro}, {}, 0.05)
    return replace(model, inferrer=replace(inferrer, fitter=replace(inferrer.fitter, prior=held)))


def in_words(estimates: LabelEstimates) -> str:
    """Labels with errors, chi-square and flags of one star."""
    shown = []
    for label, value, error in zip(estimates.labels.labels, estimates.values[0], estimates.errors[0], strict=True):
        digits = 0 if label.unit == "K" else 2
        shown.append(f"{label.name} {value:.{digits}f} ± {error:.{digits}f}")
    flags = ", ".join(names_of(ResultFlag, int(estimates.flag[0]))) or "none"
    ratio = estimates.chi2[0] / estimates.n_pixels[0]
    return f"{', '.join(shown)}; chi2/pixel {ratio:.2f}; flags: {flags}"


def compared(model: Model, star: Spectra) -> LabelEstimates:
    """Print the fits, and changes over the errors as shipped; return the estimates without cores."""
    shipped, masked = model.infer(star), model.infer(without_cores(star))
    print(f"\n{star.ids[0]}, S/N {float(star.meta['snr'][0]):.0f}\n  as shipped:    {in_words(shipped)}")
    others = {
        "cores masked:  ": masked,
        "cores counted: ": with_cores_counted(model).infer(star),
        "no relation:   ": with_v_micro(model, None).infer(star),
        "v_micro 1.5:   ": with_v_micro(model, 1.5).infer(star),
    }
    for name, other in others.items():
        print(f"  {name}{in_words(other)}")
        change = (other.values - shipped.values)[0] / shipped.errors[0]
        print("    change/error  " + ", ".join(f"{k} {x:+.2f}" for k, x in zip(shipped.labels.names, change, strict=True)))
    return masked


def residual(model: Model, star: Spectra, values: FloatArray) -> FloatArray:
    """(n_pixels,) flux minus the model's at (1, 6) labels and velocity, continuum fitted outside the cores; NaN where masked."""
    inferrer = fitted(model.inferrer)
    fitter, prepared = inferrer.fitter, model.preparation(star)
    assert fitter.velocity is not None  # the recipe has it
    assert fitter.continuum is not None  # likewise
    outside = prepared.with_pixels(ivar=np.where(near(prepared.wavelength, MASKED), 0.0, prepared.ivar))
    flux = fitter.continuum.fitted(outside, fitter.velocity.extend(inferrer.emulator), values)[0]
    away = np.minimum(prepared.wavelength - prepared.wavelength[0], prepared.wavelength[-1] - prepared.wavelength)
    return np.where((prepared.ivar[0] > 0) & (away > EDGE), prepared.flux[0] - flux, np.nan)


def at_known_labels(model: Model, star: Spectra, labels: tuple[float, ...]) -> FloatArray:
    """Residual at given labels; the velocity is that of the least squares."""
    tried = (residual(model, star, np.array([[*labels, velocity]])) for velocity in np.arange(-6.0, 6.01, 0.5))
    return min(tried, key=lambda found: float(np.nansum(found**2)))


def autocorrelation(values: FloatArray) -> FloatArray:
    """(LAGS,) of pixels 1, 2, ... apart, over pairs of finite ones."""
    x = values - np.nanmean(values)
    pairs = np.array([np.nanmean(x[lag:] * x[:-lag]) for lag in range(1, LAGS + 1)])
    return np.asarray(pairs / np.nanmean(x**2))


def measured(wavelength: FloatArray, giant: FloatArray, dwarf: FloatArray) -> None:
    """Print what the recipe's numbers were read off, from the residuals of both stars."""
    outside, core = ~near(wavelength, MASKED), near(wavelength, CORE)
    for name, values, lags in (("HD 176650 (errors of the model)", giant, LAGS), ("KOI-1 (noise)", dwarf, 3)):
        kept = np.where(outside, values, np.nan)
        rho = autocorrelation(kept)
        text = " ".join(f"{x:.2f}" for x in rho)
        print(f"{name}: rms {np.nanstd(kept):.4f} outside the cores; autocorrelation {text}")
        print(f"  1 + 2 x sum over {lags} pixels {1 + 2 * rho[:lags].sum():.1f}")
        print(f"  cores (±{CORE:g} Å): observed - computed {np.nanmean(values[core]):+.3f}")


def m_dwarf(model: Model, file: Path) -> Spectra:
    """GJ 699 in the form of an RVS spectrum: orders at rest, over a pseudo-continuum, at Gaia's resolution and pixels."""
    emulator = fitted(model.inferrer).emulator
    grid = emulator.wavelength
    orders = [order for order in read_files([file]).spectra if order.wavelength[-1] > grid[0] and order.wavelength[0] < grid[-1]]
    flux = emulator.predict_flux(np.array([TEMPLATE]))
    template = Spectra.from_arrays(grid, flux, ivar=np.ones_like(flux), medium="vacuum", frame="rest")
    smooth = [Gisic()(Degrade(resolving_power=11_500.0)(order)) for order in orders]
    correlator = CrossCorrelator((template,), CrossCorrelation(low=-200.0, high=200.0))
    velocities = [float(correlator.measure(order).rv[0]) for order in smooth]
    print(f"\nGJ 699, HPF: velocities of {len(orders)} orders {', '.join(f'{v:.1f}' for v in velocities)} km/s (topocentric)")
    flux, ivar = np.zeros((1, grid.size)), np.zeros((1, grid.size))
    for order in smooth:
        moved = with_meta(order, {"rv": np.array([np.median(velocities)])})
        part = Resample(start=grid[0], stop=grid[-1] + 0.05, spacing=0.1)(moved)
        new = (part.ivar > 0) & (ivar == 0)
        flux, ivar = np.where(new, part.flux, flux), np.where(new, part.ivar, ivar)
    return Spectra.from_arrays(grid, flux, ivar=ivar, medium="vacuum", frame="rest", meta=part.meta)


def errors_by_snr(model: Model, like: Spectra) -> None:
    """Print formal errors of Teff, log g, [M/H], v_micro of stars made by the model itself, whose files are ``like`` Gaia's."""
    emulator = fitted(model.inferrer).emulator
    print("\nformal errors of Teff (K), log g, [M/H], v_micro (km/s) at S/N " + ", ".join(f"{snr:.0f}" for snr in SNR))
    flux = emulator.predict_flux(np.array(list(SIMULATED.values())))
    depths = np.sqrt(np.mean((1 - flux[:, ~near(emulator.wavelength, WINGS)]) ** 2, axis=1))
    for name, row, depth in zip(SIMULATED, flux, depths, strict=True):
        stars = [like.with_pixels(flux=row[None], ivar=np.full((1, row.size), snr**2)) for snr in SNR]
        errors = np.concatenate([model.infer(star).errors for star in stars])
        print(
            f"  {name:17}" + "   ".join(f"{e[0]:3.0f} {e[1]:.2f} {e[2]:.2f} {e[3]:.2f}" for e in errors),
            f"  rms depth {depth:.3f}",
        )


def main(data: Path, folder: Path) -> None:
    """Print everything and draw both figures."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model("gaia-rvs")
    giant, dwarf = (read_file(data / f"gaia_rvs/{name}.csv")[0] for name in ("HD176650", "KOI-001"))
    found = {}
    for name, star in (("koi1", dwarf), ("hd176650", giant)):
        found[name] = compared(model, star)
        figure = fit_figure(model.preparation(star), fitted(model.inferrer), model.infer(star))
        save_figure(figure, folder / f"gaia_{name}_fit.png")
    print()
    of_giant = residual(model, giant, found["hd176650"].values)
    measured(fitted(model.inferrer).emulator.wavelength, of_giant, at_known_labels(model, dwarf, KOI_1))
    errors_by_snr(model, giant)
    cool = m_dwarf(model, next((data / "hpf").glob("GJ_699*.fits")))
    print(f"  {in_words(model.infer(cool))}")
    print(f"figures: {folder}/")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("gaia_rvs_stars"))
    options = parser.parse_args()
    main(options.data, options.output)
