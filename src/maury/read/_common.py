"""What every reader shares: from the arrays of a file to a checked :class:`~maury.spectra.Spectra`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maury.constants import SPEED_OF_LIGHT_KM_S
from maury.errors import ReadError, UsageError
from maury.flags import PixelFlag
from maury.read._source import Source
from maury.spectra import Frame, Medium, Spectra

MaskBits = Mapping[int, PixelFlag]
"""A survey's mask: bit number -> our flag."""

MIN_WAVELENGTH, MAX_WAVELENGTH = 10.0, 1e9
"""Å. Outside lie X-rays and radio, log10 wavelengths taken for wavelengths, and damaged numbers: refused, not repaired."""
_MISSING_REDSHIFT = -9.0  # LAMOST and SDSS write -9999 (or -9) for "none"; no star recedes at 9 c


class EmptySpectrumError(ReadError):
    """No pixel of a spectrum is usable."""


@dataclass(frozen=True)
class Options:
    """What the caller says where a file is silent.

    Parameters
    ----------
    medium : "air" or "vacuum", for files that do not say.
    snr : assumed signal-to-noise per pixel, for files without an error column.
    frame : "rest" or "observed", for files that do not say.
    """

    medium: Medium | None = None
    snr: float | None = None
    frame: Frame | None = None

    def __post_init__(self) -> None:
        if self.medium is not None and self.medium not in get_args(Medium):
            raise UsageError(f"expected medium 'air' or 'vacuum', got {self.medium!r}; say what the wavelengths are measured in")
        if self.frame is not None and self.frame not in get_args(Frame):
            raise UsageError(f"expected frame 'rest' or 'observed', got {self.frame!r}; say whether the velocity was removed")
        if self.snr is not None and not (math.isfinite(self.snr) and self.snr > 0):
            raise UsageError(f"expected a positive signal-to-noise ratio, got {self.snr!r}; give the S/N per pixel")


