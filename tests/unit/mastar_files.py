"""Files in the documented forms of MaStar and APOGEE DR17 (made here: neither is at hand), and a synthetic library.

MaStar: https://data.sdss.org/datamodel/files/MANGA_SPECTRO_MASTAR/DRPVER/MPROCVER/mastar-goodspec-DRPVER-MPROCVER.html
APOGEE: https://data.sdss.org/datamodel/files/APOGEE_ASPCAP/APRED_VERS/ASPCAP_VERS/allStar.html
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

N_PIXELS = 4563
WAVELENGTH = 10 ** (3.5589 + 1e-4 * np.arange(N_PIXELS))  # Å, vacuum: 3622 to 10,354

APOGEE_LABELS = ("TEFF", "LOGG", "FE_H", "ALPHA_M", "VMICRO")


def write_goodspec(
    path: Path,
    mangaid: ArrayLike,
    ra: ArrayLike,
    dec: ArrayLike,
    heliov: ArrayLike,
    flux: NDArray[np.float64],
    ivar: NDArray[np.float64],
    wavelength: NDArray[np.float64] = WAVELENGTH,
) -> None:
    """One row per good visit."""
    n, size = flux.shape
    columns = [
        fits.Column("MANGAID", "25A", array=np.asarray(mangaid)),
        fits.Column("PLATE", "J", array=np.full(n, 9000)),
        fits.Column("IFUDESIGN", "J", array=np.arange(n)),
        fits.Column("MJD", "J", array=57000 + np.arange(n)),
        fits.Column("RA", "D", array=np.asarray(ra)),
        fits.Column("DEC", "D", array=np.asarray(dec)),
        fits.Column("HELIOV", "E", array=np.asarray(heliov)),
        fits.Column("WAVE", f"{size}D", array=np.tile(wavelength, (n, 1))),
        fits.Column("FLUX", f"{size}E", array=flux),
        fits.Column("IVAR", f"{size}E", array=ivar),
        fits.Column("MASK", f"{size}J", array=np.zeros((n, size), np.int32)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="GOODSPEC")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)


def write_allstar(
    path: Path,
    ra: ArrayLike,
    dec: ArrayLike,
    labels: NDArray[np.float64],
    aspcapflag: ArrayLike = 0,
    extratarg: ArrayLike = 0,
    snr: float = 150.0,
) -> None:
    """One row per star and field: positions, calibrated labels in the order of APOGEE_LABELS, flags; NaN is "no value"."""
    n = len(labels)
    columns = [
        fits.Column("APOGEE_ID", "18A", array=[f"2M{i:06d}" for i in range(n)]),
        fits.Column("RA", "D", array=np.asarray(ra)),
        fits.Column("DEC", "D", array=np.asarray(dec)),
        fits.Column("SNR", "E", array=np.full(n, snr)),
        *(fits.Column(name, "E", array=labels[:, k]) for k, name in enumerate(APOGEE_LABELS)),
        *(fits.Column(f"{name}_ERR", "E", array=np.full(n, 0.01)) for name in APOGEE_LABELS[:4]),
        fits.Column("ASPCAPFLAG", "K", array=np.broadcast_to(aspcapflag, n)),
        fits.Column("STARFLAG", "K", array=np.zeros(n)),
        fits.Column("EXTRATARG", "J", array=np.broadcast_to(extratarg, n)),
        fits.Column("PARAM", "9E", array=np.zeros((n, 9))),
    ]
    first = fits.BinTableHDU.from_columns(columns)
    second = fits.BinTableHDU.from_columns([fits.Column("PARAM_SYMBOL", "16A", array=["TEFF"])])
    fits.HDUList([fits.PrimaryHDU(), first, second, fits.ImageHDU(np.zeros(3))]).writeto(path, overwrite=True)


def write_library(path: Path, wavelength: ArrayLike, flux: NDArray[np.float64], labels: ArrayLike, names: ArrayLike) -> None:
    """A library as this project's synthetic ones are kept: integers with a scale, labels as one array with names."""
    scale = 2e-5
    np.savez(
        path,
        wavelength_angstrom=np.asarray(wavelength),
        flux_u16=np.round(flux / scale).astype(np.uint16),
        flux_scale=scale,
        labels=np.asarray(labels),
        label_names=np.asarray(names),
    )
