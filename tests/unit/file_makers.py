"""Small files in exactly the form of each survey, with a known spectrum in them. One function per form.

Every maker writes one or more spectra of flux 100 with a dip, error 5, on a grid whose first and last wavelength (Å) it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

N = 200
Range = tuple[float, float]


def spectrum(n: int = N) -> np.ndarray:
    return 100.0 - 40.0 * np.exp(-0.5 * ((np.arange(n) - n / 2) / 6.0) ** 2)


def _write(path: Path, *hdus: fits.hdu.base.ExtensionHDU) -> None:
    fits.HDUList(list(hdus)).writeto(path, overwrite=True)


def _header(**cards: object) -> fits.Header:
    header = fits.Header()
    for key, value in cards.items():
        header[key.replace("__", " ")] = value
    return header


def lamost_image(path: Path) -> Range:
    """LAMOST DR1-DR8: rows flux, ivar, sub-continuum or wavelength, and-mask, or-mask."""
    rows = np.zeros((5, N), np.float32)
    rows[0], rows[1] = spectrum(), 1 / 25.0
    cards = {"TELESCOP": "LAMOST", "COEFF0": 3.7, "COEFF1": 1e-4, "Z": 1e-4, "HELIO": True, "VACUUM": True}
    cards |= {f"SNR{band}": 20.0 for band in "UGRIZ"}
    fits.PrimaryHDU(rows, _header(**cards)).writeto(path, overwrite=True)
    return float(10**3.7), float(10 ** (3.7 + 1e-4 * (N - 1)))


def lamost_table(path: Path) -> Range:
    """LAMOST DR9 and later: one row of vector columns."""
    wave = 10 ** (3.7 + 1e-4 * np.arange(N))
    columns = [("FLUX", spectrum()), ("IVAR", np.full(N, 1 / 25.0)), ("WAVELENGTH", wave)]
    columns += [("ANDMASK", np.zeros(N)), ("ORMASK", np.zeros(N))]
    table = fits.BinTableHDU.from_columns(
        [fits.Column(n, f"{N}E", array=v[None].astype(np.float32)) for n, v in columns], name="COADD"
    )
    _write(path, fits.PrimaryHDU(header=_header(TELESCOP="LAMOST", Z=1e-4, VACUUM=True)), table)
    return float(np.float32(wave[0])), float(np.float32(wave[-1]))


def sdss(path: Path) -> Range:
    loglam = (3.6 + 1e-4 * np.arange(N)).astype(np.float32)
    coadd = fits.BinTableHDU.from_columns(
        [
            fits.Column("flux", "E", array=spectrum()),
            fits.Column("loglam", "E", array=loglam),
            fits.Column("ivar", "E", array=np.full(N, 1 / 25.0)),
            fits.Column("and_mask", "J", array=np.zeros(N)),
            fits.Column("or_mask", "J", array=np.zeros(N)),
            fits.Column("wdisp", "E", array=np.ones(N)),
        ],
        name="COADD",
    )
    results = fits.BinTableHDU.from_columns(
        [fits.Column("CLASS", "6A", array=["STAR"]), fits.Column("Z", "E", array=[1e-4]), fits.Column("PLATE", "J", array=[4000])]
    )
    _write(path, fits.PrimaryHDU(header=_header(TELESCOP="SDSS 2.5-M")), coadd, results)
    wave = 10.0 ** loglam.astype(float)
    return float(wave[0]), float(wave[-1])


def ap_visit(path: Path) -> Range:
    """APOGEE apVisit: three chips, red first, wavelengths falling within each."""
    wave = np.stack([np.linspace(16900, 16500, N), np.linspace(16400, 15900, N), np.linspace(15800, 15200, N)])
    images = [np.tile(spectrum(), (3, 1)), np.full((3, N), 5.0), np.zeros((3, N), np.int16), wave]
    units = ("Flux (10^-17 erg/s/cm^2/Ang)", "Flux Error (10^-17 erg/s/cm^2/Ang)", "Flag Mask (bitwise)", "Wavelength (Ang)")
    hdus = [fits.ImageHDU(data, _header(BUNIT=unit)) for data, unit in zip(images, units, strict=True)]
    _write(path, fits.PrimaryHDU(header=_header(TELESCOP="apo25m", VHELIO=10.0, BC=0.0)), *hdus)
    return 15200.0, 16900.0


def ap_star(path: Path) -> Range:
    """APOGEE apStar: log-linear image extensions flux, error, mask, rest frame."""
    cards = {"CRVAL1": 4.18, "CDELT1": 6e-6, "CRPIX1": 1.0, "CTYPE1": "LOG-LINEAR", "DC-FLAG": 1}
    units = ("Flux", "Flux Error", "Mask (bitwise)")
    images = [np.tile(spectrum(), (2, 1)), np.full((2, N), 5.0), np.zeros((2, N), np.int16)]
    hdus = [fits.ImageHDU(d, _header(BUNIT=u, **cards)) for d, u in zip(images, units, strict=True)]
    _write(path, fits.PrimaryHDU(header=_header(TELESCOP="apo25m", OBJID="2M00", VHELIO=-12.0, **cards)), *hdus)
    return float(10**4.18), float(10 ** (4.18 + 6e-6 * (N - 1)))


def desi(path: Path) -> Range:
    fibermap = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=[1, 2, 3]),
            fits.Column("TARGET_RA", "D", array=[1.0, 2.0, 3.0]),
            fits.Column("TARGET_DEC", "D", array=[1.0, 2.0, 3.0]),
        ],
        name="FIBERMAP",
    )
    wave = 3600 + 0.8 * np.arange(N)
    hdus = [
        fits.ImageHDU(wave, _header(BUNIT="Angstrom"), name="B_WAVELENGTH"),
        fits.ImageHDU(
            np.tile(spectrum(), (3, 1)).astype(np.float32), _header(BUNIT="10**-17 erg/(s cm2 Angstrom)"), name="B_FLUX"
        ),
        fits.ImageHDU(np.full((3, N), 1 / 25.0, np.float32), name="B_IVAR"),
        fits.ImageHDU(np.zeros((3, N), np.int32), name="B_MASK"),
    ]
    _write(path, fits.PrimaryHDU(), fibermap, *hdus)
    return 3600.0, float(wave[-1])


def harps_s1d(path: Path) -> Range:
    cards = {"INSTRUME": "HARPS", "CRVAL1": 5000.0, "CDELT1": 0.01, "CRPIX1": 1.0, "CTYPE1": "Angstrom", "OBJECT": "Gl 1"}
    header = _header(**cards)
    header["HIERARCH ESO DRS VERSION"] = "HARPS_3.5"
    header["HIERARCH ESO DPR TYPE"] = "STAR,WAVE,M1V"
    for order in range(72):
        header[f"HIERARCH ESO DRS SPE EXT SN{order}"] = 20.0
    fits.PrimaryHDU(spectrum().astype(np.float32), header).writeto(path, overwrite=True)
    return 5000.0, 5000.0 + 0.01 * (N - 1)


def hpf(path: Path) -> Range:
    orders = 28
    wave = np.stack([8100 + 150 * i + np.linspace(0, 100, N) for i in range(orders)])
    names = [
        "Sci Flux",
        "Sky Flux",
        "Cal Flux",
        "Sci Variance",
        "Sky Variance",
        "Cal Variance",
        "Sci Wavl",
        "Sky Wavl",
        "Cal Wavl",
    ]
    data = {"Sci Flux": np.tile(spectrum(), (orders, 1)), "Sci Variance": np.full((orders, N), 25.0), "Sci Wavl": wave}
    hdus = [fits.ImageHDU(data.get(name, np.ones((orders, N))), name=name) for name in names]
    _write(path, fits.PrimaryHDU(header=_header(INSTRUME="HPF", OBJECT="GJ 699")), *hdus)
    return 8100.0, float(wave[-1, -1])


def caracal(path: Path) -> Range:
    """CARMENES CARACAL: images SPEC, CONT, SIG, WAVE of 28 NIR orders."""
    orders = 28
    wave = np.stack([9600 + 250 * i + np.linspace(0, 200, N) for i in range(orders)])
    header = _header(INSTRUME="CARMENES", OBJECT="Karmn")
    header["HIERARCH CARACAL BERV"] = 0.0
    images = [
        ("SPEC", np.tile(spectrum(), (orders, 1))),
        ("CONT", np.ones((orders, N))),
        ("SIG", np.full((orders, N), 5.0)),
        ("WAVE", wave),
    ]
    _write(path, fits.PrimaryHDU(header=header), *[fits.ImageHDU(d, name=n) for n, d in images])
    return 9600.0, float(wave[-1, -1])


def gaia_rvs(path: Path) -> Range:
    wave = 846.0 + 0.01 * np.arange(N)
    rows = "\n".join(f"1,2,286.8,49.3,{w:.2f},{f / 100:.5f},0.05,3,7,1" for w, f in zip(wave, spectrum(), strict=True))
    path.write_text(
        f"source_id,solution_id,ra,dec,wavelength,flux,flux_error,combined_transits,combined_ccds,deblended_ccds\n{rows}\n",
        encoding="utf-8",
    )
    return 8460.0, 10 * float(wave[-1])


def mastar(path: Path) -> Range:
    wave = 10 ** (3.56 + 1e-4 * np.arange(N))
    columns = [
        fits.Column("MANGAID", "10A", array=["3-1", "3-2"]),
        fits.Column("WAVE", f"{N}E", array=np.tile(wave, (2, 1))),
        fits.Column("FLUX", f"{N}E", array=np.tile(spectrum(), (2, 1))),
        fits.Column("IVAR", f"{N}E", array=np.full((2, N), 1 / 25.0)),
        fits.Column("MASK", f"{N}J", array=np.zeros((2, N))),
        fits.Column("HELIOV", "E", array=[10.0, -20.0]),
    ]
    _write(path, fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns))
    return float(np.float32(wave[0])), float(np.float32(wave[-1]))


def miles(path: Path) -> Range:
    cards = {"TPLLIB": "MILES", "CRVAL1": 3540.5, "CDELT1": 0.9, "CRPIX1": 1.0, "CTYPE1": "WAVELENGTH", "CUNIT1": "Angstrom"}
    fits.PrimaryHDU(spectrum().astype(np.float32), _header(**cards)).writeto(path, overwrite=True)
    return 3540.5, 3540.5 + 0.9 * (N - 1)


def image_1d(path: Path) -> Range:
    """A reduced 1-D FITS image with a linear axis in nm, in air, and an error extension."""
    cards = {"CRVAL1": 500.0, "CDELT1": 0.01, "CRPIX1": 1.0, "CTYPE1": "AWAV", "CUNIT1": "nm", "OBJECT": "star"}
    errors = fits.ImageHDU(np.full(N, 5.0, np.float32), name="ERR")
    _write(path, fits.PrimaryHDU(spectrum().astype(np.float32), _header(**cards)), errors)
    return 5000.0, 5000.0 + 0.1 * (N - 1)


def _named_table() -> tuple[Table, Range]:
    wave = 500.0 + 0.05 * np.arange(N)
    table = Table({"wavelength_vac": wave, "flux": spectrum(), "error": np.full(N, 5.0)})
    table["wavelength_vac"].unit = "nm"
    return table, (5000.0, 10 * float(wave[-1]))


def table_fits(path: Path) -> Range:
    table, limits = _named_table()
    table.write(path, format="fits", overwrite=True)
    return limits


def table_votable(path: Path) -> Range:
    table, limits = _named_table()
    table.write(path, format="votable", overwrite=True)
    return limits


def table_ecsv(path: Path) -> Range:
    table, limits = _named_table()
    table.write(path, format="ascii.ecsv", overwrite=True)
    return limits


def table_csv(path: Path) -> Range:
    table, limits = _named_table()
    table.rename_column("wavelength_vac", "wavelength_vac [nm]")
    table.write(path, format="ascii.csv", overwrite=True)
    return limits


Maker = Callable[[Path], Range]
MAKERS: dict[str, tuple[Maker, str, str, str]] = {
    # name: maker, file name, expected format, expected medium
    "lamost image": (lamost_image, "spec-1.fits", "lamost", "vacuum"),
    "lamost table": (lamost_table, "spec-2.fits", "lamost", "vacuum"),
    "sdss": (sdss, "spec-3.fits", "sdss", "vacuum"),
    "apVisit": (ap_visit, "apVisit.fits", "apogee", "vacuum"),
    "apStar": (ap_star, "apStar.fits", "apogee", "vacuum"),
    "desi": (desi, "coadd.fits", "desi", "vacuum"),
    "harps s1d": (harps_s1d, "s1d_A.fits", "harps", "air"),
    "hpf": (hpf, "hpf.fits", "hpf", "vacuum"),
    "caracal": (caracal, "car-nir_A.fits", "carmenes", "vacuum"),
    "gaia": (gaia_rvs, "rvs.csv", "gaia-rvs", "vacuum"),
    "mastar": (mastar, "goodspec.fits", "mastar", "vacuum"),
    "miles": (miles, "m0001V.fits", "miles", "air"),
    "image": (image_1d, "star.fits", "image1d", "air"),
    "table fits": (table_fits, "table.fits", "table", "vacuum"),
    "table votable": (table_votable, "table.vot", "table", "vacuum"),
    "table ecsv": (table_ecsv, "table.ecsv", "table", "vacuum"),
    "table csv": (table_csv, "table.csv", "table", "vacuum"),
}
