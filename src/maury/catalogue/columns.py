"""What every column of a catalogue means: its sentence, unit and UCD. One place, for building and for reading CSV back.

Sentences are ASCII and at most 68 characters, so that each fits one card of a FITS header.
UCDs are of the IVOA's UCD1+ list (version 1.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from maury.labels import Label

CATALOGUE_FORMAT = "maury-catalogue"
CATALOGUE_VERSION = 1


@dataclass(frozen=True)
class ColumnMeaning:
    """Name, sentence, unit (astropy string, "" for none) and UCD of one column."""

    name: str
    description: str
    unit: str = ""
    ucd: str = ""


def _by_name(*columns: ColumnMeaning) -> dict[str, ColumnMeaning]:
    return {column.name: column for column in columns}


FIXED: dict[str, ColumnMeaning] = _by_name(
    ColumnMeaning("file", "file the spectrum was read from", ucd="meta.id;meta.file"),
    ColumnMeaning("id", "name of the spectrum", ucd="meta.id;meta.main"),
    ColumnMeaning("chi2", "chi-square of the best fit over n_pixels pixels", ucd="stat.fit.chi2"),
    ColumnMeaning("n_pixels", "number of pixels used in the fit", ucd="meta.number"),
    ColumnMeaning("snr", "median signal-to-noise ratio per pixel of the spectrum", ucd="stat.snr"),
    ColumnMeaning("rv", "radial velocity used to reach the rest frame", "km/s", "spect.dopplerVeloc"),
    ColumnMeaning("status", "how the fit ended", ucd="meta.code.status"),
    ColumnMeaning("flag", "reasons to doubt this star, sum of bits; 0 if none is known", ucd="meta.code.qual"),
    ColumnMeaning("flag_names", "names of the bits in flag, joined by |", ucd="meta.note"),
    ColumnMeaning("reason", "why there is no estimate, for stars without one", ucd="meta.note"),
    ColumnMeaning("model_id", "id of the model that made the estimate", ucd="meta.version;meta.software"),
)

EXTRA: dict[str, ColumnMeaning] = _by_name(
    ColumnMeaning("star_id", "name of the star", ucd="meta.id;src"),
    ColumnMeaning("ra", "right ascension of the target", "deg", "pos.eq.ra"),
    ColumnMeaning("dec", "declination of the target", "deg", "pos.eq.dec"),
    ColumnMeaning("instrument", "instrument or survey of the spectrum", ucd="meta.id;instr"),
    ColumnMeaning("resolving_power", "resolving power of the spectrum as read", ucd="spect.resolution"),
    ColumnMeaning("fwhm", "width (FWHM) of the line-spread function as read", "Angstrom", "spect.resolution"),
    ColumnMeaning("z", "redshift in the spectrum's header", ucd="src.redshift"),
    ColumnMeaning("snr_sum", "sum of the signal-to-noise ratios of the bands u, g, r, i, z", ucd="stat.snr"),
    ColumnMeaning("gap", "distance from the training spectra over its 99% limit, noise removed", ucd="stat.value"),
    *(ColumnMeaning(f"snr_{band}", f"signal-to-noise in the {band} band", ucd="stat.snr") for band in "ugriz"),
)
"""What is known of columns that readers put into ``Spectra.meta`` beyond the fixed ones."""


def label_meanings(label: Label, *, raw: bool = False) -> tuple[ColumnMeaning, ColumnMeaning]:
    """The columns ``teff`` and ``e_teff`` (``raw_teff`` and ``e_raw_teff`` for the values before calibration)."""
    prefix, when = ("raw_", " before calibration") if raw else ("", "")
    what = ascii_text(label.description) or label.name
    unit_word = " (dex)" if label.unit == "dex" else ""  # neither FITS nor VOUnits has dex; say it where all can read it
    return (
        ColumnMeaning(f"{prefix}{label.name}", f"{what}{when}{unit_word}", label.unit, label.ucd),
        ColumnMeaning(
            f"e_{prefix}{label.name}",
            f"standard error of {prefix}{label.name}{unit_word}",
            label.unit,
            f"stat.error;{label.ucd}" if label.ucd else "stat.error",
        ),
    )


def interval_meanings(label: Label) -> tuple[ColumnMeaning, ColumnMeaning]:
    """The columns ``e_teff_lo`` and ``e_teff_up`` of errors that are not symmetric."""
    unit_word = " (dex)" if label.unit == "dex" else ""

    def meaning(ending: str, side: str, ucd: str) -> ColumnMeaning:
        words = ";".join(word for word in ("stat.error", label.ucd, ucd) if word)
        return ColumnMeaning(f"e_{label.name}_{ending}", f"{side} error of {label.name}, positive{unit_word}", label.unit, words)

    return meaning("lo", "lower", "stat.min"), meaning("up", "upper", "stat.max")


def vote_meaning(label: Label) -> ColumnMeaning:
    """The column ``vote_teff`` of a file of votes."""
    unit_word = " (dex)" if label.unit == "dex" else ""
    return ColumnMeaning(f"vote_{label.name}", f"votes on {label.name}, one per network{unit_word}", label.unit, label.ucd)


def correlation_meaning(first: Label, second: Label) -> ColumnMeaning:
    """The column ``rho_teff_logg``."""
    ucd = ";".join(["stat.correlation", *(u for u in dict.fromkeys((first.ucd, second.ucd)) if u)])
    name = f"rho_{first.name}_{second.name}"
    return ColumnMeaning(name, f"correlation of the errors of {first.name} and {second.name}", "", ucd)


def flag_meaning(label: Label) -> ColumnMeaning:
    """The column ``flag_teff``."""
    ucd = f"meta.code.qual;{label.ucd}" if label.ucd else "meta.code.qual"
    return ColumnMeaning(f"flag_{label.name}", f"reasons to doubt {label.name}, sum of bits as in flag", "", ucd)


def all_meanings(labels: tuple[Label, ...]) -> Iterator[ColumnMeaning]:
    """Every column a catalogue of these labels can have, extra ones included."""
    yield from FIXED.values()
    yield from EXTRA.values()
    for label in labels:
        yield from label_meanings(label)
        yield from interval_meanings(label)
        yield from label_meanings(label, raw=True)
        yield flag_meaning(label)
    for first, second in combinations(labels, 2):
        yield correlation_meaning(first, second)


def ascii_text(text: str) -> str:
    """Text that a FITS header can hold: the usual typographic signs spelled out, others escaped."""
    for sign, word in (("Å", "Angstrom"), ("–", "-"), ("—", "-"), ("’", "'"), ("²", "2"), ("α", "alpha"), ("χ", "chi")):
        text = text.replace(sign, word)
    return text.encode("ascii", "backslashreplace").decode("ascii")
