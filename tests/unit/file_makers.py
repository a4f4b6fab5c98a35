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


def aspcap_star(path: Path) -> Range:
    """APOGEE aspcapStar: normalised flux, error, best model, and the labels in PARAM (Teff, log g, log vmicro, [M/H], ...)."""
    cards = {"CRVAL1": 4.18, "CDELT1": 6e-6, "CRPIX1": 1.0, "CTYPE1": "LOG-LINEAR"}
    images = [(spectrum(), "Flux"), (np.full(N, 5.0), "Flux Error"), (spectrum(), "Best fit")]
    hdus = [fits.ImageHDU(d, _header(BUNIT=u, **cards)) for d, u in images]
    param = np.array([[4750.0, 2.5, 0.3, -0.25, 0.0, 0.0, 0.1]])
    table = fits.BinTableHDU.from_columns(
        [fits.Column("PARAM", "7E", array=param), fits.Column("APOGEE_ID", "18A", array=["2M00"])]
    )
    _write(path, fits.PrimaryHDU(header=_header(TELESCOP="apo25m", OBJID="2M00", VHELIO=-12.0)), *hdus, table)
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


def desi_compressed(path: Path) -> Range:
    """A DESI spectra file: its masks are tile-compressed, the resolution is in matrices (here sigma = 1 pixel = 0.8 Å)."""
    limits = desi(path)
    with fits.open(path, memmap=False) as hdus:
        mask = np.zeros((3, N), np.int32)
        mask[0, 5] = 1 << 2  # COSMIC
        weights = np.exp(-0.5 * np.arange(-5, 6) ** 2.0)
        matrix = np.tile((weights / weights.sum())[None, :, None], (3, 1, N)).astype(np.float32)
        kept = [hdu for hdu in hdus if hdu.name != "B_MASK"]
        kept += [fits.ImageHDU(matrix, name="B_RESOLUTION"), fits.CompImageHDU(mask, name="B_MASK", compression_type="GZIP_1")]
        _write(path, *kept)
    return limits


def _harps_cards(**cards: object) -> fits.Header:
    header = _header(INSTRUME="HARPS", OBJECT="Gl 1", **cards)
    header["HIERARCH ESO DRS VERSION"] = "HARPS_3.5"
    header["HIERARCH ESO DPR TYPE"] = "STAR,WAVE,M1V"
    header["HIERARCH ESO DRS BERV"] = 0.0
    header["HIERARCH ESO DRS CCD SIGDET"] = 5.0
    return header


def harps_e2ds(path: Path) -> Range:
    """HARPS e2ds: 4 orders that overlap, cubic polynomials of the pixel in the header (DRS CAL TH COEFF LLn)."""
    orders = 4
    header = _harps_cards()
    header["HIERARCH ESO DRS CAL TH DEG LL"] = 3
    for order in range(orders):
        for power, value in enumerate((5000.0 + 30 * order, 0.2, 1e-6, -1e-10)):
            header[f"HIERARCH ESO DRS CAL TH COEFF LL{4 * order + power}"] = value
        header[f"HIERARCH ESO DRS SPE EXT SN{order}"] = 20.0
    # a wide dip leaves the centre, where the header's S/N holds, unlike the rest: so flat electrons here
    fits.PrimaryHDU(np.full((orders, N), 400.0, np.float32), header).writeto(path, overwrite=True)
    last = N - 1
    return 5000.0, 5090.0 + 0.2 * last + 1e-6 * last**2 - 1e-10 * last**3


def harps_e2ds_with_wave_file(path: Path) -> Range:
    """HARPS e2ds without polynomials: the header names the wave file that lies beside it."""
    header = _harps_cards()
    header["HIERARCH ESO DRS CAL TH FILE"] = "lamp_wave_A.fits"
    for order in range(2):
        header[f"HIERARCH ESO DRS SPE EXT SN{order}"] = 20.0
    fits.PrimaryHDU(np.full((2, N), 400.0, np.float32), header).writeto(path, overwrite=True)
    wave = np.stack([5000 + 0.2 * np.arange(N), 5030 + 0.2 * np.arange(N)])
    fits.PrimaryHDU(wave, _header(INSTRUME="HARPS")).writeto(path.with_name("lamp_wave_A.fits"), overwrite=True)
    return 5000.0, float(wave[-1, -1])


def hpf_goldilocks(path: Path) -> Range:
    """HPF from Goldilocks: extension 4 holds the error instead of the variance."""
    limits = hpf(path)
    with fits.open(path, memmap=False) as hdus:
        hdus["Sci Variance"].data = np.full(hdus["Sci Variance"].data.shape, 5.0)
        hdus["Sci Variance"].name = "Sci Error"
        hdus.writeto(path, overwrite=True)
    return limits


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


def carmenes_table(path: Path, exchanged: bool = False) -> Range:
    """CARMENES merged table; ``exchanged`` as in the one real file at hand, where CONT holds the errors and SIG is 1."""
    wave = 9600.0 + 0.05 * np.arange(N)
    error, other = np.full(N, 5.0), np.ones(N)
    error[0] = 5.1  # a SIG that is the same everywhere would be taken for the exchange
    cont, sig = (error, other) if exchanged else (other, error)
    columns = [("WAVE", wave), ("SPEC", spectrum()), ("CONT", cont), ("SIG", sig)]
    header = _header(INSTRUME="CARMENES", OBJECT="J17578+046", CAMERA="HgCdTe (4096x2048) IR-Camera (2 H2RGs)")
    header["HIERARCH CARACAL BERV"] = 0.0
    header["HIERARCH CARACAL FOX SNR 0"] = 20.0
    mask = fits.Column("MASK_I", "J", array=np.where(np.arange(N) == 3, 0, 1))
    table = fits.BinTableHDU.from_columns([*(fits.Column(n, "D", array=v) for n, v in columns), mask])
    _write(path, fits.PrimaryHDU(header=header), table)
    return 9600.0, float(wave[-1])


