"""Files of PHOENIX-ACES HiRes as the archive has them, with smooth analytic spectra in them: for tests, and not physics.

Form: Husser et al. 2013 and the archive's page on its files: a primary image of the flux alone (BITPIX -32, erg/s/cm^2/cm) with
the keywords PHXTEFF, PHXLOGG, PHXM_H, PHXALPHA, a table of abundances behind it, and one file of wavelengths (BITPIX -64, Å).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from maury.grids import AnalyticSpectra
from maury.grids.phoenix import FLUX_UNIT, WAVE_PATH, PhoenixNode

STAR = AnalyticSpectra(("teff", "logg", "m_h", "alpha_m"), resolving_power=100_000, n_lines=3000)
LEVEL = 1e15
"""erg/s/cm^2/cm: about that of a real M dwarf in the red."""


def phoenix_wavelength(start: float = 8790.0, stop: float = 8850.0, step: float = 0.01) -> np.ndarray:
    """Å, in the step that the library has below 1 micron."""
    return start + step * np.arange(round((stop - start) / step) + 1)


def phoenix_flux(wavelength: np.ndarray, nodes: Sequence[PhoenixNode]) -> np.ndarray:
    """(n, n_pixels) float32 of what the files of these nodes hold."""
    values = np.array([[node.teff, node.logg, node.m_h, node.alpha_m] for node in nodes])
    return (LEVEL * (values[:, :1] / 4000.0) ** 4 * STAR.flux(wavelength, values)).astype(np.float32)


def lattice_nodes(
    teff: Iterable[float], logg: Iterable[float], m_h: Iterable[float], alpha_m: Iterable[float] = (0.0,)
) -> list[PhoenixNode]:
    """All combinations."""
    return [PhoenixNode(*map(float, labels)) for labels in itertools.product(teff, logg, m_h, alpha_m)]


def write_phoenix(folder: Path, nodes: Sequence[PhoenixNode], wavelength: np.ndarray | None = None) -> Path:
    """An archive of these nodes below ``folder``, laid out as the real one; returns the folder."""
    wave = phoenix_wavelength() if wavelength is None else wavelength
    write_wave(folder / WAVE_PATH, wave)
    for start in range(0, len(nodes), 64):
        some = nodes[start : start + 64]
        for node, flux in zip(some, phoenix_flux(wave, some), strict=True):
            write_spectrum(folder / node.path, node, flux)
    return folder


def write_wave(path: Path, wavelength: np.ndarray, unit: str = "Angstrom") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.PrimaryHDU(np.asarray(wavelength, dtype=np.float64))
    hdu.header["BUNIT"] = unit
    hdu.writeto(path)


def write_spectrum(path: Path, node: PhoenixNode, flux: np.ndarray, unit: str = FLUX_UNIT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.PrimaryHDU(np.asarray(flux, dtype=np.float32))
    header = hdu.header
    header["BUNIT"] = unit
    header["PHXTEFF"], header["PHXLOGG"], header["PHXM_H"], header["PHXALPHA"] = node.teff, node.logg, node.m_h, node.alpha_m
    header["PHXXI_L"], header["PHXDUST"], header["PHXEOS"] = 1.0, False, "ACES"
    elements = fits.Column("element", "2A", array=np.array(["H", "He", "Fe"]))
    abundances = fits.BinTableHDU.from_columns([elements, fits.Column("abundance", "E", array=np.array([12.0, 10.93, 7.5]))])
    fits.HDUList([hdu, abundances]).writeto(path)
