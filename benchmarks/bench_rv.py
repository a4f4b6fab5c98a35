"""Radial velocities against PyAstronomy's, side by side: ``python -m benchmarks.bench_rv``.

One thread, interleaved rounds in one process, medians; agreement is measured in the same run. PyAstronomy is used where it is
installed (``pip install PyAstronomy --target DIR`` and ``PYTHONPATH=DIR``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows, skipped
from maury.grids import AnalyticSpectra
from maury.prepare.templates import ContinuumRule
from maury.prepare.velocity import CrossCorrelation, CrossCorrelator
from maury.spectra import Spectra

LABELS = ("teff", "logg", "fe_h")


def run() -> list[Row]:
    """Rows of name, peer, ratio, agreement, ours_ms, peer_ms (per spectrum)."""
    return velocities()


def velocities() -> list[Row]:
    """4000 pixels of LAMOST's kind, -500 to 500 km/s; PyAstronomy in steps of 1 km/s, its peak by a parabola."""
    try:
        from PyAstronomy import pyasl
    except ImportError:
        return [skipped("velocity 4000 px", "PyAstronomy")]
    star, sun = AnalyticSpectra(LABELS), np.array([[5777.0, 4.4, 0.0]])
    wide, wavelength = np.arange(3500.0, 9500.0, 1.0), 10 ** (3.57 + 9e-5 * np.arange(4000))
    n, rng = 256, np.random.default_rng(1)
    rv = rng.uniform(-300, 300, n)
    labels = np.repeat(sun, n, axis=0)
    flux = star.flux(wavelength, labels, velocity=rv) / star.continuum(wavelength, labels)
    noisy = flux + 0.02 * rng.standard_normal(flux.shape)
    template = _observed(wide, star.normalised(wide, sun), frame="rest")
    spectra, clean = _observed(wavelength, noisy), _observed(wavelength, flux[:1])

    def peer(step: float) -> Callable[[], float]:
        at = np.arange(wide[0], wide[-1], step)
        lines = star.normalised(at, sun)[0] - 1.0

        def measured() -> float:
            trial, ccf = pyasl.crosscorrRV(wavelength, clean.flux[0] - 1.0, at, lines, -500.0, 500.0, 1.0, skipedge=0)
            k = int(np.argmax(ccf))
            left, top, right = ccf[k - 1 : k + 2]
            return float(trial[k] + 0.5 * (left - right) / (left - 2 * top + right))

        return measured

    # timed with a template of the spectra's own pixels, compared with a fine one: its linear interpolation needs that
    theirs, theirs_fine, theirs_coarse = peer(1.0), peer(0.1)(), peer(1.0)()
    rows = []
    for kind, degree, what in (("none", 0, "normalised"), ("running_median", 2, "with continuum")):
        correlator = CrossCorrelator((template,), CrossCorrelation(continuum=ContinuumRule(kind), degree=degree))
        found = float(correlator.measure(clean).rv[0])
        agreement = (
            f"{found - theirs_fine:+.3f} km/s; off the truth by {found - rv[0]:+.4f}, the peer by {theirs_fine - rv[0]:+.3f}"
        )
        agreement += f" with a template of 0.1 Å pixels, {theirs_coarse - rv[0]:+.2f} with the timed one of 1 Å"
        for batch in (spectra, spectra[:1]):
            name = f"velocity 4000 px, {what}, {'batch' if len(batch) > 1 else 'single'}"
            ours = lambda c=correlator, b=batch: c.measure(b)  # noqa: E731
            rows.append(compared(name, "PyAstronomy crosscorrRV", ours, theirs, agreement, counts=(len(batch), 1)))
    return rows


def _observed(wavelength: np.ndarray, flux: np.ndarray, frame: Any = "observed") -> Spectra:
    return Spectra.from_arrays(wavelength, flux, ivar=np.full(flux.shape, 2500.0), medium="vacuum", frame=frame)


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
