"""What a header or a table says about unit, medium and frame, in the words in use; never a guess from the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from maury.errors import ReadError
from maury.read._common import Options
from maury.spectra import Frame, Medium

ANGSTROM_PER_UNIT: dict[str, float] = {
    **dict.fromkeys(("angstrom", "angstroms", "ångström", "ångstrom", "å", "aa", "a", "ang", "0.1nm", "0.1 nm"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 10.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e7),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e8),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e10),
}
"""Units of wavelength as FITS, VOTable and people write them (case does not matter)."""

Lookup = Callable[[str], str]
"""Text of a header keyword or a table's metadata, "" where absent."""


def angstrom_per_unit(unit: str) -> float:
    """How many Å one unit of wavelength is.

    Raises
    ------
    ReadError
        If the unit is absent or no unit of wavelength.
    """
    if not unit.strip():
        raise ReadError(
            "expected a unit for the wavelengths (Angstrom, nm, um), got none; write it into the header (CUNIT1, TUNITn) "
            "or the column's name, as in wavelength[nm]"
        )
    factor = ANGSTROM_PER_UNIT.get(unit.strip().strip("[]()'\"").strip().lower())
    if factor is None:
        raise ReadError(
            f"expected wavelengths in Angstrom, nm, um, mm, cm or m, got the unit {unit.strip()[:40]!r}; convert them"
        )
    return factor


def medium_from_text(*texts: str) -> Medium | None:
    """ "air" or "vacuum" if exactly one of the two is named in any of the texts."""
    joined = " ".join(texts).lower()
    words = set(re.split(r"[^a-z]+", joined))
    air = bool(words & {"air", "awav", "waveair", "airwave"})
    vacuum = bool(words & {"vacuum", "vac", "vacwave", "wavevac"})
    return None if air == vacuum else "air" if air else "vacuum"


def medium_from_header(lookup: Lookup) -> Medium | None:
    """Air or vacuum from the keywords in use: AIRORVAC, VACUUM = T/F, WAVETYPE, MEDIUM, or the axis' CTYPE."""
    vacuum = lookup("VACUUM").strip().lower()
    if vacuum in ("true", "t", "1", "false", "f", "0"):
        return "vacuum" if vacuum in ("true", "t", "1") else "air"
    for key in ("AIRORVAC", "AIR_VAC", "AIRVAC", "WAVETYPE", "MEDIUM", "WAVEMED"):
        found = medium_from_text(lookup(key))
        if found is not None:
            return found
    # FITS standard 4.0, table 25: AWAV is wavelength in air, WAVE in vacuum
    axis = lookup("CTYPE1").strip().upper()
    return "air" if axis.startswith("AWAV") else "vacuum" if axis in ("WAVE", "WAVE-LOG", "VAC") else None


def settle_medium(found: Medium | None, options: Options) -> Medium:
    """The medium the file states, else the caller's.

    Raises
    ------
    ReadError
        If neither says it.
    """
    if found is not None:
        return found
    if options.medium is not None:
        return options.medium
    raise ReadError(
        "expected a statement whether wavelengths are in air or in vacuum (AIRORVAC, CTYPE1 AWAV or WAVE, a column wave_air), "
        'got none; say it with medium="air" or "vacuum" (--medium)'
    )


def settle_frame(lookup: Lookup, options: Options) -> tuple[Frame, str]:
    """Frame and velocity frame from SPECSYS (FITS standard 4.0, table 27) or FRAME; observed where nothing is said."""
    system = (lookup("SPECSYS") or lookup("FRAME")).strip().upper()
    if system in ("SOURCE", "REST"):
        return "rest", "rest"
    if options.frame is not None:
        return options.frame, "rest" if options.frame == "rest" else "unknown"
    if system.startswith(("BARYCEN", "HELIOCEN")):
        return "observed", "barycentric"
    return "observed", "topocentric" if system.startswith("TOPOCEN") else "unknown"