def carmenes_exchanged(path: Path) -> Range:
    return carmenes_table(path, exchanged=True)


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


def generated(path: Path) -> Range:
    """What ``maury generate`` writes, for two stars of a model whose flux depends on no label and whose own error is 5."""
    from maury.catalogue.spectra_file import SpectrumGenerator, write_spectra
    from maury.emulate import CannonEmulator
    from maury.emulate.polynomial import PolynomialTerms
    from maury.labels import LabelSet, make_label
    from maury.prepare import Preparation
    from maury.protocols import ModelCovariance

    wave = 5000.0 + 2.0 * np.arange(N)
    labels = LabelSet.from_training((make_label("teff", "K"),), [[4000.0], [6000.0]])
    terms = PolynomialTerms.of_order(1, 1)
    coefficients = np.vstack([spectrum(), np.zeros((terms.n_terms - 1, N))])
    emulator = CannonEmulator(labels, wave, coefficients, ModelCovariance(np.full(N, 25.0)), terms)
    generator = SpectrumGenerator(emulator, None, Preparation(()), "vacuum", "0123456789ab")
    write_spectra(path, generator, np.array([[4500.0], [5500.0]]), ids=["cool", "warm"])
    return 5000.0, float(wave[-1])


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


def image_iraf(path: Path) -> Range:
    """An IRAF image: log10 axis (DC-FLAG), unit in WAT1_001, vacuum in a keyword, two more axes of length 1."""
    cards = {"CRVAL1": 3.7, "CD1_1": 1e-4, "CRPIX1": 1.0, "DC-FLAG": 1, "VACUUM": True, "SPECSYS": "BARYCENT"}
    header = _header(WAT1_001="wtype=linear label=Wavelength units=Angstroms", CTYPE1="LINEAR", **cards)
    variance = fits.ImageHDU(np.full((1, 1, N), 25.0), name="VARIANCE")
    _write(path, fits.PrimaryHDU(spectrum().reshape(1, 1, N), header), variance)
    return float(10**3.7), float(10 ** (3.7 + 1e-4 * (N - 1)))


def eso_phase3(path: Path) -> Range:
    """An ESO archive product: one row of vectors, UCD of air wavelengths, and (as HARPS) errors that are all NaN."""
    wave = 5000.0 + 0.01 * np.arange(N)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("WAVE", f"{N}D", unit="angstrom", array=wave[None]),
            fits.Column("FLUX", f"{N}E", unit="adu", array=spectrum()[None]),
            fits.Column("ERR", f"{N}E", unit="adu", array=np.full((1, N), np.nan)),
        ]
    )
    table.header["TUCD1"] = "em.wl;obs.atmos"
    _write(path, fits.PrimaryHDU(header=_header(INSTRUME="HARPS", OBJECT="HD 1", SPECSYS="BARYCENT", SNR=20.0)), table)
    return 5000.0, float(wave[-1])


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
    "aspcapStar": (aspcap_star, "aspcapStar.fits", "apogee", "vacuum"),
    "desi compressed": (desi_compressed, "spectra.fits", "desi", "vacuum"),
    "desi": (desi, "coadd.fits", "desi", "vacuum"),
    "harps s1d": (harps_s1d, "s1d_A.fits", "harps", "air"),
    "harps e2ds": (harps_e2ds, "e2ds_A.fits", "harps", "air"),
    "harps e2ds, wave file": (harps_e2ds_with_wave_file, "e2ds_B.fits", "harps", "air"),
    "hpf goldilocks": (hpf_goldilocks, "hpf2.fits", "hpf", "vacuum"),
    "hpf": (hpf, "hpf.fits", "hpf", "vacuum"),
    "caracal": (caracal, "car-nir_A.fits", "carmenes", "vacuum"),
    "carmenes table": (carmenes_table, "car-nir_A_tell.fits", "carmenes", "vacuum"),
    "carmenes exchanged": (carmenes_exchanged, "car-nir_B_tell.fits", "carmenes", "vacuum"),
    "gaia": (gaia_rvs, "rvs.csv", "gaia-rvs", "vacuum"),
    "mastar": (mastar, "goodspec.fits", "mastar", "vacuum"),
    "maury generate": (generated, "generated.fits", "maury", "vacuum"),
    "miles": (miles, "m0001V.fits", "miles", "air"),
    "image": (image_1d, "star.fits", "image1d", "air"),
    "image iraf": (image_iraf, "star2.fits", "image1d", "vacuum"),
    "eso phase 3": (eso_phase3, "ADP.fits", "table", "air"),
    "table fits": (table_fits, "table.fits", "table", "vacuum"),
    "table votable": (table_votable, "table.vot", "table", "vacuum"),
    "table ecsv": (table_ecsv, "table.ecsv", "table", "vacuum"),
    "table csv": (table_csv, "table.csv", "table", "vacuum"),
}
