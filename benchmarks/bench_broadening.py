"""Rotational and instrumental broadening against PyAstronomy: ``python -m benchmarks.bench_broadening``.

20,000 pixels, one thread, interleaved rounds in one process, median of the ratios. Both are compared in the same run with a
direct sum over a grid twenty times finer of the same spectrum, known between the pixels: the column "agreement" says how far ours
and the peer's are from it. PyAstronomy is skipped, with a sentence, where it is not installed.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy is imported
    os.environ.setdefault(_name, "1")

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.prepare import convolve_instrument, rotate_flux
from maury.prepare.profiles import RotationProfile

Row = dict[str, Any]
ROUNDS = 7
WAVELENGTH = np.linspace(8400.0, 8800.0, 20_000)
LINE_SIGMA = 0.05
SPECTRA = 64
"""Spectra in a batch of ours; the peer takes one at a time."""
VSINI = 50.0


def run() -> list[Row]:
    """Rows of name, peer, ratio, spread, agreement, ours_ms, peer_ms (per spectrum)."""
    try:
        peer = importlib.import_module("PyAstronomy.pyasl")
    except ImportError:
        nan = float("nan")
        return [{"name": "rotation 20,000 px", "peer": "PyAstronomy", "ratio": nan, "ours_ms": nan, "peer_ms": nan}]
    flux = np.tile(_flux_at(WAVELENGTH), (SPECTRA, 1))
    own = np.geomspace(2.0, 300.0, SPECTRA)
    cases: list[tuple[str, Callable[[], np.ndarray], int]] = [
        ("one vsini, a batch of 64", lambda: rotate_flux(WAVELENGTH, flux, VSINI), SPECTRA),
        ("own vsini 2-300, a batch of 64", lambda: rotate_flux(WAVELENGTH, flux, own), SPECTRA),
        ("one spectrum, 64 vsini 2-300", lambda: rotate_flux(WAVELENGTH, flux[0], own), SPECTRA),
        ("a single spectrum", lambda: rotate_flux(WAVELENGTH, flux[0], VSINI), 1),
    ]
    slow = lambda: peer.rotBroad(WAVELENGTH, flux[0], 0.6, VSINI)  # noqa: E731
    fast = lambda: peer.fastRotBroad(WAVELENGTH, flux[0], 0.6, VSINI)  # noqa: E731
    exact = _exact(np.arange(1000, 19_000, 60))
    error = _errors(exact, rotate_flux(WAVELENGTH, flux[0], VSINI), slow(), fast())
    rows = [_row("rotate 20,000 px, " + cases[0][0], "rotBroad", cases[0][1], slow, (SPECTRA, 3), error[0], error[1])]
    rows += [
        _row(f"rotate 20,000 px, {name}", "fastRotBroad", call, fast, (n, ROUNDS), error[0], error[2]) for name, call, n in cases
    ]
    return [*rows, _instrument(peer, flux)]


def _instrument(peer: Any, flux: np.ndarray) -> Row:
    """Gaussian of R = 11,500; the peer's kernel is one for all wavelengths, so both are compared in the middle."""
    power = 11_500.0
    ours = lambda: convolve_instrument(WAVELENGTH, flux, resolving_power=power)  # noqa: E731
    theirs = lambda: peer.instrBroadGaussFast(WAVELENGTH, flux[0], power, maxsig=6.0)  # noqa: E731
    middle = np.arange(9990, 10_010)
    sigma = WAVELENGTH[middle] / power / FWHM_PER_SIGMA
    offset = np.linspace(-8, 8, 3201)
    weight = np.exp(-0.5 * offset**2) / np.exp(-0.5 * offset**2).sum()
    exact = np.array([weight @ _flux_at(w + s * offset) for w, s in zip(WAVELENGTH[middle], sigma, strict=True)])
    error = [np.abs(f[middle] - exact).max() for f in (ours()[0], theirs())]
    return _row("instrument R = 11,500, 20,000 px, batch of 64", "instrBroadGaussFast", ours, theirs, (SPECTRA, ROUNDS), *error)


def _flux_at(wavelength: np.ndarray) -> np.ndarray:
    """400 lines, Gaussian in optical depth."""
    rng = np.random.default_rng(2)
    depth = np.zeros(wavelength.shape)
    for centre, strength in zip(rng.uniform(8390, 8810, 400), rng.uniform(0.05, 1.5, 400), strict=True):
        depth += strength * np.exp(-0.5 * ((wavelength - centre) / LINE_SIGMA) ** 2)
    return np.exp(-depth)


def _exact(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and the flux there, summed over a grid twenty times finer."""
    step, profile = (WAVELENGTH[1] - WAVELENGTH[0]) / 20, RotationProfile()
    values = []
    for centre in WAVELENGTH[pixels]:
        reach = centre * VSINI / SPEED_OF_LIGHT_KM_S
        offset = step * np.arange(-int(reach / step) - 1, int(reach / step) + 2)
        weight = profile.cumulative((offset + step / 2) / reach) - profile.cumulative((offset - step / 2) / reach)
        values.append(weight @ _flux_at(centre + offset))
    return pixels, np.array(values)


def _errors(exact: tuple[np.ndarray, np.ndarray], *fluxes: np.ndarray) -> list[float]:
    return [float(np.abs(flux[exact[0]] - exact[1]).max()) for flux in fluxes]


def _row(
    name: str,
    peer: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    counts: tuple[int, int],
    our_error: float,
    their_error: float,
) -> Row:
    """Time both in turn; ``counts`` is how many spectra a call of ours treats, and how many rounds there are."""
    ours()  # both are warm: matrices are made, libraries loaded
    ratios, times = [], []
    for _ in range(counts[1]):
        taken = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            taken.append(1e3 * (time.perf_counter() - start))
        taken[0] /= counts[0]
        times.append(taken)
        ratios.append(taken[1] / taken[0])
    return {
        "name": name,
        "peer": peer,
        "ratio": statistics.median(ratios),
        "spread": (min(ratios), max(ratios)),
        "agreement": f"off the exact flux by {our_error:.0e}, the peer by {their_error:.0e}",
        "ours_ms": statistics.median(t[0] for t in times),
        "peer_ms": statistics.median(t[1] for t in times),
    }


def main() -> None:
    """Print the table."""
    print(f"{'job':50} {'peer':20} {'ratio':>8} (range) {'ours ms':>9} {'peer ms':>9}  agreement")
    for r in run():
        if r["ratio"] != r["ratio"]:
            print(f"{r['name']}: {r['peer']} is not installed, nothing to compare with")
            continue
        numbers = f"{r['ratio']:8.1f} ({r['spread'][0]:.1f}-{r['spread'][1]:.1f}) {r['ours_ms']:9.3f} {r['peer_ms']:9.3f}"
        print(f"{r['name']:50} {r['peer']:20} {numbers}  {r['agreement']}")


if __name__ == "__main__":
    sys.exit(main())
