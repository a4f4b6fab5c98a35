"""HARPS data reduction software (DRS 3): s1d and e2ds. **Air** wavelengths in Å.

DRS manual (https://www.eso.org/sci/facilities/lasilla/instruments/harps/doc.html). s1d: one merged spectrum on a linear axis
of 0.01 Å, barycentric (checked on Gl 581: its lines lie at the star's barycentric velocity); the gap between the two chips
holds exact zeros, which count as no data. e2ds: 72 orders in electrons, not divided by the blaze, in the observatory's frame;
the wavelength is a polynomial per order, sum_i LL(i + order (deg + 1)) x^i, in the header, or in the wave file that the header
names, beside the spectrum; the header's barycentric velocity (BERV) is applied here.

The files hold no errors, only S/N at the centre of each order (DRS SPE EXT SNn): the error model here is photon noise (and
for e2ds read noise) scaled to those S/N; ``error_source`` says so. Wave, blaze and lamp files are refused by name.
specutils has no loader for HARPS.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maury.errors import ReadError
from maury.read._common import Options, build, build_orders, linear_axis, smooth_level, to_barycentre
from maury.read._fits import Hdu, Header
from maury.read._source import Source, open_source
from maury.spectra import Spectra

RESOLVING_POWER = 115_000.0
_DRS = "ESO DRS "
_WINDOW = 17  # pixels across an order that are summed, DRS SPE EXT WINDOW


def matches(source: Source) -> bool:
    """Whether the file is a product of the HARPS DRS."""
    if not source.hdus or source.hdus[0].header.text("INSTRUME").upper() != "HARPS":
        return False
    return f"{_DRS}VERSION" in source.hdus[0].header and len(source.hdus[0].shape) in (1, 2)


def read(source: Source, options: Options) -> list[Spectra]:
    """Read an s1d file (one Spectra) or an e2ds file (one Spectra per order, column ``order``)."""
    hdu = source.hdus[0]
    what = hdu.header.text("ESO DPR TYPE")
    if hdu.header.text("ESO DPR CATG").upper() == "CALIB" or what.upper().startswith(("WAVE", "LAMP", "BIAS", "FLAT")):
        raise ReadError(
            f"expected a star's spectrum, got a HARPS calibration ({what or 'CALIB'}: a wavelength, blaze or lamp file); "
            "name the e2ds or s1d file, which finds its wavelengths by itself"
        )
    if len(hdu.shape) == 1:
        return [_read_s1d(source, hdu, options)]
    if len(hdu.shape) == 2:
        return _read_e2ds(source, hdu, options)
    raise ReadError(f"expected a HARPS s1d or e2ds image, got shape {hdu.shape}; check the file")


# -- s1d ------------------------------------------------------------------------------------------------------------


def _read_s1d(source: Source, hdu: Hdu, options: Options) -> Spectra:
    header = hdu.header
    unit = header.text("CUNIT1", "CTYPE1").strip().lower()
    if unit not in ("angstrom", "angstroms"):
        raise ReadError(f"expected a HARPS s1d axis in Angstrom (CTYPE1 or CUNIT1), got {unit or 'none'}; repair the header")
    flux = hdu.image().astype(np.float64)
    wavelength = linear_axis(flux.size, header.number("CRVAL1"), header.number("CDELT1"), header.number("CRPIX1"))
    flux[flux == 0] = np.nan  # the gap between the chips
    level = smooth_level(flux)
    with np.errstate(all="ignore"):
        shape = np.sqrt(np.clip(flux / level, 0.01, None))  # photon noise follows the flux, but never vanishes
        error = level * shape / (_snr_along(header, wavelength) if options.snr is None else options.snr)
    rv = header.number(f"{_DRS}CCF RVC")
    return _spectra(source, wavelength, flux, error, rv=rv, velocity_frame="barycentric", options=options, order=-1)


def _snr_along(header: Header, wavelength: NDArray[np.float64]) -> NDArray[np.float64]:
    """S/N at each wavelength, from the S/N at the order centres; ReadError where the header has none."""
    snr = _order_snr(header)
    coefficients = _coefficients(header, snr.size)
    if coefficients is None:
        return np.full(wavelength.size, np.median(snr))
    centres = _polynomials(coefficients, 4096)[:, 2048]
    order = np.argsort(centres)
    return np.interp(wavelength, centres[order], snr[order])


def _order_snr(header: Header) -> NDArray[np.float64]:
    values: list[float] = []
    while f"{_DRS}SPE EXT SN{len(values)}" in header and len(values) < 200:
        values.append(header.number(f"{_DRS}SPE EXT SN{len(values)}"))
    snr = np.array(values, dtype=np.float64)
    if not (np.isfinite(snr) & (snr > 0)).any():
        raise ReadError(
            "expected the S/N of HARPS orders in the header (DRS SPE EXT SNn), got none; give an S/N with snr or --snr"
        )
    return np.where(np.isfinite(snr) & (snr > 0), snr, 0.1)  # the bluest orders of red stars may say 0


# -- e2ds -----------------------------------------------------------------------------------------------------------


def _read_e2ds(source: Source, hdu: Hdu, options: Options) -> list[Spectra]:
    header = hdu.header
    flux = hdu.image().astype(np.float64)
    flux[flux == 0] = np.nan  # electrons after sky and bias are never exactly 0: columns that were not extracted
    topocentric = _order_wavelengths(source, header, flux.shape)
    wavelength, velocity_frame = to_barycentre(topocentric, header.number(f"{_DRS}BERV"))
    snr = _order_snr(header) if options.snr is None else np.full(len(flux), options.snr)
    if snr.size < len(flux):
        raise ReadError(f"expected the S/N of {len(flux)} orders in the header, got {snr.size}; give an S/N with snr or --snr")
    rv = header.number(f"{_DRS}CCF RVC")
    rv = rv if velocity_frame == "barycentric" else rv - header.number(f"{_DRS}BERV")

    def one(order: int) -> Spectra:
        error = _order_errors(flux[order], header.number(f"{_DRS}CCD SIGDET"), float(snr[order]))
        return _spectra(
            source, wavelength[order], flux[order], error, rv=rv, velocity_frame=velocity_frame, options=options, order=order
        )

    return build_orders(one, len(flux))


def _order_wavelengths(source: Source, header: Header, shape: tuple[int, ...]) -> NDArray[np.float64]:
    coefficients = _coefficients(header, shape[0])
    if coefficients is not None:
        return _polynomials(coefficients, shape[1])
    name = header.text(f"{_DRS}CAL TH FILE")
    beside = source.path.parent / name
    if not name or "/" in name or not beside.is_file():
        raise ReadError(
            f"expected wavelength polynomials in the header (DRS CAL TH COEFF LLn) or the file {name or '(not named)'} beside "
            "the spectrum, got neither; put the wave file into the same folder"
        )
    wave = open_source(beside)
    if not wave.hdus or wave.hdus[0].shape != shape:
        raise ReadError(f"expected wavelengths of shape {shape} in {name}, got others; give the wave file of this spectrum")
    return wave.hdus[0].image().astype(np.float64)


def _coefficients(header: Header, n_orders: int) -> NDArray[np.float64] | None:
    """(n_orders, degree + 1) wavelength polynomials, lowest power first; None where the header lacks them."""
    if f"{_DRS}CAL TH COEFF LL0" not in header:
        return None
    degree = header.integer(f"{_DRS}CAL TH DEG LL", -1)
    if not 1 <= degree <= 10:
        raise ReadError(f"expected the degree of the wavelength polynomials (DRS CAL TH DEG LL), got {degree}; repair the header")
    names = [f"{_DRS}CAL TH COEFF LL{i}" for i in range(n_orders * (degree + 1))]
    values = np.array([header.number(name) for name in names])
    if not np.isfinite(values).all():
        raise ReadError(f"expected {len(names)} wavelength coefficients, got {int(np.isfinite(values).sum())}; repair the header")
    return values.reshape(n_orders, degree + 1)


def _polynomials(coefficients: NDArray[np.float64], n_pixels: int) -> NDArray[np.float64]:
    return np.asarray(np.polynomial.polynomial.polyval(np.arange(n_pixels, dtype=np.float64), coefficients.T))


def _order_errors(flux: NDArray[np.float64], read_noise: float, snr: float) -> NDArray[np.float64]:
    """Photon and read noise of one order in electrons, scaled so that the S/N at its centre is the header's."""
    good = np.isfinite(flux)
    if not good.any():
        return np.full(flux.shape, np.nan)
    noise2 = _WINDOW * (read_noise if read_noise > 0 else 0.0) ** 2
    floor = max(noise2, 1e-3 * float(np.median(np.abs(flux[good]))), 1e-300)
    with np.errstate(all="ignore"):
        error = np.sqrt(np.where(good, np.maximum(flux, 0.0), 0.0) + floor)
        centre = slice(flux.size // 2 - flux.size // 16, flux.size // 2 + flux.size // 16 + 1)
        ratio = (flux[centre] / error[centre])[good[centre]]
        measured = float(np.median(ratio)) if ratio.size else 0.0
    # an order without signal at its centre keeps the unscaled noise of its electrons
    return np.asarray(error * measured / snr if measured > 0.1 else error)


# -- both -----------------------------------------------------------------------------------------------------------


def _spectra(
    source: Source,
    wavelength: Any,
    flux: Any,
    error: Any,
    *,
    rv: float,
    velocity_frame: str,
    options: Options,
    order: int,
) -> Spectra:
    header = source.hdus[0].header
    return build(
        source,
        wavelength,
        flux,
        error=error,
        medium="air",
        frame="observed",
        instrument="HARPS",
        rv=rv if abs(rv) < 10_000 else math.nan,  # the DRS writes -99999 for "no cross-correlation"
        resolving_power=RESOLVING_POWER,
        error_source="photon noise, S/N of header" if options.snr is None else f"assumed S/N {options.snr:g}",
        suffixes=[f"#{order}" if order >= 0 else ""],
        meta={
            "star_id": header.text("OBJECT").strip(),
            "ra": header.number("RA"),
            "dec": header.number("DEC"),
            "mjd": header.number("MJD-OBS"),
            "velocity_frame": velocity_frame,
            "order": order,
        },
    )