def build(
    source: Source,
    wavelength: ArrayLike,
    flux: ArrayLike,
    *,
    ivar: ArrayLike | None = None,
    error: ArrayLike | None = None,
    medium: Medium,
    frame: Frame,
    instrument: str,
    mask: NDArray[np.uint32] | None = None,
    rv: ArrayLike = np.nan,
    resolving_power: ArrayLike = np.nan,
    fwhm: ArrayLike = np.nan,
    error_source: str = "file",
    suffixes: list[str] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Spectra:
    """One checked Spectra from the arrays of a file.

    Descending wavelengths are turned round with everything that goes with them; pixels without finite flux or usable
    error get ivar = 0 and the flag NO_DATA or BAD_ERROR; S/N is measured (median of flux sqrt(ivar) over usable pixels).

    Parameters
    ----------
    wavelength : (n_pixels,) Å.
    flux, ivar, error, mask : (n_spectra, n_pixels) or (n_pixels,); exactly one of ivar and error (standard deviation).
    rv : km/s, in the frame of the wavelengths.
    suffixes : one text per spectrum, appended to the file's stem to make ids; default "#row" where there are several.
    meta : further columns; scalars or one value per spectrum.

    Raises
    ------
    ReadError
        If shapes disagree, wavelengths are not finite, positive and monotonic, or no pixel of the file is usable.
    """
    wave, order = check_wavelength(wavelength)
    values = _rows(flux, wave.size, "flux")[:, order]
    weight = _ivar_of(ivar, error, wave.size, values.shape)[:, order]
    finite = np.isfinite(values)
    if not (finite & (weight > 0)).any():
        raise EmptySpectrumError(
            "expected at least one pixel with finite flux and a positive error, got none; this file holds no spectrum"
        )
    values = np.where(finite, values, 0.0).astype(values.dtype.newbyteorder("="), copy=False)
    weight = np.where(finite, weight, 0.0)
    flags = np.zeros(values.shape, np.uint32) if mask is None else _rows(mask, wave.size, "mask")[:, order].astype(np.uint32)
    flags[weight <= 0] |= np.uint32(PixelFlag.BAD_ERROR)
    flags[~finite] |= np.uint32(PixelFlag.NO_DATA)
    n = len(values)
    names = suffixes if suffixes is not None else [""] if n == 1 else [f"#{i}" for i in range(n)]
    columns: dict[str, Any] = {
        "file": source.path.name,
        "format": source.format,
        "instrument": instrument,
        "snr": snr_per_pixel(values, weight),
        "rv": rv,
        "resolving_power": resolving_power,
        "fwhm": fwhm,
        "error_source": error_source,
        **(meta or {}),
    }
    stem = source.stem
    return Spectra(
        wave,
        np.where(weight > 0, values, values.dtype.type(0)),
        weight,
        np.array([stem + name for name in names], dtype=np.str_),
        medium,
        frame,
        MetaColumns(columns, n),
        flags,
    )


@dataclass(frozen=True, eq=False)
class MetaColumns:
    """Columns of meta on their way out of a reader; :func:`with_tables` makes astropy Tables of them, many at a time.

    Building a Table costs more than reading the file; as rows of one large Table it costs a third.
    """

    columns: dict[str, Any]
    n: int

    def __len__(self) -> int:
        return self.n

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The columns as arrays of n rows; scalars are repeated."""
        arrays = {}
        for name, value in self.columns.items():
            array = np.asarray(value)
            arrays[name] = np.full(self.n, value) if array.ndim == 0 else array
        return arrays


def with_tables(spectra: list[Spectra]) -> list[Spectra]:
    """The same Spectra with astropy Tables as meta, in the same order."""
    from astropy.table import Table

    groups: dict[tuple[str, ...], list[int]] = {}
    for i, batch in enumerate(spectra):
        groups.setdefault(tuple(batch.meta.columns), []).append(i)
    done: dict[int, Spectra] = {}
    for names, members in groups.items():
        parts = [spectra[i].meta.arrays() for i in members]
        table = Table({name: np.concatenate([part[name] for part in parts]) for name in names}, copy=False)
        start = 0
        for i in members:
            stop = start + len(spectra[i])
            done[i] = spectra[i].with_pixels(meta=table if len(members) == 1 else table[start:stop])
            start = stop
    return [done[i] for i in range(len(spectra))]


def check_wavelength(wavelength: ArrayLike) -> tuple[NDArray[np.float64], slice]:
    """Increasing wavelengths in Å, and the slice that brings the pixels of flux into the same order."""
    wave = np.asarray(wavelength)
    if wave.ndim != 1 or wave.size < 2 or wave.dtype.kind not in "iuf":
        raise ReadError(f"expected at least 2 wavelengths in one row of numbers, got shape {wave.shape}; check the file")
    wave = wave.astype(np.float64)
    if not np.isfinite(wave).all():
        raise ReadError(
            f"expected finite wavelengths, got {int((~np.isfinite(wave)).sum())} that are NaN or infinite; repair the file"
        )
    order = slice(None, None, -1) if wave[0] > wave[-1] else slice(None)
    wave = wave[order]
    if wave[0] < MIN_WAVELENGTH or wave[-1] > MAX_WAVELENGTH:
        raise ReadError(
            f"expected wavelengths between 10 Å and 10 cm, got {wave[0]:g} to {wave[-1]:g} Å; check the axis and its unit"
        )
    backwards = int((np.diff(wave) <= 0).sum())
    if backwards:
        raise ReadError(
            f"expected wavelengths that only increase or only decrease, got {backwards} steps that do not; sort the pixels"
        )
    return wave, order


def _rows(values: ArrayLike, n_pixels: int, what: str) -> NDArray[Any]:
    array = np.atleast_2d(np.asarray(values))
    if array.ndim != 2 or array.shape[1] != n_pixels or array.dtype.kind not in "iuf":
        raise ReadError(
            f"expected {what} as numbers of {n_pixels} pixels like the wavelengths, got shape {array.shape}; check the file"
        )
    return array if array.dtype.kind == "f" or what == "mask" else array.astype(np.float64)


def _ivar_of(ivar: ArrayLike | None, error: ArrayLike | None, n_pixels: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        if ivar is not None:
            weight = _rows(ivar, n_pixels, "ivar").astype(np.float64)
        else:
            sigma = _rows(np.nan if error is None else error, n_pixels, "error").astype(np.float64)
            weight = np.where(sigma > 0, 1.0 / sigma**2, 0.0)
    if weight.shape != shape:
        raise ReadError(
            f"expected one error per pixel, got errors of shape {weight.shape} for flux of shape {shape}; check the file"
        )
    return np.where(np.isfinite(weight) & (weight > 0), weight, 0.0)


def snr_per_pixel(flux: NDArray[Any], ivar: NDArray[Any]) -> NDArray[np.float64]:
    """Median over usable pixels of flux sqrt(ivar), for each spectrum; NaN where none is usable. The S/N of this package."""
    result = np.full(len(flux), np.nan)
    for i, (f, w) in enumerate(zip(flux, ivar, strict=True)):
        use = w > 0
        if use.any():
            with np.errstate(over="ignore"):
                value = np.median(f[use] * np.sqrt(w[use]))
            result[i] = value if np.isfinite(value) else np.nan
    return result


def translate_mask(bits: ArrayLike, table: MaskBits) -> NDArray[np.uint32]:
    """A survey's mask in our flags; bits that the table does not name become SURVEY_OTHER.

    Parameters
    ----------
    bits : integers, or integers stored as floats (LAMOST); what is no such number counts as an unnamed bit.
    """
    array = np.asarray(bits)
    unknown = np.zeros(array.shape, bool)
    if array.dtype.kind == "f":
        unknown = ~(np.isfinite(array) & (np.abs(array) < 2.0**62))
        array = np.where(unknown, 0, array)
    elif array.dtype.kind not in "iub":
        raise ReadError(f"expected a mask of integers, got {array.dtype}; check the file")
    values = array.astype(np.int64)
    flags = np.where(unknown, np.uint32(PixelFlag.SURVEY_OTHER), np.uint32(0)).astype(np.uint32)
    present = int(np.bitwise_or.reduce(values, axis=None)) if values.size else 0
    for bit in range(64):
        if (present >> bit) & 1:
            flag = np.uint32(table.get(bit, PixelFlag.SURVEY_OTHER))
            flags |= np.where((values >> bit) & 1, flag, np.uint32(0)).astype(np.uint32)
    return flags


def velocity_of_redshift(z: float) -> float:
    """c z in km/s; NaN for NaN and for the surveys' -9999."""
    return SPEED_OF_LIGHT_KM_S * z if z > _MISSING_REDSHIFT else math.nan


def to_barycentre(wavelength: NDArray[Any], velocity: float) -> tuple[NDArray[np.float64], str]:
    """Barycentric wavelengths from the observatory's, and the name of the frame that results.

    ``velocity`` is the barycentric Earth radial velocity in km/s, positive when moving towards the star; without it the
    wavelengths stay as they are. Readers apply it so that ``rv`` means the same for every survey.
    """
    wave = np.asarray(wavelength, dtype=np.float64)
    if not abs(velocity) < 100:  # the Earth moves at 30 km/s, and NaN is not < 100
        return wave, "topocentric"
    return wave * (1.0 + velocity / SPEED_OF_LIGHT_KM_S), "barycentric"


def build_orders(build_one: Callable[[int], Spectra], n_orders: int) -> list[Spectra]:
    """The orders that hold something; those without a single usable pixel are left out.

    Raises
    ------
    ReadError
        If no order is usable, or one is damaged in another way.
    """
    found = []
    for order in range(n_orders):
        try:
            found.append(build_one(order))
        except EmptySpectrumError:
            continue
    if not found:
        raise EmptySpectrumError(
            f"expected at least one usable pixel in {n_orders} orders, got none; this file holds no spectrum"
        )
    return found


def smooth_level(flux: NDArray[Any], block: int = 50) -> NDArray[np.float64]:
    """A positive, smooth flux level per pixel: medians of blocks of pixels, joined linearly.

    Error models for files without errors use it, so that noise does not depend on a pixel's own noise. Levels below
    1 % of the spectrum's median are raised to it, so that errors stay positive in empty stretches.
    """
    values = np.asarray(flux, dtype=np.float64)
    good = np.isfinite(values)
    if not good.any():
        return np.full(values.shape, np.nan)
    filled = np.where(good, values, np.median(values[good]))
    n_blocks = max(1, filled.size // block)
    whole = filled[: n_blocks * block].reshape(n_blocks, -1)
    medians = np.median(whole, axis=1)
    centres = (np.arange(n_blocks) + 0.5) * whole.shape[1] - 0.5
    with np.errstate(over="ignore", invalid="ignore"):
        floor = 0.01 * float(np.median(np.abs(filled)))
    joined = np.interp(np.arange(filled.size), centres, medians)
    return np.asarray(np.maximum(joined, floor if floor > 0 else np.finfo(np.float64).tiny))


def assumed_errors(flux: NDArray[Any], snr: float) -> NDArray[np.float64]:
    """Standard deviations for an assumed S/N per pixel: smooth level / snr."""
    return smooth_level(flux) / snr


def linear_axis(n_pixels: int, start: float, step: float, reference: float = 1.0) -> NDArray[np.float64]:
    """The world coordinate of a FITS axis: CRVAL + (pixel - CRPIX) CDELT, pixels counted from 1 (FITS 4.0, eq. 1)."""
    if not (math.isfinite(start) and math.isfinite(step) and step != 0):
        raise ReadError(
            f"expected a wavelength axis (start and step) in the header, got start {start} and step {step}; repair the header"
        )
    return np.asarray(start + (np.arange(1, n_pixels + 1) - reference) * step, dtype=np.float64)


def log10_axis(n_pixels: int, start: float, step: float, reference: float = 1.0) -> NDArray[np.float64]:
    """Wavelengths of a log10 axis, Å."""
    exponent = linear_axis(n_pixels, start, step, reference)
    if max(abs(exponent[0]), abs(exponent[-1])) > 9:
        raise ReadError(f"expected a log10 wavelength axis, got exponents {exponent[0]:g} to {exponent[-1]:g}; repair the header")
    return np.asarray(10.0**exponent)
