"""A survey of known stars for tests: spectra of the closed-form generator in LAMOST's file form, and a recipe for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.grids import AnalyticSpectra
from maury.prepare.signal import SDSS_BANDS

FloatArray = NDArray[np.float64]

LABELS = ("teff", "logg", "fe_h")
SEED = 18900101
BROKEN_FILE = "spec-55862-DEMO_sp01-broken.fits"
OUTLIER_FILE = "spec-55862-DEMO_sp01-outlier.fits"
_OUTLIER = (3450.0, 4.8, 0.0)  # an M dwarf among stars of 4200 K and more

COEFF0, COEFF1, N_PIXELS = 3.5682, 1e-4, 3909  # LAMOST's own grid: log10 Å of the first pixel, step, number
REDSHIFT_ERROR_KM_S = 4.0  # of LAMOST's pipeline for bright stars, roughly


def survey_recipe(**changes: Any) -> dict[str, Any]:
    """The recipe that trains The Cannon on ``labels.csv`` of :func:`make_survey`, with sections replaced."""
    return {
        "name": "survey",
        "description": "Teff, log g and [Fe/H] of a made-up survey",
        "source": "The Cannon (Ness+2015) on spectra of maury.grids.AnalyticSpectra",
        "data": {"spectra": "spectra/*.fits", "table": "labels.csv", "join": "file", "format": "lamost"},
        "label": [
            {"name": "teff", "column": "teff", "unit": "K", "coordinate": "inverse"},
            {"name": "logg", "column": "logg", "unit": "dex"},
            {"name": "fe_h", "column": "fe_h", "unit": "dex"},
        ],
        "prepare": [
            {"step": "mask", "presets": ["sky_lines", "lamost_arm_join"]},
            {"step": "resample", "start": 4000, "stop": 8600, "spacing": 2},
            {"step": "gaussian", "length": 50, "variant": "paper"},
        ],
        "train": {"order": 2},
        "quality": {"max_reduced_chi2": 5.0},
        "validation": {"folds": 5},
        **changes,
    }


def make_survey(folder: Path, *, n_stars: int = 400, seed: int = SEED) -> Table:
    """Write ``spectra/``, ``labels.csv`` (first half) and ``truth.csv`` (second half, outlier, broken file).

    Returns
    -------
    The table of ``truth.csv``: file, teff, logg, fe_h (NaN for the broken file).
    """
    spectra = folder / "spectra"
    spectra.mkdir(parents=True)
    random = np.random.default_rng(seed)
    values = np.vstack([_mini_survey_labels(n_stars, random), _OUTLIER])
    names = [f"spec-55862-DEMO_sp01-{i + 1:03d}.fits" for i in range(n_stars)] + [OUTLIER_FILE]
    half = n_stars // 2
    # training stars are bright, as surveys choose them: noise in the coefficients pulls labels of other stars to the middle
    typical = np.where(np.arange(n_stars) < half, 150.0, 60.0)
    snr = np.r_[(typical * np.exp(random.normal(0.0, 0.4, n_stars))).clip(20.0, 400.0), 80.0]
    velocity = random.normal(-10.0, 45.0, n_stars + 1)
    write_lamost_files(spectra, names, AnalyticSpectra(LABELS), values, snr=snr, velocity=velocity, random=random)
    (spectra / BROKEN_FILE).write_bytes((spectra / names[-2]).read_bytes()[:20_000])
    _write_labels(folder / "labels.csv", names[:half], values[:half])
    return _write_labels(folder / "truth.csv", [*names[half:], BROKEN_FILE], np.vstack([values[half:], np.full(3, np.nan)]))


def _mini_survey_labels(n: int, random: np.random.Generator) -> FloatArray:
    """(n, 3) dwarfs of 4200 to 6800 K and, two fifths, giants of 4200 to 5400 K, in random order."""
    giant = random.random(n) < 0.4
    place = random.random(n)
    teff = np.where(giant, 4200.0 + 1200.0 * place, 4200.0 + 2600.0 * place)
    spread = random.normal(0.0, 1.0, n)
    logg = np.where(giant, 1.3 + 2.2 * place + 0.25 * spread, 4.65 - 0.45 * place + 0.08 * spread)
    fe_h = np.clip(random.normal(-0.3, 0.35, n), -1.4, 0.4)
    return np.column_stack([teff.round(1), logg.round(3), fe_h.round(3)])


def _write_labels(path: Path, names: Sequence[str], values: FloatArray) -> Table:
    table = Table({"file": list(names), **{name: values[:, k] for k, name in enumerate(LABELS)}})
    table.write(path, format="ascii.csv", overwrite=True)
    return table


def write_lamost_files(
    folder: Path,
    names: Sequence[str],
    generator: AnalyticSpectra,
    values: ArrayLike,
    *,
    snr: ArrayLike,
    velocity: ArrayLike,
    random: np.random.Generator,
) -> None:
    """Spectra of a generator as LAMOST low-resolution image files (rows as in DR8, which every release until then shares).

    Noise follows counts and a throughput that falls to both ends; one pixel in 500 is bad: a wild flux, no inverse variance,
    mask bit 0, as in the released files. The header's redshift is off by LAMOST's own 4 km/s (one standard deviation).

    Parameters
    ----------
    folder, names : where to write, one file per star.
    generator, values : the stars.
    snr : (n,) signal-to-noise per pixel at 6500 Å; velocity : (n,) true radial velocities, km/s.
    random : for noise, redshift errors and bad pixels.
    """
    wavelength = 10.0 ** (COEFF0 + COEFF1 * np.arange(N_PIXELS))
    speed = np.asarray(velocity, dtype=float)
    clean = generator.flux(wavelength, values, speed)
    throughput = np.exp(-(((wavelength - 6800.0) / 2600.0) ** 2))
    for i, (name, ratio) in enumerate(zip(names, np.asarray(snr, dtype=float), strict=True)):
        counts = 10.0 ** random.uniform(2.5, 4.0)
        ivar = ratio**2 * throughput / np.maximum(clean[i], 1e-3)
        flux = clean[i] + random.standard_normal(N_PIXELS) / np.sqrt(ivar)
        bad = random.random(N_PIXELS) < 1.0 / 500.0
        flux[bad] *= random.uniform(-1.0, 5.0, int(bad.sum()))
        ivar[bad] = 0.0
        rows = np.array([flux * counts, ivar / counts**2, wavelength, bad, bad], dtype=np.float32)
        redshift = (speed[i] + random.normal(0.0, REDSHIFT_ERROR_KM_S)) / SPEED_OF_LIGHT_KM_S
        header = _lamost_header(name, i, redshift, _band_snr(np.asarray(wavelength, np.float64), flux, ivar))
        _write_fits(folder / name, rows, header)


def _band_snr(wavelength: FloatArray, flux: FloatArray, ivar: FloatArray) -> dict[str, float]:
    """SNRU to SNRZ as LAMOST's headers hold them: the median over each band."""
    ratio = flux * np.sqrt(ivar)
    inside = {band: (wavelength > low) & (wavelength < high) & (ivar > 0) for band, (low, high) in SDSS_BANDS.items()}
    return {f"SNR{band.upper()}": round(float(np.median(ratio[pixels])), 2) for band, pixels in inside.items()}


