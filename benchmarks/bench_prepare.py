"""Preparation against its peers, side by side: ``python -m benchmarks.bench_prepare``.

One thread, interleaved rounds in one process, medians; agreement is measured in the same run. A ratio is the peer's time
over ours. Peers that are not installed are skipped, and said so (``pip install spectres TheCannon specutils``).
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows, skipped
from maury.prepare import Degrade, GaussianContinuum, Resample, RunningMedian
from maury.spectra import Spectra, empty_meta


def run() -> list[Row]:
    """Rows of name, peer, ratio, agreement (largest difference of normalised flux), ours_ms, peer_ms (per spectrum)."""
    return [*resampling(), *gaussian_continuum(), *running_median(), *degradation()]


def _spectra(n: int, wavelength: np.ndarray, *, masked: float = 0.02) -> Spectra:
    """Random spectra with lines, 2 % masked pixels and a different velocity each."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(wavelength[0], wavelength[-1], 60)
    lines = 1 - sum(0.3 * np.exp(-0.5 * ((wavelength - c) / 3) ** 2) for c in centres)
    flux = lines + 0.02 * rng.normal(size=(n, wavelength.size))
    ivar = rng.uniform(1500, 3500, flux.shape)
    ivar[rng.random(flux.shape) < masked] = 0
    meta = empty_meta(n)
    meta["rv"] = rng.normal(0, 60, n)
    meta["fwhm"] = 2.5
    return Spectra.from_arrays(wavelength, flux, ivar=ivar, medium="vacuum", frame="observed", meta=meta)


def resampling() -> list[Row]:
    """4000 to 3000 pixels, flux-conserving, a velocity for each spectrum (and, beside it, one for all)."""
    wavelength = np.linspace(4400.0, 7600.0, 4000)
    spectra = _spectra(256, wavelength, masked=0.0)
    step, n = Resample(), len(spectra)
    alike = spectra.with_pixels(frame="rest")
    grid, error = step.grid(), np.full(4000, 0.02)
    rows = []
    try:
        from spectres import spectres
    except ImportError:
        rows.append(skipped("resample 4000 to 3000", "spectres"))
    else:
        theirs = np.array(spectres(grid, wavelength, alike.flux[0], error))[0]
        difference = f"{np.abs(step(alike[[0]]).flux[0] - theirs).max():.1e}"
        peer = lambda: spectres(grid, wavelength, alike.flux[0], error)  # noqa: E731
        rows.append(
            compared(
                "resample 4000 to 3000, own velocities",
                "spectres",
                lambda: step(spectra),
                peer,
                counts=(n, 1),
                agreement=difference,
            )
        )
        rows.append(
            compared(
                "resample 4000 to 3000, one frame", "spectres", lambda: step(alike), peer, counts=(n, 1), agreement=difference
            )
        )
        one = spectra[[0]]
        rows.append(
            compared(
                "resample 4000 to 3000, a single spectrum",
                "spectres",
                lambda: step(one),
                peer,
                counts=(1, 1),
                agreement=difference,
            )
        )
    return rows + _specutils(step, spectra, alike)


def _specutils(step: Resample, spectra: Spectra, alike: Spectra) -> list[Row]:
    name = "resample 4000 to 3000, own velocities"
    try:
        from astropy import units as u
        from astropy.nddata import InverseVariance
        from specutils import Spectrum
        from specutils.manipulation import FluxConservingResampler
    except ImportError:
        return [skipped(name, "specutils")]
    spectrum = Spectrum(
        flux=np.array(alike.flux[0]) * u.Jy,
        spectral_axis=np.array(alike.wavelength) * u.AA,
        uncertainty=InverseVariance(np.array(alike.ivar[0]) / u.Jy**2),
    )
    grid = step.grid() * u.AA
    difference = np.abs(step(alike[[0]]).flux[0] - FluxConservingResampler()(spectrum, grid).flux.value).max()
    return [
        compared(
            name,
            "specutils",
            lambda: step(spectra),
            lambda: FluxConservingResampler()(spectrum, grid),
            counts=(len(spectra), 1),
            agreement=f"{difference:.1e}",
        )
    ]


def gaussian_continuum() -> list[Row]:
    """1000 spectra of 3000 pixels, L = 50 Å, with TheCannon's own kernel (variant "code")."""
    name = "gaussian pseudo-continuum 1000 x 3000"
    spectra = _spectra(1000, np.arange(4500.0, 7500.0))
    step, n = GaussianContinuum(variant="code"), len(spectra)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from TheCannon.normalization import _find_cont_gaussian_smooth, gaussian_weight_matrix
    except ImportError:
        return [skipped(name, "TheCannon")]

    def theirs() -> tuple[np.ndarray, np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):
            weights = gaussian_weight_matrix(spectra.wavelength, 50.0)
            continuum = _find_cont_gaussian_smooth(spectra.wavelength, spectra.flux, spectra.ivar, weights)
        return spectra.flux / continuum, spectra.ivar * continuum**2

    difference = np.abs((step(spectra).flux - theirs()[0])[spectra.ivar > 0]).max()
    return [compared(name, "TheCannon", lambda: step(spectra), theirs, counts=(n, n), agreement=f"{difference:.1e}")]


def running_median() -> list[Row]:
    """4563 pixels, window 400, 2 % masked; the peer is a loop over numpy.nanmedian's sliding windows."""
    spectra = _spectra(32, 3622.0 * 10 ** (1e-4 * np.arange(4563)))
    step = RunningMedian()

    def theirs() -> np.ndarray:
        flux = np.where(spectra.ivar[0] > 0, spectra.flux[0], np.nan)
        padded = np.pad(flux, 200, constant_values=np.nan)
        continuum: np.ndarray = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 401), axis=1)
        return flux / continuum

    difference = np.nanmax(np.abs(np.where(spectra.ivar[0] > 0, step(spectra).flux[0], np.nan) - theirs()))
    return [
        compared(
            "running median 4563 px, window 400",
            "numpy",
            lambda: step(spectra),
            theirs,
            counts=(32, 1),
            agreement=f"{difference:.1e}",
        )
    ]


def degradation() -> list[Row]:
    """4000 pixels, FWHM 2.5 to 4 Å; the peer is scipy's Gaussian filter (constant kernel, no mask, no errors)."""
    from scipy.ndimage import gaussian_filter1d

    name = "degrade 4000 px, with errors"
    spectra = _spectra(256, np.linspace(4400.0, 7600.0, 4000), masked=0.0)
    step = Degrade(fwhm=4.0)
    sigma = np.sqrt(4.0**2 - 2.5**2) / 2.3548200450309493 / (3200 / 3999)
    theirs = lambda: gaussian_filter1d(spectra.flux, sigma, axis=1, truncate=6)  # noqa: E731
    out = step(spectra)
    difference = np.abs((out.flux - theirs())[:, 20:-20]).max()  # the ends are mirrored there, given up here
    n = len(spectra)
    return [
        compared(name, "scipy gaussian_filter1d", lambda: step(spectra), theirs, counts=(n, n), agreement=f"{difference:.1e}")
    ]


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
