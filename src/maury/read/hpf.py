"""HPF (Habitable-zone Planet Finder): the team's pipeline (``Slope-*.optimal.fits``) and Goldilocks.

Both hold 28 x 2048 images of flux (e-/s), noise and wavelength (Å, vacuum) of the science, sky and calibration fibres, in
extensions 1, 4 and 7 for the science fibre; the team's pipeline stores the variance, Goldilocks the error
(https://github.com/grzeimann/Goldilocks_Documentation). They are told apart by the extension's name, and where extensions
have none by the documented beginning of the file's name. Orders overlap: one Spectra per order, column ``order``.

Wavelengths are in the observatory's frame; neither the sky fibre is subtracted nor the blaze removed, nor is any
barycentric velocity applied (the team's header has none; checked on GJ 699), so ``rv`` is NaN. Exact zeros in flux with zero
noise are masked pixels. specutils has no loader for HPF.
"""

from __future__ import annotations

import math

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, build, build_orders
from maury.read._fits import Hdu
from maury.read._source import Source
from maury.spectra import Spectra

RESOLVING_POWER = 55_000.0
_UNNAMED = {"flux": 1, "noise": 4, "wavelength": 7}


def matches(source: Source) -> bool:
    """Whether the file is an extracted HPF spectrum."""
    return (
        bool(source.hdus)
        and source.hdus[0].header.text("INSTRUME").upper() == "HPF"
        and len(source.hdus) > _UNNAMED["wavelength"]
    )


def read(source: Source, options: Options) -> list[Spectra]:
    """Read an HPF file: one Spectra per order; see the module's docstring."""
    if len(source.hdus) <= _UNNAMED["wavelength"]:
        raise ReadError(f"expected an extracted HPF spectrum of 10 extensions, got {len(source.hdus)}; name the spectra file")
    noise_hdu, is_variance = _noise(source)
    flux = (source.named("Sci Flux") or source.hdus[_UNNAMED["flux"]]).image()
    wavelength = (source.named("Sci Wavl") or source.hdus[_UNNAMED["wavelength"]]).image()
    noise = noise_hdu.image()
    if flux.ndim != 2 or not flux.shape == noise.shape == wavelength.shape:
        raise ReadError(
            f"expected HPF images of one shape, got {flux.shape}, {noise.shape}, {wavelength.shape}; fetch the file again"
        )
    with np.errstate(all="ignore"):
        ivar = np.where(noise > 0, 1.0 / noise.astype(np.float64) ** (1 if is_variance else 2), 0.0)
    header = source.hdus[0].header
    meta = {
        "star_id": header.text("OBJECT").strip(),
        "ra": 15.0 * header.number("RA_2000"),  # the telescope control system gives hours
        "dec": header.number("DEC_2000"),
        "mjd": math.nan,
        "velocity_frame": "topocentric",
    }
    return build_orders(
        lambda order: build(
            source,
            wavelength[order],
            flux[order],
            ivar=ivar[order],
            medium="vacuum",
            frame="observed",
            instrument="HPF",
            resolving_power=RESOLVING_POWER,
            suffixes=[f"#{order}"],
            meta={**meta, "order": order},
        ),
        len(flux),
    )


def _noise(source: Source) -> tuple[Hdu, bool]:
    """The science fibre's noise, and whether it is a variance."""
    hdu = source.named("Sci Variance")
    if hdu is not None:
        return hdu, True
    hdu = source.named("Sci Error")
    if hdu is not None:
        return hdu, False
    name = source.path.name.lower()
    if name.startswith(("slope", "goldilocks")) or "__slope" in name:
        return source.hdus[_UNNAMED["noise"]], "slope" in name
    raise ReadError(
        "expected an extension 'Sci Variance' or 'Sci Error', got neither, and the file's name does not tell the pipeline; "
        "rename it to Slope-... (variance) or Goldilocks-... (error)"
    )
