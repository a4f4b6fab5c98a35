"""Which files of the PHOENIX archive a download wants, and how big they are.

The archive is laid out as the public one in Göttingen (Husser et al. 2013, 10.1051/0004-6361/201219058)::

    HiResFITS/WAVE_PHOENIX-ACES-AGSS-COND-2011.fits
    HiResFITS/PHOENIX-ACES-AGSS-COND-2011/Z-0.0/lte04000-4.50-0.0.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from maury.errors import UsageError
from maury.grids.archive import Archive, Patience
from maury.grids.phoenix import WAVE_PATH, PhoenixNode

GOETTINGEN = "https://phoenix.astro.physik.uni-goettingen.de/data"
"""The public archive."""

PHOENIX_AXES = {
    "teff": (*map(float, range(2300, 7000, 100)), *map(float, range(7000, 12001, 200))),
    "logg": tuple(step / 2 for step in range(13)),
    "m_h": (-4.0, -3.0, *(step / 2 for step in range(-4, 3))),
    "alpha_m": tuple(step / 5 for step in range(-1, 7)),
}


@dataclass(frozen=True)
class DownloadPlan:
    """What is to be fetched, before anything is.

    Parameters
    ----------
    nodes : nodes of the library (:func:`plan_phoenix`).
    wavelength : first and last wavelength to keep, Å in vacuum.
    archive : base address: the folder that holds ``HiResFITS``.
    """

    nodes: tuple[PhoenixNode, ...]
    wavelength: tuple[float, float]
    archive: str

    def request(self) -> dict[str, Any]:
        """What all spectra of the grid share; a work folder belongs to one request."""
        return {"archive": self.archive.rstrip("/"), "wavelength": [float(end) for end in self.wavelength]}

    def identity(self) -> dict[str, Any]:
        """What makes this grid another than others, for its provenance."""
        labels = {name: sorted({getattr(node, name) for node in self.nodes}) for name in PHOENIX_AXES}
        return self.request() | {"library": "PHOENIX-ACES-AGSS-COND-2011 HiRes", "nodes": labels}

    def expected_bytes(self, patience: Patience) -> int | None:
        """Estimated size of all files, from that of the wavelengths: they are stored with 8 bytes per pixel, fluxes with 4.

        Returns
        -------
        Bytes; None where the archive does not state sizes.

        Raises
        ------
        FetchError
            If the archive does not answer or has no file of wavelengths.
        """
        size = Archive(self.archive, patience).size(WAVE_PATH)
        return None if size is None else size + len(self.nodes) * (size // 2)


def plan_phoenix(
    *,
    teff: tuple[float, float],
    logg: tuple[float, float],
    m_h: tuple[float, float],
    alpha_m: tuple[float, float] = (0.0, 0.0),
    wavelength: tuple[float, float],
    archive: str = GOETTINGEN,
) -> DownloadPlan:
    """All nodes of PHOENIX-ACES whose labels lie in the ranges, ends included.

    The library's steps (Husser et al. 2013): Teff 2300-12000 K by 100 K, above 7000 K by 200 K; log g 0-6 by 0.5; [M/H]
    -4 to +1 by 0.5, below -2 by 1; [alpha/M] -0.2 to +1.2 by 0.2. Not every combination was computed; the archive will say so.

    Parameters
    ----------
    teff, logg, m_h, alpha_m : lowest and highest, K and dex.
    wavelength : first and last wavelength to keep, Å in vacuum.
    archive : base address: the folder that holds ``HiResFITS``.

    Raises
    ------
    UsageError
        If a range is reversed, not finite or holds no node, or the address is none.
    """
    ranges = (("teff", teff), ("logg", logg), ("mh", m_h), ("alpha", alpha_m))
    axes = [_within(option, axis, ends) for (option, ends), axis in zip(ranges, PHOENIX_AXES.values(), strict=True)]
    _checked_range("wavelength", wavelength)
    nodes = tuple(PhoenixNode(*labels) for labels in itertools.product(*axes))
    return DownloadPlan(nodes, wavelength, Archive(archive).address)


def _within(option: str, axis: tuple[float, ...], ends: tuple[float, float]) -> list[float]:
    low, high = _checked_range(option, ends)
    found = [value for value in axis if low - 1e-6 <= value <= high + 1e-6]
    if not found:
        nearest = sorted(sorted(axis, key=lambda value: abs(value - (low + high) / 2))[:2])
        raise UsageError(
            f"expected --{option} to hold a node of the library ({axis[0]:g} to {axis[-1]:g}), got {low:g} to {high:g}; the "
            f"nearest are {' and '.join(f'{value:g}' for value in nearest)}"
        )
    return found


def _checked_range(option: str, ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"expected --{option} LOW HIGH with LOW <= HIGH, got {low:g} {high:g}; swap or correct them")
    return low, high
