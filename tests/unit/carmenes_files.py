"""Files of CARMENES' visual channel as its pipeline CARACAL writes them, and PHOENIX files of the same stars: for tests.

Form: Caballero et al. 2016 and Zechmeister et al. 2018, and the NIR file at hand: images SPEC, CONT, SIG and WAVE of 61 orders
(118 to 58) of 4096 pixels; vacuum, in the observatory's frame; keywords CARACAL BERV and CARACAL FOX SNR. Extraction is relative
to the flat field: in the file at hand the flux is of order 1 and the same where orders meet, CONT is 1 everywhere, and the blaze
is in the errors alone. Orders follow the grating equation, order times wavelength = 614,000 Å, as there (63 at 9750 Å).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from phoenix_files import LEVEL, STAR, write_spectrum, write_wave
from scipy.interpolate import CubicSpline

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.grids.phoenix import WAVE_PATH, PhoenixNode
from maury.prepare import convolve_instrument, rotate_flux

DWARF = replace(STAR, n_lines=1000)
"""With so few lines that a continuum is left between them, and no flux is below zero."""
ORDERS = tuple(range(118, 57, -1))
N_PIXELS = 4096
RESOLVING_POWER = 94_600.0
_GRATING = 614_000.0  # Å
_COARSE = 0.05  # Å, between which a cubic does: the lines of DWARF have a sigma of 0.4 Å at least
_HALF_LENGTH = 0.0078  # of an order on the detector, over its wavelength: 137 Å at 8800 Å, 2.8 pixels per resolution element


def vis_wavelength() -> np.ndarray:
    """(61, 4096) Å, vacuum."""
    place = np.linspace(-1.0, 1.0, N_PIXELS)
    return _GRATING / np.array(ORDERS)[:, None] * (1 + _HALF_LENGTH * place)


def write_dwarf_archive(folder: Path, nodes: Sequence[PhoenixNode], wavelength: np.ndarray) -> Path:
    """A folder of PHOENIX files with the spectra of :data:`DWARF`, as ``phoenix_files.write_phoenix`` makes of its own."""
    write_wave(folder / WAVE_PATH, wavelength)
    values = np.array([[node.teff, node.logg, node.m_h, node.alpha_m] for node in nodes])
    coarse = np.arange(wavelength[0] - 1.0, wavelength[-1] + 1.0, _COARSE)
    fluxes = CubicSpline(coarse, DWARF.flux(coarse, values), axis=1)(wavelength)
    for node, flux in zip(nodes, fluxes, strict=True):
        write_spectrum(folder / node.path, node, LEVEL * (node.teff / 4000.0) ** 4 * flux)
    return folder


def write_carmenes_vis(
    path: Path,
    labels: Sequence[float],
    rv: float,
    snr: float,
    seed: int,
    *,
    vsini: float = 0.0,
    berv: float = 12.3,
    star: str = "J00000+000",
    computed: tuple[float, float] = (8480.0, 8840.0),
) -> Path:
    """One exposure of a star.

    Parameters
    ----------
    labels : Teff (K), log g, [M/H] and, unless it is 0, [alpha/M].
    rv, berv, vsini : km/s; ``rv`` is barycentric.
    snr : per pixel at the top of the blaze, where the flux is the median one.
    seed : of the noise.
    computed : Å; orders that do not reach into it hold noise around 1, which saves the time of 55 others.
    """
    wave = vis_wavelength()
    flux = np.ones(wave.shape)
    to_rest = (1 + berv / SPEED_OF_LIGHT_KM_S) / (1 + rv / SPEED_OF_LIGHT_KM_S)
    orders = (wave[:, -1] > computed[0]) & (wave[:, 0] < computed[1])
    flux[orders] = _seen(wave[orders] * to_rest, labels, vsini)
    blaze = np.sinc(_HALF_LENGTH * 70 * np.linspace(-1.0, 1.0, N_PIXELS)) ** 2  # half of an order between two maxima: 1/2
    error = np.sqrt(np.maximum(flux, 0.01) / blaze) / snr
    noisy = flux + error * np.random.default_rng(seed).standard_normal(flux.shape)
    header = fits.Header({"INSTRUME": "CARMENES", "OBJECT": star, "FILENAME": path.name, "RA": 269.4, "DEC": 4.7})
    header["MJD-OBS"] = 57472.2282
    header["HIERARCH CARACAL BERV"] = (berv, "[km/s] Barycentric correction")
    for number, order in enumerate(ORDERS):
        header[f"HIERARCH CARACAL FOX SNR {number}"] = (float(np.median(noisy[number] / error[number])), f"order {order}")
    images = {"SPEC": noisy, "CONT": np.ones(wave.shape), "SIG": error}
    hdus = [fits.ImageHDU(image.astype(np.float32), name=name) for name, image in images.items()]
    fits.HDUList([fits.PrimaryHDU(header=header), *hdus, fits.ImageHDU(wave, name="WAVE")]).writeto(path, overwrite=True)
    return path


def _seen(wavelength: np.ndarray, labels: Sequence[float], vsini: float) -> np.ndarray:
    """The star in its rest frame through rotation and instrument, 1 in the median."""
    coarse = np.arange(wavelength.min() - 5.0, wavelength.max() + 5.0, _COARSE)
    fine = np.arange(coarse[0], coarse[-1], 0.01)
    flux = CubicSpline(coarse, DWARF.flux(coarse, [[*labels, *([0.0] * (4 - len(labels)))]])[0])(fine)[None]
    flux = convolve_instrument(fine, flux, resolving_power=RESOLVING_POWER, native_resolving_power=5e5)
    if vsini > 0:
        flux = rotate_flux(fine, flux, np.array([vsini]), 0.6)
    return np.asarray(CubicSpline(fine, flux[0] / np.median(flux))(wavelength))
