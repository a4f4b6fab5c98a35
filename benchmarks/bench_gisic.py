"""GISIC against METHODS 0.3's ten steps written down plainly: ``python -m benchmarks.bench_gisic``.

The GISIC package does not run with today's numpy and pandas. Its place is taken by ``tests/unit/gisic_plain``: numpy and
scipy as one would use them, one spectrum at a time. The package's own time, measured when it still ran, stands beside. One
thread, interleaved rounds, medians; agreement is measured in the same run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows
from maury.grids import AnalyticSpectra
from maury.prepare import Gisic
from maury.spectra import Spectra

ROUNDS = 7
PACKAGE_MS = 219.0  # PEERS.md: per spectrum, measured when the package still ran
STAR = AnalyticSpectra(("teff", "logg", "fe_h"))


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms (per spectrum)."""
    package, interpolating = Gisic.package_defaults(), Gisic()
    many, window = optical(64), narrow_window(32)
    return [
        _row("GISIC optical 3600 px, batch", many, package, s=5.0),
        _row("GISIC optical 3600 px, single", many[:1], package, s=5.0),
        _row("GISIC 41 Å, 4096 px, batch", window, interpolating, s=0.0),
        _row("GISIC 41 Å, 4096 px, single", window[:1], interpolating, s=0.0),
    ]


def optical(n: int) -> Spectra:
    """1 Å pixels, S/N 100: 29 bulges each, stretches of 31 pixels."""
    rng, wavelength = np.random.default_rng(2), np.arange(3800.0, 7400.0, 1.0)
    flux = STAR.flux(wavelength, rng.uniform([3600, 1, -2], [7000, 5, 0.4], (n, 3)))
    return _spectra(wavelength, flux + 0.01 * rng.standard_normal(flux.shape))


def narrow_window(n: int) -> Spectra:
    """The window of Passegger+2020, without noise: 120 lines, 32 bulges each, stretches of up to 3001 pixels."""
    rng, wavelength = np.random.default_rng(3), 8797.015 + 0.01 * np.arange(4096)
    flux = STAR.flux(wavelength, rng.uniform([2300, 4.2, -1], [4500, 5.5, 0.8], (n, 3)))
    for centre, sigma, depth in rng.uniform([wavelength[0], 0.05, 0.02], [wavelength[-1], 0.2, 0.5], (120, 3)):
        flux *= np.exp(-rng.uniform(0.5, 1, (n, 1)) * depth * np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2))
    return _spectra(wavelength, flux)


def _spectra(wavelength: np.ndarray, flux: np.ndarray) -> Spectra:
    scaled = flux / np.median(flux, axis=1, keepdims=True)
    return Spectra.from_arrays(wavelength, scaled, ivar=np.full(flux.shape, 1e4), medium="vacuum", frame="rest")


def _row(name: str, spectra: Spectra, step: Gisic, *, s: float) -> Row:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit"))
    from gisic_plain import normalize

    few = spectra.flux[:8]

    def plain() -> list[np.ndarray]:
        return [normalize(spectra.wavelength, flux, s=s)[0] for flux in few]

    difference = np.abs(step(spectra).flux[:8] - plain()).max()
    counts = (len(spectra), len(few))
    row = compared(name, "METHODS 0.3, plainly", lambda: step(spectra), plain, "", counts=counts, rounds=ROUNDS)
    package = f"{PACKAGE_MS / row['ours_ms']:.0f} times ours"
    return row | {"agreement": f"{difference:.1e}; the package's {PACKAGE_MS:.0f} ms (PEERS.md) are {package}"}


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
