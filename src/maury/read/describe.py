"""What was read from one file, in plain numbers and words, for ``maury read`` and for machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from maury.errors import UsageError
from maury.spectra import Spectra

_LABEL = "header_"


def describe(spectra: Sequence[Spectra]) -> dict[str, Any]:
    """A summary of the Spectra of one file that JSON can hold: str, int, float, None, dict.

    Parameters
    ----------
    spectra : what :func:`~maury.read.read_file` returned.

    Returns
    -------
    file, format, instrument, n_spectra (over all grids), n_grids, n_pixels (of the longest grid), wavelength_min and
    wavelength_max (Å), medium, frame, velocity_frame, snr (per pixel, median over the spectra), rv (km/s, median),
    error_source, star_id (where there is one star) and labels (name -> value of the header, median). Unknown is None.

    Raises
    ------
    UsageError
        If there are no spectra.
    """
    if not spectra:
        raise UsageError("expected the spectra of a file, got an empty list; pass what read_file returned")
    first = spectra[0]
    stars = sorted({str(star) for batch in spectra for star in _column(batch, "star_id")})
    names = list(dict.fromkeys(name for batch in spectra for name in batch.meta.colnames if name.startswith(_LABEL)))
    labels = {name.removeprefix(_LABEL): _median(spectra, name) for name in names}
    return {
        "file": _text(first, "file"),
        "format": _text(first, "format"),
        "instrument": _text(first, "instrument"),
        "n_spectra": sum(len(batch) for batch in spectra),
        "n_grids": len(spectra),
        "n_pixels": max(batch.n_pixels for batch in spectra),
        "wavelength_min": float(min(batch.wavelength[0] for batch in spectra)),
        "wavelength_max": float(max(batch.wavelength[-1] for batch in spectra)),
        "medium": first.medium,
        "frame": first.frame,
        "velocity_frame": _text(first, "velocity_frame"),
        "snr": _median(spectra, "snr"),
        "rv": _median(spectra, "rv"),
        "error_source": _text(first, "error_source"),
        "star_id": stars[0] if len(stars) == 1 else None,
        "labels": {name: value for name, value in labels.items() if value is not None},
    }


def _column(batch: Spectra, name: str) -> Any:
    return batch.meta[name] if name in batch.meta.colnames else []


def _text(batch: Spectra, name: str) -> str:
    values = _column(batch, name)
    return str(values[0]) if len(values) else ""


def _median(spectra: Sequence[Spectra], name: str) -> float | None:
    values = np.concatenate([np.asarray(_column(batch, name), dtype=np.float64) for batch in spectra])
    known = values[np.isfinite(values)]
    median = float(np.median(known)) if known.size else math.nan
    return median if math.isfinite(median) else None
