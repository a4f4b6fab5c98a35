"""DESI coadd and spectra files: B_, R_, Z_ (or BRZ_) WAVELENGTH, FLUX, IVAR, MASK, RESOLUTION, and FIBERMAP.

https://desidatamodel.readthedocs.io (coadd-SPECTROGRAPH-TILEID-GROUPID): vacuum Å, barycentric; one row per target (coadd)
or exposure (spectra). The arms overlap, so each is a Spectra of its own (column ``arm``), with the same rows in each; sky
and unassigned fibres keep their rows (column ``objtype``). The line-spread FWHM is measured from the resolution matrices
of the file. Redshifts are in a separate file (redrock), so ``rv`` is NaN. specutils' loader drops mask and targets.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maury.constants import FWHM_PER_SIGMA
from maury.errors import ReadError
from maury.flags import PixelFlag
from maury.read._common import Options, build, build_orders, translate_mask
from maury.read._fits import Hdu
from maury.read._source import Source
from maury.spectra import Spectra

ARMS = ("B", "R", "Z", "BRZ")
SPECMASK: dict[int, PixelFlag] = {
    0: PixelFlag.PARTIAL_REJECT,  # SOMEBADPIX
    1: PixelFlag.FULL_REJECT,  # ALLBADPIX
    2: PixelFlag.COSMIC_RAY,
    3: PixelFlag.LOW_FLAT,
    4: PixelFlag.BAD_FLAT,  # BADFIBERFLAT
    5: PixelFlag.BRIGHT_SKY,
    6: PixelFlag.BAD_SKY_CHI,  # BADSKY: bad sky model
}
"""desispec.maskbits, specmask: https://github.com/desihub/desispec/blob/main/py/desispec/maskbits.py."""


def matches(source: Source) -> bool:
    """Whether the file has DESI's arms."""
    return any(source.named(f"{arm}_WAVELENGTH") is not None for arm in ARMS)


def read(source: Source, options: Options) -> list[Spectra]:
    """Read a DESI file: one Spectra per arm; see the module's docstring."""
    arms = [arm for arm in ARMS if source.named(f"{arm}_WAVELENGTH") is not None]
    if not arms:
        raise ReadError("expected DESI extensions such as B_WAVELENGTH, got none; check the file or its format")
    return build_orders(lambda i: _read_arm(source, arms[i]), len(arms))


def _extension(source: Source, name: str) -> Hdu:
    hdu = source.named(name)
    if hdu is None:
        raise ReadError(f"expected a DESI extension {name}, got none; fetch the file again")
    return hdu


def _read_arm(source: Source, arm: str) -> Spectra:
    wavelength = _extension(source, f"{arm}_WAVELENGTH").image()
    flux = _extension(source, f"{arm}_FLUX").image()
    mask = _extension(source, f"{arm}_MASK")  # every DESI file has one: without it the file was cut short between extensions
    if flux.ndim != 2 or wavelength.ndim != 1 or mask.shape != flux.shape:  # before decompressing it
        raise ReadError(f"expected {arm}_FLUX and {arm}_MASK as (targets, pixels), got {flux.shape}; fetch the file again")
    n = len(flux)
    return build(
        source,
        wavelength,
        flux,
        ivar=_extension(source, f"{arm}_IVAR").image(),
        medium="vacuum",
        frame="observed",
        instrument="DESI",
        mask=translate_mask(mask.image(), SPECMASK),
        fwhm=_fwhm(source.named(f"{arm}_RESOLUTION"), wavelength),
        suffixes=[f"#{row}-{arm.lower()}" for row in range(n)],
        meta={**_targets(source, n), "velocity_frame": "barycentric", "arm": arm.lower()},
    )


def _fwhm(hdu: Hdu | None, wavelength: Any) -> float:
    """Median FWHM in Å of the file's resolution matrices (n_spectra, n_diagonals, n_pixels); NaN where there are none."""
    if hdu is None or len(hdu.shape) != 3 or hdu.shape[2] != wavelength.size or hdu.shape[1] < 3:
        return math.nan
    matrix = hdu.image().astype(np.float64)
    offset = np.arange(matrix.shape[1]) - (matrix.shape[1] - 1) / 2
    with np.errstate(all="ignore"):
        total = matrix.sum(axis=1)
        centre = np.einsum("sdp,d->sp", matrix, offset) / total
        sigma2 = np.einsum("sdp,d->sp", matrix, offset**2) / total - centre**2
        use = np.isfinite(sigma2) & (sigma2 > 0) & (total > 0.5)
        width = (
            FWHM_PER_SIGMA * math.sqrt(float(np.median(sigma2[use]))) * float(np.median(np.diff(wavelength)))
            if use.any()
            else -1.0
        )
    return round(width, 3) if width > 0 and math.isfinite(width) else math.nan


def _targets(source: Source, n: int) -> dict[str, Any]:
    fibermap = source.named("FIBERMAP")
    if fibermap is None or fibermap.kind != "table" or fibermap.shape[0] != n:
        return {"star_id": "", "ra": math.nan, "dec": math.nan, "mjd": math.nan, "objtype": "", "fiberstatus": 0}
    table: Hdu = fibermap

    def column(default: Any, *names: str) -> Any:
        name = next((name for name in names if table.has(name)), None)
        return default if name is None else table.column(name)

    return {
        "star_id": np.asarray(column("", "TARGETID")).astype(np.str_),
        "ra": column(math.nan, "TARGET_RA"),
        "dec": column(math.nan, "TARGET_DEC"),
        "mjd": column(math.nan, "MJD"),
        "objtype": column("", "OBJTYPE"),
        "fiberstatus": column(0, "FIBERSTATUS", "COADD_FIBERSTATUS"),
    }
