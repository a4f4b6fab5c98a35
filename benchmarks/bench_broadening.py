"""Rotational and instrumental broadening against PyAstronomy: ``python -m benchmarks.bench_broadening``.

20,000 pixels, one thread, interleaved rounds in one process, median of the ratios. Both are compared in the same run with a
direct sum over a grid twenty times finer of the same spectrum, known between the pixels: the column "agreement" says how far ours
and the peer's are from it. PyAstronomy is skipped, with a sentence, where it is not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.side_by_side import Row, compared, print_rows, skipped
from maury.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT_KM_S
from maury.prepare import convolve_instrument, rotate_flux

ROUNDS, SLOW_ROUNDS = 7, 3  # rotBroad takes more than a second
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
        return [skipped("rotation 20,000 px", "PyAstronomy")]
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
    told = [_off(error[0], theirs) for theirs in error[1:]]
    first, ours, n = cases[0]
    rows = [compared(f"rotate 20,000 px, {first}", "rotBroad", ours, slow, told[0], counts=(n, 1), rounds=SLOW_ROUNDS)]
    rows += [
        compared(f"rotate 20,000 px, {name}", "fastRotBroad", call, fast, told[1], counts=(n, 1), rounds=ROUNDS)
        for name, call, n in cases
    ]
    return [*rows, _instrument(peer, flux)]


def _off(ours: float, theirs: float) -> str:
    return f"off the exact flux by {ours:.0e}, the peer by {theirs:.0e}"


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
    name = "instrument R = 11,500, 20,000 px, batch of 64"
    return compared(name, "instrBroadGaussFast", ours, theirs, _off(*error), counts=(SPECTRA, 1), rounds=ROUNDS)


def _flux_at(wavelength: np.ndarray) -> np.ndarray:
    """400 lines, Gaussian in optical depth."""
    rng = np.random.default_rng(2)
    depth = np.zeros(wavelength.shape)
    for centre, strength in zip(rng.uniform(8390, 8810, 400), rng.uniform(0.05, 1.5, 400), strict=True):
        depth += strength * np.exp(-0.5 * ((wavelength - centre) / LINE_SIGMA) ** 2)
    return np.exp(-depth)


def _exact(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and the flux there, summed over a grid twenty times finer; Gray's profile (METHODS 0.1) by 40 points in each bin."""
    step, part = (WAVELENGTH[1] - WAVELENGTH[0]) / 20, (np.arange(40) + 0.5) / 40 - 0.5
    values = []
    for centre in WAVELENGTH[pixels]:
        reach = centre * VSINI / SPEED_OF_LIGHT_KM_S
        offset = step * np.arange(-int(reach / step) - 1, int(reach / step) + 2)
        inside = np.maximum(1 - ((offset[:, None] + step * part) / reach) ** 2, 0.0)
        weight = (2 * (1 - 0.6) * np.sqrt(inside) + 0.5 * np.pi * 0.6 * inside).sum(axis=1)
        values.append(weight @ _flux_at(centre + offset) / weight.sum())
    return pixels, np.array(values)


def _errors(exact: tuple[np.ndarray, np.ndarray], *fluxes: np.ndarray) -> list[float]:
    return [float(np.abs(flux[exact[0]] - exact[1]).max()) for flux in fluxes]


def main() -> None:
    """Print the table."""
    print_rows(run())


if __name__ == "__main__":
    main()
