"""Resampling onto one common grid, with the Doppler shift in the same, single interpolation.

Flux is taken as piecewise constant over pixels (flux per Å), and an output pixel is the mean over the good
part of what it covers: f_out = Σ a_i f_i / Σ a_i, a_i the overlap in Å with good input pixel i. Output bin edges
are moved to the observed frame row by row, so spectra of different velocities are resampled once, exactly.

What becomes of the errors
--------------------------
The exact variance of one output pixel is Σ a_i² σ_i² / (Σ a_i)² (``variance = "marginal"``). But neighbouring output
pixels share input pixels, and everything downstream treats pixels as independent. With that rule, resampling onto a
grid twice as fine would double the information, and errors of labels would come out too small by √2.
The default, ``variance = "information"``, spreads the noise power σ_i² w_i of each input pixel (w_i its width) evenly
over it: σ_out² = Σ a_i w_i σ_i² / (Σ a_i)². Then the variance of any sum over complete input pixels is exactly right,
whatever the output sampling, and so are the errors of anything fitted that varies slowly over a pixel. The price: the
chi-square of pure noise is below one per pixel where the output pixels are not much wider than the input's (2/3 for
equal widths at random phase), because such noise is smoother than the errors say. Both agree when pixels get wider.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from maury.errors import UsageError
from maury.flags import PixelFlag
from maury.prepare.config import VarianceRule, check_choice, config_of
from maury.prepare.grid import FloatArray, doppler_factor, pixel_edges, velocity_of, window_edges, windows_of, with_meta
from maury.prepare.rebin import Rebinned, interpolate_rows, rebin_rows
from maury.spectra import Spectra

FrameRule = Literal["rest", "as_is"]
Method = Literal["conserving", "linear"]
MissingVelocity = Literal["fail", "zero"]


@dataclass(frozen=True)
class Resample:
    """Put spectra on one wavelength grid, in the rest frame if asked.

    Parameters
    ----------
    start, stop : Å; ``stop`` itself is excluded. The default grid is that of Galgano+2020: 4500–7500 Å by 1 Å.
    spacing : Å between pixels; or
    log_spacing : dex between pixels of a logarithmic grid (``spacing`` is then ignored); or
    wavelengths : the grid itself, Å, increasing (the other three are then ignored).
    frame : "rest" removes meta ``rv`` from spectra of the observed frame, λ_rest = λ_obs / (1 + rv/c);
        "as_is" leaves every spectrum in its frame.
    method : "conserving" (flux-conserving, see the module), or "linear": linear interpolation of flux and inverse
        variance, as Galgano+2020 and TheCannon's LAMOST code do; any bad neighbour makes a bad pixel
        (METHODS 5, step 5: our choice; the published code interpolates over them).
    missing_velocity : what to do with an observed spectrum without ``rv``: "fail", or "zero" (taken as it is; the
        boolean meta column ``no_velocity`` then says so).
    min_good : the part of an output pixel that good input pixels must cover.
    variance : "information" or "marginal"; see the module. Only for method "conserving".
    windows : (start, stop, spacing) of each of several windows, Å, increasing and apart, instead of start, stop and spacing: the
        grid is their pixels one after another. Each ``stop`` is excluded, and no pixel covers anything between two windows.

    Notes
    -----
    Flux density per Å is not multiplied by dλ_obs/dλ_rest (0.1 % at 300 km/s, the same for all pixels). Air wavelengths are
    shifted as they are; the refractive index changes so little over a shift that this costs 0.004 km/s at 300 km/s.
    """

    start: float = 4500.0
    stop: float = 7500.0
    spacing: float = 1.0
    log_spacing: float | None = None
    wavelengths: tuple[float, ...] | None = None
    frame: FrameRule = "rest"
    method: Method = "conserving"
    missing_velocity: MissingVelocity = "fail"
    min_good: float = 0.5
    variance: VarianceRule = "information"
    windows: tuple[tuple[float, float, float], ...] = ()

    name: ClassVar[str] = "resample"

    def __post_init__(self) -> None:
        check_choice("frame", self.frame, FrameRule)
        check_choice("method", self.method, Method)
        check_choice("missing_velocity", self.missing_velocity, MissingVelocity)
        check_choice("variance", self.variance, VarianceRule)
        if not 0 < self.min_good <= 1:
            raise UsageError(f"expected min_good in (0, 1], got {self.min_good}; it is a fraction of a pixel")
        if self.windows:
            self._check_windows()
        elif self.wavelengths is not None:
            grid = np.asarray(self.wavelengths, dtype=np.float64)
            if grid.size < 2 or not np.isfinite(grid).all() or grid[0] <= 0 or not (np.diff(grid) > 0).all():
                raise UsageError(
                    "expected wavelengths as at least two increasing positive numbers in Å, got others; correct the grid"
                )
        elif not 0 < self.start < self.stop:
            raise UsageError(f"expected 0 < start < stop in Å, got start {self.start} and stop {self.stop}; correct them")
        elif (self.spacing if self.log_spacing is None else self.log_spacing) <= 0 or self.grid().size < 2:
            raise UsageError(
                "expected a positive spacing (Å) or log_spacing (dex) with at least two pixels in the range; correct it"
            )

    def grid(self) -> FloatArray:
        """(n_pixels,) the output wavelengths in Å."""
        if self.windows:
            return np.concatenate([centres for centres, _ in self._window_pixels()])
        if self.wavelengths is not None:
            return np.asarray(self.wavelengths, dtype=np.float64)
        low, high, step = self.start, self.stop, self.spacing
        if self.log_spacing is not None:
            low, high, step = float(np.log10(low)), float(np.log10(high)), self.log_spacing
        values = _steps(low, high, step)
        return np.asarray(values if self.log_spacing is None else 10.0**values, dtype=np.float64)

    def __call__(self, spectra: Spectra) -> Spectra:
        spectra, factor = self._frame(spectra)
        grid = self.grid()
        self._check_overlap(spectra, grid, factor)
        if self.method == "linear":
            out = interpolate_rows(spectra, grid, factor)
        else:
            edges = window_edges(self._window_pixels()) if self.windows else pixel_edges(grid)
            out = rebin_rows(spectra, edges, factor, min_good=self.min_good, variance=self.variance)
        frame = spectra.frame if self.frame == "as_is" else "rest"
        return spectra.with_pixels(wavelength=grid, flux=out.flux, ivar=out.ivar, mask=_flagged(out), frame=frame)

    def to_config(self) -> dict[str, Any]:
        config = config_of(self)
        if not self.windows:  # models from before there were windows keep their fingerprints
            del config["windows"]
        return config

    def _window_pixels(self) -> list[tuple[FloatArray, float]]:
        """Centres and spacing of each window's pixels, Å."""
        return [(_steps(start, stop, spacing), spacing) for start, stop, spacing in self.windows]

    def _check_windows(self) -> None:
        if self.wavelengths is not None or self.log_spacing is not None:
            raise UsageError("expected windows alone, got wavelengths or log_spacing beside them; keep the one that is meant")
        for window in self.windows:
            start, stop, spacing = window
            if not (0 < start < stop < np.inf and spacing > 0) or _steps(*window).size < 2:
                raise UsageError(
                    "expected windows as (start, stop, spacing) in Å with 0 < start < stop and at least two pixels, got "
                    f"{window}; correct it"
                )
        for (before, step), (after, next_step) in pairwise(self._window_pixels()):
            end, begin = before[-1] + 0.5 * step, after[0] - 0.5 * next_step
            if begin < end - 1e-6 * step:
                raise UsageError(
                    f"expected windows that increase and do not overlap, got one whose pixels end at {end:.8g} Å and the next "
                    f"from {begin:.8g} Å; sort, shorten or merge them"
                )

    def _frame(self, spectra: Spectra) -> tuple[Spectra, FloatArray]:
        """The spectra (with meta ``no_velocity`` where that is needed) and 1 + rv/c of every row."""
        if self.frame == "as_is" or spectra.frame == "rest":
            return spectra, np.ones(len(spectra))
        rv = velocity_of(spectra)
        unknown = np.isnan(rv)
        if self.missing_velocity == "zero":
            return with_meta(spectra, {"no_velocity": unknown}), doppler_factor(np.where(unknown, 0.0, rv))
        if unknown.any():
            raise UsageError(
                f"expected a radial velocity (meta rv, km/s) to reach the rest frame, got none for "
                f"{_some(spectra.ids[unknown])}; "
                'give it (maury rv measures it, --velocities gives it), or set missing_velocity = "zero"'
            )
        return spectra, doppler_factor(rv)

    @staticmethod
    def _check_overlap(spectra: Spectra, grid: FloatArray, factor: FloatArray) -> None:
        first, last = spectra.wavelength[[0, -1]]
        windows = [grid[i][[0, -1]] for i in windows_of(grid)]
        outside = np.all([(high * factor < first) | (low * factor > last) for low, high in windows], axis=0)
        if outside.any():
            raise UsageError(
                f"expected spectra that overlap {grid[0]:.1f}–{grid[-1]:.1f} Å, got {spectra.wavelength[0]:.1f}–"
                f"{spectra.wavelength[-1]:.1f} Å for {_some(spectra.ids[outside])}; leave them out or choose another range"
            )


def _steps(low: float, high: float, step: float) -> FloatArray:
    """low, low + step, ... below high."""
    # a billionth of a step: 7500 must stay excluded whatever the rounding of (stop - start) / step
    return np.asarray(low + step * np.arange(int(np.ceil((high - low) / step - 1e-9)), dtype=np.float64))


def _some(ids: NDArray[np.str_]) -> str:
    return ", ".join(str(i) for i in ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _flagged(out: Rebinned) -> NDArray[np.uint32] | None:
    """Carried mask bits, with WAVELENGTH added where the spectrum does not reach; None where there is nothing to say."""
    if out.mask is None and out.covered.all():
        return None
    absent = np.where(out.covered, np.uint32(0), np.uint32(PixelFlag.WAVELENGTH))
    return absent if out.mask is None else out.mask | absent
