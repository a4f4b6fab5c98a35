"""The SYNSPEC library as Gaia's RVS would see it, against two real Gaia RVS spectra; prints the rms and draws both.

python examples/gaia_rvs_against_synspec.py data -o gaia_rvs.png

Library -> R = 11,500, vacuum, rotation, Gaia's pixels. Between the library's scattered labels a radial-basis interpolation
(scipy, quintic) serves; its own error is printed, from spectra left out. KOI-1 is shown at labels of the literature with nothing
fitted but velocity and continuum; HD 176650, for which there are none, at those that fit best, with the Ca II cores and without.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.optimize import least_squares

from maury import Spectra, read_file
from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.prepare import Degrade, Resample, ToVacuum, rotate_flux
from maury.read.library import read_library
from maury.report.style import BLUE, INK, VERMILION, new_figure, save_figure, styled

FloatArray = NDArray[np.float64]

LABELS = ("teff", "logg", "m_h", "v_micro")
KOI_1 = (5850.0, 4.43, -0.01, 1.1)
"""K, dex, dex (the issue's, from the literature); km/s, a usual value for such a star."""
TRIPLET = (8500.35, 8544.44, 8664.52)
"""Å in vacuum: Ca II. Their cores form above where the library's LTE holds."""
CORE = 2.5
"""Å on either side of the lines that "without cores" leaves out."""
CONTINUUM_DEGREE = 4
MOST_TEFF = 8000.0
"""K: hotter library spectra help no star here."""


@dataclass(frozen=True)
class Library:
    """Broadened spectra at Sobol points, and between them.

    Parameters
    ----------
    wavelength : (n_pixels,) Å, vacuum.
    labels : (n, 4) Teff, log g, [M/H], v_micro.
    flux : (n, n_pixels) over the continuum.
    """

    wavelength: FloatArray
    labels: FloatArray
    flux: FloatArray

    @staticmethod
    def read(data: Path, resolving_power: float) -> Library:
        """The library below 8000 K, broadened, in vacuum, in steps of 0.1 Å a little beyond Gaia's range."""
        library = read_library(
            data / "synspec_rvs/spectra.npz",
            wavelength="wavelength_air_angstrom",
            wavelength_unit="Angstrom",
            flux="flux_u16",
            flux_scale="flux_scale",
            medium="air",
            labels="labels",
            label_names=LABELS,
            fwhm=0.04,
            snr=1000.0,
        )
        labels = np.column_stack([np.asarray(library.labels[name], dtype=np.float64) for name in LABELS])
        cool = labels[:, 0] < MOST_TEFF
        spectra = library.spectra[np.flatnonzero(cool)]
        for step in (Degrade(resolving_power=resolving_power), ToVacuum(), Resample(start=8455.0, stop=8705.0, spacing=0.1)):
            spectra = step(spectra)
        return Library(spectra.wavelength, labels[cool], spectra.flux.astype(np.float64))

    def interpolator(self, rows: NDArray[np.bool_] | slice = slice(None)) -> RBFInterpolator:
        """Takes :func:`coordinates`."""
        return RBFInterpolator(coordinates(self.labels[rows]), self.flux[rows], kernel="quintic")

    def own_error(self) -> FloatArray:
        """(n,) rms of each spectrum as interpolated from four fifths of the others."""
        fold = np.random.default_rng(0).integers(0, 5, len(self.labels))
        error = np.empty_like(self.flux)
        for k in range(5):
            error[fold == k] = self.interpolator(fold != k)(coordinates(self.labels[fold == k])) - self.flux[fold == k]
        return np.sqrt(np.mean(error**2, axis=1))


def coordinates(labels: FloatArray) -> FloatArray:
    """Labels in units in which spectra change alike."""
    teff, logg, m_h, v_micro = np.atleast_2d(labels).T
    return np.column_stack([6 * 5040 / teff, 0.6 * logg, m_h, 0.2 * v_micro])


@dataclass(frozen=True)
class Fit:
    """A model beside a star: parameters Teff, log g, [M/H], v_micro, v sin i, velocity; fluxes on Gaia's pixels."""

    name: str
    parameters: FloatArray
    star: Spectra
    model: FloatArray
    used: NDArray[np.bool_]

    @property
    def residual(self) -> FloatArray:
        """(n_pixels,) observed minus model."""
        return np.asarray(self.star.flux[0] - self.model, dtype=np.float64)

    def rms(self, pixels: NDArray[np.bool_]) -> float:
        """Of the residual over some pixels that are good."""
        chosen = pixels & (self.star.ivar[0] > 0)
        return float(np.sqrt(np.mean(self.residual[chosen] ** 2)))

    def noise(self, pixels: NDArray[np.bool_]) -> float:
        """Rms of the file's own errors there: no model could come closer on average."""
        chosen = pixels & (self.star.ivar[0] > 0)
        return float(np.sqrt(np.mean(1 / self.star.ivar[0][chosen])))


def fitted(name: str, star: Spectra, library: Library, used: NDArray[np.bool_], fixed: tuple[float, ...] | None = None) -> Fit:
    """The best fit over the pixels ``used``; with ``fixed`` labels only the velocity (and the continuum) is free."""
    interpolate = library.interpolator()
    root = np.sqrt(np.where(used, star.ivar[0], 0.0))
    x = 2 * (star.wavelength - star.wavelength[0]) / np.ptp(star.wavelength) - 1
    modes = np.polynomial.legendre.legvander(x, CONTINUUM_DEGREE)

    def model(parameters: FloatArray) -> FloatArray:
        flux = rotate_flux(library.wavelength, interpolate(coordinates(parameters[:4])), parameters[4])[0]
        moved = np.interp(star.wavelength, library.wavelength * (1 + parameters[5] / SPEED_OF_LIGHT_KM_S), flux)
        terms = moved[:, None] * modes
        found = np.linalg.lstsq(terms * root[:, None], star.flux[0] * root, rcond=None)[0]
        return np.asarray(terms @ found)

    low, high = np.append(library.labels.min(axis=0), [0.0, -50.0]), np.append(library.labels.max(axis=0), [100.0, 50.0])
    size = np.array([100.0, 0.2, 0.1, 0.5, 10.0, 1.0])
    if fixed is not None:
        start, free = np.array([*fixed, 2.0, 0.0]), np.array([5])
    else:
        start, free = np.array([4800.0, 2.5, -0.2, 1.5, 10.0, 0.0]), np.arange(6)

    def whole(some: FloatArray) -> FloatArray:
        parameters = start.copy()
        parameters[free] = some * size[free]
        return parameters

    found = least_squares(
        lambda some: (star.flux[0] - model(whole(some))) * root,
        start[free] / size[free],
        bounds=(low[free] / size[free], high[free] / size[free]),
        diff_step=1e-3,
    )
    best = whole(found.x)
    return Fit(name, best, star, model(best), used)


def cores(wavelength: FloatArray) -> NDArray[np.bool_]:
    """Pixels in the cores of the Ca II triplet."""
    return np.asarray(np.any([np.abs(wavelength - line) < CORE for line in TRIPLET], axis=0))


@styled
def drawing(fits: list[Fit]) -> Figure:
    """Two panels a star: flux with model, and the residual."""
    figure = new_figure(9.0, 2.9 * len(fits))
    axes = figure.subplots(2 * len(fits), 1, sharex=True, height_ratios=[2.2, 1] * len(fits))
    for fit, above, below in zip(fits, axes[0::2], axes[1::2], strict=True):
        good = fit.star.ivar[0] > 0
        above.plot(fit.star.wavelength, np.where(good, fit.star.flux[0], np.nan), color=INK, lw=0.8, label="Gaia DR3")
        above.plot(fit.star.wavelength, fit.model, color=VERMILION, lw=0.9, label="SYNSPEC library")
        above.set_title(fit.name)
        above.set_ylabel("flux / continuum")
        below.axhline(0, color="0.6", lw=0.8)
        below.plot(fit.star.wavelength, np.where(good, fit.residual, np.nan), color=BLUE, lw=0.7)
        below.set_ylabel("residual")
        limit = 1.2 * np.quantile(np.abs(fit.residual[good]), 0.998)
        below.set_ylim(-limit, limit)
        for panel in (above, below):
            for line in TRIPLET:
                panel.axvspan(line - CORE, line + CORE, color="0.92", lw=0, zorder=0)
    axes[0].legend(loc="lower right")
    axes[-1].set_xlim(fits[0].star.wavelength[[0, -1]])
    axes[-1].set_xlabel("wavelength in vacuum (Å); grey: cores of Ca II")
    figure.align_ylabels(axes)
    return figure


def main(data: Path, output: Path, resolving_power: float) -> None:
    """Print labels and rms of every fit; draw KOI-1 and HD 176650 without the cores."""
    library = Library.read(data, resolving_power)
    own = library.own_error()
    print(
        f"{len(own)} spectra below {MOST_TEFF:.0f} K; interpolation, five-fold: rms {np.median(own):.5f} (median spectrum), ",
        end="",
    )
    print(f"{np.quantile(own, 0.9):.5f} (worst tenth)")
    koi, giant = (read_file(data / f"gaia_rvs/{name}.csv")[0] for name in ("KOI-001", "HD176650"))
    everywhere, outside = np.ones(koi.wavelength.size, dtype=bool), ~cores(koi.wavelength)
    fits = [
        fitted("KOI-1 at 5850 K, 4.43, −0.01", koi, library, everywhere, KOI_1),
        fitted("HD 176650, all pixels", giant, library, everywhere),
        fitted("HD 176650, fitted without Ca II cores", giant, library, outside),
    ]
    for fit in fits:
        teff, logg, m_h, v_micro, vsini, velocity = fit.parameters
        print(
            f"{fit.name}: {teff:.0f} K, log g {logg:.2f}, [M/H] {m_h:+.2f}, v_micro {v_micro:.2f}, v sin i {vsini:.1f}, ", end=""
        )
        print(f"velocity {velocity:+.2f} km/s; rms {fit.rms(everywhere):.4f}, without cores {fit.rms(outside):.4f} ", end="")
        print(f"(errors in the file: {fit.noise(everywhere):.4f} and {fit.noise(outside):.4f})")
    save_figure(drawing([fits[0], fits[2]]), output)
    print(f"figure: {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("gaia_rvs.png"))
    parser.add_argument("--resolving-power", type=float, default=11_500.0)
    options = parser.parse_args()
    main(options.data, options.output, options.resolving_power)