def _lamost_header(name: str, number: int, redshift: float, snr: dict[str, float]) -> dict[str, Any]:
    """The keywords of a LAMOST low-resolution header that say something about the spectrum."""
    ra, dec = 90.0 + 0.05 * (number % 100), 27.0 + 0.05 * (number // 100)
    hours, minutes = divmod(ra * 4.0, 60.0)
    degrees, arcmin = int(dec), (dec - int(dec)) * 60.0
    place = f"J{int(hours):02d}{int(minutes):02d}{minutes % 1 * 60:05.2f}+{degrees:02d}{int(arcmin):02d}{arcmin % 1 * 60:04.1f}"
    return {
        "FILENAME": name,
        "OBSID": 900_000_000 + number,
        "AUTHOR": "LAMOST Pipeline",
        "DATA_V": "made up, not observed",
        "EXTEN0": "Flux, Inverse, Wavelength, Andmask, Ormask",
        "N_EXTEN": 1,
        "ORIGIN": "NAOC-LAMOST",
        "TELESCOP": "LAMOST",
        "LMJD": 55862,
        "MJD": 55861,
        "RA": ra,
        "DEC": dec,
        "DESIG": f"LAMOST {place}",
        "HELIO": True,
        "VACUUM": True,
        "NWORDER": 2,
        "WFITTYPE": "LOG-LINEAR",
        "COEFF0": COEFF0,
        "COEFF1": COEFF1,
        "DC-FLAG": 1,
        "CLASS": "STAR",
        "Z": round(redshift, 8),
        "Z_ERR": round(REDSHIFT_ERROR_KM_S / SPEED_OF_LIGHT_KM_S, 8),
        **snr,
    }


def _write_fits(path: Path, rows: NDArray[np.float32], header: dict[str, Any]) -> None:
    hdu = fits.PrimaryHDU(rows)
    for key, value in header.items():
        hdu.header[key] = value
    hdu.writeto(path, overwrite=True)
