"""Spectra that ``maury generate`` made: one row per star, all on one grid with one inverse variance per pixel.

Primary header: ``MAURYSPE`` (version of this form), ``MEDIUM``, ``MODELID`` and ``PREPARED``, the fingerprint of the preparation
whose form the flux has; wavelengths are those of the rest frame. Table ``PIXELS``: ``wavelength`` (Å) and ``ivar`` of the model's
own error, 0 where it knows nothing. Table ``SPECTRA``: ``id``, the labels under their names, ``flag`` and the vector ``flux``.
Labels become meta ``header_<label>``, the flag ``generated_flag`` (bits of :class:`~maury.flags.ResultFlag`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maury.errors import ReadError
from maury.read._common import Options, build
from maury.read._fits import Hdu
from maury.read._source import Source
from maury.spectra import Medium, Spectra

VERSION_KEYWORD = "MAURYSPE"
VERSION = 1
PIXELS, STARS = "PIXELS", "SPECTRA"
OWN_COLUMNS = ("id", "flag", "flux")
_MEDIA: dict[str, Medium] = {"vacuum": "vacuum", "air": "air"}


def matches(source: Source) -> bool:
    """Whether the file is one of ``maury generate``."""
    return bool(source.hdus) and VERSION_KEYWORD in source.hdus[0].header


def read(source: Source, options: Options) -> list[Spectra]:
    """Read generated spectra; see the module's docstring."""
    header = source.hdus[0].header
    version = header.integer(VERSION_KEYWORD, 0)
    if version > VERSION:
        raise ReadError(f"expected generated spectra of form {VERSION} or older, got form {version}; update maury")
    medium = _MEDIA.get(header.text("MEDIUM"))
    if medium is None:
        raise ReadError(f"expected MEDIUM vacuum or air, got {header.text('MEDIUM')!r}: the header is damaged; generate it again")
    pixels, stars = _table(source, PIXELS, ("wavelength", "ivar")), _table(source, STARS, OWN_COLUMNS)
    n = stars.shape[0]
    flux = stars.column("flux").reshape(n, -1)
    ivar = pixels.column("ivar").reshape(-1)
    spectra = build(
        source,
        pixels.column("wavelength").reshape(-1),
        flux,
        ivar=np.broadcast_to(ivar, (n, ivar.size)),
        medium=medium,
        frame="rest",
        instrument="maury",
        rv=0.0,
        error_source="model",
        suffixes=[f"#{row}" for row in range(n)] if n > 1 else [""],
        meta=_meta(stars) | {"velocity_frame": "rest", "model_id": header.text("MODELID")},
    )
    return [spectra.with_pixels(preparation=header.text("PREPARED") or None)]


def _table(source: Source, name: str, columns: tuple[str, ...]) -> Hdu:
    table = source.named(name)
    if table is None or table.kind != "table" or table.shape[0] == 0 or not table.has(*columns):
        raise ReadError(
            f"expected a table {name} with columns {', '.join(columns)}, got none: the file is damaged; generate it again"
        )
    return table


def _meta(stars: Hdu) -> dict[str, Any]:
    """Star names, labels and flags, one value per star."""
    found: dict[str, Any] = {"star_id": stars.column("id"), "generated_flag": stars.column("flag")}
    for name in stars.names:
        if name.lower() not in OWN_COLUMNS:
            found[f"header_{name}"] = stars.column(name)
    for name, values in found.items():
        kinds = "US" if name == "star_id" else "iuf"
        if values.ndim != 1 or values.dtype.kind not in kinds:
            raise ReadError(
                f"expected one value per star in column {name.removeprefix('header_')!r}, got {values.dtype}; repair it"
            )
    return found
