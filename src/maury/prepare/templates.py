"""Template spectra for velocities: brought to rest and to one grid even in ln λ; and the continuum that they and spectra lose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import UsageError
from maury.prepare.air import ToAir, ToVacuum
from maury.prepare.config import check_choice
from maury.prepare.continuum import GaussianContinuum, RunningMedian
from maury.prepare.cross_correlation import LogGrid
from maury.prepare.gisic import Gisic
from maury.prepare.grid import FloatArray, doppler_factor, pixel_edges, velocity_of
from maury.prepare.rebin import rebin_rows
from maury.spectra import Medium, Spectra

BoolArray = NDArray[np.bool_]
Continuum = Literal["running_median", "gisic", "gaussian", "none"]

_FINER = 0.7  # of a node: templates with smaller pixels are averaged over nodes, others interpolated


@dataclass(frozen=True)
class ContinuumRule:
    """What spectra and templates alike are divided by.

    Parameters
    ----------
    kind : "running_median", "gisic", "gaussian" (each as the step of that name), or "none": they are normalised.
    window : km/s, width of the running median or sigma of the Gaussian.
    """

    kind: Continuum = "running_median"
    window: float = 20_000.0

    def __post_init__(self) -> None:
        check_choice("continuum", self.kind, Continuum)
        if not (np.isfinite(self.window) and self.window > 0):
            raise UsageError(f"expected a positive window in km/s, got {self.window}; 20000 is 290 pixels of LAMOST")

    def divide(self, spectra: Spectra, finer: float = 1.0) -> Spectra:
        """The spectra over their continua; pixels without one get ivar = 0.

        Parameters
        ----------
        finer : how many pixels of these spectra make one of the spectra that are measured; GISIC counts in those.
        """
        if self.kind == "none":
            return spectra
        if self.kind == "gisic":
            return Gisic(sigma=Gisic.sigma * finer, replace=False)(spectra)
        width = self.window / SPEED_OF_LIGHT_KM_S
        x = np.log(spectra.wavelength)
        if self.kind == "gaussian":  # along ln λ, where a width is a velocity
            step = GaussianContinuum(length=width, variant="code", weights="uniform")
            return step(spectra.with_pixels(wavelength=x)).with_pixels(wavelength=spectra.wavelength)
        pixels = min(width / float(np.median(np.diff(x))), 4.0 * spectra.n_pixels)
        return RunningMedian(max(3, round(pixels)))(spectra)


def read_templates(path: str | Path, medium: Medium | None = None) -> list[Spectra]:
    """The spectra of a file, one batch per wavelength grid; at rest, unless the file says that they are not.

    Parameters
    ----------
    path : a file of any format.
    medium : "air" or "vacuum" for files that do not say which.

    Raises
    ------
    ReadError
        If the file cannot be read.
    """
    from maury.read import read_file

    # frame="rest" in reading would also overrule a header that says BARYCENT
    return [
        batch.with_pixels(frame="rest") if (batch.meta["velocity_frame"] == "unknown").all() else batch
        for batch in read_file(path, medium=medium)
    ]


def in_medium(spectra: Spectra, medium: Medium) -> Spectra:
    """The same spectra with wavelengths in vacuum or in air."""
    return ToVacuum()(spectra) if medium == "vacuum" else ToAir()(spectra)


def rest_range(template: Spectra) -> tuple[float, float]:
    """First and last wavelength (Å) that any row covers in the rest frame.

    Raises
    ------
    UsageError
        If a row is in the observed frame and its velocity is not known.
    """
    factor = to_rest(template)
    return float(template.wavelength[0] * factor.min()), float(template.wavelength[-1] * factor.max())


def sampled(template: Spectra, grid: LogGrid) -> tuple[FloatArray, BoolArray]:
    """Template flux in the rest frame at the nodes of a grid, and where it is known, each (n_templates, n_nodes).

    Pixels finer than the nodes are averaged over them (flux-conserving), coarser ones interpolated by cubic splines through the
    good ones. Known are nodes between two good neighbouring pixels.
    """
    wavelength, factor = np.exp(grid.nodes), to_rest(template)
    if float(np.median(np.diff(np.log(template.wavelength)))) < _FINER * grid.step:
        out = rebin_rows(template, pixel_edges(wavelength), 1.0 / factor, min_good=0.9, variance="information")
        return out.flux, out.ivar > 0
    rows = [_interpolated(template, row, wavelength / factor[row]) for row in range(len(template))]
    return np.array([flux for flux, _ in rows]), np.array([known for _, known in rows])


def _interpolated(template: Spectra, row: int, at: FloatArray) -> tuple[FloatArray, BoolArray]:
    from scipy.interpolate import CubicSpline

    good = template.ivar[row] > 0
    if good.sum() < 4:
        return np.zeros(at.size), np.zeros(at.size, bool)
    x = template.wavelength
    right = np.clip(np.searchsorted(x, at), 1, x.size - 1)
    gap = np.diff(pixel_edges(x).bin_of_pixel) > 1
    known = (at >= x[0]) & (at <= x[-1]) & good[right] & good[right - 1] & ~gap[right - 1]
    spline = CubicSpline(x[good], template.flux[row, good].astype(np.float64))
    return np.where(known, spline(np.where(known, at, x[good][0])), 0.0), known


def to_rest(template: Spectra) -> FloatArray:
    """(n_templates,) what wavelengths are multiplied by to reach the rest frame."""
    if template.frame == "rest":
        return np.ones(len(template))
    rv = velocity_of(template)
    if np.isnan(rv).any():
        raise UsageError(
            f"expected templates at rest or of known velocity, got {template.ids[np.isnan(rv)][0]} in the observed frame "
            "without; shift it, or say that its frame is rest"
        )
    return 1.0 / doppler_factor(rv)
